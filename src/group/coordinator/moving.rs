//! One partition of a group on its way from owner to owner.
//!
//! ```text
//! Free -> Fencing -> Owned -> (told to give up) -> Free
//! ```

use falcon_protocol::limits::NEWS_GRANTS_MAX;
use falcon_protocol::{MemberId, Offset, OwnerEpoch, PartitionId};

use super::Turn;
use super::message::{Grant, Hold, News};

/// How a partition stands: the reason when nothing moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No member subscribes to it.
    Unwanted,
    /// It waits for who may hold it from before, or for a refused fence to be tried again.
    Waiting {
        /// Who shall have it.
        target: MemberId,
        /// When it goes on; `None` with the next turn.
        until: Option<u64>,
    },
    /// The fence is not durable yet.
    Fencing {
        /// Who shall have it.
        target: Option<MemberId>,
        /// Since when.
        since: u64,
    },
    /// Granted, but the member has not taken it in.
    Granted {
        /// To whom.
        owner: MemberId,
        /// Under which epoch.
        epoch: OwnerEpoch,
    },
    /// Held by who shall have it.
    Held {
        /// By whom.
        owner: MemberId,
        /// Under which epoch.
        epoch: OwnerEpoch,
    },
    /// The owner finishes what it has begun.
    GivingUp {
        /// Who has it.
        owner: MemberId,
        /// Who shall have it.
        target: Option<MemberId>,
        /// When it is taken away.
        deadline: u64,
    },
}

/// Whether the member knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    No,
    /// In the answer to this request; it may be lost.
    At(u64),
    /// It showed.
    Known,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Revoke {
    pub(super) deadline: u64,
    pub(super) told: Told,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Owned {
    pub(super) member: MemberId,
    pub(super) epoch: OwnerEpoch,
    pub(super) committed: Option<Offset>,
    pub(super) grant: Told,
    pub(super) revoke: Option<Revoke>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum State {
    Free {
        /// Who was granted the fence may be alive and hold it still.
        is_claimable: bool,
        retry_at: u64,
    },
    Fencing {
        epoch: OwnerEpoch,
        since: u64,
    },
    Owned(Owned),
}

impl State {
    pub(super) const GIVEN_UP: Self = Self::Free {
        is_claimable: false,
        retry_at: 0,
    };
    pub(super) const ABANDONED: Self = Self::Free {
        is_claimable: true,
        retry_at: 0,
    };
}

#[derive(Debug)]
pub(super) struct Moving {
    /// The last fence known to be durable.
    pub(super) fence: OwnerEpoch,
    pub(super) state: State,
}

impl Moving {
    pub(super) fn owner(&self) -> Option<MemberId> {
        match self.state {
            State::Owned(owned) => Some(owned.member),
            State::Free { .. } | State::Fencing { .. } => None,
        }
    }

    pub(super) fn is_claimable(&self) -> bool {
        match self.state {
            State::Free { is_claimable, .. } => is_claimable,
            State::Fencing { .. } | State::Owned(_) => false,
        }
    }

    /// Compares with what a member says in request `seen + n`; `held` is the epoch it names.
    /// Whether there is something to tell it.
    pub(super) fn reconcile(&mut self, held: Option<OwnerEpoch>, seen: u64) -> bool {
        let State::Owned(owned) = &mut self.state else {
            return false;
        };
        let is_missed = |told: Told| matches!(told, Told::At(sequence) if seen < sequence);
        if held == Some(owned.epoch) {
            owned.grant = Told::Known;
        } else if owned.revoke.is_none() && (owned.grant == Told::No || is_missed(owned.grant)) {
            // What was missed and is to be given up again was never held: it is not told at all.
            owned.grant = Told::No;
        } else {
            self.state = State::GIVEN_UP;
            return false;
        }
        if let Some(revoke) = &mut owned.revoke
            && is_missed(revoke.told)
        {
            revoke.told = Told::No;
        }
        owned.grant == Told::No || owned.revoke.is_some_and(|r| r.told == Told::No)
    }

    pub(super) fn standing(&self, target: Option<MemberId>, settle: Option<u64>) -> Standing {
        match self.state {
            State::Free {
                is_claimable,
                retry_at,
            } => target.map_or(Standing::Unwanted, |target| {
                let settle = settle.filter(|_| is_claimable);
                let until = settle.or((retry_at > 0).then_some(retry_at));
                Standing::Waiting { target, until }
            }),
            State::Fencing { since, .. } => Standing::Fencing { target, since },
            State::Owned(owned) => match owned.revoke {
                Some(revoke) => Standing::GivingUp {
                    owner: owned.member,
                    target,
                    deadline: revoke.deadline,
                },
                None if owned.grant == Told::Known => Standing::Held {
                    owner: owned.member,
                    epoch: owned.epoch,
                },
                None => Standing::Granted {
                    owner: owned.member,
                    epoch: owned.epoch,
                },
            },
        }
    }
}

impl Owned {
    pub(super) fn has_news(&self) -> bool {
        self.grant == Told::No || self.revoke.is_some_and(|revoke| revoke.told == Told::No)
    }

    /// Asks for it back when another shall have it; whether it is to be taken away now.
    pub(super) fn revoke(
        &mut self,
        target: Option<MemberId>,
        settle: Option<u64>,
        turn: &Turn<'_>,
        wakes: &mut Vec<u64>,
    ) -> bool {
        if target == Some(self.member) {
            self.revoke.take_if(|revoke| revoke.told == Told::No);
            return false;
        }
        if self.grant == Told::No {
            return true;
        }
        if self.revoke.is_none() && settle.is_none() {
            let deadline = turn.now + turn.times.revoke_ms;
            let told = Told::No;
            self.revoke = Some(Revoke { deadline, told });
        }
        let Some(revoke) = self.revoke.filter(|_| target.is_some()) else {
            return false;
        };
        let is_over = revoke.deadline <= turn.now;
        if !is_over {
            wakes.push(revoke.deadline);
        }
        is_over
    }

    /// What does not fit is told in the next answer, which comes at once: it is still unknown to the member then.
    pub(super) fn tell(&mut self, partition: PartitionId, news: &mut News) {
        let epoch = self.epoch;
        let hold = Hold { partition, epoch };
        if self.grant == Told::No && news.granted.len() < NEWS_GRANTS_MAX {
            self.grant = Told::At(news.sequence);
            let committed = self.committed;
            news.granted.push(Grant { hold, committed });
        }
        if let Some(revoke) = &mut self.revoke
            && revoke.told == Told::No
        {
            revoke.told = Told::At(news.sequence);
            news.revoked.push(hold);
        }
    }
}
