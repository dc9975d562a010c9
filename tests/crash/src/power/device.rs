//! A block device with a volatile write cache, and what is left of it when power goes.
//!
//! Sectors are written wholly or not at all, as devices promise. Between two flushes they may reach
//! the medium in any order, and a sector written twice may keep either content.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use fastrand::Rng;

const SECTOR_BYTES: usize = 512;
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
    bytes: Box<[u8; SECTOR_BYTES]>,
}

/// The device. Positions and lengths are whole sectors.
#[derive(Debug)]
pub(super) struct Device {
    medium: File,
    bytes: u64,
    unflushed: BTreeMap<u64, Vec<Version>>,
    writes: u64,
}

impl Device {
    pub(super) const fn new(medium: File, bytes: u64) -> Self {
        Self {
            medium,
            bytes,
            unflushed: BTreeMap::new(),
            writes: 0,
        }
    }

    pub(super) const fn len_bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills `buffer` with what was written last.
    pub(super) fn read(&self, position: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let first = sector_at(position)?;
        self.medium.read_exact_at(buffer, position)?;
        for (sector, to) in (first..).zip(buffer.chunks_mut(SECTOR_BYTES)) {
            let newest = self.unflushed.get(&sector).and_then(|all| all.last());
            if let Some(newest) = newest {
                let from = newest.bytes.get(..to.len()).unwrap_or_default();
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    /// Puts sectors into the cache.
    pub(super) fn write(&mut self, position: u64, bytes: &[u8]) -> std::io::Result<()> {
        let first = sector_at(position)?;
        let (sectors, rest) = bytes.as_chunks::<SECTOR_BYTES>();
        let end = position.saturating_add(bytes.len() as u64);
        if !rest.is_empty() || end > self.bytes {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        for (sector, bytes) in (first..).zip(sectors) {
            self.writes += 1;
            let versions = self.unflushed.entry(sector).or_default();
            if versions.len() == VERSIONS_MAX {
                versions.remove(0);
            }
            versions.push(Version {
                order: self.writes,
                bytes: Box::new(*bytes),
            });
        }
        Ok(())
    }

    /// Everything written so far reaches the medium.
    pub(super) fn flush(&mut self) -> std::io::Result<()> {
        for (sector, versions) in &self.unflushed {
            if let Some(newest) = versions.last() {
                let position = sector * SECTOR_BYTES as u64;
                self.medium.write_all_at(&*newest.bytes, position)?;
            }
        }
        self.unflushed.clear();
        Ok(())
    }

    /// Power goes; answers how many sectors were not flushed.
    pub(super) fn lose(&mut self, loss: Loss, random: &mut Rng) -> std::io::Result<u64> {
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
                let position = sector * SECTOR_BYTES as u64;
                self.medium.write_all_at(&*survivor.bytes, position)?;
            }
        }
        Ok(unflushed.len() as u64)
    }
}

fn sector_at(position: u64) -> std::io::Result<u64> {
    if !position.is_multiple_of(SECTOR_BYTES as u64) {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    Ok(position / SECTOR_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn device() -> Device {
        let medium = tempfile::tempfile().unwrap();
        medium.set_len(8 * 512).unwrap();
        Device::new(medium, 8 * 512)
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
    fn only_whole_sectors_inside_the_device_are_written() {
        let mut device = device();
        assert!(device.write(1, &[1; 512]).is_err());
        assert!(device.write(0, &[1; 511]).is_err());
        assert!(device.write(7 * 512, &[1; 1024]).is_err());
        assert!(device.write(7 * 512, &[1; 512]).is_ok());
    }
}
