//! A folder of format 1 becomes one of format 2, whenever the power goes.

use super::super::identity::Identity;
use super::*;

const IDENTITY: &str = "/data/IDENTITY";

/// The folder as a broker of format 1 would have left it.
fn make_older(disk: &SimDisk) {
    let file = disk.open(Path::new(IDENTITY)).unwrap();
    for slot in [0, 512] {
        let mut bytes = [0; 64];
        file.read_at(slot, &mut bytes).unwrap();
        assert_eq!(
            bytes[12], 2,
            "the format has changed: this test is about the step from 1 to 2"
        );
        bytes[12] = 1;
        let crc = crc32fast::hash(&bytes[12..]).to_le_bytes();
        bytes[8..12].copy_from_slice(&crc);
        file.write_at(slot, &bytes).unwrap();
    }
    file.sync_data().unwrap();
}

/// Formats of the whole slots.
fn formats(disk: &SimDisk) -> Vec<u32> {
    let file = disk.open(Path::new(IDENTITY)).unwrap();
    let format = |slot| {
        let mut bytes = [0; 64];
        file.read_at(slot, &mut bytes).unwrap();
        Identity::decode(&bytes).map(|(format, _)| format)
    };
    [0, 512].into_iter().filter_map(format).collect()
}

#[test]
fn nothing_is_appended_to_a_folder_that_an_older_broker_would_open() {
    const OLDER: u64 = 1;
    const APPENDED: u64 = 2;
    let mut bench = Bench::new();
    bench.config.index_dir = None;
    bench.disk.record();
    let fence = || CommitGroup {
        batches: vec![],
        rows: vec![put(Table::Fences, "key", "value")],
    };
    let (store, ..) = bench.open();
    let seq = store.commit(CommitGroup {
        batches: vec![stamped(P, 0, batch(&[b"older"], 1))],
        rows: vec![],
    });
    store.durable(seq.unwrap()).unwrap();
    store.close(vec![]).unwrap();
    drop(store);
    make_older(&bench.disk);
    bench.disk.note(OLDER);
    let (store, ..) = bench.open();
    store.durable(store.commit(fence()).unwrap()).unwrap();
    bench.disk.note(APPENDED);
    drop(store);
    let mut recording = bench.disk.recording();
    let mut random = fastrand::Rng::with_seed(11);
    let (mut noted, mut between) = (0, 0);
    while let Some(moment) = recording.step(&mut random, 3) {
        noted = moment.note.unwrap_or(noted);
        for disk in moment.images.into_iter().filter(|_| noted >= OLDER) {
            let found = formats(&disk);
            assert!(!found.is_empty(), "no slot is whole");
            let bench = Bench::on(disk, bench.config.clone());
            let (store, report, tables) = bench.open();
            assert_eq!((report.damage, report.rows_damaged), (vec![], 0));
            assert_eq!(values(&store, P, 0, 1).unwrap(), [(0, b"older".to_vec())]);
            let has_fence = !tables.rows.is_empty();
            assert!(has_fence || noted < APPENDED);
            assert!(
                !has_fence || found.contains(&2),
                "format {found:?} with a fence"
            );
            between += u64::from(found != [2, 2]);
            drop(store);
            assert_eq!(formats(&bench.disk), [2, 2]);
        }
    }
    assert!(between > 3, "{between} images of a folder on its way");
}
