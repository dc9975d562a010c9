use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use falcon_protocol::message::{self, StartPosition};
use falcon_protocol::{
    BatchBuilder, Codec, FRAME_HEADER_BYTES, FrameHeader, Offset, Partition, PartitionId, Producer,
    Record,
};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::Instant;
use crate::io::SimDisk;
use crate::server::budget::{Budget, Spare};
use crate::server::outbox::Delivery;
use crate::server::subscribe::progress::Position;
use crate::server::subscribe::{Goodbye, Subscription, SubscriptionHandle};
use crate::store::Store;
use crate::store::local::{LocalConfig, LocalStore};
use crate::writer::{
    self, Answer, Appended, Command, Publish, PublishAnswer, PublishError, Running, State,
    StateLimits, TopicError, Trim,
};

/// A writer on a simulated disk, and a subscription to its one partition, without its task.
struct Rig {
    running: Running,
    view: Arc<PartitionView>,
    follower: Arc<Follower>,
    peer: TcpStream,
    _index: tempfile::TempDir,
}

impl Rig {
    async fn with_credit(bytes: u64, records: u64) -> Self {
        Self::with_frames_of(1 << 20, bytes, records).await
    }

    async fn with_frames_of(frame_room: usize, bytes: u64, records: u64) -> Self {
        let index = tempfile::tempdir().expect("a folder");
        let config = LocalConfig {
            index_dir: Some(index.path().join("index")),
            spare_segments: 0,
            ..LocalConfig::new(Path::new("/data"))
        };
        let mut state = State::new(StateLimits {
            topics_max: 4,
            partitions_max: 16,
            committed_offsets_max: 4,
            producers_max: 4,
        });
        let disk = Arc::new(SimDisk::new());
        let (store, _) = LocalStore::open(config, disk, &mut state).expect("opens");
        store.retain(&state.live_partitions());
        let store: Arc<dyn Store> = store;
        let running = writer::spawn(state, Arc::clone(&store), Arc::default()).expect("threads");
        let (answer, answered) = answer::<_, TopicError>();
        let create = Command::CreateTopic("followed".into(), 1, Vec::new(), answer);
        running.handle.send(create).await.expect("taken");
        let topic = answered.await.expect("an answer").expect("created");
        let id = PartitionId {
            topic,
            partition: Partition(0),
        };
        let view = running.views.partition(id).expect("it exists");
        let (outbox, peer) = outbox_with_peer().await;
        outbox.subscribed();
        let follower = Follower {
            number: 7,
            control: Arc::new(Control {
                bytes_total: AtomicU64::new(bytes),
                records_total: AtomicU64::new(records),
                changed: Arc::new(Notify::new()),
                goodbye: Mutex::new(Goodbye::Open),
                token: CancellationToken::new(),
            }),
            reader: Reader::new(store),
            outbox,
            frame_room,
            lent: Mutex::default(),
        };
        let rig = Self {
            running,
            view,
            follower: Arc::new(follower),
            peer,
            _index: index,
        };
        rig.lend_from(0);
        rig
    }

    /// Lends progress that begins at an offset.
    fn lend_from(&self, offset: u64) {
        let watch = self.view.watch(Arc::<Follower>::clone(&self.follower));
        let position = Position::new(Arc::clone(&self.view), Offset(offset), watch);
        let mut progress = Progress::default();
        progress.positions.push(position);
        self.follower.lend(progress);
    }

    /// What a task of the subscription runs, from offset 0 on. It hands deliveries over to `deliveries`.
    fn task(&self, deliveries: mpsc::Sender<Delivery>) -> impl Future<Output = ()> + use<> {
        drop(self.follower.take_back());
        self.follower.outbox.unsubscribed();
        let watched = Arc::new(Semaphore::new(1));
        let subscription = Subscription {
            number: 7,
            control: Arc::clone(&self.follower.control),
            reader: self.follower.reader.clone(),
            outbox: Arc::clone(&self.follower.outbox),
            deliveries,
            budget: Budget::new(1 << 20, Spare::default()),
            connection: CancellationToken::new(),
            _watched: watched.try_acquire_owned().expect("there is one"),
            frame_room: 1 << 20,
            progress: Progress::default(),
            follower: Arc::clone(&self.follower),
            begun: Instant::now(),
        };
        let start = (Arc::clone(&self.view), StartPosition::Earliest);
        subscription.run(vec![start], None)
    }

    /// Waits until its task has lent the progress.
    async fn rests(&self) {
        while self.follower.lock().is_none() {
            tokio::task::yield_now().await;
        }
    }

    /// Publishes a record; it is durable, and shown, when this returns.
    async fn publish(&self, bytes: usize) -> Appended {
        self.publish_batch(1, bytes).await
    }

    async fn publish_batch(&self, records: usize, bytes: usize) -> Appended {
        let mut batch = BatchBuilder::new(Codec::None, 1 << 20);
        let record = Record::new(vec![b'x'; bytes]);
        for _ in 0..records {
            batch.push(&record, 1_700_000_000_000).expect("it fits");
        }
        let batch = batch.build(Producer::default()).expect("not empty");
        let batch = falcon_protocol::Batch::from_bytes(batch).expect("valid");
        let (answer, answered) = answer::<_, PublishError>();
        let publish = Publish {
            partition: self.view.id,
            batch,
            answer: PublishAnswer::from(answer),
        };
        let command = Command::Publish(publish);
        self.running.handle.send(command).await.expect("taken");
        answered.await.expect("an answer").expect("appended")
    }

    /// The base offset of the delivery that comes next.
    async fn delivered(&mut self) -> Offset {
        let mut head = [0; FRAME_HEADER_BYTES];
        self.peer.read_exact(&mut head).await.expect("a delivery");
        let header = FrameHeader::decode(&head, u32::MAX).expect("valid");
        assert_eq!(
            (header.kind, header.correlation),
            (Kind::Deliver.number(), 7)
        );
        let mut body = vec![0; header.body_bytes as usize];
        self.peer.read_exact(&mut body).await.expect("all of it");
        let delivery = message::Delivery::decode(Bytes::from(body)).expect("valid");
        let mut rest = delivery.batches;
        let batch = falcon_protocol::Batch::split_from(&mut rest).expect("valid");
        batch.verify_in(self.view.id).expect("as stored");
        assert_eq!(delivery.high_watermark, batch.header().end_offset());
        batch.header().base_offset
    }

    /// Nothing was sent, and the task knows that there is something to do.
    fn assert_left_to_the_task(&self, next: u64) {
        let error = self.peer.try_read(&mut [0]).expect_err("nothing came");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(is_woken(&self.follower.control.changed));
        let progress = self.follower.take_back().expect("it was lent");
        let nexts: Vec<_> = progress.positions.iter().map(|at| at.next).collect();
        assert_eq!(nexts, [Offset(next)]);
    }
}

fn answer<T: Send + 'static, E: Send + 'static>() -> (Answer<T, E>, oneshot::Receiver<Result<T, E>>)
{
    let (to, from) = oneshot::channel();
    (Box::new(move |result| drop(to.send(result))), from)
}

async fn outbox_with_peer() -> (Arc<Outbox>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let peer = TcpStream::connect(address).await.expect("connected");
    let (socket, _) = listener.accept().await.expect("accepted");
    let (_read, write) = socket.into_split();
    write.writable().await.expect("open");
    let outbox = Arc::new(Outbox::new(Arc::default()));
    outbox.lend(write);
    (outbox, peer)
}

fn is_woken(notify: &Notify) -> bool {
    let woken = std::pin::pin!(notify.notified());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    woken.poll(&mut context).is_ready()
}

#[tokio::test]
async fn what_is_new_is_sent_by_who_made_it_durable() {
    let mut rig = Rig::with_credit(u64::MAX, u64::MAX).await;
    for offset in 0..3 {
        rig.publish(100).await;
        assert_eq!(rig.delivered().await, Offset(offset));
    }
    assert!(!is_woken(&rig.follower.control.changed));
    let progress = rig.follower.take_back().expect("it was lent");
    let credit = progress.sent.credit(&rig.follower.control);
    assert!(credit.0 < u64::MAX - 300 && credit.1 == u64::MAX - 3);
    let sent = rig.follower.outbox.metrics();
    assert_eq!(sent.server.frames_sent.of(Kind::Deliver).value(), 3);
    assert_eq!(sent.server.records_delivered.value(), 3);
    drop(progress);
    rig.publish(100).await;
    rig.lend_from(4);
    rig.publish(100).await;
    assert_eq!(rig.delivered().await, Offset(4));
}

#[tokio::test]
async fn nothing_is_sent_while_the_task_has_taken_its_progress_back() {
    let rig = Rig::with_credit(u64::MAX, u64::MAX).await;
    let progress = rig.follower.take_back().expect("it was lent");
    rig.publish(100).await;
    rig.follower.lend(progress);
    rig.assert_left_to_the_task(0);
}

#[tokio::test]
async fn nothing_overtakes_a_delivery_that_waits_for_the_write_task() {
    let rig = Rig::with_credit(u64::MAX, u64::MAX).await;
    rig.follower.outbox.delivering();
    rig.publish(100).await;
    rig.assert_left_to_the_task(0);
}

#[tokio::test]
async fn nothing_is_queued_while_the_write_task_has_the_socket() {
    let rig = Rig::with_credit(u64::MAX, u64::MAX).await;
    let _socket = rig.follower.outbox.take_back();
    rig.publish(100).await;
    rig.assert_left_to_the_task(0);
}

#[tokio::test]
async fn a_delivery_beyond_the_credit_is_left_to_the_task() {
    for credit in [(0, 1), (1, 0), (100, 1)] {
        let rig = Rig::with_credit(credit.0, credit.1).await;
        rig.publish(100).await;
        rig.assert_left_to_the_task(0);
    }
    let rig = Rig::with_credit(u64::MAX, 1).await;
    rig.publish_batch(2, 100).await;
    rig.assert_left_to_the_task(0);
}

#[tokio::test]
async fn what_is_large_or_not_all_there_is_or_not_there_any_more_is_left_to_the_task() {
    let rig = Rig::with_credit(u64::MAX, u64::MAX).await;
    rig.publish(DIRECT_BYTES_MAX).await;
    rig.assert_left_to_the_task(0);
    rig.lend_from(0);
    rig.publish(100).await;
    rig.assert_left_to_the_task(0);
    rig.lend_from(0);
    let trim = Trim {
        partition: rig.view.id,
        from: Offset(0),
        log_start: Offset(1),
        bytes_freed: 1,
    };
    let trim = Command::Trim(vec![trim]);
    rig.running.handle.send(trim).await.expect("taken");
    rig.publish(100).await;
    rig.assert_left_to_the_task(0);
    rig.lend_from(3);
    let (answer, answered) = answer::<_, TopicError>();
    let delete = Command::DeleteTopic("followed".into(), answer);
    rig.running.handle.send(delete).await.expect("taken");
    answered.await.expect("an answer").expect("deleted");
    rig.assert_left_to_the_task(3);
}

#[tokio::test]
async fn what_does_not_fit_into_a_frame_is_left_to_the_task() {
    let rig = Rig::with_frames_of(1000, u64::MAX, u64::MAX).await;
    rig.publish(1000).await;
    rig.assert_left_to_the_task(0);
}

#[tokio::test]
async fn what_fits_only_in_part_is_left_to_the_task() {
    let rig = Rig::with_credit(u64::MAX, u64::MAX).await;
    let progress = rig.follower.take_back().expect("it was lent");
    for _ in 0..2 {
        rig.publish(DIRECT_BYTES_MAX * 2 / 3).await;
    }
    assert!(is_woken(&rig.follower.control.changed));
    rig.follower.lend(progress);
    rig.publish(100).await;
    rig.assert_left_to_the_task(0);
}

#[tokio::test]
async fn only_few_subscriptions_are_sent_to_by_the_writer() {
    let mut rig = Rig::with_credit(u64::MAX, u64::MAX).await;
    let others = [(); 4].map(|()| Arc::new(Notify::new()));
    let watch = |other: &Arc<Notify>| rig.view.watch(Arc::<Notify>::clone(other));
    let mut watches: Vec<_> = others.iter().map(watch).collect();
    rig.publish(100).await;
    assert!(others.iter().all(|other| is_woken(other)));
    rig.assert_left_to_the_task(0);
    watches.pop();
    rig.lend_from(1);
    rig.publish(100).await;
    assert_eq!(rig.delivered().await, Offset(1));
}

#[tokio::test]
async fn nothing_is_sent_once_somebody_may_be_told_that_the_subscription_has_ended() {
    let rig = Rig::with_credit(u64::MAX, u64::MAX).await;
    let (to, mut from) = mpsc::channel(1);
    let mut running = JoinSet::new();
    running.spawn(rig.task(to.clone()));
    rig.rests().await;
    // The answer has to wait.
    let room = to.reserve().await.expect("there is room");
    let control = Arc::clone(&rig.follower.control);
    let handle = SubscriptionHandle { control };
    assert!(handle.end(9, None));
    while !rig.follower.control.is_over() {
        tokio::task::yield_now().await;
    }
    assert!(rig.follower.take_back().is_none(), "somebody else may send");
    assert_eq!(Arc::strong_count(&rig.follower), 2, "it still watches");
    drop(room);
    running
        .join_next()
        .await
        .expect("it runs")
        .expect("no panic");
    let last = from.recv().await.expect("an answer");
    assert_eq!(last.kind, Kind::Unsubscribe);
    assert_eq!(Arc::strong_count(&rig.follower), 1);
}

#[tokio::test]
async fn nothing_is_kept_of_a_task_that_was_dropped() {
    let rig = Rig::with_credit(u64::MAX, u64::MAX).await;
    let (to, _from) = mpsc::channel(1);
    let mut running = JoinSet::new();
    running.spawn(rig.task(to));
    rig.rests().await;
    running.shutdown().await;
    assert_eq!(Arc::strong_count(&rig.follower), 1, "it still watches");
}
