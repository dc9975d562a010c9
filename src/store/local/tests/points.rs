//! Power cuts at every point: a trace of everything the store does is recorded, and after each
//! single step of the device, and inside each write at every sector, the disk that is left is
//! opened and compared with a model.
//!
//! `FALCON_CRASH_POINTS` sets how many operations the trace has, `FALCON_CRASH_SEED` which.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use super::*;
use crate::store::CommitSeq;

const OPERATIONS: u64 = 100;
/// The table row that numbers the groups.
const COUNTER: &[u8] = b"groups";

pub(super) fn from_env(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |given| given.parse().expect("a number"))
}

/// Kept and assigned offsets of the live partitions, and all rows.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Model {
    logs: BTreeMap<PartitionId, (u64, u64)>,
    rows: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
}

/// The value of a record follows from where it is.
fn value(partition: PartitionId, offset: u64) -> Vec<u8> {
    let seed = u64::from(partition.topic.0) << 40 | u64::from(partition.partition.0) << 32 | offset;
    let mut random = fastrand::Rng::with_seed(seed);
    let bytes = random.usize(0..500);
    (0..bytes).map(|_| random.u8(..)).collect()
}

fn log_key(partition: PartitionId) -> Vec<u8> {
    let mut key = partition.topic.0.to_be_bytes().to_vec();
    key.extend(partition.partition.0.to_be_bytes());
    key
}

impl Model {
    fn snapshot(&self) -> Vec<Row> {
        let rows = self.rows.clone();
        Tables {
            rows,
            ends: BTreeMap::new(),
        }
        .snapshot()
    }

    fn set(&mut self, group: &mut CommitGroup, table: Table, key: &[u8], value: Option<&[u8]>) {
        let owned = (table.number(), key.to_vec());
        match value {
            Some(value) => drop(self.rows.insert(owned, value.to_vec())),
            None => drop(self.rows.remove(&owned)),
        }
        group.rows.push(Row {
            table,
            key: Bytes::copy_from_slice(key),
            value: value.map(Bytes::copy_from_slice),
        });
    }

    fn publish(&mut self, group: &mut CommitGroup, partition: PartitionId, records: u64) {
        let Some((_, end)) = self.logs.get_mut(&partition) else {
            return;
        };
        let values: Vec<Vec<u8>> = (*end..*end + records)
            .map(|offset| value(partition, offset))
            .collect();
        let borrowed: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        group
            .batches
            .push(stamped(partition, *end, batch(&borrowed, 5)));
        *end += records;
    }

    fn pick(&self, random: &mut fastrand::Rng) -> Option<PartitionId> {
        let all: Vec<PartitionId> = self.logs.keys().copied().collect();
        random.choice(&all).copied()
    }
}

/// A store whose disk is recorded, and every state that it went through.
struct Trace {
    bench: Bench,
    store: Option<Arc<LocalStore>>,
    random: fastrand::Rng,
    /// By number of groups committed.
    models: Vec<Model>,
    next_topic: u32,
    /// Turns that copied something forward, and topics deleted.
    copies: u64,
    deletions: u64,
    /// What the store is told once the next sync returned.
    trims: Vec<(PartitionId, Option<Offset>)>,
}

impl Trace {
    fn run(seed: u64, operations: u64) -> Self {
        let mut bench = Bench::new();
        bench.config.index_dir = None;
        bench.config.cache_bytes = 0;
        bench.config.segment_bytes = 8 << 10;
        bench.config.first_segment_bytes = 8 << 10;
        bench.disk.record();
        let mut trace = Self {
            store: None,
            bench,
            random: fastrand::Rng::with_seed(seed),
            models: vec![Model::default()],
            next_topic: 1,
            trims: Vec::new(),
            copies: 0,
            deletions: 0,
        };
        trace.start();
        for _ in 0..operations {
            trace.operate();
        }
        trace.store = None;
        trace
    }

    fn store(&self) -> &Arc<LocalStore> {
        self.store.as_ref().unwrap()
    }

    fn model(&self) -> &Model {
        self.models.last().unwrap()
    }

    fn start(&mut self) {
        self.bench.config.spare_segments = self.random.usize(0..2);
        let (store, report, tables) = self.bench.open();
        assert_eq!(report.damage, vec![]);
        assert_eq!(tables.rows, self.model().rows);
        retain(&store, self.model());
        self.store = Some(store);
    }

    fn note_durable(&mut self) {
        let groups = self.models.len() as u64 - 1;
        self.bench.disk.note(groups * 2 + 1);
        for (partition, log_start) in std::mem::take(&mut self.trims) {
            self.store().trim(partition, log_start);
        }
    }

    fn durable(&mut self, seq: CommitSeq) {
        self.store().durable(seq).unwrap();
        self.note_durable();
    }

    fn operate(&mut self) {
        match self.random.u8(0..40) {
            0 => {
                if self.random.bool() {
                    self.store().close(self.model().snapshot()).unwrap();
                    self.note_durable();
                } else {
                    // The model goes on from all of it.
                    self.store().write_only();
                }
                self.store = None;
                self.start();
            }
            1 => self.snapshot(),
            2..5 => self.copies += u64::from(self.store().gather()),
            // It may sync what is pending too, which nobody is told.
            5..9 => self.store().tidy().unwrap(),
            _ => {
                let seq = self.commit();
                if self.random.u8(0..4) != 0 {
                    self.durable(seq);
                } else if self.random.bool() {
                    self.store().write_only();
                }
            }
        }
    }

    fn snapshot(&mut self) {
        let seq = self.store().commit_snapshot(self.model().snapshot());
        self.durable(seq.unwrap());
    }

    fn commit(&mut self) -> CommitSeq {
        if self.store().wants_snapshot() {
            self.snapshot();
        }
        let mut model = self.model().clone();
        let mut group = CommitGroup::default();
        let number = self.models.len() as u64;
        model.set(
            &mut group,
            Table::Counters,
            COUNTER,
            Some(&number.to_le_bytes()),
        );
        self.change(&mut model, &mut group);
        self.models.push(model);
        self.bench.disk.note(number * 2);
        self.store().commit(group).unwrap()
    }

    fn change(&mut self, model: &mut Model, group: &mut CommitGroup) {
        let random = &mut self.random;
        if model.logs.is_empty() || random.u8(0..20) == 0 {
            let topic = self.next_topic;
            self.next_topic += 1;
            model.set(group, Table::Topics, &topic.to_be_bytes(), Some(b"topic"));
            for partition in 0..random.u32(1..4) {
                model
                    .logs
                    .insert(PartitionId::new(topic, partition), (0, 0));
            }
        }
        for _ in 0..random.u8(0..4) {
            // The first topic is published to rarely, and never trimmed by much.
            let partition = model.pick(random);
            if let Some(partition) =
                partition.filter(|p| p.topic.0 % 3 != 1 || random.u8(0..6) == 0)
            {
                model.publish(group, partition, random.u64(1..4));
            }
        }
        let key = [random.u8(0..6)];
        let row = random
            .bool()
            .then(|| vec![random.u8(..); random.usize(0..40)]);
        model.set(group, Table::Offsets, &key, row.as_deref());
        match random.u8(0..8) {
            // An owner changes, or its group goes.
            0 => {
                let fence = random.bool().then(|| vec![random.u8(..); 9]);
                model.set(group, Table::Fences, &key, fence.as_deref());
            }
            // A step: records for every partition of a topic, and an offset, in one group.
            1 => {
                let topic = model.pick(random).map(|partition| partition.topic);
                let all: Vec<PartitionId> = model.logs.keys().copied().collect();
                for partition in all.into_iter().filter(|id| Some(id.topic) == topic) {
                    model.publish(group, partition, random.u64(1..3));
                }
                model.set(
                    group,
                    Table::Offsets,
                    b"step",
                    Some(&random.u64(..).to_le_bytes()),
                );
            }
            _ => {}
        }
        let Some(partition) = model.pick(random) else {
            return;
        };
        match random.u8(0..30) {
            0..2 if model.logs.len() > 4 => {
                self.deletions += 1;
                let topic = partition.topic;
                model.set(group, Table::Topics, &topic.0.to_be_bytes(), None);
                let gone: Vec<PartitionId> = model.logs.keys().copied().collect();
                for partition in gone.into_iter().filter(|p| p.topic == topic) {
                    model.logs.remove(&partition);
                    model
                        .rows
                        .remove(&(Table::Partitions.number(), log_key(partition)));
                    group.rows.push(Row {
                        table: Table::Partitions,
                        key: log_key(partition).into(),
                        value: None,
                    });
                    self.trims.push((partition, None));
                }
            }
            2..13 => {
                let (start, end) = model.logs[&partition];
                let kept = if partition.topic.0 % 3 == 1 { 12 } else { 4 };
                let start = random.u64(start..=end.saturating_sub(kept).max(start));
                model.logs.insert(partition, (start, end));
                let value = start.to_le_bytes();
                model.set(group, Table::Partitions, &log_key(partition), Some(&value));
                self.trims.push((partition, Some(Offset(start))));
            }
            _ => {}
        }
    }
}

fn retain(store: &LocalStore, model: &Model) {
    let logs = model.logs.iter();
    let live: Vec<_> = logs.map(|(id, (start, _))| (*id, Offset(*start))).collect();
    store.retain(&live);
}

/// What a power cut left, and what must be in it.
struct Image {
    disk: SimDisk,
    /// Groups that were durable, and that were handed over at all.
    durable: usize,
    submitted: usize,
    at: String,
    /// Whether the store shall also go on from here.
    goes_on: Option<u64>,
}

fn check(image: &Image, config: &LocalConfig, models: &[Model]) {
    let at = &image.at;
    let bench = Bench::on(image.disk.clone(), config.clone());
    let found = check_start(&bench, image.durable..=image.submitted, models, at);
    let Some(seed) = image.goes_on else {
        return;
    };
    // The journal goes on where it ended, and what follows is as durable.
    let mut model = models[found].clone();
    let mut group = CommitGroup::default();
    let number = (found as u64 + 1).to_le_bytes();
    model.set(&mut group, Table::Counters, COUNTER, Some(&number));
    if let Some(partition) = model.pick(&mut fastrand::Rng::with_seed(seed)) {
        model.publish(&mut group, partition, 2);
    }
    let (store, ..) = bench.open();
    retain(&store, &models[found]);
    if store.wants_snapshot() {
        store.commit_snapshot(models[found].snapshot()).unwrap();
    }
    let seq = store.commit(group).unwrap();
    store.durable(seq).unwrap();
    let after = bench.disk.crash(seed);
    drop(store);
    let bench = Bench::on(after, config.clone());
    let mut states = models[..=found].to_vec();
    states.push(model);
    check_start(
        &bench,
        found + 1..=found + 1,
        &states,
        &format!("{at}, gone on"),
    );
}

/// Opens the disk and compares everything; answers the number of groups found.
fn check_start(
    bench: &Bench,
    expected: std::ops::RangeInclusive<usize>,
    models: &[Model],
    at: &str,
) -> usize {
    let mut tables = Tables::default();
    let opened = bench.try_open(&mut tables);
    let (store, report) = opened.unwrap_or_else(|error| panic!("{at}: {error:?}"));
    assert_eq!(report.damage, vec![], "{at}");
    assert_eq!(
        (report.rows_damaged, report.missing_segments.len()),
        (0, 0),
        "{at}"
    );
    let counter = tables
        .rows
        .get(&(Table::Counters.number(), COUNTER.to_vec()));
    let found = counter.map_or(0, |bytes| u64::from_le_bytes(bytes[..].try_into().unwrap()));
    let found = usize::try_from(found).unwrap();
    assert!(
        expected.contains(&found),
        "{at}: {found} of {expected:?}: {report:?}"
    );
    let model = &models[found];
    assert_eq!(tables.rows, model.rows, "{at}: rows of group {found}");
    retain(&store, model);
    let bounds = super::super::locked(&store.shared.bounds).clone();
    for partition in bounds.keys() {
        assert!(
            model.logs.contains_key(partition),
            "{at}: phantom {partition}"
        );
    }
    for (partition, (start, end)) in &model.logs {
        let known = bounds.get(partition).map_or(0, |bounds| bounds.end.0);
        assert_eq!(known, *end, "{at}: end of {partition} after group {found}");
        let mut next = *start;
        while next < *end {
            let read = values(&store, *partition, next, *end);
            let read = read.unwrap_or_else(|error| panic!("{at}: {partition} {next}: {error:?}"));
            for (offset, bytes) in read {
                assert_eq!((offset, bytes), (next, value(*partition, next)), "{at}");
                next += 1;
            }
        }
        let beyond = values(&store, *partition, *end, end + 1);
        assert!(
            matches!(beyond, Err(ReadError::Missing { .. })),
            "{at}: {beyond:?}"
        );
    }
    found
}

/// Goes through the recording and sends every image there may be.
fn cut(trace: &Trace, seed: u64, to: &SyncSender<Image>) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut recording = trace.bench.disk.recording();
    let (mut durable, mut submitted, mut step, mut count) = (0, 0, 0, 0);
    while let Some(moment) = recording.step(&mut random, 2) {
        step += 1;
        if let Some(note) = moment.note {
            let groups = usize::try_from(note / 2).unwrap();
            submitted = groups.max(submitted);
            if note % 2 == 1 {
                durable = groups;
            }
        }
        for (nth, disk) in moment.images.into_iter().enumerate() {
            count += 1;
            let image = Image {
                disk,
                durable,
                submitted,
                at: format!("FALCON_CRASH_SEED={seed}, step {step}, image {nth}"),
                goes_on: (count % 16 == 0).then_some(count),
            };
            if to.send(image).is_err() {
                return count;
            }
        }
    }
    count
}

#[test]
fn after_every_step_of_the_device_what_was_durable_is_there() {
    let seed = from_env("FALCON_CRASH_SEED", 1);
    let operations = from_env("FALCON_CRASH_POINTS", OPERATIONS);
    let trace = Trace::run(seed, operations);
    let config = LocalConfig {
        spare_segments: 0,
        ..trace.bench.config.clone()
    };
    let (to, from) = sync_channel(8);
    let from: Arc<Mutex<Receiver<Image>>> = Arc::new(Mutex::new(from));
    let count = std::thread::scope(|scope| {
        for _ in 0..2 {
            let from = Arc::clone(&from);
            scope.spawn(|| {
                // Taken along, so that sending ends when no checker is left.
                let from = from;
                loop {
                    let next = super::super::locked(&from).recv();
                    let Ok(image) = next else {
                        return;
                    };
                    check(&image, &config, &trace.models);
                }
            });
        }
        drop(from);
        let count = cut(&trace, seed, &to);
        drop(to);
        count
    });
    let (copies, deletions) = (trace.copies, trace.deletions);
    println!(
        "figures: operations={operations} copies_forward={copies} topics_deleted={deletions} crash_images={count}"
    );
}
