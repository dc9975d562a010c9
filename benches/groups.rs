//! What a rebalance costs the coordinator and the members together: 100 members, 1,000 partitions, a
//! network and a writer that take no time.
//!
//! `cargo bench --bench groups`. One iteration is a join of one more member and its leave, each until
//! nothing is left to do.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    reason = "a bench fails by panicking"
)]

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use falcon::catalog::{Catalog, Topic};
use falcon::group::assign::Assignor;
use falcon::group::coordinator::{
    self as broker, Coordinator, Hold, News, Reply, Report, Ticket, Times,
};
use falcon_client::member::{Answer, Input, Member, Output, Wish};
use falcon_protocol::message::{
    AssignorKind, GroupGrant, GroupHold, GroupNews, GroupReport, TopicConfig,
};
use falcon_protocol::{MemberId, TopicId};

const MEMBERS: u128 = 100;
const TOPICS: u32 = 10;
const PARTITIONS: u32 = 100;
const SESSION_MS: u64 = 10_000;

struct Group {
    coordinator: Coordinator,
    members: BTreeMap<u128, Member>,
    calls: BTreeMap<Ticket, (u128, u64)>,
    tickets: u64,
    todo: VecDeque<broker::Input>,
}

impl Group {
    fn new() -> Self {
        let mut catalog = Catalog::default();
        for id in 1..=TOPICS {
            catalog.put(Topic {
                id: TopicId(id),
                name: format!("orders.{id}"),
                partitions: PARTITIONS,
                config: TopicConfig::default(),
                created_ms: 0,
            });
        }
        let mut group = Self {
            coordinator: Coordinator::new(Times::default(), Arc::new(catalog), []),
            members: BTreeMap::new(),
            calls: BTreeMap::new(),
            tickets: 0,
            todo: VecDeque::new(),
        };
        (1..=MEMBERS).for_each(|id| group.join(id));
        group
    }

    fn join(&mut self, id: u128) {
        let wish = Wish {
            instance: None,
            patterns: vec!["orders.>".into()],
            assignor: AssignorKind::Sticky,
            session_ms: SESSION_MS,
        };
        self.members
            .insert(id, Member::new("g", MemberId(id), wish));
        self.settle(id);
    }

    fn leave(&mut self, id: u128) {
        let member = self.members.get_mut(&id).unwrap();
        member.handle(0, Input::Leave);
        self.settle(id);
        self.members.remove(&id);
    }

    fn settle(&mut self, id: u128) {
        self.drain(id);
        while let Some(input) = self.todo.pop_front() {
            for output in self.coordinator.handle(0, input) {
                match output {
                    broker::Output::Answer(ticket, reply) => self.answer(ticket, reply),
                    broker::Output::Fence(name, holds) => {
                        let fenced = |hold| broker::Input::Fenced(name.clone(), hold, None);
                        self.todo.extend(holds.into_iter().map(fenced));
                    }
                }
            }
        }
    }

    fn answer(&mut self, ticket: Ticket, reply: Reply) {
        let (id, sequence) = self.calls.remove(&ticket).unwrap();
        let answer = match reply {
            Reply::News(news) => Answer::News(wire(news)),
            Reply::Left => Answer::Left,
            Reply::Superseded => Answer::Superseded,
            other => panic!("{other:?}"),
        };
        let member = self.members.get_mut(&id).unwrap();
        member.handle(0, Input::Answered(sequence, answer));
        self.drain(id);
    }

    fn drain(&mut self, id: u128) {
        let member = self.members.get_mut(&id).unwrap();
        while let Some(output) = member.poll(0) {
            self.tickets += 1;
            let ticket = Ticket(self.tickets);
            let (sequence, input) = match output {
                Output::Join(join) => {
                    let patterns = join.patterns.iter().map(|text| text.parse().unwrap());
                    let wish = broker::Wish {
                        instance: None,
                        patterns: patterns.collect(),
                        assignor: Assignor::Sticky,
                        session_ms: join.session_ms,
                    };
                    let sequence = join.report.sequence;
                    (
                        sequence,
                        broker::Input::Join(ticket, report(join.report), wish),
                    )
                }
                Output::Heartbeat(told) => {
                    let sequence = told.sequence;
                    (sequence, broker::Input::Heartbeat(ticket, report(told)))
                }
                Output::Leave(sequence, leave) => {
                    let input = broker::Input::Leave(ticket, leave.group, leave.member);
                    (sequence, input)
                }
                Output::Revoke(hold) => {
                    member.handle(0, Input::Released(hold));
                    continue;
                }
                _ => continue,
            };
            self.calls.insert(ticket, (id, sequence));
            self.todo.push_back(input);
        }
    }
}

fn report(told: GroupReport) -> Report {
    let hold = |hold: GroupHold| Hold {
        partition: hold.partition,
        epoch: hold.epoch,
    };
    Report {
        group: told.group,
        member: told.member,
        sequence: told.sequence,
        seen: told.seen,
        holds: told.holds.into_iter().map(hold).collect(),
    }
}

fn wire(news: News) -> GroupNews {
    let hold = |hold: Hold| GroupHold {
        partition: hold.partition,
        epoch: hold.epoch,
    };
    let grant = |grant: broker::Grant| GroupGrant {
        hold: hold(grant.hold),
        topic: String::new(),
        committed: grant.committed,
    };
    GroupNews {
        sequence: news.sequence,
        generation: news.generation,
        lost: news.lost.into_iter().map(hold).collect(),
        revoked: news.revoked.into_iter().map(hold).collect(),
        granted: news.granted.into_iter().map(grant).collect(),
    }
}

fn groups(criterion: &mut Criterion) {
    let mut group = Group::new();
    let (least, most) = shares(&group);
    assert!(most - least <= 1, "{least} to {most}");
    let mut next = MEMBERS;
    criterion.bench_function(
        "groups/one of 100 joins and leaves 1,000 partitions",
        |bencher| {
            bencher.iter(|| {
                next += 1;
                group.join(next);
                group.leave(next);
                black_box(&group.members).len()
            });
        },
    );
    criterion.bench_function("groups/100 join, one after the other", |bencher| {
        bencher.iter(|| black_box(Group::new()).members.len());
    });
}

fn shares(group: &Group) -> (usize, usize) {
    let shares = group.members.values().map(|member| member.holds().count());
    let shares: Vec<usize> = shares.collect();
    (*shares.iter().min().unwrap(), *shares.iter().max().unwrap())
}

criterion_group!(benches, groups);
criterion_main!(benches);
