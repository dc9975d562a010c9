//! A member of a group that does what it is told at once.

use std::collections::BTreeMap;

use falcon_protocol::message::*;
use falcon_protocol::*;

use crate::broker::Broker;
use crate::peer::Peer;

/// Silent for longer than this it is let go, and an answer takes a third of it at most.
const SESSION_MS: u64 = 3000;
/// Rounds of requests until something must have come true: more than all deadlines together.
const ROUNDS_MAX: usize = 60;

pub(crate) struct Member {
    pub(crate) peer: Peer,
    pub(crate) group: String,
    pub(crate) id: MemberId,
    pub(crate) instance: Option<String>,
    pub(crate) patterns: Vec<String>,
    pub(crate) session_ms: u64,
    pub(crate) holds: BTreeMap<PartitionId, OwnerEpoch>,
    /// Where each grant began.
    pub(crate) begins: BTreeMap<PartitionId, Option<Offset>>,
    /// Names of topics it was granted.
    pub(crate) topics: Vec<String>,
    pub(crate) progress: Vec<GroupProgress>,
    /// It gives nothing up.
    pub(crate) is_stuck: bool,
    /// Reports sent so far.
    pub(crate) reports: u32,
    pub(crate) correlation: u32,
    sequence: u64,
    seen: u64,
}

impl Member {
    /// One that has not joined.
    pub(crate) fn start(broker: &Broker, group: &str, id: u128) -> Self {
        Self {
            peer: Peer::connect(broker.socket_address()),
            group: group.into(),
            id: MemberId(id),
            instance: None,
            patterns: vec!["orders".into()],
            session_ms: SESSION_MS,
            holds: BTreeMap::new(),
            begins: BTreeMap::new(),
            topics: Vec::new(),
            progress: Vec::new(),
            is_stuck: false,
            reports: 0,
            correlation: 1000,
            sequence: 0,
            seen: 0,
        }
    }

    pub(crate) fn join(broker: &Broker, group: &str, id: u128) -> Self {
        let mut member = Self::start(broker, group, id);
        assert_eq!(member.rejoin(), Ok(()));
        member
    }

    pub(crate) fn named(broker: &Broker, group: &str, id: u128, instance: &str) -> Self {
        let mut member = Self::start(broker, group, id);
        member.instance = Some(instance.into());
        assert_eq!(member.rejoin(), Ok(()));
        member
    }

    pub(crate) fn reconnect(&mut self, broker: &Broker) {
        self.peer = Peer::connect(broker.socket_address());
    }

    /// Joins with what it holds.
    pub(crate) fn rejoin(&mut self) -> Result<(), ErrorCode> {
        let join = JoinGroup {
            report: self.next(),
            instance: self.instance.clone(),
            patterns: self.patterns.clone(),
            assignor: AssignorKind::Sticky,
            session_ms: self.session_ms,
        };
        self.send(Kind::JoinGroup, &join);
        self.receive()
    }

    /// A heartbeat and its answer.
    pub(crate) fn report(&mut self) -> Result<(), ErrorCode> {
        self.send_report();
        self.receive()
    }

    pub(crate) fn send_report(&mut self) {
        let report = self.next();
        self.reports += 1;
        self.send(Kind::GroupReport, &report);
    }

    fn next(&mut self) -> GroupReport {
        self.sequence += 1;
        let holds = self.holds.iter().map(|(partition, epoch)| GroupHold {
            partition: *partition,
            epoch: *epoch,
        });
        GroupReport {
            group: self.group.clone(),
            member: self.id,
            sequence: self.sequence,
            seen: self.seen,
            holds: holds.collect(),
            progress: self.progress.clone(),
        }
    }

    fn send<T: serde::Serialize>(&mut self, kind: Kind, message: &T) {
        self.correlation += 1;
        let body = encode(message).expect("encodes");
        self.peer
            .send(&Frame::request(kind, self.correlation, body));
    }

    /// Takes in the answer to the last request.
    pub(crate) fn receive(&mut self) -> Result<(), ErrorCode> {
        let frame = loop {
            let frame = self.peer.receive().expect("an answer");
            if frame.header.is_response && frame.header.correlation == self.correlation {
                break frame;
            }
        };
        if let Some(code) = frame.error() {
            return Err(code);
        }
        let news: GroupNews = decode(&frame.body).expect("valid");
        assert_eq!(news.sequence, self.sequence);
        self.seen = news.sequence;
        for lost in &news.lost {
            if self.holds.get(&lost.partition) == Some(&lost.epoch) {
                self.holds.remove(&lost.partition);
            }
        }
        if !self.is_stuck {
            for revoked in &news.revoked {
                self.holds.remove(&revoked.partition);
            }
        }
        for grant in news.granted {
            let GroupHold { partition, epoch } = grant.hold;
            let before = self.holds.insert(partition, epoch);
            assert!(before.is_none_or(|before| before <= epoch), "epochs grow");
            self.begins.insert(partition, grant.committed);
            if !self.topics.contains(&grant.topic) {
                self.topics.push(grant.topic);
            }
        }
        Ok(())
    }

    /// Some partition that it holds.
    #[track_caller]
    pub(crate) fn any(&self) -> (PartitionId, OwnerEpoch) {
        let first = self.holds.first_key_value().expect("it holds something");
        (*first.0, *first.1)
    }

    pub(crate) fn commit(
        &mut self,
        partition: PartitionId,
        epoch: OwnerEpoch,
        offset: u64,
    ) -> Option<ErrorCode> {
        let commit = CommitOwned {
            group: self.group.clone(),
            offsets: vec![OwnedCommit {
                hold: GroupHold { partition, epoch },
                offset: Offset(offset),
                may_rewind: false,
                note: String::new(),
            }],
        };
        self.peer.ask(Kind::CommitOwned, &commit).error()
    }

    pub(crate) fn leave(&mut self) -> Option<ErrorCode> {
        let leave = LeaveGroup {
            group: self.group.clone(),
            member: self.id,
        };
        self.peer.ask(Kind::LeaveGroup, &leave).error()
    }
}

/// Lets all of them report, again and again, until it is so.
#[track_caller]
pub(crate) fn rounds(
    what: &str,
    members: &mut [&mut Member],
    is_so: impl Fn(&[&mut Member]) -> bool,
) {
    for _ in 0..ROUNDS_MAX {
        for member in members.iter_mut() {
            member.send_report();
        }
        for member in members.iter_mut() {
            assert_eq!(member.receive(), Ok(()));
        }
        if is_so(members) {
            return;
        }
    }
    let held: Vec<_> = members.iter().map(|member| &member.holds).collect();
    panic!("it never came true that {what}: {held:?}");
}
