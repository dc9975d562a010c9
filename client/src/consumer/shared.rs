//! What the consumer's handles and tasks share.

use core::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use falcon_protocol::message::{
    CommitOwned, ListOffsets, ListedOffset, OffsetQuery, StartPosition,
};
use falcon_protocol::{Kind, MemberId, Offset, Partition};
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use super::builder::AutoCommit;
use super::desk::{Desk, Place, Pledge};
use super::events::{ConsumerEvent, TopicPartition};
use super::grant::{Grant, Hold};
use super::not_assigned;
use crate::core::{Core, Repeat};
use crate::error::{CommitError, ConsumerError, Error};
use crate::start::Start;
use crate::step::StepLanes;
use crate::subscription::Delivered;
use crate::sync::lock;

pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) group: String,
    /// The consumer, whatever member ids it joins under.
    pub(super) identity: MemberId,
    pub(super) auto_commit: AutoCommit,
    pub(super) max_poll_interval: Option<Duration>,
    pub(super) lanes: Arc<StepLanes>,
    pub(super) desk: Mutex<Desk>,
    /// Grants that a refused commit showed to be over.
    pub(super) stale: Mutex<Vec<Hold>>,
    pub(super) events: broadcast::Sender<ConsumerEvent>,
    /// Has heard everything since the join; for who asks first.
    pub(super) first_events: Mutex<Option<broadcast::Receiver<ConsumerEvent>>>,
    /// Partitions want to ask the broker.
    pub(super) hungry: Notify,
    /// Offsets are to be stored.
    pub(super) dirty: Notify,
    /// Something that the membership waits for has changed.
    pub(super) membership: Notify,
    /// Something that `run` waits for has changed.
    pub(super) running: Notify,
    pub(super) is_stopping: AtomicBool,
    /// Asks the membership to leave the group.
    pub(super) leaving: CancellationToken,
    /// The membership has ended.
    pub(super) left: CancellationToken,
    /// Ends every task at once.
    pub(super) stop: CancellationToken,
}

impl Shared {
    pub(super) fn tell(&self, event: ConsumerEvent) {
        // Nobody listening is no error.
        self.events.send(event).ok();
    }

    /// An error that every later call ends with.
    pub(super) fn fail(&self, error: ConsumerError) {
        tracing::error!(group = self.group, %error, "the consumer cannot go on");
        lock(&self.desk).fail(error);
        self.running.notify_one();
    }

    /// Stores what is being committed, leaves, ends.
    pub(super) async fn close(&self) {
        lock(&self.desk).close();
        while lock(&self.desk).has_dirty() && !self.stop.is_cancelled() && !self.left.is_cancelled()
        {
            self.dirty.notify_one();
            // CANCEL SAFETY: all three only wait.
            tokio::select! {
                () = self.membership.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
                () = self.stop.cancelled() => {}
            }
        }
        self.leaving.cancel();
        self.left.cancelled().await;
        self.stop.cancel();
    }

    /// Ends without a word to the broker.
    pub(super) fn abandon(&self) {
        lock(&self.desk).close();
        self.stop.cancel();
    }

    pub(super) async fn commit(&self, record: &Delivered) -> Result<(), CommitError> {
        let grant = record.grant.filter(|grant| grant.member == self.identity);
        let Some(grant) = grant else {
            return Err(CommitError::NotDelivered {
                topic: record.topic.to_string(),
            });
        };
        let next = record.next_offset();
        let pledge = lock(&self.desk).want(&grant.hold, &record.topic, next)?;
        self.dirty.notify_one();
        self.settle(pledge).await
    }

    pub(super) async fn commit_all(&self) -> Result<(), CommitError> {
        let (pledges, error) = lock(&self.desk).want_all();
        self.dirty.notify_one();
        let mut outcome = error.map_or(Ok(()), Err);
        for pledge in pledges {
            outcome = outcome.and(self.settle(pledge).await);
        }
        outcome
    }

    async fn settle(&self, pledge: Pledge) -> Result<(), CommitError> {
        match pledge {
            Pledge::Done => Ok(()),
            // CANCEL SAFETY: the commit goes on without anybody waiting.
            Pledge::Open(answer) => match self.stop.run_until_cancelled(answer).await {
                Some(Ok(outcome)) => outcome,
                Some(Err(_)) | None => Err(CommitError::Closed),
            },
        }
    }

    pub(super) async fn seek(
        &self,
        topic: &str,
        partition: Partition,
        start: Start,
    ) -> Result<(), ConsumerError> {
        let hold = self.hold(topic, partition)?;
        let place = start.position();
        let offset = if let StartPosition::Offset(offset) = place {
            offset
        } else {
            self.resolve(&hold, place).await?.offset
        };
        if !lock(&self.desk).seek(&hold, Place::At(offset)) {
            return Err(not_assigned(topic, partition));
        }
        self.hungry.notify_one();
        Ok(())
    }

    /// Which offset a position is.
    pub(super) async fn resolve(
        &self,
        hold: &Hold,
        at: StartPosition,
    ) -> Result<ListedOffset, Error> {
        let partition = hold.partition.partition;
        let request = ListOffsets {
            topic_id: hold.partition.topic,
            queries: vec![OffsetQuery { partition, at }],
        };
        let answer: Vec<ListedOffset> = self
            .core
            .call("list offsets", Kind::ListOffsets, &request, Repeat::Safe)
            .await?;
        answer.first().cloned().ok_or(Error::Answer {
            operation: "list offsets",
        })
    }

    fn hold(&self, topic: &str, partition: Partition) -> Result<Hold, ConsumerError> {
        let desk = lock(&self.desk);
        let held = desk.named(topic, partition);
        held.map(|held| held.hold)
            .ok_or_else(|| not_assigned(topic, partition))
    }

    pub(super) fn set_paused(
        &self,
        topic: &str,
        partition: Partition,
        is_paused: bool,
    ) -> Result<(), ConsumerError> {
        let hold = self.hold(topic, partition)?;
        lock(&self.desk).set_paused(&hold, is_paused, crate::clock::now());
        Ok(())
    }

    /// The client found records damaged, or missing.
    pub(super) fn damaged(&self, hold: &Hold, partition: TopicPartition, range: Range<Offset>) {
        let is_skipped = lock(&self.desk).found_damage(hold, &range);
        tracing::warn!(%partition, ?range, is_skipped, "records are damaged");
        self.hungry.notify_one();
        self.tell(if is_skipped {
            ConsumerEvent::Skipped { partition, range }
        } else {
            ConsumerEvent::Damaged { partition, range }
        });
    }

    /// A commit showed that a grant is over: the membership is to ask at once.
    pub(super) fn grant_is_over(&self, hold: Hold, partition: TopicPartition, offset: Offset) {
        tracing::warn!(group = self.group, %partition, %offset, "commit refused: the partition has another owner");
        lock(&self.desk).note_over(&hold);
        lock(&self.stale).push(hold);
        self.membership.notify_one();
        self.tell(ConsumerEvent::StaleCommit { partition, offset });
    }

    pub(super) fn step_commit(
        &self,
        marks: &[(Grant, Offset)],
    ) -> Result<CommitOwned, CommitError> {
        lock(&self.desk).step_commit(&self.group, marks)
    }

    pub(super) fn step_committed(&self, commit: &CommitOwned) {
        let mut desk = lock(&self.desk);
        for offset in &commit.offsets {
            desk.note_stored(offset);
        }
        drop(desk);
        self.membership.notify_one();
    }

    pub(super) fn step_stale(&self, commit: &CommitOwned) -> CommitError {
        let desk = lock(&self.desk);
        let name_of = |hold: &Hold| desk.name(hold);
        let known = commit
            .offsets
            .iter()
            .map(|offset| (offset, name_of(&Hold::of(&offset.hold))));
        let known: Vec<_> = known.collect();
        drop(desk);
        // With one it is clear which; with several only the coordinator knows.
        if let [(offset, Some(name))] = known.as_slice() {
            self.grant_is_over(Hold::of(&offset.hold), name.clone(), offset.offset);
        } else {
            self.membership.notify_one();
        }
        let first = known.first();
        let name = first.and_then(|(_, name)| name.as_ref());
        let topic = name.map_or_else(String::new, |name| name.topic.to_string());
        let partition = first.map_or(Partition(0), |(offset, _)| offset.hold.partition.partition);
        CommitError::StaleOwner { topic, partition }
    }

    pub(super) fn wants_stop(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }
}
