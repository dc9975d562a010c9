//! Topics that are made, written to, read and deleted within seconds.

use std::time::Duration;

use falcon_client::{Client, Error, Offset, Record, Start, Subscription, TopicOptions};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::shared::{Shared, count, end, is_deleted};
use super::values::{Due, value};

/// A reader hears of everything, the end of its topic included, within this time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Above the streams of topics that last.
const STREAMS: u64 = 10_000;

/// One topic after the other.
pub(super) async fn run(shared: Shared, number: u32, stop: CancellationToken) {
    let mut random = shared.random(2_000 + u64::from(number));
    for turn in 0_u64.. {
        let fleeting = Fleeting {
            shared: &shared,
            name: format!("fleeting-{number}-{turn}"),
            stream: STREAMS + turn * 64 + u64::from(number),
            partitions: random.u32(1..4),
            records: random.u64(10..150),
            is_named: random.bool(),
        };
        // Its client lasts, or ends with the topic.
        let lived = fleeting.live(Duration::from_millis(random.u64(..7_000)), &stop);
        if shared.heard(lived.await).is_none() || stop.is_cancelled() {
            return;
        }
    }
}

struct Fleeting<'a> {
    shared: &'a Shared,
    name: String,
    stream: u64,
    partitions: u32,
    records: u64,
    is_named: bool,
}

impl Fleeting<'_> {
    async fn live(&self, age: Duration, stop: &CancellationToken) -> Result<(), String> {
        let client = self.shared.connect().await?;
        let options = TopicOptions::new(self.partitions);
        let created = client.create_topic(&self.name, options).await;
        created.map_err(|error| self.refused(&error))?;
        count(&self.shared.tally.topics_made, 1);

        self.publish(&client).await?;
        let reader = self.shared.connect().await?;
        let mut records = self.read(&reader).await?;
        let group = client.offsets(&self.name);
        count(&self.shared.tally.groups_made, 1);
        let end_offset = Offset::ZERO.advance(self.records);
        let committed = group.commit(&self.name, 0, end_offset).await;
        committed.map_err(|error| self.refused(&error))?;
        count(&self.shared.tally.offset_commits, 1);

        stop.run_until_cancelled(sleep(age)).await;
        let deleted = client.delete_topic(&self.name).await;
        deleted.map_err(|error| self.refused(&error))?;
        count(&self.shared.tally.topics_deleted, 1);
        self.hear_of_the_end(&mut records).await?;
        let left = group
            .fetch_all()
            .await
            .map_err(|error| self.refused(&error))?;
        if !left.is_empty() {
            return Err(format!(
                "{}: deleted, its offsets are not: {left:?}",
                self.name
            ));
        }
        end(self.shared, reader, self.is_named).await;
        end(self.shared, client, !self.is_named).await;
        Ok(())
    }

    async fn publish(&self, client: &Client) -> Result<(), String> {
        let mut builder = client.publisher(&self.name);
        if self.is_named {
            builder = builder.name(&self.name);
        }
        let publisher = builder
            .build()
            .await
            .map_err(|error| self.refused(&error))?;
        for partition in 0..self.partitions {
            for offset in 0..self.records {
                let bytes = value(self.stream + u64::from(partition) * 8, offset);
                let sent = publisher.send_to(partition, Record::new(bytes)).await;
                drop(sent.map_err(|error| format!("{}: {error}", self.name))?);
            }
        }
        let flushed = publisher.flush().await;
        flushed.map_err(|error| format!("{}: {error}", self.name))?;
        count(&self.shared.tally.acked, self.in_all());
        Ok(())
    }

    const fn in_all(&self) -> u64 {
        self.records * self.partitions as u64
    }

    async fn read(&self, client: &Client) -> Result<Subscription, String> {
        let records = client.subscribe(&self.name).from(Start::Earliest);
        let mut records = records
            .open()
            .await
            .map_err(|error| format!("{}: {error}", self.name))?;
        let streams = (0..self.partitions).map(|partition| self.stream + u64::from(partition) * 8);
        let mut due: Vec<Due> = streams.map(|stream| Due::new(stream, Some(0))).collect();
        for _ in 0..self.in_all() {
            let next = timeout(PATIENCE, records.next()).await;
            let next = next.map_err(|_| format!("{}: records do not arrive", self.name))?;
            let record = next
                .transpose()
                .map_err(|error| format!("{}: {error}", self.name))?;
            let record = record.ok_or_else(|| format!("{}: ended early", self.name))?;
            if let Some(due) = due.get_mut(record.partition.0 as usize) {
                due.check(&record)?;
            }
            count(&self.shared.tally.read, 1);
        }
        Ok(records)
    }

    /// The reader is still there when the topic goes.
    async fn hear_of_the_end(&self, records: &mut Subscription) -> Result<(), String> {
        let next = timeout(PATIENCE, records.next()).await;
        match next.map_err(|_| format!("{}: nobody says that it was deleted", self.name))? {
            None => Ok(()),
            Some(Err(error)) if is_deleted(&error) => Ok(()),
            Some(Err(error)) => Err(format!("{}, deleted: {error}", self.name)),
            Some(Ok(record)) => Err(format!("{}: {} twice", self.name, record.offset)),
        }
    }

    fn refused(&self, error: &Error) -> String {
        format!("{}: {error}", self.name)
    }
}
