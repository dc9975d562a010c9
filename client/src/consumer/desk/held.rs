//! One partition that the consumer holds.

use core::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use falcon_protocol::message::{Activity, GroupGrant, GroupProgress};
use falcon_protocol::{ErrorCode, Offset};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queue::{Place, Queue};
use crate::consumer::events::TopicPartition;
use crate::consumer::grant::Hold;
use crate::consumer::tracker::Tracker;
use crate::error::CommitError;

pub(super) type Waiter = oneshot::Sender<Result<(), CommitError>>;

/// Why a partition cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    Damaged(Range<Offset>),
    Failing(ErrorCode),
}

/// An offset to be stored.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) offset: Offset,
    pub(super) waiters: Vec<Waiter>,
}

pub(in crate::consumer) struct Held {
    pub(in crate::consumer) topic: Arc<str>,
    pub(in crate::consumer) hold: Hold,
    pub(super) queue: Queue,
    /// Grows with each jump.
    pub(super) reading: u64,
    /// Of records taken for handlers since the last jump.
    pub(super) tracker: Option<Tracker>,
    /// Stored, as far as is known.
    pub(in crate::consumer) committed: Option<Offset>,
    /// Behind the last record handed out since the grant or the last jump.
    pub(super) handed: Option<Offset>,
    pub(super) wanted: Option<Wanted>,
    pub(super) is_committing: bool,
    /// Since a seek, until an offset was stored.
    pub(super) may_rewind: bool,
    pub(super) revoked_at: Option<Instant>,
    /// A commit under this grant was refused: somebody else has the partition.
    pub(super) is_over: bool,
    pub(super) is_paused: bool,
    pub(super) is_ready: bool,
    pub(super) is_hungry: bool,
    pub(super) trouble: Trouble,
    /// To wait before the next request.
    pub(super) delay: Option<Duration>,
    /// When it last moved.
    pub(super) touched: Instant,
}

impl Held {
    pub(super) fn new(grant: GroupGrant, start: Place, now: Instant) -> Self {
        let place = grant.committed.map_or(start, Place::At);
        Self {
            topic: grant.topic.into(),
            hold: Hold::of(&grant.hold),
            queue: Queue::new(place),
            reading: 0,
            tracker: None,
            committed: grant.committed,
            handed: None,
            wanted: None,
            is_committing: false,
            may_rewind: false,
            revoked_at: None,
            is_over: false,
            is_paused: false,
            is_ready: false,
            is_hungry: false,
            trouble: Trouble::None,
            delay: None,
            touched: now,
        }
    }

    pub(super) fn name(&self) -> TopicPartition {
        TopicPartition {
            topic: Arc::clone(&self.topic),
            partition: self.hold.partition.partition,
        }
    }

    pub(super) fn stale(&self) -> CommitError {
        CommitError::StaleOwner {
            topic: self.topic.to_string(),
            partition: self.hold.partition.partition,
        }
    }

    /// The next offset to hand out, once known.
    pub(in crate::consumer) fn position(&self) -> Option<Offset> {
        self.queue.position()
    }

    pub(super) const fn is_live(&self) -> bool {
        self.revoked_at.is_none()
    }

    /// Whether something of it may be handed out now.
    pub(super) fn hands_out(&self, limit: Option<usize>) -> bool {
        let is_choked = limit.is_some_and(|limit| self.unfinished() >= limit);
        self.is_live() && !self.is_paused && !is_choked && self.queue.has_records()
    }

    pub(super) fn unfinished(&self) -> usize {
        self.tracker.as_ref().map_or(0, Tracker::unfinished)
    }

    /// Goes on from another place.
    pub(super) fn jump(&mut self, place: Place) {
        self.queue.jump(place);
        self.reading += 1;
        self.tracker = None;
        self.handed = None;
        self.trouble = Trouble::None;
        self.delay = None;
    }

    /// Whether `offset` is stored already, so that there is nothing to do.
    pub(super) fn is_stored(&self, offset: Offset) -> bool {
        !self.may_rewind && self.committed.is_some_and(|committed| committed >= offset)
    }

    /// Refuses to skip records that handlers have not finished.
    pub(super) fn check_order(&self, next: Offset) -> Result<(), CommitError> {
        let first = self.tracker.as_ref().map(Tracker::prefix);
        match first.filter(|first| first.advance(1) < next) {
            None => Ok(()),
            Some(first) => Err(CommitError::SkipsUnfinished {
                topic: self.topic.to_string(),
                partition: self.hold.partition.partition,
                first,
            }),
        }
    }

    /// What handlers have finished and is not stored.
    pub(super) fn finished(&self) -> Option<Offset> {
        let finished = self.tracker.as_ref()?.finished()?;
        (!self.is_stored(finished)).then_some(finished)
    }

    /// Whether everything handed out is stored.
    pub(super) fn is_settled(&self) -> bool {
        let is_stored = self.handed.is_none_or(|handed| self.is_stored(handed));
        is_stored && self.wanted.is_none() && !self.is_committing
    }

    pub(super) fn progress(&self, is_taking: bool, now: Instant) -> GroupProgress {
        let since = now.saturating_duration_since(self.touched);
        GroupProgress {
            partition: self.hold.partition,
            position: self.position().unwrap_or(Offset::ZERO),
            activity: self.activity(is_taking),
            since_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn activity(&self, is_taking: bool) -> Activity {
        let is_open = self.handed.is_some_and(|handed| !self.is_stored(handed));
        match &self.trouble {
            Trouble::Damaged(range) => Activity::Damaged(range.start, range.end),
            Trouble::Failing(code) => Activity::Failing(code.number()),
            Trouble::None if self.is_paused => Activity::Paused,
            Trouble::None if self.unfinished() > 0 => Activity::Handling,
            Trouble::None if self.tracker.is_none() && is_open && !is_taking => Activity::Handling,
            Trouble::None if self.queue.has_records() && !is_taking => Activity::Full,
            Trouble::None => Activity::Reading,
        }
    }
}
