//! One member of a group, in a process of its own.
//!
//! Owns what it writes down, and when: a record is written down as handled before it may be committed, and every
//! entry is in the file before the next thing happens, so that a kill takes nothing away. Told by its standard input to
//! stall and to leave; says on its standard output when it joined, what it owns, and how it ended.
//!
//! Must not know: what trouble it is in for.

mod work;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, ValueEnum};
use falcon_client::{Delivered, Offset};
use tokio::time::sleep;

use crate::error::CrashError;
use crate::history::{Entry, GroupPlace, HistoryWriter, Op, Outcome, ValueId, now_ns};
use crate::payload;

pub use work::run;

/// Groups of a run. The last one works in steps.
pub(super) const GROUPS: u16 = 2;
/// Topic that steps publish to.
pub(super) const OUTPUT: &str = "output";
/// What members subscribe to, and what fits it.
const PATTERN: &str = "work.*";
const TOPICS: &str = "work.";

/// How a member commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Takes records one by one, and commits by itself.
    Next,
    /// Lets a handler be called; the client commits.
    Run,
    /// Lets a handler be called, which publishes and commits in one step.
    Step,
}

impl Mode {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Run => "run",
            Self::Step => "step",
        }
    }
}

/// Who it is.
#[derive(Debug, Clone, Args)]
pub struct MemberOptions {
    /// Where the broker is.
    #[arg(long)]
    address: String,
    /// Unlike that of any other member of the run.
    #[arg(long)]
    number: u32,
    /// Number of its group.
    #[arg(long)]
    group: u16,
    /// How it commits.
    #[arg(long, value_enum)]
    mode: Mode,
    /// How long it may be silent, milliseconds.
    #[arg(long)]
    session_ms: u64,
    /// Its name, if it comes back under it.
    #[arg(long)]
    instance: Option<String>,
    /// What it writes down.
    #[arg(long)]
    history: PathBuf,
    /// Commits before it handles, which is wrong.
    #[arg(long)]
    hasty: bool,
}

pub(super) fn group_name(group: u16) -> String {
    format!("group-{group}")
}

pub(super) fn topic_name(topic: u16) -> String {
    format!("{TOPICS}{topic}")
}

pub(super) fn topic_number(name: &str) -> Option<u16> {
    name.strip_prefix(TOPICS)?.parse().ok()
}

/// What it writes down, and what it was told.
#[derive(Debug)]
struct Notes {
    number: u32,
    group: u16,
    inside: Mutex<Inside>,
    stall_until_ns: AtomicU64,
}

#[derive(Debug)]
struct Inside {
    writer: HistoryWriter,
    /// Reads of different grants are told apart.
    readers: HashMap<(GroupPlace, u64), u32>,
}

/// A record by its place, and the epoch under which it was handed out.
#[derive(Debug, Clone, Copy)]
struct Given {
    place: GroupPlace,
    epoch: u64,
    offset: Offset,
    at_ns: u64,
}

impl Notes {
    fn create(options: &MemberOptions) -> Result<Self, CrashError> {
        let inside = Inside {
            writer: HistoryWriter::create(&options.history)?,
            readers: HashMap::new(),
        };
        Ok(Self {
            number: options.number,
            group: options.group,
            inside: Mutex::new(inside),
            stall_until_ns: AtomicU64::new(0),
        })
    }

    fn entry(&self, op: Op, place: GroupPlace, epoch: u64) -> Entry {
        let now = now_ns();
        Entry {
            op,
            outcome: Outcome::Ok,
            partition: place.0,
            actor: self.number,
            value: ValueId::of_epoch(epoch),
            offset: 0,
            invoked_ns: now,
            completed_ns: now,
        }
    }

    /// A history that cannot be written is the end: what follows would be judged without it.
    fn with(&self, work: impl FnOnce(&mut Inside) -> Result<(), CrashError>) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = work(&mut inside) {
            eprintln!("member {}: {error}", self.number);
            std::process::exit(3);
        }
    }

    fn push(&self, entry: &Entry) {
        self.with(|inside| inside.writer.push_now(entry));
    }

    fn place(&self, topic: &str, partition: u32) -> GroupPlace {
        let topic = topic_number(topic).unwrap_or(u16::MAX);
        let partition = u16::try_from(partition).unwrap_or(u16::MAX);
        GroupPlace::log(topic, partition).of(self.group)
    }

    fn own(&self, place: GroupPlace, epoch: u64) {
        self.push(&self.entry(Op::Own, place, epoch));
        println!("own {epoch}");
    }

    fn disown(&self, place: GroupPlace, epoch: u64) {
        self.push(&self.entry(Op::Disown, place, epoch));
    }

    /// A record was handed out.
    fn given(&self, record: &Delivered, epoch: u64) -> Given {
        let place = self.place(&record.topic, record.partition.0);
        let value = record.value.as_deref().and_then(payload::decode_small);
        let entry = self.entry(Op::Read, place.to_log(), 0);
        self.with(|inside| {
            let next = u32::try_from(inside.readers.len()).unwrap_or(u32::MAX);
            let reader = *inside.readers.entry((place, epoch)).or_insert(next);
            inside.writer.push_now(&Entry {
                actor: self.number << 16 | reader,
                value: value.unwrap_or(ValueId::FOREIGN),
                offset: record.offset.get(),
                ..entry
            })
        });
        Given {
            place,
            epoch,
            offset: record.offset,
            at_ns: entry.invoked_ns,
        }
    }

    /// Works on a record: at times for a while, and not at all while it is to stall.
    async fn handle(&self, given: Given) {
        if fastrand::u8(..) < 16 {
            sleep(Duration::from_millis(fastrand::u64(1..4))).await;
        }
        let until = self.stall_until_ns.load(Ordering::Relaxed);
        let begun = now_ns();
        if until > begun {
            sleep(Duration::from_nanos(until - begun)).await;
            self.push(&Entry {
                invoked_ns: begun,
                ..self.entry(Op::Stalled, given.place, given.epoch)
            });
        }
        self.push(&Entry {
            offset: given.offset.get(),
            invoked_ns: given.at_ns,
            ..self.entry(Op::Handled, given.place, given.epoch)
        });
    }

    /// A commit of everything up to a record, begun at that time, is over.
    fn committed(&self, given: Given, invoked_ns: u64, outcome: Outcome) {
        self.push(&Entry {
            outcome,
            offset: given.offset.advance(1).get(),
            invoked_ns,
            ..self.entry(Op::CommitOwned, given.place, given.epoch)
        });
    }
}
