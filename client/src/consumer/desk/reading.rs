//! What to ask the broker for, and what its answers mean.

use core::ops::Range;
use std::time::Duration;

use falcon_protocol::codes::ErrorCode;
use falcon_protocol::message::Delivery;
use falcon_protocol::{Offset, PartitionId};

use super::Desk;
use super::held::Trouble;
use super::queue::{Place, Want};
use crate::consumer::builder::OnDamage;
use crate::consumer::events::ConsumerEvent;
use crate::consumer::grant::Hold;
use crate::error::Refusal;

/// Least of the buffer that a partition has, however many there are.
const SHARE_BYTES_MIN: u64 = 64 << 10;
/// How long until a partition that could not be read is tried again.
const AGAIN: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_millis(200);

/// Something to ask the broker for.
#[derive(Debug, Clone)]
pub(in crate::consumer) struct Ask {
    pub(in crate::consumer) hold: Hold,
    pub(in crate::consumer) version: u64,
    pub(in crate::consumer) want: Want,
    /// To wait before.
    pub(in crate::consumer) delay: Option<Duration>,
}

impl Desk {
    /// Lets a partition ask when it has room.
    pub(super) fn feed(&mut self, id: PartitionId) {
        if let Some(held) = self.held.get_mut(&id).filter(|held| held.is_live())
            && !held.is_hungry
            && !held.queue.is_asking
        {
            held.is_hungry = true;
            self.hungry.push_back(id);
        }
    }

    /// What to ask for next.
    pub(in crate::consumer) fn ask(&mut self) -> Option<Ask> {
        let partitions = u64::try_from(self.held.len()).unwrap_or(u64::MAX).max(1);
        let share = (self.rules.buffer_bytes / partitions).max(SHARE_BYTES_MIN);
        while let Some(id) = self.hungry.pop_front() {
            let Some(held) = self.held.get_mut(&id) else {
                continue;
            };
            held.is_hungry = false;
            if !held.is_live() {
                continue;
            }
            if let Some(want) = held.queue.ask(share) {
                return Some(Ask {
                    hold: held.hold,
                    version: held.queue.version,
                    want,
                    delay: held.delay.take(),
                });
            }
        }
        None
    }

    /// The broker sent records, or none within the time for that.
    pub(in crate::consumer) fn fetched(
        &mut self,
        ask: &Ask,
        delivery: Delivery,
    ) -> Option<ConsumerEvent> {
        let id = ask.hold.partition;
        let held = self.held_mut(&ask.hold)?;
        if held.queue.version != ask.version {
            return None;
        }
        held.trouble = Trouble::None;
        let failed = held.queue.accept(delivery).err();
        let event = failed.map(|damage| ConsumerEvent::Failing {
            partition: held.name(),
            reason: damage.to_string(),
        });
        if event.is_some() {
            self.reread(id);
        } else {
            self.offer(id);
            self.feed(id);
            self.note_end(id);
        }
        event
    }

    /// The broker said which offset the start is.
    pub(in crate::consumer) fn placed(&mut self, ask: &Ask, offset: Offset, end: Offset) {
        if let Some(held) = self.held_mut(&ask.hold)
            && held.queue.version == ask.version
        {
            held.queue.placed(offset);
            held.queue.high_watermark = Some(end);
            self.feed(ask.hold.partition);
            self.note_end(ask.hold.partition);
        }
    }

    /// No answer: asks again.
    pub(in crate::consumer) fn unanswered(&mut self, ask: &Ask) {
        if let Some(held) = self.held_mut(&ask.hold)
            && held.queue.version == ask.version
        {
            held.queue.is_asking = false;
            self.feed(ask.hold.partition);
        }
    }

    /// The broker refused to read.
    pub(in crate::consumer) fn refused(
        &mut self,
        ask: &Ask,
        refusal: &Refusal,
    ) -> Option<ConsumerEvent> {
        let on_damage = self.rules.on_damage;
        let held = self.held_mut(&ask.hold)?;
        if held.queue.version != ask.version {
            return None;
        }
        held.queue.is_asking = false;
        let range = Offset(refusal.low)..Offset(refusal.high);
        let event = match (refusal.code, ask.want) {
            (ErrorCode::OffsetOutOfRange, Want::Records { offset, .. }) if offset < range.start => {
                // What is buffered is handed out first.
                let skipped = offset..range.start;
                held.queue.skip_to(range.start);
                Some(ConsumerEvent::Skipped {
                    partition: held.name(),
                    range: skipped,
                })
            }
            (ErrorCode::DamagedRange, _) if on_damage == OnDamage::Skip => {
                held.queue.skip_to(range.end);
                Some(ConsumerEvent::Skipped {
                    partition: held.name(),
                    range,
                })
            }
            (ErrorCode::DamagedRange, _) => {
                held.delay = Some(AGAIN);
                let trouble = Trouble::Damaged(range.clone());
                let is_new = std::mem::replace(&mut held.trouble, trouble.clone()) != trouble;
                is_new.then(|| ConsumerEvent::Damaged {
                    partition: held.name(),
                    range,
                })
            }
            (code, _) => {
                held.delay = Some(refusal.retry_after.unwrap_or(AGAIN));
                let trouble = Trouble::Failing(code);
                let is_new = std::mem::replace(&mut held.trouble, trouble.clone()) != trouble;
                is_new.then(|| ConsumerEvent::Failing {
                    partition: held.name(),
                    reason: refusal.to_string(),
                })
            }
        };
        self.feed(ask.hold.partition);
        event
    }

    /// What is buffered cannot be used: asks for it again, a little later.
    pub(super) fn reread(&mut self, id: PartitionId) {
        if let Some(held) = self.held.get_mut(&id) {
            if let Some(position) = held.position() {
                held.queue.jump(Place::At(position));
            }
            held.delay = Some(SOON);
            self.feed(id);
        }
    }

    /// Records that the client found damaged: waits, or goes on behind them.
    pub(in crate::consumer) fn found_damage(&mut self, hold: &Hold, range: &Range<Offset>) -> bool {
        let skips = self.rules.on_damage == OnDamage::Skip;
        let Some(held) = self.held_mut(hold) else {
            return false;
        };
        if skips {
            held.queue.jump(Place::At(range.end));
        } else {
            held.delay = Some(AGAIN);
            held.trouble = Trouble::Damaged(range.clone());
        }
        self.feed(hold.partition);
        skips
    }
}
