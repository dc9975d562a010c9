//! Fences that were raised from outside: owners lose what they have.

use falcon_protocol::OwnerEpoch;

use super::{Group, State};
use crate::group::coordinator::message::Hold;

impl Group {
    /// The fences are newer than anything that was granted; who had the partitions is told that it
    /// lost them, and they are granted anew.
    pub(in crate::group::coordinator) fn raised(&mut self, raised: Vec<Hold>) {
        for Hold { partition, epoch } in raised {
            let Some(moving) = self.partitions.get_mut(&partition) else {
                continue;
            };
            moving.fence = moving.fence.max(epoch);
            self.is_dirty = true;
            match moving.state {
                State::Owned(owned) if owned.epoch < epoch => {
                    moving.state = State::GIVEN_UP;
                    if let Some(member) = self.members.get_mut(&owned.member) {
                        member.owned.remove(&partition);
                        let epoch = owned.epoch;
                        member.lost.push(Hold { partition, epoch });
                        member.has_news = true;
                    }
                }
                // The writer refuses what is under way if it comes too late.
                State::Owned(_) | State::Free { .. } | State::Fencing { .. } => {}
            }
        }
    }

    /// Nothing is stored of the group any more.
    pub(in crate::group::coordinator) fn deleted(&mut self) {
        if self.members.is_empty() {
            self.partitions.clear();
            return;
        }
        let above = |fence: OwnerEpoch| OwnerEpoch(fence.0.saturating_add(1));
        let raised = self.partitions.iter().map(|(partition, moving)| Hold {
            partition: *partition,
            epoch: above(moving.fence),
        });
        self.raised(raised.collect());
    }
}
