//! The client that others must not disturb: publishes, and reads what it published, all the while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use falcon_client::{Client, Record, Start, TopicOptions};
use tokio::time::{sleep, timeout};

use crate::error::CrashError;
use crate::history::now_ns;

const TOPIC: &str = "good";
const PAUSE: Duration = Duration::from_millis(4);
/// Longest an ack or a delivery may take while the machine is busy with abuse.
const PATIENCE: Duration = Duration::from_secs(20);
/// One record in so many is large: its body waits for another share of memory than small ones.
const LARGE_EVERY: u64 = 8;
const LARGE_BYTES: usize = 200 * 1024;

/// What the good client got done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Served {
    pub(super) acked: u64,
    pub(super) read: u64,
    pub(super) ack_ms_max: u64,
}

/// The client at work.
#[derive(Debug)]
pub(super) struct GoodClient {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Served, String>>,
}

impl GoodClient {
    /// Connects, and begins once the first record went through.
    pub(super) fn start(address: String) -> Result<Self, CrashError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, begun) = (Arc::clone(&stop), Arc::new(AtomicBool::new(false)));
        let is_begun = Arc::clone(&begun);
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            runtime.block_on(work(&address, &stopped, &is_begun))
        };
        let thread = std::thread::Builder::new().name("good-client".into());
        let thread = thread.spawn(work);
        let thread = thread.map_err(|error| CrashError::Program(format!("no thread: {error}")))?;
        while !begun.load(Ordering::Acquire) && !thread.is_finished() {
            std::thread::sleep(PAUSE);
        }
        Ok(Self { stop, thread })
    }

    /// Ends it; an error is what it was told, which it must never be.
    pub(super) fn finish(self) -> Result<Served, String> {
        self.stop.store(true, Ordering::Release);
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| Err("the good client panicked".to_owned()))
    }
}

async fn work(address: &str, stop: &AtomicBool, begun: &AtomicBool) -> Result<Served, String> {
    let said = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let client = Client::connect(address).await;
    let client = client.map_err(|error| said("connecting", &error))?;
    let created = client.ensure_topic(TOPIC, TopicOptions::new(1)).await;
    created.map_err(|error| said("its topic", &error))?;
    let publisher = client.publisher(TOPIC).linger(Duration::ZERO).build().await;
    let publisher = publisher.map_err(|error| said("its publisher", &error))?;
    let records = client.subscribe(TOPIC).from(Start::Earliest).open().await;
    let mut records = records.map_err(|error| said("its subscription", &error))?;
    let large: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
        .take(LARGE_BYTES)
        .collect();
    let mut served = Served::default();
    while !stop.load(Ordering::Acquire) {
        let value = if served.acked.is_multiple_of(LARGE_EVERY) {
            large.clone()
        } else {
            served.acked.to_le_bytes().to_vec()
        };
        let sent_ns = now_ns();
        let receipt = timeout(PATIENCE, publisher.publish(Record::new(value.clone()))).await;
        let receipt = receipt.map_err(|_| said("publishing", &"no ack"))?;
        receipt.map_err(|error| said("publishing", &error))?;
        let took = Duration::from_nanos(now_ns().saturating_sub(sent_ns));
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        served.ack_ms_max = served.ack_ms_max.max(took_ms);
        served.acked += 1;
        let read = timeout(PATIENCE, records.next()).await;
        let read = read.map_err(|_| said("reading", &"no delivery"))?;
        let read = read.ok_or_else(|| said("reading", &"the subscription ended"))?;
        let read = read.map_err(|error| said("reading", &error))?;
        if read.value.as_deref() != Some(&value[..]) {
            return Err("a record came back that is not the one published".to_owned());
        }
        served.read += 1;
        begun.store(true, Ordering::Release);
        sleep(PAUSE).await;
    }
    Ok(served)
}
