//! What a subscription's stream and its driver share: positions, buffer, credit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use falcon_protocol::message::{Credit, Delivery, PartitionStart, StartPosition, Subscribed};
use falcon_protocol::{Offset, Partition, TopicId};

use crate::connection::{Incoming, Session};
use crate::error::{Refusal, SubscribeError};

/// Where a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The broker will say which offset this is.
    Start(StartPosition),
    /// The next record wanted.
    At(Offset),
    /// It goes no further.
    Ended,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct PartitionState {
    pub(super) place: Place,
    /// The offset of the next record as last known, also when the partition has ended.
    pub(super) reached: Offset,
    pub(super) is_caught_up: bool,
}

/// What waits for the stream.
#[derive(Debug)]
pub(super) enum Item {
    Delivery(Delivery),
    Ended {
        partition: Option<Partition>,
        refusal: Refusal,
    },
    Error(SubscribeError),
}

/// The subscription on a connection.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) session: Arc<Session>,
    pub(super) number: u32,
}

/// Counts credit for one incarnation of the subscription: absolute totals, bytes.
#[derive(Debug, Default, Clone, Copy)]
struct Account {
    granted: u64,
    received: u64,
    consumed: u64,
}

pub(super) struct State {
    pub(super) topic_id: TopicId,
    pub(super) partitions: BTreeMap<Partition, PartitionState>,
    /// Grows with every new Subscribe; what belongs to an older one is dropped.
    pub(super) incarnation: u64,
    pub(super) line: Option<Line>,
    account: Account,
    buffer_bytes: u64,
    inbox: VecDeque<Item>,
    /// Partitions the broker has ended in this incarnation.
    endings: usize,
    waker: Option<Waker>,
    fatal: Option<SubscribeError>,
    pub(super) is_closed: bool,
    /// Whether the end of the last partition is still to be told.
    pub(super) tells_nothing_left: bool,
}

impl State {
    pub(super) fn new(topic_id: TopicId, buffer_bytes: u64) -> Self {
        Self {
            topic_id,
            partitions: BTreeMap::new(),
            incarnation: 0,
            line: None,
            account: Account::default(),
            buffer_bytes,
            inbox: VecDeque::new(),
            endings: 0,
            waker: None,
            fatal: None,
            is_closed: false,
            tells_nothing_left: false,
        }
    }

    pub(super) fn add_partition(&mut self, partition: Partition, start: StartPosition) {
        let state = PartitionState {
            place: Place::Start(start),
            reached: match start {
                StartPosition::Offset(offset) => offset,
                StartPosition::Earliest
                | StartPosition::Latest
                | StartPosition::Timestamp(_)
                | StartPosition::Last(_) => Offset::ZERO,
            },
            is_caught_up: false,
        };
        self.partitions.entry(partition).or_insert(state);
    }

    /// Begins a new incarnation: what is buffered is asked for again, from the positions reached.
    /// Returns its number, its partitions and its first grant.
    pub(super) fn begin(&mut self) -> (u64, Vec<PartitionStart>, u64) {
        self.incarnation += 1;
        self.line = None;
        self.endings = 0;
        self.inbox.retain(|item| matches!(item, Item::Error(_)));
        self.account = Account {
            granted: self.buffer_bytes,
            ..Account::default()
        };
        let starts = self.partitions.iter().filter_map(|(partition, state)| {
            let start = match state.place {
                Place::Start(start) => start,
                Place::At(offset) => StartPosition::Offset(offset),
                Place::Ended => return None,
            };
            Some(PartitionStart {
                partition: *partition,
                start,
            })
        });
        (self.incarnation, starts.collect(), self.buffer_bytes)
    }

    /// The broker accepted; partitions that had no offset have one now. `true` when that means
    /// being caught up.
    pub(super) fn opened(&mut self, line: Line, answer: &Subscribed) -> bool {
        for opened in &answer.partitions {
            if let Some(state) = self.partitions.get_mut(&opened.partition) {
                if let Place::Start(_) = state.place {
                    state.place = Place::At(opened.offset);
                    state.reached = opened.offset;
                }
                state.is_caught_up =
                    matches!(state.place, Place::At(next) if next >= opened.high_watermark);
            }
        }
        self.line = Some(line);
        self.wake();
        self.is_caught_up()
    }

    pub(super) fn is_caught_up(&self) -> bool {
        let live = self.live();
        live.clone().count() > 0 && live.into_iter().all(|state| state.is_caught_up)
    }

    fn live(&self) -> impl Iterator<Item = &PartitionState> + Clone {
        let all = self.partitions.values();
        all.filter(|state| state.place != Place::Ended)
    }

    pub(super) fn has_live_partition(&self) -> bool {
        self.live().next().is_some()
    }

    /// Takes in what the broker sent for an incarnation; never waits.
    pub(super) fn accept(
        &mut self,
        incarnation: u64,
        incoming: Incoming,
    ) -> Result<(), &'static str> {
        if incarnation != self.incarnation || self.is_closed {
            return Ok(());
        }
        let item = match incoming {
            Incoming::Delivery(delivery) if delivery.batches.is_empty() => return Ok(()),
            Incoming::Delivery(delivery) => {
                if self.account.received >= self.account.granted {
                    return Err("it delivers more than it was granted credit for");
                }
                self.account.received += delivery.batches.len() as u64;
                Item::Delivery(delivery)
            }
            Incoming::Ended { partition, refusal } => {
                // LIMIT: a partition ends once; more of these than partitions would be a flood.
                if self.endings > self.partitions.len() {
                    return Err("it ends partitions again and again");
                }
                self.endings += 1;
                Item::Ended { partition, refusal }
            }
        };
        self.inbox.push_back(item);
        self.wake();
        Ok(())
    }

    /// Puts an error in for the stream.
    pub(super) fn report(&mut self, error: SubscribeError) {
        self.inbox.push_back(Item::Error(error));
        self.wake();
    }

    /// Puts an error in that ended a partition.
    pub(super) fn report_fatal(&mut self, error: SubscribeError) {
        self.fatal.get_or_insert_with(|| error.clone());
        self.report(error);
    }

    /// The first error that ended a partition while the subscription was being opened.
    pub(super) fn take_fatal(&mut self) -> Option<SubscribeError> {
        self.fatal.take()
    }

    /// The next item, once the positions it refers to are known.
    pub(super) fn next_item(&mut self) -> Option<Item> {
        let is_opened = self.line.is_some();
        match self.inbox.front()? {
            Item::Error(_) => {}
            Item::Delivery(_) | Item::Ended { .. } if is_opened => {}
            Item::Delivery(_) | Item::Ended { .. } => return None,
        }
        self.inbox.pop_front()
    }

    /// Bytes of an incarnation were handed out or dropped; grants more when half the buffer was.
    pub(super) fn consume(&mut self, incarnation: u64, bytes: u64) {
        if incarnation != self.incarnation {
            return;
        }
        let account = &mut self.account;
        account.consumed += bytes;
        let target = account.consumed + self.buffer_bytes;
        if target - account.granted < self.buffer_bytes.div_ceil(2) {
            return;
        }
        account.granted = target;
        if let Some(line) = &self.line {
            let credit = Credit {
                bytes_total: target,
                records_total: u64::MAX,
            };
            line.session.grant(line.number, credit);
        }
    }

    pub(super) fn set_waker(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// A partition goes no further.
    pub(super) fn end_partition(&mut self, partition: Partition) {
        if let Some(state) = self.partitions.get_mut(&partition) {
            state.place = Place::Ended;
        }
        self.tells_nothing_left = !self.has_live_partition();
    }
}
