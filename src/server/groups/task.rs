//! The task that drives the coordinator.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use falcon_protocol::{MemberId, OwnerEpoch, PartitionId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::warn;

use super::Active;
use super::ask::{Ask, Asked, ChangeError, Said, Spoken};
use super::fencing::{Done, Fencing, Waiting};
use super::roster::Roster;
use super::told;
use crate::clock;
use crate::group::coordinator::{Coordinator, Hold, Input, JoinError, Output, Reply, Ticket};
use crate::metrics::Metrics;
use crate::writer::{OffsetsError, Views};

/// LIMIT: members of all groups together.
const MEMBERS_MAX: usize = 20_000;
/// How often the log says that fences are refused.
const WARN_EVERY_MS: u64 = 60_000;
/// While nothing waits, time is looked at this often.
const IDLE: Duration = Duration::from_secs(60);

/// The coordinator and all that is around it.
pub(super) struct Task {
    pub(super) coordinator: Coordinator,
    /// LIMIT: as many as there are members and requests being refused; a later request of a member
    /// answers the one before it.
    pub(super) calls: HashMap<Ticket, oneshot::Sender<Reply>>,
    pub(super) tickets: u64,
    pub(super) roster: Roster,
    pub(super) active: Arc<Active>,
    pub(super) views: Arc<Views>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) fencing: Fencing,
    /// Everything that came before this time was looked at, monotonic milliseconds.
    pub(super) until: u64,
    /// Members of all groups.
    pub(super) members: usize,
    /// When the log last said that fences are refused.
    pub(super) warned: Option<u64>,
}

/// What comes next.
enum Next {
    Catalog,
    Done(Done),
    Asked(Asked),
    Time,
    End,
}

impl Task {
    pub(super) async fn run(
        mut self,
        mut asks: mpsc::Receiver<Asked>,
        mut done: mpsc::Receiver<Done>,
    ) {
        loop {
            // CANCEL SAFETY: what is not taken out of a channel stays in it, a change of the catalog is
            // remembered.
            // ORDER: time last: a member whose request waits here is not silent.
            let next = tokio::select! {
                biased;
                () = self.views.catalog_changed() => Next::Catalog,
                Some(done) = done.recv() => Next::Done(done),
                asked = asks.recv() => asked.map_or(Next::End, Next::Asked),
                () = sleep(self.patience()) => Next::Time,
            };
            // Else time goes on only as far as what was asked: whoever waits in the queue was heard.
            if asks.is_empty() {
                let asked_at = match &next {
                    Next::Asked(asked) => asked.at,
                    Next::Catalog | Next::Done(_) | Next::Time | Next::End => u64::MAX,
                };
                self.until = self.until.max(clock::monotonic_ms().min(asked_at));
            }
            match next {
                Next::Catalog => {
                    let catalog = self.views.catalog();
                    self.feed(None, Input::Catalog(catalog));
                }
                Next::Done(done) => self.done(done),
                Next::Asked(asked) => {
                    self.until = self.until.max(asked.at);
                    self.asked(asked.ask);
                }
                Next::Time => {}
                Next::End => return,
            }
            let is_due = |at| at <= self.until;
            if self.coordinator.next_timer().is_some_and(is_due) {
                self.feed(None, Input::Tick);
            }
            // Many requests that wait for nothing would keep a worker from connections.
            tokio::task::coop::consume_budget().await;
        }
    }

    fn patience(&self) -> Duration {
        let next = self.coordinator.next_timer();
        next.map_or(IDLE, |at| {
            let wait = at.saturating_sub(clock::monotonic_ms());
            Duration::from_millis(wait).min(IDLE)
        })
    }

    fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Member(said, answer) => self.said(said, answer),
            Ask::Members(group, after, max, answer) => {
                // Nobody may wait for it any more; so it is with all answers here.
                let _gone = answer.send(self.members(&group, after, max));
            }
            Ask::Standings(group, after, max, answer) => {
                let _gone = answer.send(self.standings(&group, after, max));
            }
            Ask::Change(change, is_forced, waiting) => {
                if !is_forced && self.coordinator.figures(change.group()).members > 0 {
                    let _gone = waiting.send(Err(ChangeError::Active));
                } else {
                    self.fencing.change(change, waiting);
                }
            }
        }
    }

    fn said(&mut self, said: Said, answer: oneshot::Sender<Reply>) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.calls.insert(ticket, answer);
        match said {
            Said::Join(report, wish, spoken) => {
                let (group, member) = (report.group.clone(), report.member);
                if self.members >= MEMBERS_MAX && !self.coordinator.is_member(&group, member) {
                    let max = MEMBERS_MAX;
                    return self.give(ticket, Reply::Refused(JoinError::NoRoom { max }));
                }
                self.meet(&group, member, &spoken);
                self.feed(Some(&group), Input::Join(ticket, report, wish));
                self.listen(&group, member, spoken);
            }
            Said::Heartbeat(report, spoken) => {
                let (group, member) = (report.group.clone(), report.member);
                self.meet(&group, member, &spoken);
                self.feed(Some(&group), Input::Heartbeat(ticket, report));
                self.listen(&group, member, spoken);
            }
            Said::Leave(group, member) => {
                self.feed(Some(&group.clone()), Input::Leave(ticket, group, member));
            }
        }
    }

    /// ORDER: before the coordinator hears it, so that the log has the name of who joins.
    fn meet(&mut self, group: &str, member: MemberId, spoken: &Spoken) {
        self.roster.hear(group, member, Arc::clone(&spoken.origin));
    }

    /// Keeps what is said by members alone, of what they have alone.
    fn listen(&mut self, group: &str, member: MemberId, spoken: Spoken) {
        if !self.coordinator.is_member(group, member) {
            self.roster.forget(group, member);
            return;
        }
        for progress in spoken.progress {
            if self.coordinator.owner(group, progress.partition) == Some(member) {
                self.roster.note(group, member, (progress, self.until));
            }
        }
    }

    fn done(&mut self, done: Done) {
        self.fencing.came_back();
        match done {
            Done::Fences(group, outcomes, refused) => {
                if let Some(error) = refused {
                    self.warn(&group, &error);
                }
                let out = self.coordinator.handle_fences(self.until, &group, outcomes);
                self.put_out(Some(&group), out);
            }
            Done::Reset(group, result, waiting) => {
                let result = result.map(|raised| self.raised(&group, &raised));
                answer(waiting, result);
            }
            Done::Deleted(group, result, waiting) => {
                let result =
                    result.map(|()| self.feed(Some(&group), Input::Deleted(group.clone())));
                answer(waiting, result);
            }
        }
    }

    /// They are tried again twice a second, so it is not said each time.
    fn warn(&mut self, group: &str, error: &OffsetsError) {
        let since = self.warned.map(|warned| self.until.saturating_sub(warned));
        if since.is_none_or(|since| since >= WARN_EVERY_MS) {
            self.warned = Some(self.until);
            warn!(group, %error, "partitions wait for an owner: their fences are refused");
        }
    }

    fn raised(&mut self, group: &str, raised: &[(PartitionId, OwnerEpoch)]) {
        let hold = |(partition, epoch): &(PartitionId, OwnerEpoch)| Hold {
            partition: *partition,
            epoch: *epoch,
        };
        let raised = raised.iter().map(hold).collect();
        self.feed(Some(group), Input::Raised(group.to_owned(), raised));
    }

    fn feed(&mut self, group: Option<&str>, input: Input) {
        let out = self.coordinator.handle(self.until, input);
        self.put_out(group, out);
    }

    /// ORDER: what others see of the groups changes before anybody is answered.
    fn put_out(&mut self, group: Option<&str>, out: Vec<Output>) {
        let events = self.coordinator.take_events();
        let mut changed: BTreeSet<&str> = group.into_iter().collect();
        changed.extend(events.iter().map(|event| event.group.as_str()));
        for output in &out {
            if let Output::Fence(group, _) = output {
                changed.insert(group);
            }
        }
        for group in changed {
            self.show(group);
        }
        told::tell(&events, &mut self.roster, &self.metrics.groups);
        for output in out {
            match output {
                Output::Answer(ticket, reply) => self.give(ticket, reply),
                Output::Fence(group, holds) => self.fencing.fence(&group, &holds),
            }
        }
    }

    fn give(&mut self, ticket: Ticket, reply: Reply) {
        if let Some(call) = self.calls.remove(&ticket) {
            let _gone = call.send(reply);
        }
    }

    fn show(&mut self, group: &str) {
        let now = self.coordinator.figures(group);
        let before = self.active.put(group, now);
        self.members = self.members + now.members - before.members;
        let metrics = &self.metrics.groups;
        metrics.members.shift(before.members, now.members);
        metrics.ownerless.shift(before.ownerless, now.ownerless);
        let is_active = |members| usize::from(members > 0);
        let (before, now) = (is_active(before.members), is_active(now.members));
        metrics.active.shift(before, now);
    }
}

fn answer(waiting: Waiting, result: Result<(), OffsetsError>) {
    let _gone = waiting.send(result.map_err(ChangeError::Offsets));
}
