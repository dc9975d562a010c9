//! Who is served, for how long somebody was not, and how it ends.

use std::collections::{BTreeMap, BTreeSet};

use falcon_protocol::{MemberId, PartitionId, TopicId};

use super::peer::{Health, Peer};
use super::world::{World, peer_of};
use crate::group::coordinator::Standing;

/// Beyond the session: for fences, messages and the grain of the watch.
const GRACE_MS: u64 = 1000;

impl World {
    fn partitions(&self) -> Vec<(PartitionId, String)> {
        let topics = self.catalog.topics();
        let rows =
            topics.flat_map(|topic| topic.partition_ids().map(|id| (id, topic.name.clone())));
        rows.collect()
    }

    fn is_wanted(&self, topic: &str) -> bool {
        let wants = |peer: &Peer| peer.is_healthy() && peer.fits(topic);
        self.peers.iter().any(wants)
    }

    fn is_served(&self, id: PartitionId) -> bool {
        let fence = self.writer.fence(id);
        let serves = |peer: &Peer| {
            let is_there = peer.health == Health::Well && !peer.is_cut;
            is_there
                && peer
                    .reads
                    .get(&id)
                    .is_some_and(|reading| reading.epoch == fence)
        };
        self.peers.iter().any(serves)
    }

    /// Looks for who waits too long.
    pub(super) fn watch(&mut self) {
        if !self.is_up {
            self.broker_disturbed = self.now;
        }
        for call in self.calls.values() {
            assert!(
                self.now <= call.answer_by + GRACE_MS,
                "{call:?} is not answered"
            );
        }
        let mut waits = BTreeMap::new();
        for (id, topic) in self.partitions() {
            if !self.is_served(id) && self.is_wanted(&topic) {
                let since = self.waits.get(&id).copied().unwrap_or(self.now);
                waits.insert(id, since.max(self.broker_disturbed));
            }
        }
        if !waits.is_empty() && self.is_up {
            let topics: BTreeMap<PartitionId, String> = self.partitions().into_iter().collect();
            for (id, standing) in self.coordinator.standings("g") {
                if let Some(since) = waits.get_mut(&id) {
                    if standing == Standing::Unwanted {
                        let wanters = self.peers.iter().filter(|peer| {
                            peer.is_healthy() && topics.get(&id).is_some_and(|t| peer.fits(t))
                        });
                        let undisturbed = wanters.map(|peer| peer.disturbed).min();
                        *since = undisturbed.unwrap_or(0).min(self.now).max(*since);
                    }
                    for member in mentioned(standing) {
                        *since = self.peers[peer_of(member)]
                            .disturbed
                            .min(self.now)
                            .max(*since);
                    }
                    assert!(
                        self.now <= *since + self.session_ms + GRACE_MS,
                        "{id} has had no owner since {since}, now is {}: {standing:?}",
                        self.now
                    );
                }
            }
        }
        self.waits = waits;
    }

    /// Everything wanted is served, in the shares that were promised.
    pub(super) fn settled(&self) {
        for (id, topic) in self.partitions() {
            let is_right = self.is_served(id) || !self.is_wanted(&topic);
            assert!(
                is_right,
                "{id} is not served: {:?}",
                self.coordinator.standings("g")
            );
        }
        let healthy: Vec<&Peer> = self.peers.iter().filter(|peer| peer.is_healthy()).collect();
        let is_range = healthy.iter().all(|peer| peer.is_range());
        let mut shares: BTreeMap<(BTreeSet<TopicId>, Option<TopicId>), Vec<usize>> =
            BTreeMap::new();
        for peer in healthy {
            let topics = self.catalog.topics().filter(|topic| peer.fits(&topic.name));
            let topics: BTreeSet<TopicId> = topics.map(|topic| topic.id).collect();
            if is_range {
                for topic in &topics {
                    let held = peer.reads.keys().filter(|id| id.topic == *topic).count();
                    let key = (BTreeSet::new(), Some(*topic));
                    shares.entry(key).or_default().push(held);
                }
            } else {
                shares
                    .entry((topics, None))
                    .or_default()
                    .push(peer.reads.len());
            }
        }
        for (key, shares) in shares {
            let least = shares.iter().min().copied().unwrap_or_default();
            assert!(
                shares.iter().all(|share| *share <= least + 1),
                "{key:?}: {shares:?}"
            );
        }
    }
}

fn mentioned(standing: Standing) -> Vec<MemberId> {
    match standing {
        Standing::Unwanted => Vec::new(),
        Standing::Waiting { target, .. } => vec![target],
        Standing::Fencing { target, .. } => target.into_iter().collect(),
        Standing::Granted { owner, .. } | Standing::Held { owner, .. } => vec![owner],
        Standing::GivingUp { owner, target, .. } => target.into_iter().chain([owner]).collect(),
    }
}
