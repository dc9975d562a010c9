//! Topics that last for the whole run: publishers that relieve each other, readers that miss nothing.
//!
//! Each partition has one publisher at a time. When it is followed by the next, that one asks where the
//! partition ends and goes on there; so the value at every offset is known in advance. Every second
//! partition has publishers of one name, which may be dropped with records in flight: the next one
//! fences them. Promises: when [`Lasting::finish`] returned, all that was acknowledged was read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use falcon_client::{Client, Publisher, Record, Start, Ticket, TopicOptions};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::shared::{Shared, count, end};
use super::values::{Due, value};
use crate::error::CrashError;

/// Publishers send at the same moments, so that few syncs carry much.
const TICK: Duration = Duration::from_millis(100);
/// Longest that readers may need for the rest.
const REST: Duration = Duration::from_secs(60);

/// A topic that lasts.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: &'static str,
    pub(super) number: u64,
    pub(super) partitions: u32,
    retention_bytes: Option<u64>,
    retention_age: Option<Duration>,
    /// Records of each partition at a time, and every how many ticks.
    pace: (u64, u64),
}

/// Kept at the same size by bytes, by age, by both. The last one grows for ever, but by about a
/// hundredth of the rest in an hour; it is there because its few records lie among dead ones.
pub(super) const TOPICS: [Topic; 4] = [
    Topic {
        name: "by-bytes",
        number: 1,
        partitions: 4,
        retention_bytes: Some(6 << 20),
        retention_age: None,
        pace: (20, 1),
    },
    Topic {
        name: "by-age",
        number: 2,
        partitions: 4,
        retention_bytes: None,
        retention_age: Some(Duration::from_secs(75)),
        pace: (20, 1),
    },
    Topic {
        name: "by-both",
        number: 3,
        partitions: 4,
        retention_bytes: Some(7 << 20),
        retention_age: Some(Duration::from_secs(90)),
        pace: (20, 1),
    },
    Topic {
        name: "kept",
        number: 4,
        partitions: 1,
        retention_bytes: None,
        retention_age: None,
        pace: (1, 20),
    },
];

impl Topic {
    pub(super) fn stream(&self, partition: u32) -> u64 {
        self.number * 100 + u64::from(partition)
    }

    fn options(&self) -> TopicOptions {
        let mut options = TopicOptions::new(self.partitions);
        if let Some(bytes) = self.retention_bytes {
            options = options.retention_bytes(bytes);
        }
        if let Some(age) = self.retention_age {
            options = options.retention_age(age);
        }
        options
    }
}

/// One partition, its publishers and its reader.
#[derive(Debug)]
struct Partition {
    topic: &'static Topic,
    number: u32,
    /// The offset after the last one acknowledged, and after the last one read.
    acked: AtomicU64,
    read: AtomicU64,
}

/// All that lasts.
#[derive(Debug)]
pub(super) struct Lasting {
    shared: Shared,
    partitions: Vec<Arc<Partition>>,
    publishers: (TaskTracker, CancellationToken),
    readers: (TaskTracker, CancellationToken),
}

impl Lasting {
    /// Creates the topics, and sets publishers and readers to work.
    pub(super) async fn start(shared: &Shared) -> Result<Self, CrashError> {
        let program = |error: String| CrashError::Program(error);
        let client = shared.connect().await.map_err(program)?;
        let begun = Instant::now();
        let mut lasting = Self {
            shared: shared.clone(),
            partitions: Vec::new(),
            publishers: (TaskTracker::new(), CancellationToken::new()),
            readers: (TaskTracker::new(), CancellationToken::new()),
        };
        for topic in &TOPICS {
            let created = client.create_topic(topic.name, topic.options()).await;
            created.map_err(|error| program(error.to_string()))?;
            for number in 0..topic.partitions {
                let partition = Arc::new(Partition {
                    topic,
                    number,
                    acked: AtomicU64::new(0),
                    read: AtomicU64::new(0),
                });
                lasting.partitions.push(Arc::clone(&partition));
                let (tasks, stop) = &lasting.readers;
                tasks.spawn(read(shared.clone(), Arc::clone(&partition), stop.clone()));
                let (tasks, stop) = &lasting.publishers;
                tasks.spawn(relieve(shared.clone(), partition, begun, stop.clone()));
            }
        }
        client.shutdown().await;
        Ok(lasting)
    }

    /// Ends the publishers, then the readers when they have read all.
    pub(super) async fn finish(self) {
        let (tasks, stop) = &self.publishers;
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        let missing = |partition: &&Arc<Partition>| {
            partition.read.load(Ordering::Acquire) < partition.acked.load(Ordering::Acquire)
        };
        let deadline = Instant::now() + REST;
        while self.partitions.iter().any(|partition| missing(&partition))
            && Instant::now() < deadline
        {
            sleep(TICK).await;
        }
        for partition in self.partitions.iter().filter(missing) {
            self.shared.complain(format!(
                "{}/{}: {:?} was acknowledged, {:?} read",
                partition.topic.name, partition.number, partition.acked, partition.read
            ));
        }
        let (tasks, stop) = &self.readers;
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        for partition in &self.partitions {
            if partition.topic.options() == TopicOptions::new(1) {
                self.shared.heard(read_again(&self.shared, partition).await);
            }
        }
    }
}

/// One publisher after the other.
async fn relieve(
    shared: Shared,
    partition: Arc<Partition>,
    begun: Instant,
    stop: CancellationToken,
) {
    let mut random = shared.random(partition.topic.stream(partition.number));
    // How far the partition may have got: the last publisher's records may or may not be there.
    let mut sent = 0;
    while !stop.is_cancelled() {
        let life = Duration::from_secs(random.u64(5..40));
        let over = Instant::now() + life;
        let is_polite = random.bool();
        let relay = Relay {
            shared: shared.clone(),
            partition: Arc::clone(&partition),
            is_polite,
            over,
        };
        if shared
            .heard(relay.run(&mut sent, begun, &stop).await)
            .is_none()
        {
            return;
        }
    }
}

struct Relay {
    shared: Shared,
    partition: Arc<Partition>,
    is_polite: bool,
    over: Instant,
}

impl Relay {
    async fn run(
        &self,
        sent: &mut u64,
        begun: Instant,
        stop: &CancellationToken,
    ) -> Result<(), String> {
        let client = self.shared.connect().await?;
        let publisher = self.build(&client).await?;
        let mut next = self.find_end(&client, *sent).await?;
        let (records, ticks) = self.partition.topic.pace;
        let mut ticks = interval_at(begun, TICK * u32::try_from(ticks).unwrap_or(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let mut tickets = Vec::new();
            for offset in next..next + records {
                tickets.push(self.send(&publisher, offset).await?);
            }
            *sent = next + records;
            let is_last = stop.is_cancelled();
            if !is_last && self.is_named() && !self.is_polite && Instant::now() >= self.over {
                // In the midst of it: what is in flight may arrive, or not.
                break;
            }
            next = self.wait(tickets, next).await?;
            if is_last || Instant::now() >= self.over {
                break;
            }
        }
        drop(publisher);
        end(&self.shared, client, self.is_polite || stop.is_cancelled()).await;
        Ok(())
    }

    fn is_named(&self) -> bool {
        self.partition.number % 2 == 1
    }

    async fn build(&self, client: &Client) -> Result<Publisher, String> {
        let Partition { topic, number, .. } = &*self.partition;
        let mut builder = client.publisher(topic.name);
        if self.is_named() {
            builder = builder.name(format!("{}-{number}", topic.name));
        }
        let built = builder.build().await;
        built.map_err(|error| format!("no publisher for {}: {error}", topic.name))
    }

    /// Where to go on: not before what was acknowledged, not after what was sent.
    async fn find_end(&self, client: &Client, sent: u64) -> Result<u64, String> {
        let Partition { topic, number, .. } = &*self.partition;
        let found = client.describe_topic(topic.name).await;
        let found = found.map_err(|error| format!("no end of {}: {error}", topic.name))?;
        let mut partitions = found.partitions.iter();
        let found = partitions.find(|found| found.partition.0 == *number);
        let end = found.map_or(0, |found| found.high_watermark.get());
        let acked = self.partition.acked.load(Ordering::Acquire);
        if (acked..=sent).contains(&end) {
            return Ok(end);
        }
        let name = topic.name;
        Err(format!(
            "{name}/{number} ends at {end}: {acked} are acknowledged, {sent} sent"
        ))
    }

    async fn send(&self, publisher: &Publisher, offset: u64) -> Result<Ticket, String> {
        let Partition { topic, number, .. } = &*self.partition;
        let bytes = value(topic.stream(*number), offset);
        let sent = publisher.send_to(*number, Record::new(bytes)).await;
        sent.map_err(|error| format!("{}/{number} refused a record: {error}", topic.name))
    }

    /// Waits for all of them; they must be where they are expected.
    async fn wait(&self, tickets: Vec<Ticket>, mut next: u64) -> Result<u64, String> {
        let Partition { topic, number, .. } = &*self.partition;
        for ticket in tickets {
            let receipt = ticket.await;
            let receipt =
                receipt.map_err(|error| format!("{}/{number} lost: {error}", topic.name))?;
            if receipt.partition.0 != *number || receipt.offset.get() != next {
                return Err(format!(
                    "{}/{number} at {next}: stored as {receipt:?}",
                    topic.name
                ));
            }
            next += 1;
            count(&self.shared.tally.acked, 1);
        }
        self.partition.acked.store(next, Ordering::Release);
        Ok(next)
    }
}

/// Reads one partition from its first record to its last.
async fn read(shared: Shared, partition: Arc<Partition>, stop: CancellationToken) {
    let work = read_on(&shared, &partition);
    if let Some(ended) = stop.run_until_cancelled(work).await {
        shared.heard(ended);
    }
}

async fn read_on(shared: &Shared, partition: &Partition) -> Result<(), String> {
    let (topic, number) = (partition.topic, partition.number);
    let client = shared.connect().await?;
    let records = client.subscribe(topic.name);
    let records = records.partition_from(number, Start::Earliest).open().await;
    let mut records = records.map_err(|error| error.to_string())?;
    let mut due = Due::new(topic.stream(number), Some(0));
    loop {
        let record = records.next().await.transpose();
        let record = record.map_err(|error| format!("{}/{number}: {error}", topic.name))?;
        let record = record.ok_or_else(|| format!("{}/{number} ended", topic.name))?;
        due.check(&record)?;
        count(&shared.tally.read, 1);
        let next = record.next_offset().get();
        partition.read.store(next, Ordering::Release);
    }
}

/// Reads what was kept for ever once more, as a client does that comes at the end.
async fn read_again(shared: &Shared, partition: &Partition) -> Result<(), String> {
    let end = partition.acked.load(Ordering::Acquire);
    partition.read.store(0, Ordering::Release);
    let all = async {
        while partition.read.load(Ordering::Acquire) < end {
            sleep(TICK).await;
        }
    };
    tokio::select! {
        ended = read_on(shared, partition) => ended,
        () = all => Ok(()),
        () = sleep(REST) => Err(format!("{} cannot be read again", partition.topic.name)),
    }
}
