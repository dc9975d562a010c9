use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};

use falcon_protocol::{
    Batch, BatchBuilder, BatchHeader, Codec, Offset, PartitionId, Producer, Record,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

use super::*;
use crate::clock;
use crate::io::{SimDisk, SimFault};
use crate::metrics::Metrics;
use crate::store::local::{LocalConfig, LocalStore};
use crate::store::{Replay, Store, Table};
use crate::writer::{
    Command, Publish, PublishAnswer, PublishError, Running, State, StateLimits, spawn,
};

/// A writer on a simulated disk, watched through its admin port.
struct Rig {
    disk: SimDisk,
    index: tempfile::TempDir,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
    port: AdminPort,
}

impl Rig {
    async fn new() -> Self {
        let metrics = Arc::new(Metrics::default());
        let status = Arc::new(Status::new(Arc::clone(&metrics)));
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = AdminPort::start(socket, Arc::clone(&status)).expect("a listener");
        Self {
            disk: SimDisk::new(),
            index: tempfile::tempdir().expect("a folder"),
            metrics,
            status,
            port,
        }
    }

    fn open(&self, replay_to: &mut dyn Replay) -> Arc<LocalStore> {
        let config = LocalConfig {
            index_dir: Some(self.index.path().join("index")),
            segment_bytes: 64 << 10,
            first_segment_bytes: 64 << 10,
            spare_segments: 0,
            metrics: Arc::clone(&self.metrics),
            ..LocalConfig::new(Path::new("/data"))
        };
        let disk = Arc::new(self.disk.clone());
        LocalStore::open(config, disk, replay_to).expect("opens").0
    }

    /// Recovers, starts the writer and says so, as a broker does.
    fn serve(&self) -> (Running, Arc<LocalStore>) {
        let mut state = state();
        let store = self.open(&mut state);
        let running = spawn(
            state,
            Arc::clone(&store) as Arc<dyn Store>,
            Arc::clone(&self.metrics),
        );
        let running = running.expect("a thread");
        let weak: Weak<dyn Store> = Arc::downgrade(&(Arc::clone(&store) as Arc<dyn Store>));
        self.status.serve(Served {
            views: Arc::clone(&running.views),
            store: weak,
            in_flight: Arc::new(Semaphore::new(100)),
            in_flight_bytes_max: 100,
            free_floor_bytes: 0,
            lag_series_max: 2,
        });
        (running, store)
    }

    /// The status line's code and the body.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(self.port.address())
            .await
            .expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
        let code = head.split(' ').nth(1).expect("a status line");
        (code.parse().expect("a number"), body.to_owned())
    }
}

fn state() -> State {
    State::new(StateLimits {
        topics_max: 4,
        partitions_max: 16,
        committed_offsets_max: 8,
        producers_max: 4,
    })
}

async fn publish(running: &Running, id: PartitionId) -> Result<(), PublishError> {
    let mut builder = BatchBuilder::new(Codec::None, 1 << 20);
    let record = Record::new(vec![7; 100]);
    builder.push(&record, 1_000).expect("fits");
    let batch = builder.build(Producer::default()).expect("not empty");
    let (to, answered) = oneshot::channel();
    let publish = Publish {
        partition: id,
        batch: Batch::from_bytes(batch).expect("whole"),
        answer: PublishAnswer::new(move |result| {
            drop(to.send(result.map(|_| ())));
            None
        }),
    };
    let sent = running.handle.send(Command::Publish(publish)).await;
    sent.expect("the writer takes it");
    answered.await.expect("an answer")
}

async fn create(running: &Running) -> PartitionId {
    let (to, answered) = oneshot::channel();
    let answer = Box::new(move |result| drop(to.send(result)));
    let create = Command::CreateTopic("t".into(), 1, Vec::new(), answer);
    running.handle.send(create).await.expect("it takes it");
    let topic = answered.await.expect("an answer").expect("created");
    PartitionId {
        topic,
        ..PartitionId::new(0, 0)
    }
}

#[tokio::test]
async fn a_failed_sync_ends_readiness_until_a_restart_and_not_life() {
    let rig = Rig::new().await;
    let (running, _store) = rig.serve();
    let id = create(&running).await;
    publish(&running, id).await.expect("published");
    assert_eq!(rig.get("/readyz").await, (200, "ready\n".into()));
    assert!(
        rig.get("/metrics")
            .await
            .1
            .contains("falcon_writes_stopped 0\n")
    );

    rig.disk.fail_sync(1, SimFault::Device);
    publish(&running, id).await.expect_err("the sync failed");
    // The disk works again, and it stays so.
    publish(&running, id).await.expect_err("it is final");
    let (code, text) = rig.get("/readyz").await;
    let reason = "a write or sync failed, nothing is accepted until a restart";
    assert_eq!(code, 503);
    assert_eq!(text, format!("not ready\njournal_failed: {reason}\n"));
    let (_, page) = rig.get("/metrics").await;
    for line in [
        "falcon_writes_stopped 1\n",
        "falcon_sync_failures_total 1\n",
        "falcon_ready 0\n",
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
    assert_eq!(rig.get("/livez").await, (200, "alive\n".into()));
}

#[tokio::test]
async fn a_failed_write_is_counted_apart() {
    let rig = Rig::new().await;
    let (running, _store) = rig.serve();
    let id = create(&running).await;
    rig.disk.fail_write(1, SimFault::Device);
    publish(&running, id).await.expect_err("the write failed");
    let (_, page) = rig.get("/metrics").await;
    assert!(page.contains("falcon_write_failures_total 1\n"), "{page}");
    assert!(page.contains("falcon_sync_failures_total 0\n"), "{page}");
    assert_eq!(rig.get("/readyz").await.0, 503);
}

#[tokio::test]
async fn a_full_disk_is_degraded_and_ready_and_passes() {
    let rig = Rig::new().await;
    let (running, _store) = rig.serve();
    let id = create(&running).await;
    rig.disk.set_free_bytes(0);
    // What is free is measured now and then.
    while publish(&running, id).await.is_ok() {}
    let (code, text) = rig.get("/readyz").await;
    assert_eq!(code, 200, "{text}");
    assert!(
        text.starts_with("ready\ndegraded: storage_full: "),
        "{text}"
    );
    let (_, page) = rig.get("/metrics").await;
    assert!(page.contains("falcon_storage_is_full 1\n"), "{page}");
    assert!(page.contains("falcon_degraded 1\n"), "{page}");
    rig.disk.set_free_bytes(1 << 40);
    while publish(&running, id).await.is_err() {}
    assert_eq!(rig.get("/readyz").await, (200, "ready\n".into()));
}

/// A replay that stops in the middle until it is told to go on.
struct Halting {
    inner: State,
    arrived: Sender<()>,
    go_on: Receiver<()>,
    is_halted: bool,
}

impl Replay for Halting {
    fn row(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        self.inner.row(table, key, value);
        if !std::mem::replace(&mut self.is_halted, true) {
            self.arrived.send(()).expect("the test waits");
            self.go_on.recv().expect("the test goes on");
        }
    }
    fn batch(&mut self, partition: PartitionId, header: &BatchHeader) {
        self.inner.batch(partition, header);
    }
    fn end(&mut self, partition: PartitionId, end: Offset) {
        self.inner.end(partition, end);
    }
}

#[tokio::test]
async fn recovery_can_be_watched() {
    let rig = Rig::new().await;
    let opening = "not ready\nrecovering: the data folder is being opened\n";
    assert_eq!(rig.get("/readyz").await, (503, opening.into()));
    {
        let mut state = state();
        let store = rig.open(&mut state);
        let metrics = Arc::default();
        let running = spawn(state, store, metrics).expect("a thread");
        let id = create(&running).await;
        // Enough for several segments of 64 KiB.
        for _ in 0..1000 {
            publish(&running, id).await.expect("published");
        }
        drop(running.handle);
        let _closed = running.thread.join().expect("no panic");
    }
    rig.metrics.process.recovery_us.set(0);
    let ((arrived, halted), (go, go_on)) = (channel(), channel());
    let mut replay = Halting {
        inner: state(),
        arrived,
        go_on,
        is_halted: false,
    };
    let rig = Arc::new(rig);
    let opener = Arc::clone(&rig);
    let opening = tokio::task::spawn_blocking(move || drop(opener.open(&mut replay)));
    let halted = tokio::task::spawn_blocking(move || halted.recv());
    halted.await.expect("no panic").expect("replay has begun");
    let segments = rig.metrics.process.recovery_segments.value();
    assert!(segments > 1, "{segments} segments");
    let (code, text) = rig.get("/readyz").await;
    assert_eq!(code, 503);
    let progress = format!("not ready\nrecovering: {segments} of {segments} segments read\n");
    assert_eq!(text, progress);
    go.send(()).expect("it waits");
    opening.await.expect("no panic");
    assert!(rig.metrics.process.recovery_us.value() > 0);
    // Nobody has said yet that it serves.
    let (code, text) = rig.get("/readyz").await;
    assert_eq!(code, 503);
    assert!(text.contains("recovering: the journal is read"), "{text}");
}

#[tokio::test]
async fn a_loop_that_hangs_ends_life() {
    let rig = Rig::new().await;
    rig.metrics.writer.turns.begin();
    assert_eq!(rig.get("/livez").await, (200, "alive\n".into()));
    let now = clock::monotonic_ms();
    assert!(rig.status.stuck(now + 119_000).is_empty());
    let hangs = rig.status.stuck(now + 121_000);
    assert_eq!(hangs.len(), 1);
    assert_eq!((hangs[0].name, hangs[0].is_fatal), ("writer_stuck", true));
    rig.metrics.writer.turns.end();
    assert!(rig.status.stuck(now + 121_000).is_empty());
    rig.metrics.process.housekeeping.begin();
    let hangs = rig.status.stuck(now + 200_000);
    assert_eq!(hangs[0].name, "housekeeping_stuck");
}

#[tokio::test]
async fn lag_is_listed_up_to_its_limit() {
    let rig = Rig::new().await;
    let (running, _store) = rig.serve();
    let id = create(&running).await;
    publish(&running, id).await.expect("published");
    for group in ["c", "a", "b"] {
        let (to, answered) = oneshot::channel();
        let commit = crate::writer::CommitOffsets {
            group: group.into(),
            offsets: vec![(id, Offset(0), String::new())],
        };
        let answer = Box::new(move |result| drop(to.send(result)));
        let command = Command::CommitOffsets(commit, answer);
        running.handle.send(command).await.expect("it takes it");
        answered.await.expect("an answer").expect("committed");
    }
    let (_, page) = rig.get("/metrics").await;
    let lags = page
        .lines()
        .filter(|l| l.starts_with("falcon_group_lag_records"));
    let lags: Vec<_> = lags.collect();
    assert_eq!(
        lags,
        [
            "falcon_group_lag_records{group=\"a\",topic=\"t\",partition=\"0\"} 1",
            "falcon_group_lag_records{group=\"b\",topic=\"t\",partition=\"0\"} 1",
        ]
    );
    assert!(page.contains("falcon_committed_offsets 3\n"), "{page}");
    assert!(page.contains("falcon_group_lag_left_out 1\n"), "{page}");
}

#[tokio::test]
async fn nothing_of_it_is_left_when_it_has_stopped() {
    let rig = Rig::new().await;
    let address = rig.port.address();
    let _idle = TcpStream::connect(address).await.expect("it listens");
    rig.port.stop().await;
    TcpStream::connect(address)
        .await
        .expect_err("nobody listens");
    assert_eq!(Arc::strong_count(&rig.status), 1);
}
