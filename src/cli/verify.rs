//! `falcon verify`: reads a data folder through and names everything that is wrong.

use std::path::PathBuf;

use clap::Args;
use falcon::io::RealDisk;
use falcon::store::local::IndexVerdict;
use serde::Serialize;

use super::failure::{CliError, Exit};
use super::output::Output;

mod audit;
mod digest;

use audit::FenceAudit;
pub(super) use audit::{Audit, Damage, PartitionAudit};

/// Arguments of `falcon verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The data folder; no broker may run on it. It is not changed.
    #[arg(long, value_name = "DIR", env = "FALCON_DATA_DIR")]
    data_dir: PathBuf,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Partition(&'a PartitionAudit),
    Fence(&'a FenceAudit),
    Damage(&'a Damage),
    Note(&'a str),
    Summary(Summary),
}

#[derive(Serialize)]
struct Summary {
    partitions: usize,
    records: u64,
    segments: usize,
    fences: usize,
    /// The highest epoch of a fence that was forgotten with its group.
    fence_floor: u64,
    was_clean: bool,
    damages: usize,
    records_lost: u64,
}

/// Reads everything, prints a line per partition and per damage.
pub(crate) fn run(args: &VerifyArgs, is_json: bool) -> Result<(), CliError> {
    let mut audit = Audit::open("verify", &args.data_dir)?;
    let mut partitions = Vec::new();
    for (id, _, _) in audit.partitions() {
        partitions.push(audit.read(id, &mut |_| Ok(()))?);
    }
    let fences = audit.fences();
    let mut notes = Vec::new();
    check_index(&mut audit, &mut notes);
    audit.finish();
    if let Some(torn) = audit.inspection.torn_tail() {
        notes.push(format!(
            "journal/{:016x}.seg at {}: {} bytes that a crash cut short, of which nobody was told \
             that they are stored; the next start removes them",
            torn.segment, torn.position, torn.bytes
        ));
    }
    let summary = Summary {
        partitions: partitions.len(),
        records: partitions.iter().map(|partition| partition.records).sum(),
        segments: audit.inspection.segment_count(),
        fences: fences.len(),
        fence_floor: audit.state.fence_floor().0,
        was_clean: audit.inspection.was_clean(),
        damages: audit.damages.len(),
        records_lost: audit.damages.iter().map(Damage::records).sum(),
    };
    let (damages, lost) = (summary.damages, summary.records_lost);
    let mut output = Output::new();
    if is_json {
        for partition in &partitions {
            output.json(&Line::Partition(partition))?;
        }
        for fence in &fences {
            output.json(&Line::Fence(fence))?;
        }
        for damage in &audit.damages {
            output.json(&Line::Damage(damage))?;
        }
        for note in &notes {
            output.json(&Line::Note(note))?;
        }
        output.json(&Line::Summary(summary))?;
    } else {
        print(&mut output, &partitions, &audit.damages, &notes, &summary)?;
    }
    output.flush()?;
    if damages == 0 {
        return Ok(());
    }
    let why = format!("damaged places: {damages}, records lost: {lost}");
    let stops_a_start = |damage: &Damage| STOPS_A_START.contains(&damage.kind);
    let remedy = if lost == 0 && !audit.damages.iter().any(stops_a_start) {
        "replace the device; a broker serves everything that is here"
    } else {
        "restore a backup, or copy what is readable with falcon salvage; replace the device"
    };
    Err(CliError::new(Exit::Failed, "verify", why, remedy))
}

/// Kinds of damage that may keep a broker from starting, or cost more than can be counted.
const STOPS_A_START: [&str; 4] = [
    "identity",
    "identity_missing",
    "segment_foreign",
    "segment_missing",
];

fn print(
    output: &mut Output,
    partitions: &[PartitionAudit],
    damages: &[Damage],
    notes: &[String],
    summary: &Summary,
) -> Result<(), CliError> {
    let rows: Vec<[String; 7]> = partitions
        .iter()
        .map(|partition| {
            [
                partition.topic.clone(),
                partition.partition.to_string(),
                partition.log_start.to_string(),
                partition.log_end.to_string(),
                partition.records.to_string(),
                partition.bytes.to_string(),
                partition.sha256.clone(),
            ]
        })
        .collect();
    let names = [
        "topic",
        "partition",
        "start",
        "end",
        "records",
        "bytes",
        "sha-256",
    ];
    output.table(names, &rows)?;
    for damage in damages {
        output.line(format!("damage: {}", damage.line()).as_bytes())?;
    }
    for note in notes {
        output.line(format!("note: {note}").as_bytes())?;
    }
    if summary.fences > 0 || summary.fence_floor > 0 {
        let (fences, floor) = (summary.fences, summary.fence_floor);
        let line = format!("fences of groups: {fences}, highest epoch of a deleted group: {floor}");
        output.line(line.as_bytes())?;
    }
    let stop = if summary.was_clean {
        "stopped orderly"
    } else {
        "not stopped orderly, the next start recovers"
    };
    let line = format!(
        "records: {}, partitions: {}, segments: {}, {stop}; damaged places: {}, records lost: {}",
        summary.records,
        summary.partitions,
        summary.segments,
        summary.damages,
        summary.records_lost
    );
    output.line(line.as_bytes())
}

/// Checks the index on a copy, since sled writes where it is opened.
fn check_index(audit: &mut Audit, notes: &mut Vec<String>) {
    let name = format!("falcon-verify-{:08x}", fastrand::u32(..));
    let scratch = std::env::temp_dir().join(name);
    let verdict = audit.inspection.check_index(&scratch);
    if let Err(error) = RealDisk.remove_tree(&scratch) {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a copy of the index is left"
        );
    }
    match verdict {
        IndexVerdict::Right => {}
        IndexVerdict::Wrong(finding) => audit.name(&[*finding]),
        IndexVerdict::Unused => {
            notes.push("the index was not checked: the next start builds it again".into());
        }
        IndexVerdict::Skipped(reason) => {
            notes.push(format!("the index was not checked: {reason}"));
        }
    }
}
