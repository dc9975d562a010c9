//! The sled index against the journal, on a copy: sled writes where it is opened.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::segments::plain;
use super::{Finding, FindingKind, Inspection};
use crate::io::RealDisk;
use crate::store::local::index::{self, Opened, TreeIndex};

/// What became of the check of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexVerdict {
    /// It holds what the journal holds.
    Right,
    /// It does not.
    Wrong(Box<Finding>),
    /// The next start throws it away anyway, so it cannot be wrong.
    Unused,
    /// It could not be checked: why.
    Skipped(String),
}

impl Inspection {
    /// Compares the index with the journal. `scratch` is a folder that does not exist yet; the
    /// index is copied there, and the caller removes it.
    pub fn check_index(&self, scratch: &Path) -> IndexVerdict {
        let Some(clean) = self.clean.as_ref().filter(|clean| clean.index_token != 0) else {
            return IndexVerdict::Unused;
        };
        let Some(dir) = &self.config.index_dir else {
            return IndexVerdict::Unused;
        };
        match RealDisk.copy_tree(dir, scratch) {
            Ok(()) => {}
            Err(error) if error.is_not_found() => return self.wrong("it is not there"),
            Err(error) => return IndexVerdict::Skipped(format!("{error}: {}", error.source)),
        }
        let tree = match index::open(scratch, self.config.index_open_timeout) {
            Opened::Ready(tree) => tree,
            Opened::Broken(reason) => return self.wrong(&reason),
            Opened::Hangs => {
                return IndexVerdict::Skipped("it did not open in time".to_owned());
            }
        };
        if tree.token() != Some(clean.index_token) {
            return self.wrong("it is not the one that the last stop left");
        }
        let indexed: HashSet<u64> = clean.indexed.iter().copied().collect();
        match catch_unwind(AssertUnwindSafe(|| self.compare(&tree, &indexed))) {
            Ok(Ok(true)) => IndexVerdict::Right,
            Ok(Ok(false)) => self.wrong("it does not hold what the journal holds"),
            Ok(Err(reason)) => self.wrong(&reason),
            Err(_) => self.wrong("it panicked"),
        }
    }

    fn wrong(&self, reason: &str) -> IndexVerdict {
        let kind = FindingKind::Index(reason.to_owned());
        let dir = self.config.index_dir.as_ref();
        let finding = self.finding(dir.unwrap_or(&self.config.data_dir), kind);
        IndexVerdict::Wrong(Box::new(finding))
    }

    /// Rows that point into segments that are gone are lawful, wrong or missing ones are not.
    /// Damaged segments hold less than their rows say, so these are not compared.
    fn compare(&self, tree: &TreeIndex, indexed: &HashSet<u64>) -> Result<bool, String> {
        let is_compared = |segment: &u64| {
            let is_flawed = self.flaws.iter().any(|flaw| flaw.segment == *segment);
            indexed.contains(segment) && self.infos.contains_key(segment) && !is_flawed
        };
        let mut held = BTreeMap::new();
        // Of two extents with the same base offset the one in the later segment counts.
        for segment in self
            .infos
            .keys()
            .filter(|segment| indexed.contains(segment))
        {
            for (partition, place) in self.memory.of_segment(*segment) {
                held.insert((partition, place.extent.base_offset), plain(place));
            }
        }
        held.retain(|_, place| is_compared(&place.segment));
        let mut rows = 0;
        for row in tree.places() {
            let (partition, place) = row.map_err(|error| error.to_string())?;
            let Some(place) = place else {
                return Ok(false);
            };
            if !is_compared(&place.segment) {
                continue;
            }
            if held.get(&(partition, place.extent.base_offset)) != Some(&plain(place)) {
                return Ok(false);
            }
            rows += 1;
        }
        Ok(rows == held.len())
    }
}
