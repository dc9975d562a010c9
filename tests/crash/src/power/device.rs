//! A block device with a volatile write cache, and what is left of it when power goes.
//!
//! Sectors of the medium are written wholly or not at all, as devices promise. Between two flushes they
//! may reach the medium in any order, and a sector written twice may keep either content.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use fastrand::Rng;

/// LIMIT: contents remembered for one unflushed sector; the oldest are forgotten.
const VERSIONS_MAX: usize = 4;

/// What becomes of unflushed sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// None reached the medium.
    All,
    /// Each did or did not, and with any of its contents.
    Random,
    /// Those written last did not: the cache was emptied in order.
    Newest,
}

impl Loss {
    pub(super) fn pick(random: &mut Rng) -> Self {
        match random.u8(0..4) {
            0 => Self::All,
            1 => Self::Newest,
            2.. => Self::Random,
        }
    }
}

#[derive(Debug)]
struct Version {
    /// Place among all writes.
    order: u64,
    bytes: Vec<u8>,
}

/// The device.
#[derive(Debug)]
pub(super) struct Device {
    medium: File,
    bytes: u64,
    sector_bytes: usize,
    unflushed: BTreeMap<u64, Vec<Version>>,
    writes: u64,
}

impl Device {
    /// `bytes` is a multiple of `sector_bytes`.
    pub(super) const fn new(medium: File, bytes: u64, sector_bytes: usize) -> Self {
        Self {
            medium,
            bytes,
            sector_bytes,
            unflushed: BTreeMap::new(),
            writes: 0,
        }
    }

    pub(super) const fn len_bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills `buffer` with what was written last.
    pub(super) fn read(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.medium.read_exact_at(buffer, position)?;
        let end = position + buffer.len() as u64;
        for sector in self.sectors(position, end) {
            let newest = self.unflushed.get(&sector).and_then(|all| all.last());
            if let Some(newest) = newest {
                overlay(buffer, position, &newest.bytes, self.position_of(sector));
            }
        }
        Ok(())
    }

    /// Puts bytes into the cache, which holds whole sectors.
    pub(super) fn write(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let end = position.saturating_add(bytes.len() as u64);
        if end > self.bytes {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for sector in self.sectors(position, end) {
            let at = self.position_of(sector);
            let mut content = vec![0; self.sector_bytes];
            self.read(at, &mut content)?;
            overlay(&mut content, at, bytes, position);
            self.writes += 1;
            let versions = self.unflushed.entry(sector).or_default();
            if versions.len() == VERSIONS_MAX {
                versions.remove(0);
            }
            versions.push(Version {
                order: self.writes,
                bytes: content,
            });
        }
        Ok(())
    }

    fn sectors(&self, position: u64, end: u64) -> Range<u64> {
        let size = self.sector_bytes as u64;
        position / size..end.div_ceil(size)
    }

    const fn position_of(&self, sector: u64) -> u64 {
        sector * self.sector_bytes as u64
    }

    /// Everything written so far reaches the medium.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        for (sector, versions) in &self.unflushed {
            if let Some(newest) = versions.last() {
                let position = self.position_of(*sector);
                self.medium.write_all_at(&newest.bytes, position)?;
            }
        }
        self.unflushed.clear();
        Ok(())
    }

    /// Power goes; answers how many sectors were not flushed.
    pub(super) fn lose(&mut self, loss: Loss, random: &mut Rng) -> io::Result<u64> {
        let unflushed = std::mem::take(&mut self.unflushed);
        let orders = unflushed.values().flatten().map(|version| version.order);
        let oldest = orders.min().unwrap_or(self.writes);
        let kept_below = random.u64(oldest..=self.writes + 1);
        for (sector, versions) in &unflushed {
            let survivor = match loss {
                Loss::All => None,
                // One more choice than contents: what is on the medium.
                Loss::Random => versions.get(random.usize(0..=versions.len())),
                Loss::Newest => versions.iter().rfind(|v| v.order < kept_below),
            };
            if let Some(survivor) = survivor {
                let position = self.position_of(*sector);
                self.medium.write_all_at(&survivor.bytes, position)?;
            }
        }
        Ok(unflushed.len() as u64)
    }
}

/// Copies the bytes at `from_position` over those at `to_position`, where they overlap.
fn overlay(to: &mut [u8], to_position: u64, from: &[u8], from_position: u64) {
    let distance = |later: u64, earlier: u64| {
        usize::try_from(later.saturating_sub(earlier)).unwrap_or(usize::MAX)
    };
    let to = to.iter_mut().skip(distance(from_position, to_position));
    let from = from.iter().skip(distance(to_position, from_position));
    to.zip(from).for_each(|(to, from)| *to = *from);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn device() -> Device {
        let medium = tempfile::tempfile().unwrap();
        medium.set_len(8 * 512).unwrap();
        Device::new(medium, 8 * 512, 512)
    }

    fn first_bytes(device: &Device) -> [u8; 3] {
        let mut buffer = [0; 3 * 512];
        device.read(0, &mut buffer).unwrap();
        assert!(buffer.chunks(512).all(|s| s.iter().all(|b| *b == s[0])));
        [buffer[0], buffer[512], buffer[1024]]
    }

    /// Flushed [1, 1, 1], then the first two sectors written twice.
    fn after(loss: Loss, seed: u64) -> [u8; 3] {
        let mut device = device();
        device.write(0, &[1; 3 * 512]).unwrap();
        device.flush().unwrap();
        device.write(0, &[2; 2 * 512]).unwrap();
        device.write(0, &[3; 2 * 512]).unwrap();
        assert_eq!(first_bytes(&device), [3, 3, 1]);
        let lost = device.lose(loss, &mut Rng::with_seed(seed)).unwrap();
        assert_eq!(lost, 2);
        first_bytes(&device)
    }

    #[test]
    fn flushed_sectors_stay_and_unflushed_ones_may_go_each_by_itself() {
        assert_eq!(after(Loss::All, 0), [1, 1, 1]);
        let seen: BTreeSet<[u8; 3]> = (0..200).map(|seed| after(Loss::Random, seed)).collect();
        assert_eq!(seen.len(), 9, "{seen:?}");
        let seen: BTreeSet<[u8; 3]> = (0..200).map(|seed| after(Loss::Newest, seed)).collect();
        let prefixes = [[1, 1, 1], [2, 1, 1], [2, 2, 1], [3, 2, 1], [3, 3, 1]];
        assert_eq!(seen, BTreeSet::from(prefixes));
    }

    #[test]
    fn part_of_a_sector_keeps_its_rest_and_nothing_is_written_beyond_the_end() {
        let mut device = device();
        device.write(0, &[1; 1024]).unwrap();
        device.flush().unwrap();
        device.write(510, &[2; 4]).unwrap();
        let mut buffer = [0; 6];
        device.read(509, &mut buffer).unwrap();
        assert_eq!(buffer, [1, 2, 2, 2, 2, 1]);
        device.lose(Loss::All, &mut Rng::with_seed(0)).unwrap();
        device.read(509, &mut buffer).unwrap();
        assert_eq!(buffer, [1; 6]);
        assert!(device.write(7 * 512, &[1; 513]).is_err());
    }
}
