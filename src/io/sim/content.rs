//! The bytes of one file, and what a power cut may leave of them.

use std::collections::BTreeMap;

pub(super) const SECTOR: usize = 512;

#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub(super) synced: Vec<u8>,
    pub(super) now: Vec<u8>,
    /// Every version of a sector since the last sync.
    pub(super) unsynced: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Versions of sectors that no sync keeps any more.
    pub(super) adrift: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl Content {
    pub(super) fn write(&mut self, position: usize, bytes: &[u8]) {
        let end = position + bytes.len();
        if self.now.len() < end {
            self.now.resize(end, 0);
        }
        if let Some(to) = self.now.get_mut(position..end) {
            to.copy_from_slice(bytes);
        }
        if bytes.is_empty() {
            return;
        }
        for sector in position / SECTOR..=(end - 1) / SECTOR {
            let image = self
                .now
                .chunks(SECTOR)
                .nth(sector)
                .unwrap_or_default()
                .to_vec();
            self.unsynced.entry(sector).or_default().push(image);
        }
    }

    pub(super) fn sync(&mut self) {
        self.synced.resize(self.now.len(), 0);
        for sector in std::mem::take(&mut self.unsynced).into_keys() {
            self.adrift.remove(&sector);
            let range = sector * SECTOR..self.now.len().min((sector + 1) * SECTOR);
            if let (Some(to), Some(from)) =
                (self.synced.get_mut(range.clone()), self.now.get(range))
            {
                to.copy_from_slice(from);
            }
        }
    }

    /// A sync failed: what it should have kept counts as clean, and is on the medium or not.
    pub(super) fn set_adrift(&mut self) {
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            self.adrift.entry(sector).or_default().extend(versions);
        }
    }

    pub(super) fn crash(&self, random: &mut fastrand::Rng) -> Self {
        let mut bytes = self.synced.clone();
        if random.bool() {
            bytes.resize(self.now.len(), 0);
        }
        let mut unkept = self.adrift.clone();
        for (sector, versions) in &self.unsynced {
            let known = unkept.entry(*sector).or_default();
            known.extend_from_slice(versions);
        }
        for (sector, versions) in &unkept {
            let Some(image) = versions.get(random.usize(0..=versions.len())) else {
                continue;
            };
            let from = sector * SECTOR;
            if let Some(to) = bytes.get_mut(from..) {
                for (to, from) in to.iter_mut().zip(image) {
                    *to = *from;
                }
            }
        }
        Self {
            synced: bytes.clone(),
            now: bytes,
            ..Self::default()
        }
    }

    /// Its bytes as if all of them had been written out.
    pub(super) fn kept(&self) -> Self {
        Self {
            synced: self.now.clone(),
            now: self.now.clone(),
            ..Self::default()
        }
    }

    /// Its bytes as of the last sync.
    pub(super) fn lost(&self) -> Self {
        Self {
            synced: self.synced.clone(),
            now: self.synced.clone(),
            ..Self::default()
        }
    }
}
