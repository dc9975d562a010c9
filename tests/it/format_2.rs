//! The data folder of format 2: fences, what is left of a deleted group, and an atomic step.
//!
//! `FALCON_MAKE_FIXTURE=1 cargo test -p falcon --test it format_2` made `tests/fixtures/data-v2`, once, with the
//! version that introduced the format. Run it again only for a new format, under a new name.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

use falcon::io::RealDisk;
use falcon::store::Store as _;
use falcon::store::local::{LocalConfig, LocalStore};
use falcon::writer::{
    Answer, Command, Publish, PublishAnswer, Running, State, StateLimits, Step, StepEntry, spawn,
};
use falcon_protocol::message::{CommitOwned, GroupHold, OwnedCommit};
use falcon_protocol::{Batch, Offset, OwnerEpoch, Partition, PartitionId, TopicId};
use serde_json::{Value, json};

use crate::broker::Ran;
use crate::folder::{offline, partitions, stop, verify};
use crate::formats::{folder_formats, unpack};
use crate::peer::batch;

/// Partition, log end, SHA-256 of the log as `docs/STORAGE.md` defines it.
const LOGS: [(&str, u64, &str); 3] = [
    (
        "done/0",
        4,
        "0fa80adba9cbadfef3a0fe6e5a566994aae36bc8330b3069778867d9d1dac3e0",
    ),
    (
        "orders/0",
        5,
        "134e655fa8918141a9b0b2fc7f698584e8c4e0e822ee19e6479913fe602986cd",
    ),
    (
        "orders/1",
        2,
        "d56b2802f65abecc3d1ec0f041de5f9a77a72b06005fe65f5de09fc59003459b",
    ),
];

struct Maker {
    running: Running,
    runtime: tokio::runtime::Runtime,
}

impl Maker {
    fn ask<T, E>(&self, command: impl FnOnce(Answer<T, E>) -> Command) -> T
    where
        T: Send + 'static,
        E: std::fmt::Debug + Send + 'static,
    {
        let (sender, answered) = channel();
        let answer = Box::new(move |result| drop(sender.send(result)));
        let sent = self.running.handle.send(command(answer));
        self.runtime.block_on(sent).expect("the writer takes it");
        let answer = answered.recv().expect("an answer");
        answer.expect("it is in order")
    }
}

fn records(count: u32) -> Batch {
    Batch::from_bytes(batch(count, 60)).expect("whole")
}

/// A folder with everything that format 2 has and format 1 had not.
fn make(folder: &Path) {
    let config = LocalConfig {
        spare_segments: 0,
        segment_bytes: 1 << 20,
        first_segment_bytes: 1 << 20,
        ..LocalConfig::new(folder)
    };
    let mut state = State::new(StateLimits {
        topics_max: 10,
        partitions_max: 10,
        committed_offsets_max: 10,
        producers_max: 10,
    });
    let opened = LocalStore::open(config, Arc::new(RealDisk), &mut state);
    let (store, _) = opened.expect("a writable folder");
    store.retain(&state.live_partitions());
    let running = spawn(state, store, Arc::default()).expect("a thread");
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().expect("a runtime");
    let maker = Maker { running, runtime };
    let create = |name: &str, partitions| -> TopicId {
        maker.ask(|answer| Command::CreateTopic(name.into(), partitions, Vec::new(), answer))
    };
    let id = |topic, partition| PartitionId {
        topic,
        partition: Partition(partition),
    };
    let (orders, done) = (create("orders", 2), create("done", 1));
    let (first, second) = (id(orders, 0), id(orders, 1));
    for (partition, count) in [(first, 5), (second, 1), (id(done, 0), 1)] {
        maker.ask(|answer| {
            Command::Publish(Publish {
                partition,
                batch: records(count),
                answer: PublishAnswer::from(answer),
            })
        });
    }
    let fence = |group: &str, partition, epoch| {
        let wanted = vec![(partition, OwnerEpoch(epoch))];
        let fenced = maker.ask(|answer| Command::Fence(group.into(), wanted, answer));
        assert!(fenced.iter().all(|fenced| fenced.is_granted));
    };
    fence("gone", second, 40);
    maker.ask(|answer| Command::DeleteGroup("gone".into(), answer));
    fence("billing", first, 41);
    fence("billing", second, 57);
    let hold = GroupHold {
        partition: first,
        epoch: OwnerEpoch(41),
    };
    let owned = OwnedCommit {
        hold,
        offset: Offset(3),
        may_rewind: false,
        note: "of a step".into(),
    };
    let entry = |partition, count| StepEntry {
        partition,
        expected: None,
        batch: records(count),
    };
    let step = Step {
        batches: vec![entry(id(done, 0), 3), entry(second, 1)],
        commit: Some(CommitOwned {
            group: "billing".into(),
            offsets: vec![owned],
        }),
    };
    maker.ask(|answer| Command::Step(step, answer));
    let Running {
        handle,
        views,
        thread,
    } = maker.running;
    drop((handle, views));
    thread.join().expect("no panic").expect("closed");
}

fn pack(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a writable folder");
    for entry in fs::read_dir(from).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            pack(&path, &to.join(name));
        } else {
            let bytes = fs::read(&path).expect("a readable file");
            let packed = zstd::encode_all(&bytes[..], 19).expect("compresses");
            fs::write(to.join(name + ".zst"), packed).expect("a writable folder");
        }
    }
}

fn lines(ran: &Ran, kind: &str) -> Vec<Value> {
    let lines = ran.json();
    lines
        .iter()
        .filter_map(|line| line.get(kind).cloned())
        .collect()
}

fn expect_all(folder: &Path) {
    let ran = verify(folder);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stderr, ran.text());
    let found = partitions(&ran);
    assert_eq!(found.len(), LOGS.len());
    for (name, end, hash) in LOGS {
        assert_eq!(found[name], (0, end, end, hash.to_owned()), "{name}");
    }
    let fence = |partition: u32, epoch: u64| json!({"group": "billing", "topic": "orders", "partition": partition, "epoch": epoch});
    assert_eq!(lines(&ran, "fence"), [fence(0, 41), fence(1, 57)]);
    let summary = &lines(&ran, "summary")[0];
    assert_eq!(
        (&summary["fences"], &summary["fence_floor"]),
        (&json!(2), &json!(40))
    );
}

#[test]
fn a_folder_of_format_2_is_served_exactly_and_salvaged_whole() {
    let mut broker = unpack("data-v2");
    expect_all(&broker.data_dir());
    let copy = broker.data_dir().with_extension("copy");
    let (from, to) = (
        broker.data_dir().display().to_string(),
        copy.display().to_string(),
    );
    let salvaged = offline(&["salvage", "--data-dir", &from, "--out", &to, "--json"]);
    assert_eq!(salvaged.code, Some(0), "{}", salvaged.stderr);
    expect_all(&copy);
    for _ in 0..2 {
        broker.serve();
        let got = broker.run(&["offsets", "get", "billing", "orders", "--json"]);
        let offset = got.json().iter().find_map(|line| line["offset"].as_u64());
        assert_eq!(offset, Some(3));
        stop(&mut broker);
        expect_all(&broker.data_dir());
        assert_eq!(folder_formats(&broker), [2, 2]);
    }
    // As after a kill.
    fs::remove_file(broker.data_dir().join("CLEAN")).expect("it was stopped orderly");
    expect_all(&broker.data_dir());
}

#[test]
fn this_version_still_makes_such_a_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    make(folder.path());
    if std::env::var_os("FALCON_MAKE_FIXTURE").is_some() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        pack(folder.path(), &fixtures.join("data-v2"));
    }
    let ran = verify(folder.path());
    println!("{}", ran.text());
    expect_all(folder.path());
}
