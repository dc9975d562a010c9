//! What the judge found.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::Entry;

/// Violations of a kind told in words; the others are counted.
const EXAMPLES_MAX: u64 = 10;

/// A broken promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Violation {
    /// Acknowledged, and not there in the end.
    Lost,
    /// There, and never published, or refused.
    Phantom,
    /// A value at two offsets, or an offset given twice.
    Duplicate,
    /// Values of one publisher in one partition in another order than sent.
    Reordered,
    /// Acknowledged or read at another offset than where it is.
    OffsetMismatch,
    /// Offsets left out.
    Gap,
    /// Given to a subscriber, and not there in the end.
    ReadBeforeDurable,
    /// A committed offset went back.
    CommitRegression,
    /// A topic that was created is not there.
    TopicLost,
    /// A topic is there that was deleted, or that nobody created.
    TopicReturned,
    /// A topic has a number that another one had.
    TopicNumberReused,
    /// A topic holds a record of another one, or of an older one of its name.
    TopicMixed,
    /// A topic has other partitions or settings than were acknowledged.
    TopicSettings,
    /// Two members owned a partition under one epoch, or committed for it after another one owned it.
    DoubleOwner,
    /// Below the committed offset, and no member ever handled it.
    Skipped,
    /// Committed, and handled only later.
    CommittedBeforeHandled,
    /// Handled again by an owner that began after it was committed, or twice under one epoch.
    HandledAgain,
    /// A partition had no owner for too long while a member lived.
    Ownerless,
    /// A partition stood still while another member stalled.
    Blocked,
    /// Not committed in the end, although members lived and no more trouble came.
    NotReached,
    /// What a step published is there twice, or not at all.
    NotExactlyOnce,
}

/// What was judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Publishes acknowledged.
    pub acked: u64,
    /// Publishes refused.
    pub failed: u64,
    /// Publishes of unknown outcome.
    pub unknown: u64,
    /// Records in the final read.
    pub stored: u64,
    /// Records given to subscribers on the way.
    pub read: u64,
    /// Offsets stored, or tried.
    pub commits: u64,
    /// Offsets asked for.
    pub fetches: u64,
    /// Topics created.
    pub topics_created: u64,
    /// Topics deleted.
    pub topics_deleted: u64,
    /// Creations, changes and deletions of topics of unknown outcome.
    pub topics_unknown: u64,
    /// Publishes to short-lived topics acknowledged.
    pub topic_acked: u64,
    /// Records read from short-lived topics.
    pub topic_read: u64,
}

impl Counts {
    /// Adds those of another history.
    pub fn add(&mut self, other: &Self) {
        self.acked += other.acked;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.stored += other.stored;
        self.read += other.read;
        self.commits += other.commits;
        self.fetches += other.fetches;
        self.topics_created += other.topics_created;
        self.topics_deleted += other.topics_deleted;
        self.topics_unknown += other.topics_unknown;
        self.topic_acked += other.topic_acked;
        self.topic_read += other.topic_read;
    }
}

/// What the judge found in a history.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verdict {
    /// What was judged.
    pub counts: Counts,
    /// How often each promise was broken.
    pub violations: BTreeMap<Violation, u64>,
    /// The first of them in words.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether no promise was broken.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// How often a promise was broken.
    pub fn count(&self, violation: Violation) -> u64 {
        self.violations.get(&violation).copied().unwrap_or_default()
    }

    pub(super) fn add(
        &mut self,
        violation: Violation,
        entry: &Entry,
        why: impl FnOnce() -> String,
    ) {
        self.tell(violation, || format!("{}; entry: {entry:?}", why()));
    }

    /// A violation that no entry shows alone.
    pub(super) fn tell(&mut self, violation: Violation, why: impl FnOnce() -> String) {
        let times = self.violations.entry(violation).or_default();
        *times += 1;
        if *times <= EXAMPLES_MAX {
            self.examples.push(format!("{violation}: {}", why()));
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Phantom => "phantom",
            Self::Duplicate => "duplicate",
            Self::Reordered => "reordered",
            Self::OffsetMismatch => "offset mismatch",
            Self::Gap => "gap",
            Self::ReadBeforeDurable => "read before durable",
            Self::CommitRegression => "committed offset went back",
            Self::TopicLost => "topic lost",
            Self::TopicReturned => "topic came back",
            Self::TopicNumberReused => "topic number used again",
            Self::TopicMixed => "record of another topic",
            Self::TopicSettings => "topic settings",
            Self::DoubleOwner => "owned twice",
            Self::Skipped => "skipped",
            Self::CommittedBeforeHandled => "committed before handled",
            Self::HandledAgain => "handled again after its commit",
            Self::Ownerless => "without an owner",
            Self::Blocked => "blocked by another member",
            Self::NotReached => "never committed",
            Self::NotExactlyOnce => "not exactly once in the output",
        })
    }
}
