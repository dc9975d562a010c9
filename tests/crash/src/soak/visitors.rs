//! Clients that come, do one thing for a few seconds, and go: half of them without goodbye.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use falcon_client::{Client, Offset, Offsets, Start, SubscribeError, Subscription};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::lasting::{TOPICS, Topic};
use super::shared::{Shared, count, end};
use super::values::Due;

/// Groups that nobody comes back to; an operator forgets the oldest beyond so many.
const ABANDONED_MAX: usize = 20;
/// Records between two commits.
const COMMIT_EVERY: u64 = 25;
/// Pause of a slow reader after each record.
const SLOW: Duration = Duration::from_millis(100);

/// One visitor after the other.
pub(super) async fn run(shared: Shared, number: u32, stop: CancellationToken) {
    let mut seat = Seat {
        random: shared.random(1_000 + u64::from(number)),
        shared,
        number,
        committed: BTreeMap::new(),
        abandoned: VecDeque::new(),
        visits: 0,
    };
    while !stop.is_cancelled() {
        let visited = seat.visit(&stop).await;
        if seat.shared.heard(visited).is_none() {
            return;
        }
        let pause = Duration::from_millis(seat.random.u64(50..1_500));
        stop.run_until_cancelled(sleep(pause)).await;
    }
}

/// Where visitors follow each other, and what must outlast them.
struct Seat {
    shared: Shared,
    random: fastrand::Rng,
    number: u32,
    /// What this seat's own group has stored, by topic and partition.
    committed: BTreeMap<(&'static str, u32), u64>,
    abandoned: VecDeque<String>,
    visits: u64,
}

/// One partition to look at.
#[derive(Debug, Clone, Copy)]
struct Place {
    topic: &'static Topic,
    partition: u32,
}

impl Seat {
    async fn visit(&mut self, stop: &CancellationToken) -> Result<(), String> {
        self.visits += 1;
        let client = self.shared.connect().await?;
        let life = Duration::from_millis(self.random.u64(500..10_000));
        let place = self.place();
        let work = async {
            match self.random.u8(..) {
                0..80 => self.read(&client, place, false).await,
                80..110 => self.read(&client, place, true).await,
                110..170 => self.resume(&client, place).await,
                170..220 => self.abandon(&client, place).await,
                220.. => self.look_around(&client).await,
            }
        };
        // Most of these would go on for ever: to be cut off in the midst of it is the point.
        let ended = stop.run_until_cancelled(timeout(life, work)).await;
        if let Some(Ok(ended)) = ended {
            ended?;
        }
        let is_polite = self.random.bool();
        end(&self.shared, client, is_polite).await;
        Ok(())
    }

    fn place(&mut self) -> Place {
        let topic = TOPICS.get(self.random.usize(..TOPICS.len()));
        let [first, ..] = &TOPICS;
        let topic = topic.unwrap_or(first);
        let partition = self.random.u32(..topic.partitions);
        Place { topic, partition }
    }

    /// Reads without a group.
    async fn read(&mut self, client: &Client, place: Place, is_slow: bool) -> Result<(), String> {
        let start = match self.random.u8(..) {
            0..60 if !is_slow => Start::Earliest,
            0..150 => Start::Last(self.random.u64(1..500)),
            150.. => Start::Latest,
        };
        let Some(mut records) = self.open(client, place, start).await? else {
            return Ok(());
        };
        let mut due = Due::new(place.topic.stream(place.partition), None);
        while self.next(&mut records, &mut due).await?.is_some() {
            if is_slow {
                sleep(SLOW).await;
            }
        }
        Ok(())
    }

    /// Reads on where this seat's group has stored that it got to; only this seat uses the group.
    async fn resume(&mut self, client: &Client, place: Place) -> Result<(), String> {
        let offsets = client.offsets(format!("seat-{}", self.number));
        let key = (place.topic.name, place.partition);
        let stored = offsets.fetch(place.topic.name).await;
        let stored = stored.map_err(|error| format!("a group cannot fetch: {error}"))?;
        let stored = stored.iter().find(|row| row.partition.0 == place.partition);
        let stored = stored.map(|row| row.offset.get());
        let known = self.committed.get(&key).copied();
        // A commit that was cut off may have happened.
        if stored < known {
            return Err(format!(
                "{key:?}: {stored:?} is stored after {known:?} was committed"
            ));
        }
        let start = stored.map_or(Start::Last(50), |offset| {
            Start::Offset(Offset::ZERO.advance(offset))
        });
        let opened = self.open(client, place, start).await?;
        let mut records = match opened {
            Some(records) => records,
            None => match self.open(client, place, Start::Latest).await? {
                Some(records) => records,
                None => return Ok(()),
            },
        };
        let mut due = Due::new(place.topic.stream(place.partition), None);
        while let Some(next) = self.next(&mut records, &mut due).await? {
            if next % COMMIT_EVERY == 0 {
                self.commit(&offsets, place, next).await?;
                self.committed.insert(key, next);
            }
        }
        Ok(())
    }

    /// Commits under a name that is never used again.
    async fn abandon(&mut self, client: &Client, place: Place) -> Result<(), String> {
        let name = format!("abandoned-{}-{}", self.number, self.visits);
        let offsets = client.offsets(name.clone());
        count(&self.shared.tally.groups_made, 1);
        self.abandoned.push_back(name);
        if let Some(mut records) = self.open(client, place, Start::Last(100)).await? {
            let mut due = Due::new(place.topic.stream(place.partition), None);
            for _ in 0..50 {
                if let Some(next) = self.next(&mut records, &mut due).await? {
                    self.commit(&offsets, place, next).await?;
                }
            }
        }
        while self.abandoned.len() > ABANDONED_MAX {
            let Some(oldest) = self.abandoned.front() else {
                break;
            };
            let deleted = client.offsets(oldest.clone()).delete(None).await;
            deleted.map_err(|error| format!("a group cannot be deleted: {error}"))?;
            self.abandoned.pop_front();
            count(&self.shared.tally.groups_deleted, 1);
        }
        Ok(())
    }

    /// What people and tools ask for.
    async fn look_around(&mut self, client: &Client) -> Result<(), String> {
        let failed = |error: falcon_client::Error| format!("a question was refused: {error}");
        let topics = client.list_topics().await.map_err(failed)?;
        client.list_groups().await.map_err(failed)?;
        for topic in TOPICS.iter().filter(|_| self.random.bool()) {
            client.describe_topic(topic.name).await.map_err(failed)?;
        }
        if topics.len() < TOPICS.len() {
            return Err(format!("only {} topics are listed", topics.len()));
        }
        sleep(Duration::from_secs(5)).await;
        Ok(())
    }

    async fn commit(&self, offsets: &Offsets, place: Place, next: u64) -> Result<(), String> {
        let next = Offset::ZERO.advance(next);
        let committed = offsets
            .commit(place.topic.name, place.partition, next)
            .await;
        committed.map_err(|error| format!("a commit was refused: {error}"))?;
        count(&self.shared.tally.offset_commits, 1);
        Ok(())
    }

    /// `None` where retention was faster.
    async fn open(
        &self,
        client: &Client,
        place: Place,
        start: Start,
    ) -> Result<Option<Subscription>, String> {
        let records = client.subscribe(place.topic.name).buffer_bytes(64 << 10);
        let opened = records.partition_from(place.partition, start).open().await;
        self.late(opened.map(Some))
    }

    /// The offset after the next record; `None` where retention was faster.
    async fn next(&self, records: &mut Subscription, due: &mut Due) -> Result<Option<u64>, String> {
        let Some(record) = self.late(records.next().await.transpose())? else {
            return Ok(None);
        };
        due.check(&record)?;
        count(&self.shared.tally.read, 1);
        Ok(Some(record.next_offset().get()))
    }

    fn late<T>(&self, result: Result<Option<T>, SubscribeError>) -> Result<Option<T>, String> {
        match result {
            Ok(value) => Ok(value),
            Err(error) if self.shared.is_overtaken(&error) => Ok(None),
            Err(error) => Err(format!("a visitor was told: {error}")),
        }
    }
}
