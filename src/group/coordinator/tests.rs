mod sim;

use falcon_protocol::message::TopicConfig;
use falcon_protocol::{Offset, TopicId};

use super::*;
use crate::catalog::Topic;
use crate::group::assign::Assignor;

const SESSION: u64 = 6000;
const ROUND_MS: u64 = 20;

fn catalog(topics: &[(u32, &str, u32)]) -> Arc<Catalog> {
    let mut catalog = Catalog::default();
    for (id, name, partitions) in topics {
        catalog.put(Topic {
            id: TopicId(*id),
            name: (*name).into(),
            partitions: *partitions,
            config: TopicConfig::default(),
            created_ms: 0,
        });
    }
    Arc::new(catalog)
}

#[derive(Default)]
struct Peer {
    instance: Option<String>,
    is_joined: bool,
    is_frozen: bool,
    /// Its handlers hang, so it gives nothing up; its heartbeats go on.
    is_stuck: bool,
    is_out: bool,
    sequence: u64,
    seen: u64,
    waits_since: Option<u64>,
    holds: BTreeMap<PartitionId, OwnerEpoch>,
    revoked: Vec<PartitionId>,
}

/// The coordinator, members, and what the writer knows, on a network that loses and reorders.
struct World {
    random: fastrand::Rng,
    now: u64,
    loss_percent: u32,
    fence_ms: u64,
    catalog: Arc<Catalog>,
    coordinator: Coordinator,
    peers: BTreeMap<MemberId, Peer>,
    fences: BTreeMap<PartitionId, OwnerEpoch>,
    committed: BTreeMap<PartitionId, u64>,
    fencing: Vec<(u64, Hold)>,
    mail: Vec<(u64, Mail)>,
    tickets: u64,
    callers: BTreeMap<Ticket, MemberId>,
    trace: u64,
}

#[derive(Debug, Clone)]
enum Mail {
    To(Input),
    Back(MemberId, Reply),
}

impl World {
    fn new(seed: u64, topics: &[(u32, &str, u32)]) -> Self {
        let catalog = catalog(topics);
        Self {
            random: fastrand::Rng::with_seed(seed),
            now: 1000,
            loss_percent: 0,
            fence_ms: 10,
            coordinator: Coordinator::new(Times::default(), Arc::clone(&catalog), []),
            catalog,
            peers: BTreeMap::new(),
            fences: BTreeMap::new(),
            committed: BTreeMap::new(),
            fencing: Vec::new(),
            mail: Vec::new(),
            tickets: 0,
            callers: BTreeMap::new(),
            trace: 0,
        }
    }

    fn add(&mut self, id: u128, instance: Option<&str>) {
        let instance = instance.map(str::to_owned);
        let peer = Peer {
            instance,
            ..Peer::default()
        };
        self.peers.insert(MemberId(id), peer);
    }

    fn post(&mut self, mail: Mail) {
        if self.random.u32(0..100) < self.loss_percent {
            return;
        }
        let slow = if self.loss_percent > 0 { 300 } else { 10 };
        if self.random.u32(0..100) < self.loss_percent && matches!(mail, Mail::Back(..)) {
            self.mail
                .push((self.now + self.random.u64(0..slow), mail.clone()));
        }
        self.mail.push((self.now + self.random.u64(0..slow), mail));
    }

    fn restart(&mut self) {
        self.fencing.clear();
        self.mail.clear();
        self.callers.clear();
        for peer in self.peers.values_mut() {
            peer.waits_since = None;
        }
        let fences = self
            .fences
            .iter()
            .map(|(id, epoch)| ("g".to_owned(), *id, *epoch));
        self.coordinator = Coordinator::new(Times::default(), Arc::clone(&self.catalog), fences);
    }

    fn feed(&mut self, input: Input) {
        for output in self.coordinator.handle(self.now, input) {
            match output {
                Output::Answer(ticket, reply) => {
                    let member = self.callers.remove(&ticket).expect("answered once");
                    self.post(Mail::Back(member, reply));
                }
                Output::Fence(_, fences) => {
                    let at = self.now + self.random.u64(0..=self.fence_ms);
                    self.fencing
                        .extend(fences.into_iter().map(|hold| (at, hold)));
                }
            }
        }
    }

    fn round(&mut self) {
        self.now += ROUND_MS;
        let now = self.now;
        let due: Vec<Hold> = self
            .fencing
            .extract_if(.., |(at, _)| *at <= now)
            .map(|(_, h)| h)
            .collect();
        for hold in due {
            if self.loss_percent > 0 && self.random.u32(0..10) == 0 {
                let fence = self
                    .fences
                    .get(&hold.partition)
                    .copied()
                    .unwrap_or_default();
                self.feed(Input::FenceRefused("g".into(), hold, fence));
                continue;
            }
            self.fences.insert(hold.partition, hold.epoch);
            let committed = self.committed.get(&hold.partition).copied().map(Offset);
            self.feed(Input::Fenced("g".into(), hold, committed));
        }
        let mut due: Vec<Mail> = self
            .mail
            .extract_if(.., |(at, _)| *at <= now)
            .map(|(_, m)| m)
            .collect();
        self.random.shuffle(&mut due);
        for mail in due {
            match mail {
                Mail::To(input) => self.feed(input),
                Mail::Back(member, reply) => self.take_in(member, reply),
            }
        }
        if self.coordinator.next_timer().is_some_and(|at| at <= now) {
            self.feed(Input::Tick);
            assert!(
                self.coordinator.next_timer().is_none_or(|at| at > now),
                "a timer spins"
            );
        }
        let ids: Vec<MemberId> = self.peers.keys().copied().collect();
        for id in ids {
            self.act(id);
        }
        self.check();
    }

    fn take_in(&mut self, id: MemberId, reply: Reply) {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| !peer.is_frozen) else {
            return;
        };
        match reply {
            Reply::News(news) if news.sequence == peer.sequence => {
                (peer.seen, peer.is_joined, peer.waits_since) = (news.sequence, true, None);
                for lost in news.lost {
                    peer.holds.remove(&lost.partition);
                }
                peer.revoked
                    .extend(news.revoked.iter().map(|hold| hold.partition));
                for grant in news.granted {
                    let Hold { partition, epoch } = grant.hold;
                    peer.holds.insert(partition, epoch);
                    peer.revoked.retain(|revoked| *revoked != partition);
                    if self.fences.get(&partition) == Some(&epoch) {
                        let committed = self.committed.get(&partition).copied().map(Offset);
                        assert_eq!(grant.committed, committed, "{partition} starts elsewhere");
                    }
                }
            }
            Reply::UnknownMember => (peer.is_joined, peer.waits_since) = (false, None),
            Reply::InstanceTaken => peer.is_out = true,
            Reply::News(_) | Reply::Superseded | Reply::Left => {}
            Reply::Refused(error) => panic!("{error}"),
        }
    }

    fn act(&mut self, id: MemberId) {
        let Some(peer) = self
            .peers
            .get_mut(&id)
            .filter(|p| !p.is_frozen && !p.is_out)
        else {
            return;
        };
        for (partition, epoch) in &peer.holds {
            if self.fences.get(partition) == Some(epoch) {
                *self.committed.entry(*partition).or_default() += 1;
            }
        }
        let is_late = |since| self.now > since + SESSION * 5 / 12;
        let mut is_due = peer.waits_since.is_none_or(is_late);
        if !peer.is_stuck {
            for partition in peer.revoked.drain(..) {
                is_due |= peer.holds.remove(&partition).is_some();
            }
        }
        if !is_due {
            return;
        }
        peer.sequence += 1;
        peer.waits_since = Some(self.now);
        let holds = peer.holds.iter().map(|(partition, epoch)| Hold {
            partition: *partition,
            epoch: *epoch,
        });
        let report = Report {
            group: "g".into(),
            member: id,
            sequence: peer.sequence,
            seen: peer.seen,
            holds: holds.collect(),
        };
        let wish = Wish {
            instance: peer.instance.clone(),
            patterns: vec!["orders.>".parse().expect("a pattern")],
            assignor: Assignor::Sticky,
            session_ms: SESSION,
        };
        let is_joined = peer.is_joined;
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.callers.insert(ticket, id);
        let join = Input::Join(ticket, report.clone(), wish);
        self.post(Mail::To(if is_joined {
            Input::Heartbeat(ticket, report)
        } else {
            join
        }));
    }

    fn check(&mut self) {
        let mut grants = BTreeSet::new();
        for (member, peer) in &self.peers {
            for (partition, epoch) in &peer.holds {
                assert!(
                    grants.insert((partition, epoch)),
                    "{partition} is owned twice"
                );
                let fence = self.fences.get(partition).copied().unwrap_or_default();
                assert!(
                    *epoch <= fence,
                    "{partition} was granted before its fence was durable"
                );
                let place = u64::from(partition.partition.0) << 32;
                let seen = place ^ epoch.0 ^ u64::from(member.0.trailing_zeros());
                self.trace = self.trace.rotate_left(5).wrapping_mul(31) ^ seen;
            }
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.round();
        }
    }

    /// How many partitions each member holds under the fence in force.
    fn shares(&self) -> Vec<usize> {
        let is_owner =
            |(id, epoch): &(&PartitionId, &OwnerEpoch)| self.fences.get(*id) == Some(*epoch);
        let peers = self.peers.values();
        peers
            .map(|peer| peer.holds.iter().filter(is_owner).count())
            .collect()
    }
}

#[test]
fn members_share_and_a_silent_one_is_replaced_within_its_session_and_a_second() {
    let mut world = World::new(1, &[(1, "orders.eu", 9), (2, "other", 5)]);
    world.add(1, None);
    world.run(500);
    assert_eq!(world.shares(), [9]);
    world.add(2, None);
    world.add(3, None);
    world.run(500);
    assert_eq!(world.shares(), [3, 3, 3]);
    world.peers.remove(&MemberId(2));
    world.run(SESSION + 1000);
    let mut shares = world.shares();
    shares.sort_unstable();
    assert_eq!(shares, [4, 5]);
}

#[test]
fn a_stuck_member_holds_up_only_what_moves_and_not_for_ever() {
    let mut world = World::new(2, &[(1, "orders.eu", 8)]);
    world.add(1, None);
    world.run(500);
    world.peers.get_mut(&MemberId(1)).expect("there").is_stuck = true;
    world.add(2, None);
    world.run(1000);
    assert_eq!(world.shares(), [8, 0]);
    let standings = world.coordinator.standings("g");
    let giving_up = standings
        .iter()
        .filter(|(_, s)| matches!(s, Standing::GivingUp { .. }));
    assert_eq!(giving_up.count(), 4);
    world.run(Times::default().revoke_ms);
    assert_eq!(world.shares(), [4, 4]);
}

#[test]
fn a_restart_moves_nothing_from_who_comes_back() {
    let mut world = World::new(3, &[(1, "orders.eu", 9)]);
    (1..=3).for_each(|id| world.add(id, None));
    world.run(1000);
    let fences = world.fences.clone();
    world.restart();
    // The other two come back when the first has joined already.
    for id in [2, 3] {
        world.peers.get_mut(&MemberId(id)).expect("there").is_frozen = true;
    }
    world.run(1000);
    world
        .peers
        .values_mut()
        .for_each(|peer| peer.is_frozen = false);
    world.run(5000);
    assert_eq!(world.fences, fences);
    assert_eq!(world.shares(), [3, 3, 3]);
}

#[test]
fn an_instance_that_restarts_takes_its_place_and_the_old_one_is_out() {
    let mut world = World::new(4, &[(1, "orders.eu", 9)]);
    (1..=3).for_each(|id| world.add(id, Some(&format!("i{id}"))));
    world.run(1000);
    let before = world.peers.clone_holds();
    world.add(9, Some("i2"));
    world.run(1000);
    assert!(world.peers[&MemberId(2)].is_out);
    let after = world.peers.clone_holds();
    for id in [1, 3] {
        assert_eq!(
            before[&MemberId(id)],
            after[&MemberId(id)],
            "others are not disturbed"
        );
    }
    let partitions =
        |holds: &BTreeMap<PartitionId, OwnerEpoch>| holds.keys().copied().collect::<Vec<_>>();
    assert_eq!(
        partitions(&after[&MemberId(9)]),
        partitions(&before[&MemberId(2)])
    );
}

trait CloneHolds {
    fn clone_holds(&self) -> BTreeMap<MemberId, BTreeMap<PartitionId, OwnerEpoch>>;
}

impl CloneHolds for BTreeMap<MemberId, Peer> {
    fn clone_holds(&self) -> BTreeMap<MemberId, BTreeMap<PartitionId, OwnerEpoch>> {
        self.iter()
            .map(|(id, peer)| (*id, peer.holds.clone()))
            .collect()
    }
}

#[test]
fn new_topics_are_picked_up_and_deleted_ones_dropped() {
    let mut world = World::new(5, &[(1, "orders.eu", 4)]);
    world.add(1, None);
    world.run(500);
    world.catalog = catalog(&[(2, "orders.us", 6)]);
    let changed = Input::Catalog(Arc::clone(&world.catalog));
    world.feed(changed);
    world.run(500);
    let held = world.peers[&MemberId(1)].holds.keys();
    assert_eq!(held.filter(|id| id.topic == TopicId(2)).count(), 6);
    assert_eq!(world.coordinator.standings("g").len(), 6);
}

/// A run with all kinds of trouble, then quiet; the trace.
fn troubled(seed: u64) -> u64 {
    let mut world = World::new(seed, &[(1, "orders.eu", 5), (2, "orders.us", 3)]);
    world.loss_percent = world.random.u32(1..20);
    world.fence_ms = world.random.u64(1..800);
    let mut next = 1;
    for _ in 0..12 {
        let some = world.peers.keys().copied().collect::<Vec<_>>();
        let some = world.random.choice(&some).copied();
        match (
            world.random.u32(0..8),
            some.and_then(|id| world.peers.get_mut(&id)),
        ) {
            (0..=2, _) | (_, None) => {
                let instance = world.random.u32(0..4);
                let name = format!("i{instance}");
                world.add(next, (instance < 2).then_some(name.as_str()));
                next += 1;
            }
            (3, _) => drop(world.peers.remove(&some.expect("one is there"))),
            (4, Some(peer)) => peer.is_frozen = !peer.is_frozen,
            (5, Some(peer)) => peer.is_stuck = !peer.is_stuck,
            (_, _) => world.restart(),
        }
        let ms = world.random.u64(0..2 * SESSION);
        world.run(ms);
    }
    world.loss_percent = 0;
    world.add(next, None);
    for peer in world.peers.values_mut() {
        (peer.is_frozen, peer.is_stuck) = (false, false);
    }
    world.run(2 * SESSION + Times::default().revoke_ms + 3000);
    world.peers.retain(|_, peer| !peer.is_out);
    let shares = world.shares();
    assert_eq!(shares.iter().sum::<usize>(), 8, "{shares:?}");
    let (most, least) = (shares.iter().max(), shares.iter().min());
    assert!(
        most.zip(least)
            .is_some_and(|(most, least)| most - least <= 1),
        "{shares:?}"
    );
    world.trace
}

#[test]
fn trouble_of_all_kinds_ends_with_one_owner_each_and_equal_shares() {
    for seed in 0..60 {
        if let Err(panic) = std::panic::catch_unwind(|| troubled(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
    assert_eq!(troubled(7), troubled(7), "the same seed, the same trace");
}

#[test]
fn a_claim_under_an_older_fence_is_lost() {
    let mut world = World::new(6, &[(1, "orders.eu", 1)]);
    let partition = PartitionId::new(1, 0);
    world.fences.insert(partition, OwnerEpoch(5));
    world.restart();
    world.add(1, None);
    let peer = world.peers.get_mut(&MemberId(1)).expect("there");
    peer.holds.insert(partition, OwnerEpoch(4));
    world.run(1000);
    assert!(world.peers[&MemberId(1)].holds.is_empty());
    world.run(2000);
    assert_eq!(world.shares(), [1]);
}

#[test]
fn who_lost_its_instance_name_cannot_take_it_back() {
    let mut world = World::new(7, &[(1, "orders.eu", 1)]);
    world.add(1, Some("i"));
    world.run(500);
    world.add(2, Some("i"));
    world.run(500);
    let old = world.peers.get_mut(&MemberId(1)).expect("there");
    (old.is_out, old.is_joined, old.waits_since) = (false, false, None);
    world.run(500);
    assert!(world.peers[&MemberId(1)].is_out);
    assert!(!world.peers[&MemberId(2)].is_out);
}

fn wish() -> Wish {
    Wish {
        instance: None,
        patterns: vec![">".parse().expect("a pattern")],
        assignor: Assignor::Sticky,
        session_ms: SESSION,
    }
}

fn report(member: u128, sequence: u64, seen: u64, holds: &[Hold]) -> Report {
    Report {
        group: "g".into(),
        member: MemberId(member),
        sequence,
        seen,
        holds: holds.to_vec(),
    }
}

/// The answer to one ticket, the fences that were asked for.
fn sorted(outputs: Vec<Output>, ticket: u64) -> (Option<News>, Vec<Hold>) {
    let (mut answer, mut fences) = (None, Vec::new());
    for output in outputs {
        match output {
            Output::Answer(to, Reply::News(news)) if to == Ticket(ticket) => answer = Some(news),
            Output::Answer(..) => {}
            Output::Fence(_, holds) => fences.extend(holds),
        }
    }
    (answer, fences)
}

/// A coordinator whose member 1 is granted everything in the answer to its request 1.
fn granted(topics: &[(u32, &str, u32)]) -> (Coordinator, News) {
    let mut coordinator = Coordinator::new(Times::default(), catalog(topics), []);
    let join = Input::Join(Ticket(1), report(1, 1, 0, &[]), wish());
    let (_, fences) = sorted(coordinator.handle(0, join), 1);
    for hold in fences {
        coordinator.handle(0, Input::Fenced("g".into(), hold, None));
    }
    let beat = Input::Heartbeat(Ticket(2), report(1, 2, 1, &[]));
    let (news, _) = sorted(coordinator.handle(0, beat), 2);
    (coordinator, news.expect("grants are news"))
}

#[test]
fn what_was_missed_and_is_revoked_already_is_not_granted_again() {
    let (mut coordinator, news) = granted(&[(1, "a", 2)]);
    assert_eq!(news.granted.len(), 2);
    // That answer is lost, and half of it shall be another's.
    coordinator.handle(1, Input::Join(Ticket(3), report(2, 1, 0, &[]), wish()));
    let beat = Input::Heartbeat(Ticket(4), report(1, 3, 1, &[]));
    let (again, fences) = sorted(coordinator.handle(2, beat), 4);
    let again = again.expect("what was missed is news");
    assert_eq!((again.granted.len(), again.revoked.len()), (1, 0));
    assert_eq!(fences.len(), 1, "the other is free at once");
}

#[test]
fn what_does_not_fit_into_an_answer_is_in_the_next_at_once() {
    use falcon_protocol::limits::NEWS_GRANTS_MAX;
    let (mut coordinator, news) = granted(&[(1, "a", 4096), (2, "b", 100)]);
    assert_eq!(news.granted.len(), NEWS_GRANTS_MAX);
    let holds: Vec<Hold> = news.granted.iter().map(|grant| grant.hold).collect();
    let beat = Input::Heartbeat(Ticket(3), report(1, 3, 2, &holds));
    let (rest, fences) = sorted(coordinator.handle(1, beat), 3);
    assert_eq!(rest.expect("at once").granted.len(), 100);
    assert!(fences.is_empty());
}

#[test]
fn a_raised_fence_takes_a_partition_from_its_owner_and_it_is_granted_anew() {
    let (mut coordinator, news) = granted(&[(1, "a", 2)]);
    let holds: Vec<Hold> = news.granted.iter().map(|grant| grant.hold).collect();
    coordinator.handle(1, Input::Heartbeat(Ticket(3), report(1, 3, 2, &holds)));
    let raised = Hold {
        epoch: OwnerEpoch(50),
        ..holds[0]
    };
    let raise = Input::Raised("g".into(), vec![raised]);
    let (told, fences) = sorted(coordinator.handle(2, raise), 3);
    assert_eq!(told.expect("at once").lost, [holds[0]]);
    assert_eq!((fences.len(), fences[0].partition), (1, holds[0].partition));
    assert!(fences[0].epoch > OwnerEpoch(50));
}

#[test]
fn a_deleted_group_loses_everything_and_never_gets_an_old_epoch() {
    let (mut coordinator, news) = granted(&[(1, "a", 2)]);
    let holds: Vec<Hold> = news.granted.iter().map(|grant| grant.hold).collect();
    coordinator.handle(1, Input::Heartbeat(Ticket(3), report(1, 3, 2, &holds)));
    let (told, fences) = sorted(coordinator.handle(2, Input::Deleted("g".into())), 3);
    assert_eq!(told.expect("at once").lost, holds);
    let is_newer = |fence: &Hold| holds.iter().all(|hold| hold.epoch < fence.epoch);
    assert!(
        fences.len() == 2 && fences.iter().all(is_newer),
        "{fences:?}"
    );
    // Without members nothing is remembered; the floor comes from the writer.
    coordinator.handle(3, Input::Leave(Ticket(4), "g".into(), MemberId(1)));
    coordinator.handle(3, Input::Deleted("g".into()));
    assert!(coordinator.standings("g").is_empty());
    let join = Input::Join(Ticket(5), report(9, 1, 0, &[]), wish());
    let (_, fences) = sorted(coordinator.handle(4, join), 5);
    let floor = OwnerEpoch(77);
    let refused = Input::FenceRefused("g".into(), fences[0], floor);
    let (_, again) = sorted(coordinator.handle(5, refused), 5);
    assert!(again[0].epoch > floor, "{again:?}");
}
