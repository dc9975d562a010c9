//! How fast the judge is, and how much memory it takes, at sizes no test waits for.

use serde::{Deserialize, Serialize};

use crate::checker::check;
use crate::error::CrashError;
use crate::history::{Entry, History, Op, Outcome, ValueId, now_ns};

const PUBLISHERS: u32 = 16;
const PARTITIONS: u16 = 64;

/// What judging a history of a given size took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ScaleReport {
    /// Records published, read once by a subscriber, and once in the end.
    pub records: u64,
    /// Time of the judge.
    pub milliseconds: u64,
    /// The most memory this process has had so far; none where the system does not say.
    pub peak_memory_bytes: Option<u64>,
    /// Whether it was found good, which it is.
    pub is_clean: bool,
}

/// Judges a good history of so many records, which is made on the way.
pub fn measure(records: u32) -> Result<ScaleReport, CrashError> {
    let begun = now_ns();
    let verdict = check(&Good { records })?;
    let is_complete = verdict.counts.stored == u64::from(records);
    Ok(ScaleReport {
        records: records.into(),
        milliseconds: now_ns().saturating_sub(begun) / 1_000_000,
        peak_memory_bytes: peak_memory_bytes(),
        is_clean: verdict.is_clean() && is_complete,
    })
}

struct Good {
    records: u32,
}

impl History for Good {
    fn for_each(&self, visit: &mut dyn FnMut(&Entry)) -> Result<(), CrashError> {
        for record in 0..self.records {
            let partitions = u32::from(PARTITIONS);
            let mut entry = Entry {
                op: Op::Publish,
                outcome: Outcome::Ok,
                partition: u16::try_from(record % partitions).unwrap_or_default(),
                actor: 0,
                value: ValueId {
                    publisher: record % PUBLISHERS,
                    sequence: record / PUBLISHERS,
                },
                offset: u64::from(record / partitions),
                invoked_ns: 0,
                completed_ns: 0,
            };
            for op in [Op::Publish, Op::Read, Op::FinalRead] {
                entry.op = op;
                visit(&entry);
            }
        }
        Ok(())
    }
}

fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_thousand_records_are_found_good() {
        let report = measure(100_000).unwrap();
        assert!(report.is_clean, "{report:?}");
    }
}
