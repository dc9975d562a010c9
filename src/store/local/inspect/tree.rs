//! The sled index against the journal, on a copy: sled writes where it is opened.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::segments::plain;
use super::{Finding, FindingKind, Inspection};
use crate::io::RealDisk;
use crate::store::local::index::{self, MemoryIndex, Opened, Page, Place, TreeIndex};
use crate::store::local::journal::footer::put_row;
use falcon_protocol::PartitionId;

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
        let tree = match index::open(scratch, self.config.index_open_timeout, &|| false) {
            Opened::Ready(tree) => tree,
            Opened::Broken(reason) => return self.wrong(&reason),
            Opened::Hangs => {
                return IndexVerdict::Skipped("it did not open in time".to_owned());
            }
        };
        if tree.is_of_format_1() {
            return IndexVerdict::Unused;
        }
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
        let mut found = 0;
        let mut rows = RowsOfSegment::default();
        for row in tree.pages() {
            let (partition, page) = row.map_err(|error| error.to_string())?;
            let Some(page) = page else {
                return Ok(false);
            };
            if !is_compared(&page.segment) {
                continue;
            }
            let Some(places) = rows.of(&self.memory, partition, &page) else {
                return Ok(false);
            };
            let range = page.base..page.end;
            let ours = |place: &&Place| range.contains(&place.extent.base_offset);
            for place in places.iter().filter(ours) {
                if held.get(&(partition, place.extent.base_offset)) != Some(place) {
                    return Ok(false);
                }
                found += 1;
            }
        }
        Ok(found == held.len())
    }
}

/// The extents of segments as their footers list them.
#[derive(Default)]
struct RowsOfSegment {
    all: BTreeMap<u64, Vec<(PartitionId, Place)>>,
}

impl RowsOfSegment {
    /// The rows of a page, if they are what the page says.
    fn of(
        &mut self,
        memory: &MemoryIndex,
        partition: PartitionId,
        page: &Page,
    ) -> Option<Vec<Place>> {
        let all = self.all.entry(page.segment);
        let all = all.or_insert_with(|| memory.of_segment(page.segment));
        let from = usize::try_from(page.row).ok()?;
        let to = from.checked_add(usize::try_from(page.rows).ok()?)?;
        let mut bytes = Vec::new();
        let mut places = Vec::new();
        for (of, place) in all.get(from..to)? {
            put_row(&mut bytes, *of, place);
            if *of != partition {
                return None;
            }
            places.push(plain(*place));
        }
        let latest = places
            .iter()
            .map(|place| place.extent.max_timestamp_ms)
            .max();
        let is_same = crc32fast::hash(&bytes) == page.rows_crc;
        (is_same && latest == Some(page.max_timestamp_ms)).then_some(places)
    }
}
