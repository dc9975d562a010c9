//! A device writes whole blocks, whatever sizes somebody asks for.

use super::*;
use crate::io::BLOCK_BYTES;
use crate::store::{CommitError, Purpose};

const BLOCK: u64 = BLOCK_BYTES as u64;

#[test]
fn room_for_a_group_is_room_for_its_last_block() {
    let mut bench = Bench::new();
    bench.config.spare_segments = 0;
    let (store, ..) = bench.open();
    append(&store, P, 0, &[b"value"]);
    drop(store);
    // The file ends within a block, as one of an older broker may.
    let path = bench.segment_path(1);
    let file = bench.disk.open(&path).unwrap();
    file.set_len(2 * BLOCK + 1000).unwrap();
    let (store, ..) = bench.open();
    let capacity = bench.disk.used_bytes();
    bench.disk.set_capacity_bytes(Some(capacity));
    store.check_room(Purpose::Freeing, 100).unwrap();
    // Its last byte would be in the file, the last byte of its block not.
    assert!(matches!(
        store.check_room(Purpose::Freeing, BLOCK - 600),
        Err(CommitError::Full { .. })
    ));
    bench.disk.set_capacity_bytes(Some(capacity + BLOCK - 1000));
    store.check_room(Purpose::Freeing, BLOCK - 600).unwrap();
    assert_eq!(file.len_bytes().unwrap(), 3 * BLOCK);
}

#[test]
fn segments_of_any_configured_size_have_whole_blocks() {
    let mut bench = Bench::new();
    bench.config.index_dir = None;
    bench.config.first_segment_bytes = 9_000;
    bench.config.segment_bytes = 20_001;
    let (store, ..) = bench.open();
    let config = &store.shared.config;
    assert_eq!(config.first_segment_bytes, 3 * BLOCK);
    assert_eq!(config.segment_bytes, 5 * BLOCK);
    let mut rolls = 0;
    for base in 0..60 {
        if store.wants_snapshot() {
            store.commit_snapshot(Vec::new()).unwrap();
            rolls += 1;
        }
        store.check_room(Purpose::Batches, 1000).unwrap();
        append(&store, P, base, &[&[b'v'; 900]]);
        let infos = store.shared.segments.infos();
        let (segment, info) = infos.iter().next_back().unwrap();
        assert!(info.file_bytes.is_multiple_of(BLOCK), "{segment} {info:?}");
    }
    assert!(rolls > 2);
    assert_eq!(values(&store, P, 0, 60).unwrap().len(), 60);
}
