//! What is taken from owners because somebody outside the group changed its offsets.

use falcon_protocol::{OwnerEpoch, PartitionId};

use super::Group;
use crate::group::coordinator::message::Hold;
use crate::group::coordinator::moving::{State, Told};

impl Group {
    pub(in crate::group::coordinator) fn raised(&mut self, fences: &[Hold]) {
        for hold in fences {
            self.take_away(hold.partition, hold.epoch);
        }
    }

    /// Everything is taken away. Without members nothing is remembered: the writer refuses old epochs by its floor.
    pub(in crate::group::coordinator) fn deleted(&mut self) {
        if self.members.is_empty() {
            self.partitions.clear();
            return;
        }
        let fences = self.partitions.iter();
        let fences: Vec<(PartitionId, OwnerEpoch)> = fences.map(|(id, m)| (*id, m.fence)).collect();
        for (id, fence) in fences {
            self.take_away(id, fence);
        }
    }

    /// Nobody owns a partition under `fence` or an older epoch any more.
    fn take_away(&mut self, id: PartitionId, fence: OwnerEpoch) {
        let Some(moving) = self.partitions.get_mut(&id) else {
            return;
        };
        moving.fence = moving.fence.max(fence);
        self.is_dirty = true;
        match moving.state {
            // The fence that is under way is decided behind this one, and above it or refused.
            State::Fencing { .. } => return,
            State::Owned(owned) if owned.epoch > fence => return,
            State::Owned(owned) => {
                if let Some(member) = self.members.get_mut(&owned.member) {
                    member.owned.remove(&id);
                    if owned.grant != Told::No {
                        let (partition, epoch) = (id, owned.epoch);
                        member.lost.push(Hold { partition, epoch });
                        member.has_news = true;
                    }
                }
            }
            State::Free { .. } => {}
        }
        moving.state = State::GIVEN_UP;
    }
}
