//! Members that go: they leave, are silent, or another takes their place.

use falcon_protocol::MemberId;

use super::{Group, Member, State, TAKEN_MAX};
use crate::group::coordinator::Turn;
use crate::group::coordinator::event::Happened;
use crate::group::coordinator::message::Reply;

impl Group {
    /// The new process has the old one's place; what the old one holds is fenced.
    pub(super) fn take_over(&mut self, old: MemberId, new: MemberId, turn: &mut Turn<'_>) {
        self.taken.push_back(old);
        if self.taken.len() > TAKEN_MAX {
            self.taken.pop_front();
        }
        for target in self.target.values_mut().filter(|target| **target == old) {
            *target = new;
        }
        if let Some(member) = self.remove(old, State::GIVEN_UP, Reply::InstanceTaken, turn) {
            let instance = member.wish.instance;
            turn.events.push(Happened::Replaced { old, new, instance });
        }
    }

    pub(in crate::group::coordinator) fn leave(&mut self, id: MemberId, turn: &mut Turn<'_>) {
        if let Some(member) = self.remove(id, State::GIVEN_UP, Reply::Left, turn) {
            turn.events.push(Happened::Left(id, member.wish.instance));
        }
        self.retarget(turn);
    }

    fn remove(
        &mut self,
        id: MemberId,
        left: State,
        reply: Reply,
        turn: &mut Turn<'_>,
    ) -> Option<Member> {
        let mut member = self.members.remove(&id)?;
        if let Some(pending) = member.pending.take() {
            turn.answer(pending.ticket, reply);
        }
        for partition in &member.owned {
            if let Some(moving) = self.partitions.get_mut(partition) {
                moving.state = left;
            }
        }
        self.is_dirty = true;
        Some(member)
    }

    /// Lets go who was silent for its session.
    pub(in crate::group::coordinator) fn expire(&mut self, turn: &mut Turn<'_>) {
        let is_silent = |(_, member): &(&MemberId, &Member)| member.silent_at <= turn.now;
        let silent = self.members.iter().filter(is_silent).map(|(id, _)| *id);
        let silent: Vec<MemberId> = silent.collect();
        for id in &silent {
            let gone = self.remove(*id, State::ABANDONED, Reply::UnknownMember, turn);
            if let Some(member) = gone {
                turn.events.push(Happened::LetGo {
                    member: *id,
                    silent_ms: turn.now.saturating_sub(member.heard()),
                    instance: member.wish.instance,
                });
            }
        }
        if !silent.is_empty() {
            self.retarget(turn);
        }
    }
}
