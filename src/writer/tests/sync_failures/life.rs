//! One life of a broker without its server.

use super::ledger::Told;
use super::*;

const PARTITIONS: u32 = 4;
const PUBLISHERS: u64 = 3;
const LIMITS: StateLimits = StateLimits {
    topics_max: 4,
    partitions_max: 16,
    committed_offsets_max: 16,
    producers_max: 10_000,
};

pub(super) struct Life {
    ledger: Arc<Ledger>,
    store: Arc<LocalStore>,
    running: Option<Running>,
    producers: Vec<(ProducerId, BTreeMap<PartitionId, u64>)>,
    runtime: tokio::runtime::Runtime,
}

fn batch_of(producer: Producer, value: &[u8]) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None, 1 << 20);
    builder
        .push(&Record::new(value.to_vec()), 1_000)
        .expect("fits");
    Batch::from_bytes(builder.build(producer).expect("not empty")).expect("whole")
}

impl Life {
    pub(super) fn start(disk: &SimDisk, ledger: &Arc<Ledger>) -> Result<Self, OpenError> {
        let config = LocalConfig {
            index_dir: None,
            segment_bytes: 16 << 10,
            first_segment_bytes: 16 << 10,
            cache_bytes: 4 << 10,
            forward_after: std::time::Duration::ZERO,
            ..LocalConfig::new(Path::new("/data"))
        };
        let mut state = State::new(LIMITS);
        let (store, report) = LocalStore::open(config, Arc::new(disk.clone()), &mut state)?;
        assert_eq!((report.damage, report.rows_damaged), (Vec::new(), 0));
        store.retain(&state.live_partitions());
        let dyn_store = Arc::clone(&store) as Arc<dyn Store>;
        let running = spawn_overlapping(state, dyn_store, Arc::default(), ledger.overlap_bytes);
        Ok(Self {
            ledger: Arc::clone(ledger),
            store,
            running: Some(running.expect("threads")),
            producers: Vec::new(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime"),
        })
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs")
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.running().views.write_state() == WriteState::Stopped
    }

    fn send(&self, command: Command) {
        let sent = self.running().handle.send(command);
        self.runtime.block_on(sent).expect("the writer takes it");
    }

    fn ask<T: Send + 'static, E: Send + 'static>(
        &self,
        command: impl FnOnce(Answer<T, E>) -> Command,
    ) -> Result<T, E> {
        let (answer, answered) = answer();
        self.send(command(answer));
        answered.recv().expect("an answer")
    }

    /// In order, as a signal does it.
    pub(super) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            drop(running.handle);
            drop(running.views);
            let _closed = running.thread.join().expect("no panic");
        }
    }

    /// The topic, and producer ids of this life. Whatever fails here has no answers to judge.
    pub(super) fn prepare(&mut self) {
        let known = self
            .running()
            .views
            .catalog()
            .by_name("t")
            .map(|topic| topic.id);
        let created = match known {
            Some(id) => Ok(id),
            None => {
                self.ask(|answer| Command::CreateTopic("t".into(), PARTITIONS, Vec::new(), answer))
            }
        };
        if let Ok(topic) = created {
            self.ledger.told().topic = Some(topic);
        }
    }

    fn partition(&self, number: u64) -> Option<PartitionId> {
        let topic = self.ledger.told().topic?;
        let number = u32::try_from(number % u64::from(PARTITIONS)).expect("small");
        Some(PartitionId {
            topic,
            ..PartitionId::new(0, number)
        })
    }

    fn bounds(&self, id: PartitionId) -> (u64, u64) {
        let view = self.running().views.partition(id);
        view.map_or((0, 0), |view| (view.log_start().0, view.high_watermark().0))
    }

    /// Everybody does something at once, and waits for the answers.
    pub(super) fn turn(&mut self, turn: u64) {
        while self.producers.len() < usize::try_from(PUBLISHERS).expect("small") {
            let Ok(granted) = self.ask(|answer| Command::InitProducer(None, answer)) else {
                return;
            };
            self.producers.push((granted.producer_id, BTreeMap::new()));
        }
        let mut waits: Vec<Receiver<Result<(), ()>>> = Vec::new();
        for publisher in 0..PUBLISHERS {
            waits.extend(self.publish(publisher, turn + publisher));
        }
        if turn.is_multiple_of(3) {
            waits.extend(self.commit(turn));
        }
        for wait in waits {
            wait.recv().expect("an answer").expect("done");
        }
        if turn % 8 == 6 {
            self.trim(turn / 8);
        }
        if turn % 4 == 3 {
            // A second time without work in between leaves an idle mark.
            self.tidy();
            self.tidy();
        }
    }

    fn publish(&mut self, publisher: u64, partition: u64) -> Option<Receiver<Result<(), ()>>> {
        let id = self.partition(partition)?;
        let value = {
            let mut told = self.ledger.told();
            told.next_value += 1;
            format!("{}-", told.next_value).repeat(60).into_bytes()
        };
        let (producer_id, sequences) =
            &mut self.producers[usize::try_from(publisher).expect("small")];
        let next = sequences.entry(id).or_default();
        let producer = sequence(*producer_id, 0, *next);
        *next += 1;
        let batch = batch_of(producer, &value);
        let (answered, wait) = answer::<(), ()>();
        let ledger = Arc::clone(&self.ledger);
        let answer = PublishAnswer::new(move |result: Result<Appended, PublishError>| {
            ledger.note_publish(id, &value, &result);
            answered(Ok(()));
            None
        });
        self.send(Command::Publish(Publish {
            partition: id,
            batch,
            answer,
        }));
        Some(wait)
    }

    fn commit(&self, partition: u64) -> Option<Receiver<Result<(), ()>>> {
        let id = self.partition(partition)?;
        let (_, offset) = self.bounds(id);
        let commit = CommitOffsets {
            group: "g".into(),
            offsets: vec![(id, Offset(offset), String::new())],
        };
        let (answered, wait) = answer::<(), ()>();
        let ledger = Arc::clone(&self.ledger);
        let answer = Box::new(move |result: Result<(), OffsetsError>| {
            ledger.note_commit(id, offset, &result);
            answered(Ok(()));
        });
        self.send(Command::CommitOffsets(commit, answer));
        Some(wait)
    }

    /// The first partition keeps nearly everything, so that copies forward are needed.
    fn trim(&self, turn: u64) {
        for number in 1..u64::from(PARTITIONS) {
            let Some(id) = self.partition(number) else {
                return;
            };
            let (from, end) = self.bounds(id);
            let log_start = end.saturating_sub(turn % 4).max(from);
            self.send(Command::Trim(vec![Trim {
                partition: id,
                from: Offset(from),
                log_start: Offset(log_start),
                bytes_freed: 0,
            }]));
        }
    }

    fn tidy(&self) {
        self.store.gather();
        let (tidied, wait) = channel();
        self.send(Command::Tidy(Box::new(move || {
            tidied.send(()).expect("somebody waits");
        })));
        wait.recv().expect("it is tidied");
    }

    /// After a failure each kind of change is refused, with the word for it. Answers how many.
    pub(super) fn probe(&self, at: &str) -> u64 {
        let Some(id) = self.partition(0) else {
            return 0;
        };
        let batch = batch_of(Producer::default(), b"too late");
        let refused = self.ask(|answer| {
            Command::Publish(Publish {
                partition: id,
                batch,
                answer: PublishAnswer::from(answer),
            })
        });
        assert_eq!(
            refused,
            Err(PublishError::Journal(JournalError::Stopped)),
            "{at}"
        );
        let refused = self.ask(|answer| Command::CreateTopic("u".into(), 1, Vec::new(), answer));
        assert_eq!(
            refused,
            Err(TopicError::Journal(JournalError::Stopped)),
            "{at}"
        );
        let refused = self.ask(|answer| Command::InitProducer(None, answer));
        assert_eq!(
            refused,
            Err(ProducerError::Journal(JournalError::Stopped)),
            "{at}"
        );
        let commit = CommitOffsets {
            group: "g".into(),
            offsets: vec![(id, Offset(0), String::new())],
        };
        let refused = self.ask(|answer| Command::CommitOffsets(commit, answer));
        assert_eq!(
            refused,
            Err(OffsetsError::Journal(JournalError::Stopped)),
            "{at}"
        );
        4
    }

    /// What readers see now may never go again.
    pub(super) fn take_over_ends(&self) {
        for number in 0..u64::from(PARTITIONS) {
            if let Some(id) = self.partition(number) {
                let (_, end) = self.bounds(id);
                self.ledger.told().ends.insert(id, end);
            }
        }
    }

    /// Everything acknowledged and kept is readable, and offsets did not go back.
    pub(super) fn check(&self, at: &str) {
        let told: Told = self.ledger.told().clone();
        let Some(topic) = told.topic else { return };
        assert!(
            self.running().views.catalog().by_id(topic).is_some(),
            "{at}: no topic"
        );
        for acked in &told.acked {
            let (start, end) = self.bounds(acked.id);
            if acked.offset < start {
                continue;
            }
            assert!(
                acked.offset < end,
                "{at}: lost {} of {}, it ends at {end}",
                acked.offset,
                acked.id
            );
            assert_eq!(
                self.value(acked.id, acked.offset, end, at),
                acked.value,
                "{at}: {} of {}",
                acked.offset,
                acked.id
            );
        }
        for (id, known) in &told.ends {
            let (start, end) = self.bounds(*id);
            assert!(end >= *known, "{at}: {id} went back from {known} to {end}");
            (start..end).for_each(|offset| drop(self.value(*id, offset, end, at)));
        }
        let offsets = self.running().views.offsets();
        for (id, known) in &told.committed {
            let stored = offsets.group("g").and_then(|group| group.get(id));
            let stored = stored.map(|committed| committed.offset.0);
            assert!(
                stored >= Some(*known),
                "{at}: commit of {id}: {stored:?}, was {known}"
            );
        }
    }

    fn value(&self, id: PartitionId, offset: u64, end: u64, at: &str) -> Vec<u8> {
        let read = self.store.read(id, Offset(offset), Offset(end), 1);
        let mut run = read
            .unwrap_or_else(|error| panic!("{at}: {id} {offset}: {error}"))
            .remove(0);
        let batch = Batch::split_from(&mut run).expect("whole");
        assert_eq!(batch.header().base_offset, Offset(offset), "{at}");
        let mut records = batch.records().expect("records");
        let record = records.next().expect("a record").expect("whole");
        record.value.unwrap_or_default().to_vec()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.stop();
    }
}
