//! Reading a data folder through: partitions with their hashes, and everything that is wrong.

use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

use falcon::catalog::Topic;
use falcon::io::{Disk, ReadOnlyDisk};
use falcon::store::local::{Finding, Inspection, LocalConfig, OpenError};
use falcon::writer::{State, StateLimits};
use falcon_protocol::{Batch, Offset, OwnerEpoch, PartitionId};
use serde::Serialize;

use super::digest::LogDigest;
use crate::cli::failure::{CliError, Exit};
use crate::cli::progress::Progress;

/// One partition, read from its log start to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PartitionAudit {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) log_start: u64,
    pub(crate) log_end: u64,
    /// Records that can be read.
    pub(crate) records: u64,
    /// Bytes of the batches they are in.
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// A fence of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FenceAudit {
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) epoch: u64,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Damage {
    pub(crate) kind: &'static str,
    pub(crate) what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partition: Option<u32>,
    /// First offset lost, and the one after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<u64>,
}

impl Damage {
    fn of_rows(what: String) -> Self {
        Self {
            kind: "rows",
            what,
            file: None,
            position: None,
            topic: None,
            partition: None,
            from: None,
            to: None,
        }
    }

    pub(crate) fn records(&self) -> u64 {
        let (from, to) = (self.from.unwrap_or(0), self.to.unwrap_or(0));
        to.saturating_sub(from)
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let position = self.position.map(|position| format!(" at {position}"));
        let place = self.file.as_ref().map(|file| {
            let position = position.unwrap_or_default();
            format!("{file}{position}: ")
        });
        let records = self
            .topic
            .as_ref()
            .zip(self.partition)
            .map(|(topic, partition)| {
                let (from, to) = (self.from.unwrap_or(0), self.to.unwrap_or(0));
                format!("{topic}/{partition} offsets {from} to {to}: ")
            });
        place.unwrap_or_default() + &records.unwrap_or_default() + &self.what
    }
}

/// A locked data folder whose tables were read.
pub(crate) struct Audit {
    pub(crate) inspection: Inspection,
    pub(crate) state: State,
    pub(crate) damages: Vec<Damage>,
}

impl Audit {
    /// Locks the folder and reads its journal.
    pub(crate) fn open(what: &'static str, dir: &Path) -> Result<Self, CliError> {
        let failed = |error: OpenError| {
            let remedy = if matches!(error, OpenError::Io(_)) {
                "name a data folder that you may read with --data-dir"
            } else {
                ""
            };
            let why = crate::cli::failure::chain(&error);
            CliError::new(Exit::Usage, what, why, remedy)
        };
        if !dir.is_dir() {
            let why = format!("{} is no folder", dir.display());
            return Err(CliError::usage(
                what,
                why,
                "name a data folder with --data-dir",
            ));
        }
        let mut state = State::new(StateLimits {
            topics_max: u64::MAX,
            partitions_max: u64::MAX,
            committed_offsets_max: u64::MAX,
            producers_max: u64::MAX,
        });
        let progress = Progress::bytes(Some(bytes_to_read(dir)), false);
        let inspection = Inspection::open(
            LocalConfig::new(dir),
            Arc::new(ReadOnlyDisk),
            Arc::new(move |bytes| progress.advance(bytes)),
            &mut state,
        )
        .map_err(failed)?;
        let mut audit = Self {
            inspection,
            state,
            damages: Vec::new(),
        };
        let findings = audit.inspection.findings().to_vec();
        audit.name(&findings);
        audit.check_tables();
        Ok(audit)
    }

    /// Who owned which partition of a group last.
    pub(crate) fn fences(&self) -> Vec<FenceAudit> {
        let fences = self.state.fences().iter();
        let audit = |(group, id, epoch): (&str, PartitionId, OwnerEpoch)| {
            let topic = self.state.catalog().by_id(id.topic);
            FenceAudit {
                group: group.to_owned(),
                topic: topic.map_or_else(|| id.topic.to_string(), |topic| topic.name.clone()),
                partition: id.partition.0,
                epoch: epoch.0,
            }
        };
        fences.map(audit).collect()
    }

    /// Live partitions in order of topic name, each with its topic and range of offsets.
    pub(crate) fn partitions(&self) -> Vec<(PartitionId, Arc<Topic>, Range<Offset>)> {
        let topics = self.state.catalog().topics();
        let ids = topics.flat_map(|topic| topic.partition_ids().map(move |id| (id, topic)));
        ids.map(|(id, topic)| (id, Arc::clone(topic), self.range(id)))
            .collect()
    }

    fn range(&self, id: PartitionId) -> Range<Offset> {
        let known = self.state.partition(id);
        let (start, end) = known.map_or((Offset::ZERO, Offset::ZERO), |p| (p.log_start, p.log_end));
        let stored = self.inspection.bounds(id).map(|(_, end)| end);
        start..end.max(stored.unwrap_or(Offset::ZERO))
    }

    /// Reads one partition, hands its batches on, and names what is missing.
    pub(crate) fn read(
        &mut self,
        id: PartitionId,
        visit: &mut dyn FnMut(&Batch) -> Result<(), CliError>,
    ) -> Result<PartitionAudit, CliError> {
        let range = self.range(id);
        let mut digest = LogDigest::default();
        let (mut records, mut bytes) = (0, 0);
        let mut failure = None;
        let mut on_batch = |batch: Batch| {
            bytes += batch.bytes().len() as u64;
            // The inspection has checked that every record can be read.
            for record in batch.records().into_iter().flatten().flatten() {
                if range.contains(&record.offset) {
                    records += 1;
                    digest.push(&record);
                }
            }
            match visit(&batch) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        };
        let read = self.inspection.read(id, range.clone(), &mut on_batch);
        if let Some(failure) = failure {
            return Err(failure);
        }
        let findings = read.map_err(|error| CliError::failed("read", &error, ""))?;
        self.name(&findings);
        let topic = self.state.catalog().by_id(id.topic);
        Ok(PartitionAudit {
            topic: topic.map_or_else(String::new, |topic| topic.name.clone()),
            partition: id.partition.0,
            log_start: range.start.get(),
            log_end: range.end.get(),
            records,
            bytes,
            sha256: digest.finish(),
        })
    }

    /// Names what the device did not give, once everything was read.
    pub(crate) fn finish(&mut self) {
        let unreadable = self.inspection.take_unreadable();
        self.name(&unreadable);
    }

    pub(crate) fn name(&mut self, findings: &[Finding]) {
        for finding in findings {
            let mut damage = Damage {
                kind: finding.kind.name(),
                file: Some(finding.file.clone()),
                position: finding.position,
                ..Damage::of_rows(finding.kind.to_string())
            };
            if let Some(lost) = &finding.lost {
                let topic = self.state.catalog().by_id(lost.partition.topic);
                let name = topic.map(|topic| topic.name.clone());
                damage.topic = name.or_else(|| Some(format!("topic {}", lost.partition.topic.0)));
                damage.partition = Some(lost.partition.partition.0);
                damage.from = Some(lost.range.start.get());
                damage.to = Some(lost.range.end.get());
            }
            self.damages.push(damage);
        }
    }

    /// Rows against each other and against the journal.
    fn check_tables(&mut self) {
        let catalog = self.state.catalog();
        let home = |id: PartitionId| {
            let topic = catalog.by_id(id.topic);
            topic.filter(|topic| id.partition.0 < topic.partitions)
        };
        let mut wrong = Vec::new();
        for (id, state) in self.state.partitions() {
            let Some(topic) = home(id) else {
                wrong.push(format!("partition {id} is of no topic"));
                continue;
            };
            let stored = self.inspection.bounds(id);
            let end = stored.map_or(Offset::ZERO, |(_, end)| end);
            if end != state.log_end {
                let (name, partition) = (&topic.name, id.partition.0);
                let ends = format!("the tables end at {}, the journal at {end}", state.log_end);
                wrong.push(format!("{name}/{partition}: {ends}"));
            }
        }
        for (group, id, committed) in self.state.recovered_offsets().iter() {
            let Some(topic) = home(id) else {
                wrong.push(format!(
                    "group {group} has an offset in {id}, which is not there"
                ));
                continue;
            };
            let (offset, end) = (committed.offset, self.range(id).end);
            if offset > end {
                let (name, partition) = (&topic.name, id.partition.0);
                let place = format!("{name}/{partition}, which ends at {end}");
                wrong.push(format!("group {group} has offset {offset} in {place}"));
            }
        }
        for (group, id, _) in self.state.fences().iter() {
            if home(id).is_none() {
                wrong.push(format!(
                    "group {group} has a fence in {id}, which is not there"
                ));
            }
        }
        wrong.sort_unstable();
        self.damages.extend(wrong.into_iter().map(Damage::of_rows));
    }
}

/// The journal is read twice: in the order of the files, then of each partition's offsets.
fn bytes_to_read(dir: &Path) -> u64 {
    let journal = dir.join("journal");
    let names = ReadOnlyDisk.list(&journal).unwrap_or_default();
    let bytes = |name: &String| {
        let file = ReadOnlyDisk.open(&journal.join(name)).ok()?;
        file.len_bytes().ok()
    };
    let bytes: u64 = names.iter().filter_map(bytes).sum();
    bytes * 2
}
