//! Time, the network, the broker's process, and the faults.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use falcon_client::member::{self, Answer, Output as Sent, Wish as Wants};
use falcon_protocol::message::{AssignorKind, GroupGrant, GroupHold, GroupNews, GroupReport};
use falcon_protocol::{MemberId, OwnerEpoch, PartitionId};

use super::peer::{Done, Health, Peer, patterns};
use super::writer::{Job, Outcome, Writer};
use crate::catalog::Catalog;
use crate::group::assign::Assignor;
use crate::group::coordinator::tests::catalog;
use crate::group::coordinator::{
    Coordinator, Hold, Input, Output, Reply, Report, Ticket, Times, Wish,
};

const NAMES: [&str; 4] = ["orders.eu", "orders.us", "orders.eu.berlin", "pay.in"];
const WATCH_MS: u64 = 100;
/// A message that nothing happens to takes less.
const WAY_MS: u64 = 100;
/// One that is held up takes less.
const LATE_MS: u64 = 3000;

#[derive(Debug, Clone)]
enum Event {
    /// Arrives at the broker.
    Request(usize, Sent),
    Commit(usize, Hold, u64),
    /// Arrives at the peer.
    Answer(usize, u64, Answer),
    Committed(usize, Hold, u64, bool),
    /// In the writer, of one life of the broker.
    Decide(u32, Job),
    Ack(u32, Outcome),
    Poll(usize),
    Work(usize),
    Tick,
    Watch,
    Up,
}

/// A request the coordinator has not answered.
#[derive(Debug)]
pub(super) struct Call {
    peer: usize,
    sequence: u64,
    pub(super) answer_by: u64,
    holds: Vec<GroupHold>,
}

#[derive(Debug, Default)]
struct Faults {
    lost_percent: u32,
    doubled_percent: u32,
    late_percent: u32,
    refused_percent: u32,
}

pub(super) struct World {
    pub(super) random: fastrand::Rng,
    pub(super) now: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    events_made: u64,
    pub(super) trace: u64,
    faults: Faults,
    fence_ms: u64,
    /// Everybody wants the same.
    is_uniform: bool,
    pub(super) session_ms: u64,
    topics: Vec<(u32, &'static str, u32)>,
    topics_made: u32,
    pub(super) catalog: Arc<Catalog>,
    times: Times,
    pub(super) coordinator: Coordinator,
    pub(super) is_up: bool,
    life: u32,
    tick_at: Option<u64>,
    pub(super) calls: BTreeMap<Ticket, Call>,
    tickets: u64,
    pub(super) writer: Writer,
    decide_at: u64,
    ack_at: u64,
    /// Fences the coordinator was told of.
    acked: BTreeMap<PartitionId, OwnerEpoch>,
    pub(super) peers: Vec<Peer>,
    inbox: BTreeMap<usize, Vec<Event>>,
    /// Who was granted what.
    granted: BTreeMap<(PartitionId, OwnerEpoch), usize>,
    pub(super) broker_disturbed: u64,
    /// Partitions that are not served, and from when on that counts.
    pub(super) waits: BTreeMap<PartitionId, u64>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let times = Times {
            revoke_ms: random.u64(3000..30_000),
            ..Times::default()
        };
        let topics = vec![
            (1, NAMES[0], random.u32(1..7)),
            (2, NAMES[1], random.u32(1..4)),
        ];
        let catalog = catalog(&topics);
        let mut world = Self {
            now: 1000,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            events_made: 0,
            trace: 0,
            faults: Faults {
                lost_percent: random.u32(0..4) * 3,
                doubled_percent: random.u32(0..4) * 3,
                late_percent: random.u32(0..4) * 3,
                refused_percent: random.u32(0..3) * 3,
            },
            fence_ms: random.u64(1..150),
            is_uniform: random.bool(),
            session_ms: [1000, 3000, 6000][random.usize(0..3)],
            topics,
            topics_made: 2,
            coordinator: Coordinator::new(times, Arc::clone(&catalog), []),
            catalog,
            times,
            is_up: true,
            life: 0,
            tick_at: None,
            calls: BTreeMap::new(),
            tickets: 0,
            writer: Writer::default(),
            decide_at: 0,
            ack_at: 0,
            acked: BTreeMap::new(),
            peers: Vec::new(),
            inbox: BTreeMap::new(),
            granted: BTreeMap::new(),
            broker_disturbed: 0,
            waits: BTreeMap::new(),
            random,
        };
        world.at(1000, Event::Watch);
        for _ in 0..world.random.u32(1..4) {
            world.start(None);
        }
        world
    }

    fn at(&mut self, at: u64, event: Event) {
        self.events_made += 1;
        self.queue.push(Reverse((at, self.events_made)));
        self.events.insert(self.events_made, event);
    }

    pub(super) fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(Reverse((at, number))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = self.now.max(at);
            let event = self.events.remove(&number).expect("each event once");
            self.happen(event);
        }
        self.now = end;
    }

    fn note(&mut self, what: u64) {
        self.trace =
            (self.trace.rotate_left(5) ^ what ^ self.now).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Request(peer, sent) => self.request(peer, &sent),
            Event::Commit(peer, hold, offset) => {
                if self.is_up && !self.peers[peer].is_cut {
                    self.job(Job::Commit { peer, hold, offset });
                }
            }
            Event::Answer(peer, ..) | Event::Committed(peer, ..) => self.arrive(peer, event),
            Event::Decide(life, job) => {
                if life == self.life {
                    self.decide(job);
                }
            }
            Event::Ack(life, outcome) => {
                if life == self.life {
                    self.acknowledge(outcome);
                }
            }
            Event::Poll(peer) => {
                if self.peers[peer].poll_at == Some(self.now) {
                    self.peers[peer].poll_at = None;
                    self.drain(peer);
                }
            }
            Event::Work(peer) => self.work(peer),
            Event::Tick => {
                if self.is_up && self.tick_at == Some(self.now) {
                    self.tick_at = None;
                    self.feed(Input::Tick);
                    let next = self.coordinator.next_timer();
                    assert!(next.is_none_or(|at| at > self.now), "a timer spins");
                }
            }
            Event::Watch => {
                self.watch();
                self.at(self.now + WATCH_MS, Event::Watch);
            }
            Event::Up => {
                let fences = self.writer.fences.iter();
                let fences = fences.map(|(id, epoch)| ("g".to_owned(), *id, *epoch));
                self.coordinator = Coordinator::new(self.times, Arc::clone(&self.catalog), fences);
                self.acked = self.writer.fences.clone();
                (self.is_up, self.broker_disturbed) = (true, self.now);
            }
        }
    }

    /// Over the network between a peer and the broker.
    fn send(&mut self, peer: usize, event: Event) {
        if self.peers[peer].is_cut {
            return;
        }
        let mut at = self.now + self.random.u64(0..WAY_MS);
        if self.random.u32(0..100) < self.faults.late_percent {
            at = self.now + self.random.u64(0..LATE_MS);
            self.disturb(peer, at);
        }
        if self.random.u32(0..100) < self.faults.doubled_percent {
            let again = self.now + self.random.u64(0..LATE_MS);
            self.disturb(peer, again);
            self.at(again, event.clone());
        }
        if self.random.u32(0..100) < self.faults.lost_percent {
            self.disturb(peer, self.now);
            if let Event::Request(_, sent) = &event
                && self.random.bool()
            {
                self.at(at, Event::Answer(peer, sequence(sent), Answer::Failed));
            }
            return;
        }
        self.at(at, event);
    }

    fn disturb(&mut self, peer: usize, at: u64) {
        let disturbed = &mut self.peers[peer].disturbed;
        *disturbed = at.max(*disturbed);
    }

    fn request(&mut self, peer: usize, sent: &Sent) {
        if self.peers[peer].is_cut {
            return;
        }
        if !self.peers[peer].is_healthy() {
            self.disturb(peer, self.now);
        }
        let sequence = sequence(sent);
        if !self.is_up {
            return self.send(peer, Event::Answer(peer, sequence, Answer::Failed));
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let (input, holds) = match sent {
            Sent::Join(join) => {
                let wish = Wants {
                    instance: join.instance.clone(),
                    patterns: join.patterns.clone(),
                    assignor: join.assignor,
                    session_ms: join.session_ms,
                };
                let input = Input::Join(ticket, report(&join.report), self::wish(&wish));
                (input, join.report.holds.clone())
            }
            Sent::Heartbeat(told) => (Input::Heartbeat(ticket, report(told)), told.holds.clone()),
            Sent::Leave(_, leave) => {
                let leave = Input::Leave(ticket, leave.group.clone(), leave.member);
                (leave, Vec::new())
            }
            other => panic!("{other:?} is no request"),
        };
        let answer_by = self.now + self.session_ms / 3;
        let call = Call {
            peer,
            sequence,
            answer_by,
            holds,
        };
        self.calls.insert(ticket, call);
        self.note(sequence << 8 ^ peer as u64);
        self.feed(input);
    }

    fn feed(&mut self, input: Input) {
        for output in self.coordinator.handle(self.now, input) {
            match output {
                Output::Answer(ticket, reply) => {
                    let call = self.calls.remove(&ticket).expect("answered once");
                    if let Reply::News(news) = &reply {
                        self.confirmed(&call, &news.lost);
                    }
                    let answer = answer(reply);
                    self.send(call.peer, Event::Answer(call.peer, call.sequence, answer));
                }
                Output::Fence(_, holds) => self.job(Job::Fence(holds)),
            }
        }
        let next = self.coordinator.next_timer();
        if let Some(at) = next.filter(|at| self.tick_at.is_none_or(|tick| *at < tick)) {
            self.tick_at = Some(at);
            self.at(at, Event::Tick);
        }
    }

    fn confirmed(&self, call: &Call, lost: &[Hold]) {
        for GroupHold { partition, epoch } in call.holds.iter().cloned() {
            let exists = self.catalog.by_id(partition.topic).is_some();
            let is_lost = lost.contains(&Hold { partition, epoch });
            let fence = self.acked.get(&partition).copied().unwrap_or_default();
            assert!(
                !exists || is_lost || epoch >= fence,
                "peer {} keeps {partition} under {epoch}, the fence is {fence}",
                call.peer
            );
        }
    }

    /// Hands a job to the writer, which decides in order.
    fn job(&mut self, job: Job) {
        let at = self.now + self.random.u64(0..=self.fence_ms);
        self.decide_at = self.decide_at.max(at);
        self.at(self.decide_at, Event::Decide(self.life, job));
    }

    fn decide(&mut self, job: Job) {
        let mut outcomes = Vec::new();
        if let Job::Fence(holds) = &job
            && self.random.u32(0..100) < self.faults.refused_percent
        {
            self.broker_disturbed = self.now;
            let current = |hold: &Hold| self.writer.fence(hold.partition);
            outcomes.extend(
                holds
                    .iter()
                    .map(|hold| Outcome::Refused(*hold, current(hold))),
            );
        } else {
            outcomes = self.writer.decide(job);
        }
        self.ack_at = self
            .ack_at
            .max(self.now + self.random.u64(0..=self.fence_ms));
        for outcome in outcomes {
            self.at(self.ack_at, Event::Ack(self.life, outcome));
        }
    }

    fn acknowledge(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Fenced(hold, committed) => {
                self.acked.insert(hold.partition, hold.epoch);
                self.feed(Input::Fenced("g".into(), hold, committed));
            }
            Outcome::Refused(hold, fence) => {
                self.feed(Input::FenceRefused("g".into(), hold, fence));
            }
            Outcome::Raised(holds) => {
                for hold in &holds {
                    self.acked.insert(hold.partition, hold.epoch);
                }
                self.feed(Input::Raised("g".into(), holds));
            }
            Outcome::Deleted(above) => {
                self.acked.extend(above);
                self.feed(Input::Deleted("g".into()));
            }
            Outcome::Committed {
                peer,
                hold,
                offset,
                is_stale,
            } => {
                self.send(peer, Event::Committed(peer, hold, offset, is_stale));
            }
        }
    }

    /// Something reaches a peer: at once, when it wakes, or never.
    fn arrive(&mut self, peer: usize, event: Event) {
        if self.peers[peer].is_cut {
            return;
        }
        match self.peers[peer].health {
            Health::Well => {}
            Health::Frozen => return self.inbox.entry(peer).or_default().push(event),
            Health::Gone => return,
        }
        let now = self.now;
        match event {
            Event::Answer(_, sequence, answer) => {
                self.note(sequence << 16 ^ peer as u64);
                let answered = member::Input::Answered(sequence, answer);
                self.peers[peer].member.handle(now, answered);
            }
            Event::Committed(_, hold, offset, is_stale) => {
                self.peers[peer].committed(now, hold, offset, is_stale);
            }
            other => panic!("{other:?} goes to no peer"),
        }
        self.drain(peer);
    }

    /// Takes everything a member has to say.
    fn drain(&mut self, peer: usize) {
        if self.peers[peer].health != Health::Well {
            return;
        }
        while let Some(output) = self.peers[peer].member.poll(self.now) {
            match &output {
                Sent::Join(_) | Sent::Heartbeat(_) | Sent::Leave(..) => {
                    self.send(peer, Event::Request(peer, output.clone()));
                }
                Sent::Granted(grant) => self.granted(peer, grant),
                _ => {}
            }
            self.peers[peer].told(&output);
        }
        let next = self.peers[peer].member.next_timer();
        let scheduled = self.peers[peer].poll_at;
        if let Some(at) = next.filter(|at| scheduled.is_none_or(|poll| *at < poll)) {
            let at = at.max(self.now);
            self.peers[peer].poll_at = Some(at);
            self.at(at, Event::Poll(peer));
        }
    }

    fn granted(&mut self, peer: usize, grant: &GroupGrant) {
        let GroupHold { partition, epoch } = grant.hold;
        let holder = *self.granted.entry((partition, epoch)).or_insert(peer);
        assert_eq!(holder, peer, "{partition} under {epoch} has two holders");
        let latest = self.writer.latest.get(&partition).copied();
        assert!(
            Some(epoch) <= latest,
            "{partition} under {epoch} was granted before its fence was durable"
        );
        if self.writer.fence(partition) == epoch {
            let committed = self.writer.offset(partition);
            assert_eq!(
                grant.committed, committed,
                "{partition} under {epoch} starts elsewhere"
            );
        }
        let place = u64::from(partition.topic.0) << 40 ^ u64::from(partition.partition.0) << 32;
        self.note(place ^ epoch.0);
    }

    fn work(&mut self, peer: usize) {
        if self.peers[peer].health == Health::Gone || self.peers[peer].end.is_some() {
            return;
        }
        let again = self.now + self.random.u64(50..300);
        self.at(again, Event::Work(peer));
        if self.peers[peer].health == Health::Frozen {
            return;
        }
        let records = self.random.u64(0..3);
        for done in self.peers[peer].work(self.now, records) {
            match done {
                Done::Handled(hold, offset) => self.writer.handle(hold, offset),
                Done::Commit(hold, offset) => self.send(peer, Event::Commit(peer, hold, offset)),
            }
        }
        self.drain(peer);
    }
}

// What happens to the world from outside.
impl World {
    /// Starts a process, under an instance name or none.
    pub(super) fn start(&mut self, instance: Option<String>) {
        let wish = Wants {
            instance,
            ..self.some_wish()
        };
        let number = self.peers.len();
        let peer = Peer::new(number as u128 + 1, self.now, wish);
        self.peers.push(peer);
        self.drain(number);
        self.at(self.now, Event::Work(number));
    }

    fn some_wish(&mut self) -> Wants {
        let patterns: &[&[&str]] = &[
            &["orders.>"],
            &["orders.*"],
            &["orders.eu"],
            &["orders.eu.>", "pay.*"],
            &[">"],
        ];
        let (which, is_range) = match self.is_uniform {
            true => (0, self.session_ms == 3000),
            false => (
                self.random.usize(0..patterns.len()),
                self.random.u8(0..3) == 0,
            ),
        };
        let assignors = [AssignorKind::Sticky, AssignorKind::Range];
        Wants {
            instance: None,
            patterns: patterns[which]
                .iter()
                .map(|text| (*text).to_owned())
                .collect(),
            assignor: assignors[usize::from(is_range)],
            session_ms: self.session_ms,
        }
    }

    pub(super) fn trouble(&mut self) {
        for _ in 0..14 {
            let ms = self.random.u64(0..self.session_ms * 3 / 2);
            self.run(ms);
            self.fault();
        }
        let ms = self.random.u64(0..self.session_ms * 2);
        self.run(ms);
    }

    fn fault(&mut self) {
        let alive = |(_, peer): &(usize, &Peer)| peer.health != Health::Gone && peer.end.is_none();
        let alive: Vec<usize> = self
            .peers
            .iter()
            .enumerate()
            .filter(alive)
            .map(|(n, _)| n)
            .collect();
        let some = self.random.choice(alive).unwrap_or(0);
        let what = self.random.u32(0..20);
        self.note(u64::from(what));
        match what {
            0..=3 => {
                let number = self.random.u32(0..6);
                self.start((number < 3).then(|| format!("i{number}")));
            }
            4 => self.crash(some),
            5 => {
                let instance = self.peers[some].wish.instance.clone();
                self.crash(some);
                self.start(instance);
            }
            6 | 7 if self.peers[some].health == Health::Frozen => self.wake(some),
            6 | 7 if self.peers[some].health == Health::Well => {
                self.peers[some].health = Health::Frozen;
                self.disturb(some, self.now);
            }
            8 | 9 => {
                self.peers[some].is_cut = !self.peers[some].is_cut;
                self.disturb(some, self.now);
            }
            10 | 11 => self.peers[some].is_stalled = !self.peers[some].is_stalled,
            12 if self.peers[some].is_running() => {
                self.peers[some].is_leaving = true;
                self.disturb(some, self.now);
                self.peers[some]
                    .member
                    .handle(self.now, member::Input::Leave);
                self.drain(some);
            }
            13 | 14 => self.restart(),
            15 => self.change_topics(),
            16 | 17 => {
                let ids: Vec<PartitionId> = self.writer.fences.keys().copied().collect();
                let offset = self.random.u64(0..40);
                if let Some(id) = self.random.choice(ids).filter(|_| self.is_up) {
                    self.job(Job::Reset(id, offset));
                }
            }
            18 if self.is_up => self.job(Job::Delete),
            19 if self.peers[some].is_running() && !self.is_uniform => {
                let instance = self.peers[some].wish.instance.clone();
                let wish = Wants {
                    instance,
                    ..self.some_wish()
                };
                self.peers[some].patterns = patterns(&wish);
                self.peers[some].wish = wish.clone();
                self.disturb(some, self.now);
                self.peers[some]
                    .member
                    .handle(self.now, member::Input::Wish(wish));
                self.drain(some);
            }
            _ => {}
        }
    }

    fn crash(&mut self, peer: usize) {
        self.peers[peer].health = Health::Gone;
        self.peers[peer].reads.clear();
        self.disturb(peer, self.now);
    }

    fn wake(&mut self, peer: usize) {
        self.peers[peer].health = Health::Well;
        self.peers[peer].poll_at = None;
        self.disturb(peer, self.now);
        for event in self.inbox.remove(&peer).unwrap_or_default() {
            self.at(self.now, event);
        }
        self.at(self.now, Event::Work(peer));
    }

    /// The broker dies and comes back later.
    fn restart(&mut self) {
        if !self.is_up {
            return;
        }
        (self.is_up, self.tick_at) = (false, None);
        self.life += 1;
        for call in std::mem::take(&mut self.calls).into_values() {
            let failed = Event::Answer(call.peer, call.sequence, Answer::Failed);
            self.send(call.peer, failed);
        }
        let at = self.now + self.random.u64(0..2 * self.session_ms);
        self.at(at, Event::Up);
    }

    fn change_topics(&mut self) {
        let place = self.random.usize(0..self.topics.len().max(1));
        match self.random.u32(0..4) {
            0 if self.topics.len() > 1 => {
                let (id, ..) = self.topics.remove(place);
                self.writer.delete_topic(falcon_protocol::TopicId(id));
            }
            1 => self.topics[place].2 += self.random.u32(1..4),
            _ => {
                let is_new = |name: &&str| self.topics.iter().all(|(_, other, _)| other != name);
                let Some(name) = NAMES.into_iter().find(is_new) else {
                    return;
                };
                self.topics_made += 1;
                self.topics
                    .push((self.topics_made, name, self.random.u32(1..5)));
            }
        }
        self.catalog = catalog(&self.topics);
        if self.is_up {
            self.feed(Input::Catalog(Arc::clone(&self.catalog)));
        }
    }

    /// No more faults: it must settle.
    pub(super) fn quiet(&mut self) {
        self.faults = Faults::default();
        for peer in 0..self.peers.len() {
            (self.peers[peer].is_cut, self.peers[peer].is_stalled) = (false, false);
            if self.peers[peer].health == Health::Frozen {
                self.wake(peer);
            }
            self.disturb(peer, self.now);
        }
        self.start(None);
        while !self.is_up {
            self.run(WATCH_MS);
        }
        self.run(2 * self.session_ms + 5000);
        self.settled();
        let changes = self.writer.changes;
        self.run(self.session_ms);
        assert_eq!(
            self.writer.changes, changes,
            "something moves without a reason"
        );
    }
}

fn sequence(sent: &Sent) -> u64 {
    match sent {
        Sent::Join(join) => join.report.sequence,
        Sent::Heartbeat(report) => report.sequence,
        Sent::Leave(sequence, _) => *sequence,
        other => panic!("{other:?} is no request"),
    }
}

fn report(told: &GroupReport) -> Report {
    let holds = told.holds.iter().map(|hold| Hold {
        partition: hold.partition,
        epoch: hold.epoch,
    });
    Report {
        group: told.group.clone(),
        member: told.member,
        sequence: told.sequence,
        seen: told.seen,
        holds: holds.collect(),
    }
}

fn wish(wants: &Wants) -> Wish {
    Wish {
        instance: wants.instance.clone(),
        patterns: patterns(wants),
        assignor: match wants.assignor {
            AssignorKind::Sticky => Assignor::Sticky,
            AssignorKind::Range => Assignor::Range,
        },
        session_ms: wants.session_ms,
    }
}

fn answer(reply: Reply) -> Answer {
    let hold = |hold: Hold| GroupHold {
        partition: hold.partition,
        epoch: hold.epoch,
    };
    match reply {
        Reply::News(news) => Answer::News(GroupNews {
            sequence: news.sequence,
            generation: news.generation,
            lost: news.lost.into_iter().map(hold).collect(),
            revoked: news.revoked.into_iter().map(hold).collect(),
            granted: news
                .granted
                .into_iter()
                .map(|grant| GroupGrant {
                    hold: hold(grant.hold),
                    topic: String::new(),
                    committed: grant.committed,
                })
                .collect(),
        }),
        Reply::UnknownMember => Answer::UnknownMember,
        Reply::InstanceTaken => Answer::InstanceTaken,
        Reply::Superseded => Answer::Superseded,
        Reply::Left => Answer::Left,
        Reply::Refused(error) => panic!("{error}"),
    }
}

/// The peer of a member.
pub(super) fn peer_of(id: MemberId) -> usize {
    usize::try_from(id.0).expect("small") - 1
}
