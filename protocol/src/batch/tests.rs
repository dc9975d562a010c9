use super::*;
use crate::record::Record;

fn batch_of(codec: Codec, records: &[Record]) -> Batch {
    let mut builder = BatchBuilder::new(codec, 1 << 20);
    for record in records {
        builder.push(record, 5_000).expect("fits");
    }
    let producer = Producer {
        id: ProducerId(9),
        epoch: 2,
        base_sequence: 77,
    };
    Batch::from_bytes(builder.build(producer).expect("not empty")).expect("whole")
}

fn some_records() -> Vec<Record> {
    vec![
        Record::new("one").key("k1").timestamp_ms(1_000),
        Record::new(vec![7_u8; 500])
            .header("trace", "abc")
            .header("empty", ""),
        Record::tombstone("k3").timestamp_ms(-4),
        Record::new(""),
    ]
}

#[test]
fn records_come_back_as_they_went_in_under_every_codec() {
    for codec in Codec::ALL {
        let batch = batch_of(codec, &some_records());
        batch.verify().expect("checksum holds");
        batch.check_records().expect("records are whole");
        assert_eq!(batch.header().max_timestamp_ms, 5_000);
        let back: Vec<RecordView> = batch
            .records()
            .expect("plain")
            .map(|r| r.expect("ok"))
            .collect();
        assert_eq!(back.len(), 4);
        for (index, (view, record)) in back.iter().zip(some_records()).enumerate() {
            assert_eq!(view.offset, Offset(index as u64));
            assert_eq!(view.timestamp_ms, record.timestamp_ms.unwrap_or(5_000));
            assert_eq!(
                (&view.key, &view.value, &view.headers),
                (&record.key, &record.value, &record.headers)
            );
        }
    }
}

#[test]
fn a_stamp_binds_a_batch_to_its_partition_and_offset() {
    let partition = PartitionId::new(3, 1);
    let stamp = Stamp {
        partition,
        base_offset: Offset(40),
        append_time_ms: 99,
        epoch: 6,
    };
    let batch = batch_of(Codec::None, &some_records())
        .stamped(&stamp)
        .expect("stamps");
    batch.verify_in(partition).expect("belongs");
    assert_eq!(batch.header().end_offset(), Offset(44));
    assert_eq!(
        batch.verify_in(PartitionId::new(3, 2)),
        Err(BatchError::Stamp)
    );
}

#[test]
fn every_flipped_bit_is_noticed() {
    let partition = PartitionId::new(1, 0);
    let stamp = Stamp {
        partition,
        base_offset: Offset(1),
        append_time_ms: 1,
        epoch: 1,
    };
    let batch = batch_of(Codec::None, &some_records())
        .stamped(&stamp)
        .expect("stamps");
    for bit in 0..batch.bytes().len() * 8 {
        let mut bytes = batch.bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let damaged = Batch::from_bytes(Bytes::from(bytes)).and_then(|b| b.verify_in(partition));
        assert!(damaged.is_err(), "bit {bit} went unnoticed");
    }
}

#[test]
fn a_cut_batch_is_truncated_at_every_length() {
    let batch = batch_of(Codec::Zstd, &some_records());
    for length in 0..batch.bytes().len() {
        let cut = Batch::from_bytes(batch.bytes().slice(..length));
        assert!(matches!(cut, Err(BatchError::Truncated { .. })), "{length}");
    }
}

#[test]
fn a_bomb_does_not_decompress_beyond_what_it_announced() {
    let bomb = batch_of(Codec::Zstd, &[Record::new(vec![0_u8; 900_000])]);
    assert!(bomb.bytes().len() < 1_000);
    let mut bytes = BytesMut::from(bomb.bytes().as_ref());
    bytes[52..56].copy_from_slice(&1_000_u32.to_le_bytes());
    let crc = crc32fast::hash(&bytes[28..]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    let batch = Batch::from_bytes(bytes.freeze()).expect("header is plausible");
    batch.verify().expect("checksum was redone");
    let refused = batch.check_records();
    assert_eq!(
        refused,
        Err(BatchError::Decompress {
            uncompressed_bytes: 1_000
        })
    );
}

#[test]
fn a_full_batch_says_so_and_a_huge_record_is_named() {
    let mut builder = BatchBuilder::new(Codec::None, 300);
    let record = Record::new(vec![1_u8; 100]);
    assert_eq!(builder.push(&record, 0), Ok(()));
    assert_eq!(builder.push(&record, 0), Ok(()));
    assert_eq!(builder.push(&record, 0), Err(PushError::Full));
    assert_eq!(builder.record_count(), 2);
    assert_eq!(
        builder.build(Producer::default()).map(|b| b.len()),
        Some(80 + 2 * 104)
    );
    let huge = builder.push(&Record::new(vec![1_u8; 300]), 0);
    assert!(matches!(
        huge,
        Err(PushError::RecordTooLarge { max: 300, .. })
    ));
    assert!(builder.build(Producer::default()).is_none());
}

#[test]
fn times_at_both_ends_of_the_range_do_not_overflow() {
    let mut builder = BatchBuilder::new(Codec::None, 1 << 20);
    builder
        .push(&Record::new("a").timestamp_ms(i64::MIN), 0)
        .expect("first");
    let far = builder.push(&Record::new("b").timestamp_ms(i64::MAX), 0);
    assert_eq!(far, Err(PushError::Full));
}
