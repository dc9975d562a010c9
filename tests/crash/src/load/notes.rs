//! A client's history in the making.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use falcon_client::Delivered;

use super::Shared;
use crate::error::CrashError;
use crate::history::{Entry, HistoryWriter, Op, Outcome, ValueId, now_ns};
use crate::payload;

/// Writes down what one client saw.
#[derive(Debug)]
pub(super) struct Notes {
    writer: HistoryWriter,
    /// Number of the subscriber or group.
    pub(super) actor: u32,
}

impl Notes {
    /// Begins a history among those of the run.
    pub(super) fn create(shared: &Shared, who: &str) -> Result<Self, CrashError> {
        let actor = shared.actors.fetch_add(1, Ordering::Relaxed);
        let path: PathBuf = shared.folder.join(format!("{actor:05}-{who}.history"));
        let writer = HistoryWriter::create(&path)?;
        let mut files = shared.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.push(path);
        Ok(Self { writer, actor })
    }

    pub(super) fn push(&mut self, entry: &Entry) -> Result<(), CrashError> {
        self.writer.push(entry)
    }

    /// A record was delivered.
    pub(super) fn read(&mut self, op: Op, record: &Delivered) -> Result<(), CrashError> {
        let entry = self.entry(op, record);
        self.push(&entry)
    }

    /// What is noted of a record that was delivered.
    pub(super) fn entry(&self, op: Op, record: &Delivered) -> Entry {
        let now = now_ns();
        Entry {
            op,
            outcome: Outcome::Ok,
            partition: number(record.partition.0),
            actor: self.actor,
            value: Self::value_of(record),
            offset: record.offset.get(),
            invoked_ns: now,
            completed_ns: now,
        }
    }

    /// Which value a record carries.
    pub(super) fn value_of(record: &Delivered) -> ValueId {
        let value = record.value.as_deref().and_then(payload::decode);
        value.unwrap_or(ValueId::FOREIGN)
    }

    pub(super) fn finish(self) -> Result<(), CrashError> {
        self.writer.finish()
    }
}

/// A partition's number as histories have it; the run's topics have few.
pub(super) fn number(partition: u32) -> u16 {
    u16::try_from(partition).unwrap_or(u16::MAX)
}
