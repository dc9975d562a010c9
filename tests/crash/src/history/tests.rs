//! Histories read back as written, and what is none is refused.

use super::*;

fn entry(op: Op, outcome: Outcome) -> Entry {
    Entry {
        op,
        outcome,
        partition: 0x0102,
        actor: 0x0304_0506,
        value: ValueId {
            publisher: 7,
            sequence: 0x0809_0a0b,
        },
        offset: 0x0c0d_0e0f_1011_1213,
        invoked_ns: now_ns(),
        completed_ns: NO_OFFSET,
    }
}

fn collect(path: &Path) -> Result<Vec<Entry>, CrashError> {
    let mut entries = Vec::new();
    [path.to_path_buf()].for_each(&mut |entry| entries.push(*entry))?;
    Ok(entries)
}

#[test]
fn a_history_reads_back_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h");
    let ops: Vec<Op> = (0..=u8::MAX).filter_map(op_of).collect();
    assert_eq!(ops.len(), 23);
    let outcomes = [Outcome::Ok, Outcome::Failed, Outcome::Unknown];
    let all = ops
        .into_iter()
        .map(|op| outcomes.map(|outcome| entry(op, outcome)));
    let all: Vec<Entry> = all.flatten().collect();
    let mut writer = HistoryWriter::create(&path).unwrap();
    for entry in &all {
        writer.push(entry).unwrap();
    }
    writer.finish().unwrap();
    assert_eq!(collect(&path).unwrap(), all);
}

#[test]
fn an_epoch_and_a_place_are_kept_whole() {
    for epoch in [0, 1, u64::from(u32::MAX) + 7, u64::MAX] {
        assert_eq!(ValueId::of_epoch(epoch).epoch(), epoch);
    }
    let log = GroupPlace::log(3, 63);
    let place = log.of(2);
    assert_eq!((place.group(), place.to_log()), (2, log));
    assert_ne!(place, GroupPlace::log(4, 0).of(2));
}

#[test]
fn what_a_killed_process_had_begun_to_write_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h");
    let mut writer = HistoryWriter::create(&path).unwrap();
    writer.push_now(&entry(Op::Own, Outcome::Ok)).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len(), MAGIC.len() + ENTRY_BYTES);
    for (kept, entries) in [(bytes.len() - 1, 0), (bytes.len(), 1), (3, 0)] {
        std::fs::write(&path, &bytes[..kept]).unwrap();
        mend(&path).unwrap();
        assert_eq!(collect(&path).unwrap().len(), entries);
    }
}

#[test]
fn what_is_cut_or_foreign_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h");
    let mut writer = HistoryWriter::create(&path).unwrap();
    writer.push(&entry(Op::Read, Outcome::Ok)).unwrap();
    writer.finish().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let zeros = [&bytes[..8], &[0; ENTRY_BYTES]].concat();
    for bad in [&bytes[..3], &bytes[..bytes.len() - 1], &zeros, b"12345678"] {
        std::fs::write(&path, bad).unwrap();
        let refused = collect(&path);
        assert!(matches!(refused, Err(CrashError::Malformed(_))));
    }
}
