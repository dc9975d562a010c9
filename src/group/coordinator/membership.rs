//! One group: its members, the target, and what has to move.

mod parting;
mod people;
mod raised;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use falcon_protocol::limits::GROUP_MEMBERS_MAX;
use falcon_protocol::{MemberId, Offset, OwnerEpoch, PartitionId, TopicId};

use super::event::Happened;
use super::message::{Hold, JoinError, News, Output, Reply, Report, Ticket, Wish};
use super::moving::{Moving, Owned, State, Told};
use super::{Place, Turn};
use crate::catalog::Catalog;
use crate::group::assign::{Assignor, Question};

/// Members whose instance name was taken, and who shall not take it back.
const TAKEN_MAX: usize = 64;

#[derive(Debug)]
struct Pending {
    ticket: Ticket,
    answer_by: u64,
}

#[derive(Debug)]
struct Member {
    wish: Wish,
    topics: BTreeSet<TopicId>,
    sequence: u64,
    silent_at: u64,
    pending: Option<Pending>,
    lost: Vec<Hold>,
    owned: BTreeSet<PartitionId>,
    has_news: bool,
}

impl Member {
    fn new(wish: Wish, topics: BTreeSet<TopicId>) -> Self {
        Self {
            wish,
            topics,
            sequence: 0,
            silent_at: 0,
            pending: None,
            lost: Vec::new(),
            owned: BTreeSet::new(),
            has_news: false,
        }
    }

    /// When it was heard last.
    fn heard(&self) -> u64 {
        self.silent_at.saturating_sub(self.wish.session_ms)
    }
}

#[derive(Debug, Default)]
pub(super) struct Group {
    members: BTreeMap<MemberId, Member>,
    taken: VecDeque<MemberId>,
    partitions: BTreeMap<PartitionId, Moving>,
    target: BTreeMap<PartitionId, MemberId>,
    generation: u64,
    settle_until: Option<u64>,
    /// The next time a partition waits for.
    partitions_wake: Option<u64>,
    is_dirty: bool,
    /// Where the group stands among the timers.
    pub(super) wake: Option<u64>,
}

impl Group {
    pub(super) fn restore(&mut self, hold: Hold) {
        self.generation = self.generation.max(hold.epoch.0);
        let state = State::ABANDONED;
        let fence = hold.epoch;
        self.partitions
            .insert(hold.partition, Moving { fence, state });
    }

    pub(super) fn is_active(&self) -> bool {
        !self.members.is_empty()
    }

    pub(super) fn is_forgettable(&self) -> bool {
        self.members.is_empty() && self.partitions.is_empty()
    }

    pub(super) fn join(&mut self, ticket: Ticket, report: Report, wish: Wish, turn: &mut Turn<'_>) {
        if self.taken.contains(&report.member) {
            return turn.answer(ticket, Reply::InstanceTaken);
        }
        let namesake = wish.instance.as_ref().and_then(|name| {
            let is_it = |(id, member): &(&MemberId, &Member)| {
                **id != report.member && member.wish.instance.as_ref() == Some(name)
            };
            self.members.iter().find(is_it).map(|(id, _)| *id)
        });
        let is_known = self.members.contains_key(&report.member);
        if !is_known && namesake.is_none() && self.members.len() >= GROUP_MEMBERS_MAX {
            let max = GROUP_MEMBERS_MAX;
            return turn.answer(ticket, Reply::Refused(JoinError::TooManyMembers { max }));
        }
        if let Some(member) = self.members.get(&report.member)
            && report.sequence <= member.sequence
        {
            return turn.answer(ticket, Reply::Superseded);
        }
        if self.members.is_empty() && self.partitions.values().any(Moving::is_claimable) {
            self.settle_until = Some(turn.now + turn.times.settle_ms.min(wish.session_ms));
        }
        let topics = topics_of(&wish, turn.catalog);
        if let Some(member) = self.members.get_mut(&report.member) {
            (member.wish, member.topics) = (wish, topics);
        } else {
            self.members
                .insert(report.member, Member::new(wish, topics));
            turn.events.push(Happened::Joined(report.member));
        }
        if let Some(old) = namesake {
            self.take_over(old, report.member, turn);
        }
        let member = report.member;
        self.heartbeat(ticket, report, turn);
        if let Some(member) = self.members.get_mut(&member) {
            member.has_news = true;
        }
        self.retarget(turn);
    }

    pub(super) fn heartbeat(&mut self, ticket: Ticket, report: Report, turn: &mut Turn<'_>) {
        let Some(member) = self.members.get_mut(&report.member) else {
            let is_taken = self.taken.contains(&report.member);
            let unknown = Reply::UnknownMember;
            return turn.answer(
                ticket,
                if is_taken {
                    Reply::InstanceTaken
                } else {
                    unknown
                },
            );
        };
        if report.sequence <= member.sequence {
            return turn.answer(ticket, Reply::Superseded);
        }
        let pending = Pending {
            ticket,
            answer_by: turn.now + member.wish.session_ms / 3,
        };
        if let Some(old) = member.pending.replace(pending) {
            turn.answer(old.ticket, Reply::Superseded);
        }
        member.sequence = report.sequence;
        member.silent_at = turn.now + member.wish.session_ms;
        member.lost.clear();
        let mut has_news = false;
        let holds: BTreeMap<PartitionId, OwnerEpoch> = report
            .holds
            .iter()
            .map(|hold| (hold.partition, hold.epoch))
            .collect();
        for id in member.owned.clone() {
            let Some(moving) = self.partitions.get_mut(&id) else {
                continue;
            };
            has_news |= moving.reconcile(holds.get(&id).copied(), report.seen);
            if moving.owner().is_none() {
                member.owned.remove(&id);
                self.is_dirty = true;
            }
        }
        member.has_news = has_news;
        self.claim(report.member, report.holds, turn);
    }

    /// Confirms what was granted before the coordinator knew the member; all else is lost.
    fn claim(&mut self, id: MemberId, holds: Vec<Hold>, turn: &mut Turn<'_>) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let mut has_claimed = false;
        for hold in holds {
            let moving = self.partitions.get_mut(&hold.partition);
            match moving.map(|moving| (moving.fence, &mut moving.state)) {
                Some((_, State::Owned(owned)))
                    if owned.member == id && owned.epoch == hold.epoch => {}
                Some((
                    fence,
                    state @ State::Free {
                        is_claimable: true, ..
                    },
                )) if fence == hold.epoch => {
                    *state = State::Owned(Owned {
                        member: id,
                        epoch: fence,
                        committed: None,
                        grant: Told::Known,
                        revoke: None,
                    });
                    member.owned.insert(hold.partition);
                    self.target.insert(hold.partition, id);
                    has_claimed = true;
                }
                Some(_) | None => member.lost.push(hold),
            }
        }
        member.has_news |= !member.lost.is_empty();
        if has_claimed {
            self.retarget(turn);
        }
    }

    pub(super) fn topics_changed(&mut self, turn: &mut Turn<'_>) {
        for member in self.members.values_mut() {
            member.topics = topics_of(&member.wish, turn.catalog);
        }
        let exists = |id: &PartitionId| {
            let topic = turn.catalog.by_id(id.topic);
            topic.is_some_and(|topic| id.partition.0 < topic.partitions)
        };
        self.partitions.retain(|id, _| exists(id));
        for member in self.members.values_mut() {
            member.owned.retain(exists);
        }
        self.retarget(turn);
    }

    fn retarget(&mut self, turn: &mut Turn<'_>) {
        let catalog = turn.catalog;
        let mut places: Vec<Place<'_>> = Vec::new();
        places.extend(
            self.members
                .iter()
                .map(|(id, m)| (m.wish.instance.as_deref(), *id)),
        );
        places.sort_unstable();
        let numbers: BTreeMap<MemberId, usize> = places
            .iter()
            .enumerate()
            .map(|(number, (_, id))| (*id, number))
            .collect();
        let mut question = Question::default();
        for (_, id) in &places {
            let topics = self.members.get(id).map(|member| member.topics.clone());
            question.subscribers.push(topics.unwrap_or_default());
        }
        for id in question.subscribers.iter().flatten() {
            let topic = catalog.by_id(*id);
            question
                .topics
                .insert(*id, topic.map_or(0, |topic| topic.partitions));
        }
        let owners = self
            .partitions
            .iter()
            .filter_map(|(id, m)| Some((*id, m.owner()?)));
        // ORDER: a target outdates an owner, so what already moves is not called back.
        for (id, member) in owners.chain(self.target.iter().map(|(id, m)| (*id, *m))) {
            if let Some(number) = numbers.get(&member) {
                question.current.insert(id, *number);
            }
        }
        let is_range = |member: &Member| member.wish.assignor == Assignor::Range;
        let assignor = if self.members.values().all(is_range) {
            Assignor::Range
        } else {
            Assignor::Sticky
        };
        let shares = assignor.assign(&question).into_iter();
        let mut target: BTreeMap<PartitionId, MemberId> = shares
            .filter_map(|(id, number)| Some((id, places.get(number)?.1)))
            .collect();
        let left_out = self.fit(&mut target, turn.room);
        if left_out > 0 {
            turn.events.push(Happened::LeftOut(left_out));
        }
        if target != self.target {
            self.generation += 1;
            self.target = target;
            turn.events.push(Happened::Retargeted(self.generation));
        }
        let before = self.partitions.len();
        for id in self.target.keys() {
            self.partitions.entry(*id).or_insert(Moving {
                fence: OwnerEpoch(0),
                state: State::GIVEN_UP,
            });
        }
        turn.room = turn.room.saturating_sub(self.partitions.len() - before);
        let (target, never) = (&self.target, OwnerEpoch(0));
        self.partitions.retain(|id, moving| {
            let is_free = matches!(moving.state, State::Free { .. });
            !is_free || moving.fence != never || target.contains_key(id)
        });
        self.is_dirty = true;
    }

    /// LIMIT: takes partitions out that would be more than there is room for; how many.
    fn fit(&self, target: &mut BTreeMap<PartitionId, MemberId>, mut room: usize) -> usize {
        let wanted = target.len();
        target.retain(|id, _| {
            let is_known = self.partitions.contains_key(id);
            let has_room = is_known || room > 0;
            room -= usize::from(!is_known && has_room);
            has_room
        });
        wanted - target.len()
    }

    pub(super) fn fenced(&mut self, hold: Hold, committed: Option<Offset>, now: u64) {
        let Some(moving) = self.partitions.get_mut(&hold.partition) else {
            return;
        };
        moving.fence = moving.fence.max(hold.epoch);
        if !matches!(moving.state, State::Fencing { epoch, .. } if epoch == hold.epoch) {
            return;
        }
        let id = self.target.get(&hold.partition);
        let member = id.and_then(|id| Some((id, self.members.get_mut(id)?)));
        let Some((id, member)) = member.filter(|(_, member)| member.silent_at > now) else {
            moving.state = State::GIVEN_UP;
            self.is_dirty = true;
            return;
        };
        moving.state = State::Owned(Owned {
            member: *id,
            epoch: hold.epoch,
            committed,
            grant: Told::No,
            revoke: None,
        });
        member.owned.insert(hold.partition);
        member.has_news = true;
    }

    pub(super) fn fence_refused(&mut self, hold: Hold, fence: OwnerEpoch, turn: &Turn<'_>) {
        let Some(moving) = self.partitions.get_mut(&hold.partition) else {
            return;
        };
        if matches!(moving.state, State::Fencing { epoch, .. } if epoch == hold.epoch) {
            let is_outdated = fence >= hold.epoch;
            let wait = if is_outdated { 0 } else { turn.times.retry_ms };
            moving.fence = moving.fence.max(fence);
            moving.state = State::Free {
                is_claimable: false,
                retry_at: turn.now + wait,
            };
            self.is_dirty = true;
        }
    }

    /// Takes every partition one step further; the fences that are needed.
    pub(super) fn advance(&mut self, turn: &mut Turn<'_>) -> Vec<Hold> {
        let now = turn.now;
        let is_due = |at: &Option<u64>| at.is_some_and(|at| at <= now);
        if is_due(&self.settle_until) {
            self.settle_until = None;
            self.is_dirty = true;
        }
        let mut fences = Vec::new();
        if !self.is_dirty && !is_due(&self.partitions_wake) {
            return fences;
        }
        (self.is_dirty, self.partitions_wake) = (false, None);
        let mut wakes = Vec::new();
        for (id, moving) in &mut self.partitions {
            let target = self.target.get(id).copied();
            if let State::Owned(owned) = &mut moving.state {
                let Some(member) = self.members.get_mut(&owned.member) else {
                    continue;
                };
                if !owned.revoke(target, self.settle_until, turn, &mut wakes) {
                    member.has_news |= owned.has_news();
                    continue;
                }
                if owned.grant != Told::No {
                    let (partition, epoch) = (*id, owned.epoch);
                    member.lost.push(Hold { partition, epoch });
                    member.has_news = true;
                    turn.events.push(Happened::Overdue(owned.member, partition));
                }
                member.owned.remove(id);
                moving.state = State::GIVEN_UP;
            }
            let State::Free {
                is_claimable,
                retry_at,
            } = moving.state
            else {
                continue;
            };
            if target.is_none() || is_claimable && self.settle_until.is_some() {
                continue;
            }
            if retry_at > now {
                wakes.push(retry_at);
                continue;
            }
            let epoch = OwnerEpoch(self.generation.max(moving.fence.0 + 1));
            self.generation = epoch.0;
            moving.state = State::Fencing { epoch, since: now };
            fences.push(Hold {
                partition: *id,
                epoch,
            });
        }
        self.partitions_wake = wakes.into_iter().min();
        fences
    }

    /// Answers who waits and has news, or has waited long enough.
    pub(super) fn answer(&mut self, turn: &mut Turn<'_>) {
        for member in self.members.values_mut() {
            let is_due = |pending: &mut Pending| member.has_news || pending.answer_by <= turn.now;
            let Some(pending) = member.pending.take_if(is_due) else {
                continue;
            };
            let mut news = News {
                sequence: member.sequence,
                generation: self.generation,
                lost: std::mem::take(&mut member.lost),
                ..News::default()
            };
            for id in &member.owned {
                if let Some(State::Owned(owned)) = self.partitions.get_mut(id).map(|m| &mut m.state)
                {
                    owned.tell(*id, &mut news);
                }
            }
            member.has_news = false;
            turn.answer(pending.ticket, Reply::News(news));
        }
    }

    pub(super) fn next_wake(&self, now: u64) -> Option<u64> {
        let members = self.members.values().flat_map(|member| {
            let answer_by = member.pending.as_ref().map(|pending| pending.answer_by);
            [Some(member.silent_at), answer_by].into_iter().flatten()
        });
        let others = [self.settle_until, self.partitions_wake];
        let next = members.chain(others.into_iter().flatten()).min();
        next.map(|at| at.max(now))
    }
}

impl Turn<'_> {
    fn answer(&mut self, ticket: Ticket, reply: Reply) {
        self.out.push(Output::Answer(ticket, reply));
    }
}

fn topics_of(wish: &Wish, catalog: &Catalog) -> BTreeSet<TopicId> {
    let fits = |name: &str| wish.patterns.iter().any(|pattern| pattern.fits(name));
    let topics = catalog.topics().filter(|topic| fits(&topic.name));
    topics.map(|topic| topic.id).collect()
}
