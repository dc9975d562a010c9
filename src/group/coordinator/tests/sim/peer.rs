//! A process with a member: the real one, and an application that handles records and commits.

use std::collections::BTreeMap;

use falcon_client::member::{End, Input, Member, Output, Wish};
use falcon_protocol::message::{AssignorKind, GroupHold};
use falcon_protocol::{MemberId, OwnerEpoch, PartitionId};

use crate::group::coordinator::Hold;
use crate::group::pattern::Pattern;

/// How long a commit is waited for before it is sent again.
const COMMIT_MS: u64 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Well,
    /// Nothing runs; what arrives waits.
    Frozen,
    Gone,
}

#[derive(Debug)]
pub(super) struct Reading {
    pub(super) epoch: OwnerEpoch,
    pub(super) position: u64,
    committed: u64,
    commit_sent: Option<u64>,
    is_revoked: bool,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) member: Member,
    pub(super) wish: Wish,
    pub(super) patterns: Vec<Pattern>,
    /// When it is to be polled.
    pub(super) poll_at: Option<u64>,
    pub(super) health: Health,
    pub(super) is_cut: bool,
    /// Its handlers hang, its heartbeats go on.
    pub(super) is_stalled: bool,
    pub(super) is_leaving: bool,
    /// When something last came in its way.
    pub(super) disturbed: u64,
    pub(super) reads: BTreeMap<PartitionId, Reading>,
    pub(super) end: Option<End>,
}

/// What a step of the application leads to.
#[derive(Debug)]
pub(super) enum Done {
    Handled(Hold, u64),
    Commit(Hold, u64),
}

pub(super) fn patterns(wish: &Wish) -> Vec<Pattern> {
    let patterns = wish.patterns.iter();
    patterns
        .map(|text| text.parse().expect("a pattern"))
        .collect()
}

impl Peer {
    pub(super) fn new(id: u128, now: u64, wish: Wish) -> Self {
        Self {
            member: Member::new("g", MemberId(id), wish.clone()),
            patterns: patterns(&wish),
            poll_at: None,
            wish,
            health: Health::Well,
            is_cut: false,
            is_stalled: false,
            is_leaving: false,
            disturbed: now,
            reads: BTreeMap::new(),
            end: None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.health == Health::Well && self.end.is_none()
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.is_running() && !self.is_cut && !self.is_leaving
    }

    pub(super) fn fits(&self, topic: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.fits(topic))
    }

    pub(super) fn is_range(&self) -> bool {
        self.wish.assignor == AssignorKind::Range
    }

    /// What the member tells its application; requests are sent by who calls.
    pub(super) fn told(&mut self, output: &Output) {
        match output {
            Output::Granted(grant) => {
                let position = grant.committed.map_or(0, |offset| offset.0);
                let reading = Reading {
                    epoch: grant.hold.epoch,
                    position,
                    committed: position,
                    commit_sent: None,
                    is_revoked: false,
                };
                let old = self.reads.insert(grant.hold.partition, reading);
                assert!(old.is_none(), "granted what is held: {grant:?}");
            }
            Output::Revoke(hold) => {
                let reading = self.reads.get_mut(&hold.partition);
                reading.expect("held").is_revoked = true;
            }
            Output::Lost(hold) | Output::Fenced(hold) => {
                let reading = self.reads.remove(&hold.partition);
                assert_eq!(reading.map(|reading| reading.epoch), Some(hold.epoch));
            }
            Output::Ended(end) => {
                assert!(self.reads.is_empty(), "ended with {:?}", self.reads);
                self.end = Some(*end);
            }
            Output::Join(_)
            | Output::Heartbeat(_)
            | Output::Leave(..)
            | Output::Joined
            | Output::Rejoining
            | Output::Unconfirmed
            | Output::Confirmed => {}
        }
    }

    /// Handles up to `records` of each partition and commits.
    pub(super) fn work(&mut self, now: u64, records: u64) -> Vec<Done> {
        let mut done = Vec::new();
        if self.is_stalled {
            return done;
        }
        let mut released = Vec::new();
        for (id, reading) in &mut self.reads {
            let (partition, epoch) = (*id, reading.epoch);
            let hold = Hold { partition, epoch };
            if !reading.is_revoked {
                for _ in 0..records {
                    done.push(Done::Handled(hold, reading.position));
                    reading.position += 1;
                }
            }
            let is_waiting = reading.commit_sent.is_some_and(|at| at + COMMIT_MS > now);
            if reading.position > reading.committed {
                if !is_waiting {
                    reading.commit_sent = Some(now);
                    done.push(Done::Commit(hold, reading.position));
                }
            } else if reading.is_revoked {
                released.push(GroupHold { partition, epoch });
            }
        }
        for hold in released {
            self.reads.remove(&hold.partition);
            self.member.handle(now, Input::Released(hold));
        }
        done
    }

    pub(super) fn committed(&mut self, now: u64, hold: Hold, offset: u64, is_stale: bool) {
        let Hold { partition, epoch } = hold;
        if is_stale {
            self.member
                .handle(now, Input::Stale(GroupHold { partition, epoch }));
            return;
        }
        let reading = self.reads.get_mut(&partition);
        if let Some(reading) = reading.filter(|reading| reading.epoch == epoch) {
            reading.committed = reading.committed.max(offset);
            reading.commit_sent = None;
        }
    }
}
