//! Record batches: headers, records, compressed records, stamps.

use bytes::Bytes;
use falcon_fuzz::{Decoder, Family, Hints, Refusal, Rng, any_text, number, refused, set_number};
use falcon_protocol::batch::{BATCH_HEADER_BYTES, PushError, RecordView, STAMP_BYTES};
use falcon_protocol::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, HEADER_NAME_BYTES_MAX, RECORD_HEADERS_MAX,
    UNCOMPRESSED_BYTES_MAX,
};
use falcon_protocol::*;

use super::values::Any;

const BODY_CRC_AT: usize = STAMP_BYTES;
const BODY_FROM: usize = 28;
const LENGTH_AT: usize = 28;
const CODEC_AT: usize = 33;
const COUNT_AT: usize = 36;
const PLAIN_BYTES_AT: usize = 52;
/// What most inputs may ask a decompressor for; a few ask for all that is allowed.
const PLAIN_BYTES: u64 = 64 << 10;

const HINTS: Hints = Hints {
    fields: &[
        (LENGTH_AT, 4),
        (32, 1),
        (CODEC_AT, 1),
        (34, 2),
        (COUNT_AT, 4),
        (PLAIN_BYTES_AT, 4),
        (64, 8),
        (72, 8),
        (80, 1),
        (81, 1),
        (82, 1),
    ],
    values: &[
        BATCH_BYTES_MAX as u64,
        BATCH_RECORDS_MAX as u64,
        UNCOMPRESSED_BYTES_MAX as u64,
        RECORD_HEADERS_MAX as u64,
        HEADER_NAME_BYTES_MAX as u64,
        BATCH_HEADER_BYTES as u64,
    ],
};

const TRUNCATED: Refusal = refused("truncated", "");
const TOO_LARGE: Refusal = refused("too large", "");
const CHECKSUM: Refusal = refused("checksum", "");
const STAMP: Refusal = refused("stamp", "");
const FORMAT: Refusal = refused("format", "");
const CODEC: Refusal = refused("codec", "");
const DECOMPRESS: Refusal = refused("decompress", "");

const HEADER_REFUSALS: [Refusal; 8] = [
    TRUNCATED,
    TOO_LARGE,
    FORMAT,
    CODEC,
    refused("field", "reserved field"),
    refused("field", "record count"),
    refused("field", "uncompressed size"),
    refused("field", "length"),
];

const RECORD_REFUSALS: &[Refusal] = &[
    CHECKSUM,
    refused("field", "latest time"),
    refused("record truncated", "key"),
    refused("record truncated", "value"),
    refused("record truncated", "header name"),
    refused("record truncated", "header value"),
    refused("record invalid", "header name"),
    refused("record invalid", "header count"),
    refused("record trailing", ""),
];

fn batch(error: &BatchError) -> Refusal {
    match error {
        BatchError::Truncated { have, need } => {
            assert!(have < need);
            TRUNCATED
        }
        BatchError::TooLarge { bytes, max } => {
            assert!(bytes > max);
            TOO_LARGE
        }
        BatchError::Checksum { computed, stored } => {
            assert_ne!(computed, stored);
            CHECKSUM
        }
        BatchError::Stamp => STAMP,
        BatchError::Format(_) => FORMAT,
        BatchError::Codec(_) => CODEC,
        BatchError::Decompress { .. } => DECOMPRESS,
        BatchError::Field { field } => refused("field", field),
        BatchError::Record { source, .. } => match super::wire(*source) {
            Refusal {
                error: "truncated",
                field,
            } => refused("record truncated", field),
            Refusal {
                error: "invalid",
                field,
            } => refused("record invalid", field),
            _ => refused("record trailing", ""),
        },
    }
}

fn any_record(random: &mut Rng) -> Record {
    let bytes = |random: &mut Rng, max: usize| -> Bytes {
        let (filler, count) = (random.u8(..), random.usize(0..max));
        let byte = |_| if random.bool() { filler } else { random.u8(..) };
        (0..count).map(byte).collect()
    };
    let header = |random: &mut Rng| Header {
        name: any_text(random, 16),
        value: bytes(random, 12),
    };
    Record {
        key: random.bool().then(|| bytes(random, 16)),
        value: (random.u8(0..8) > 0).then(|| bytes(random, 60)),
        headers: (0..random.u8(0..3)).map(|_| header(random)).collect(),
        timestamp_ms: random.bool().then(|| i64::from(random.i32(..))),
    }
}

fn build(random: &mut Rng, codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new(codec, 1 << 20);
    for _ in 0..random.u8(1..6) {
        builder.push(&any_record(random), 77).unwrap();
    }
    builder.build(Producer::any(random)).unwrap()
}

/// A batch as a publisher sends it, mostly not compressed.
pub(super) fn any_batch(random: &mut Rng) -> Bytes {
    let codec = match random.u8(0..32) {
        0 => Codec::Zstd,
        1..=4 => Codec::Lz4,
        _ => Codec::None,
    };
    build(random, codec)
}

/// Makes the body's checksum fit, and often the length.
fn seal_body(bytes: &mut [u8], random: &mut Rng) {
    if bytes.len() < BATCH_HEADER_BYTES {
        return;
    }
    if random.u8(0..4) > 0 {
        set_number(bytes, LENGTH_AT, 4, bytes.len() as u64);
        if number(bytes, CODEC_AT, 1) == 0 {
            let plain_bytes = bytes.len() - BATCH_HEADER_BYTES;
            set_number(bytes, PLAIN_BYTES_AT, 4, plain_bytes as u64);
        }
    }
    if random.u16(0..8192) > 0 {
        let plain_bytes = number(bytes, PLAIN_BYTES_AT, 4).min(PLAIN_BYTES);
        set_number(bytes, PLAIN_BYTES_AT, 4, plain_bytes);
    }
    let end = usize::try_from(number(bytes, LENGTH_AT, 4)).unwrap();
    if let Some(body) = bytes.get(BODY_FROM..end) {
        let crc = crc32fast::hash(body);
        set_number(bytes, BODY_CRC_AT, 4, crc.into());
    }
}

/// The header's numbers are those of the bytes, and within the limits.
fn check_header(header: &BatchHeader, bytes: &[u8]) {
    let producer = header.producer;
    let read = [
        (0, 8, header.base_offset.0),
        (8, 8, header.append_time_ms.cast_unsigned()),
        (16, 4, header.epoch.into()),
        (20, 4, header.stamp_crc.into()),
        (24, 4, header.body_crc.into()),
        (28, 4, header.batch_bytes.into()),
        (33, 1, header.codec.number().into()),
        (36, 4, header.record_count.into()),
        (40, 8, producer.id.0),
        (48, 4, producer.epoch.into()),
        (52, 4, header.uncompressed_bytes.into()),
        (56, 8, producer.base_sequence),
        (64, 8, header.base_timestamp_ms.cast_unsigned()),
        (72, 8, header.max_timestamp_ms.cast_unsigned()),
    ];
    for (at, width, value) in read {
        assert_eq!(value, number(bytes, at, width), "at {at}: {header:?}");
    }
    assert!(
        (BATCH_HEADER_BYTES..=BATCH_BYTES_MAX as usize).contains(&(header.batch_bytes as usize))
    );
    assert!((1..=BATCH_RECORDS_MAX).contains(&header.record_count));
    assert!(header.uncompressed_bytes <= UNCOMPRESSED_BYTES_MAX);
    assert!(header.end_offset() >= header.base_offset);
}

/// What the records' reader says; the views hold no more than the records' bytes.
fn read_all(batch: &Batch) -> Result<Vec<RecordView>, BatchError> {
    let views: Vec<_> = batch.records()?.collect::<Result<_, _>>()?;
    let view_bytes = |view: &RecordView| {
        let headers = view.headers.iter();
        let headers: usize = headers.map(|h| h.name.len() + h.value.len()).sum();
        let optional = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        optional(&view.key) + optional(&view.value) + headers
    };
    let bytes: usize = views.iter().map(view_bytes).sum();
    assert!(bytes <= batch.header().uncompressed_bytes as usize);
    Ok(views)
}

/// The walk and the reader agree, and what was read comes back from a builder.
fn check_records(batch: &Batch) -> Result<(), BatchError> {
    let walked = batch.check_records();
    let read = read_all(batch);
    let is_only_time = walked
        == Err(BatchError::Field {
            field: "latest time",
        });
    if !is_only_time {
        assert_eq!(walked.as_ref().err(), read.as_ref().err());
    }
    let views = read?;
    assert_eq!(views.len(), batch.header().record_count as usize);
    let latest = views.iter().map(|view| view.timestamp_ms).max();
    let is_latest = latest == Some(batch.header().max_timestamp_ms);
    assert_eq!(walked.is_ok(), is_latest);
    come_back(batch, &views);
    walked
}

fn come_back(batch: &Batch, views: &[RecordView]) {
    let limit = BATCH_BYTES_MAX as usize;
    let mut builder = BatchBuilder::new(Codec::None, limit);
    for view in views {
        let record = Record {
            key: view.key.clone(),
            value: view.value.clone(),
            headers: view.headers.clone(),
            timestamp_ms: Some(view.timestamp_ms),
        };
        match builder.push(&record, 0) {
            Ok(()) => {}
            // Times further apart than a delta can say, which a reader cuts.
            Err(PushError::Full) => return,
            Err(error) => panic!("{error}"),
        }
    }
    let bytes = builder.build(batch.header().producer).unwrap();
    let again = Batch::from_bytes(bytes).unwrap();
    again.verify().unwrap();
    assert_eq!(again.header().producer, batch.header().producer);
    let base = batch.header().base_offset;
    let back = again.records().unwrap().map(Result::unwrap);
    for (index, (back, view)) in (0..).zip(back.zip(views)) {
        assert_eq!(view.offset, base.advance(index));
        let back = (back.timestamp_ms, &back.key, &back.value, &back.headers);
        let view = (view.timestamp_ms, &view.key, &view.value, &view.headers);
        assert_eq!(back, view);
    }
}

/// One or two batches, of which the first is damaged.
struct Batches {
    name: &'static str,
    make: fn(&mut Rng) -> Bytes,
    decode: fn(&[u8]) -> Result<(), BatchError>,
    seal: fn(&mut [u8], &mut Rng),
    /// Times the records when not compressed.
    plain_times: u64,
    expected: Vec<Refusal>,
}

impl Decoder for Batches {
    fn name(&self) -> &'static str {
        self.name
    }

    fn valid(&self, random: &mut Rng, to: &mut Vec<u8>) {
        to.extend_from_slice(&(self.make)(random));
    }

    fn seal(&self, bytes: &mut Vec<u8>, random: &mut Rng) {
        (self.seal)(bytes, random);
    }

    fn decode(&self, bytes: &[u8]) -> Result<(), Refusal> {
        (self.decode)(bytes).map_err(|error| batch(&error))
    }

    fn hints(&self) -> Hints {
        HINTS
    }

    fn memory_bytes_max(&self, bytes: &[u8]) -> u64 {
        // A record of four bytes becomes a view of about two hundred.
        let plain = number(bytes, PLAIN_BYTES_AT, 4).min(u64::from(UNCOMPRESSED_BYTES_MAX));
        8192 + 400 * bytes.len() as u64 + self.plain_times * plain
    }

    fn expected(&self) -> &[Refusal] {
        &self.expected
    }
}

fn header(bytes: &[u8]) -> Result<(), BatchError> {
    let header = BatchHeader::decode(bytes)?;
    check_header(&header, bytes);
    Ok(())
}

/// Every batch of the bytes, as a subscriber would.
fn records(bytes: &[u8]) -> Result<(), BatchError> {
    let mut rest = Bytes::copy_from_slice(bytes);
    while !rest.is_empty() {
        let before = rest.clone();
        let batch = Batch::split_from(&mut rest)?;
        check_header(batch.header(), &before);
        assert_eq!(batch.bytes().len() + rest.len(), before.len());
        assert_eq!(batch.bytes().len(), batch.header().batch_bytes as usize);
        batch.verify()?;
        check_records(&batch)?;
    }
    Ok(())
}

/// Plain records and the same compressed: one verdict.
fn packed(bytes: &[u8]) -> Result<(), BatchError> {
    let plain = Batch::from_bytes(Bytes::copy_from_slice(bytes))?;
    plain.verify()?;
    let mut packed = bytes[..BATCH_HEADER_BYTES].to_vec();
    let body = &bytes[BATCH_HEADER_BYTES..];
    // A zstd frame costs as much as thirty blocks of LZ4.
    let codec = if crc32fast::hash(body).is_multiple_of(64) {
        packed.extend(zstd::bulk::compress(body, 1).unwrap());
        Codec::Zstd
    } else {
        packed.extend(lz4_flex::block::compress(body));
        Codec::Lz4
    };
    if plain.header().codec != Codec::None {
        return plain.check_records();
    }
    let packed_bytes = packed.len() as u64;
    set_number(&mut packed, LENGTH_AT, 4, packed_bytes);
    set_number(&mut packed, CODEC_AT, 1, codec.number().into());
    let packed = Batch::from_bytes(Bytes::from(packed)).unwrap();
    assert_eq!(packed.check_records(), plain.check_records());
    check_records(&packed)
}

const HOME: PartitionId = PartitionId::new(3, 1);
const ELSEWHERE: PartitionId = PartitionId::new(3, 2);

/// A stamp holds where it was made for and nowhere else; a new one replaces it and nothing else.
fn stamped(bytes: &[u8]) -> Result<(), BatchError> {
    let batch = Batch::from_bytes(Bytes::copy_from_slice(bytes))?;
    batch.verify_in(HOME)?;
    let header = batch.header();
    assert_eq!(header.verify_stamp(ELSEWHERE), Err(BatchError::Stamp));
    let stamp = Stamp {
        partition: ELSEWHERE,
        base_offset: header.end_offset(),
        append_time_ms: !header.append_time_ms,
        epoch: !header.epoch,
    };
    let again = batch.stamped(&stamp)?;
    again.verify_in(ELSEWHERE)?;
    assert_eq!(again.header().verify_stamp(HOME), Err(BatchError::Stamp));
    assert_eq!(again.header().base_offset, stamp.base_offset);
    assert_eq!(again.header().append_time_ms, stamp.append_time_ms);
    assert_eq!(again.header().epoch, stamp.epoch);
    assert_eq!(again.bytes()[STAMP_BYTES..], batch.bytes()[STAMP_BYTES..]);
    Ok(())
}

fn seal_stamp(bytes: &mut [u8], random: &mut Rng) {
    seal_body(bytes, random);
    let partition = if random.u8(0..16) == 0 {
        ELSEWHERE
    } else {
        HOME
    };
    let stamp = Stamp {
        partition,
        base_offset: Offset(number(bytes, 0, 8)),
        append_time_ms: number(bytes, 8, 8).cast_signed(),
        epoch: u32::try_from(number(bytes, 16, 4)).unwrap(),
    };
    // Too short for a stamp: it stays as it is.
    let _ = stamp.write(bytes);
}

#[test]
fn batches_survive_damage() {
    let batches = |name, make, decode, seal, plain_times, expected: &[&[Refusal]]| Batches {
        name,
        make,
        decode,
        seal,
        plain_times,
        expected: expected.concat(),
    };
    let plain: fn(&mut Rng) -> Bytes = |random| build(random, Codec::None);
    let two: fn(&mut Rng) -> Bytes = |random| match random.u8(0..4) {
        0 => [any_batch(random), any_batch(random)].concat().into(),
        _ => any_batch(random),
    };
    let compressed: fn(&mut Rng) -> Bytes = |random| match random.u8(0..24) {
        0 => build(random, Codec::Zstd),
        _ => build(random, Codec::Lz4),
    };
    let home: fn(&mut Rng) -> Bytes = |random| {
        let mut bytes = any_batch(random).to_vec();
        let stamp = Stamp {
            partition: HOME,
            base_offset: Any::any(random),
            append_time_ms: Any::any(random),
            epoch: Any::any(random),
        };
        stamp.write(&mut bytes).unwrap();
        bytes.into()
    };
    let seal: fn(&mut [u8], &mut Rng) = seal_body;
    let heads = &HEADER_REFUSALS[..];
    let (walk, unpack) = (RECORD_REFUSALS, &[DECOMPRESS][..]);
    let family = [
        batches("batch-header", plain, header, seal, 0, &[heads]),
        batches("records", two, records, seal, 3, &[heads, walk]),
        batches("compressed", compressed, records, seal, 3, &[heads, unpack]),
        batches("packed", plain, packed, seal, 8, &[walk]),
        batches(
            "stamped",
            home,
            stamped,
            seal_stamp,
            3,
            &[&[STAMP, CHECKSUM]],
        ),
    ];
    let decoders: Vec<&dyn Decoder> = family.iter().map(|batches| batches as _).collect();
    let family = Family {
        name: "batches",
        command: "cargo test -p falcon-protocol --test it fuzz::batches::",
        decoders: &decoders,
    };
    family.run();
}
