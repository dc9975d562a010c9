//! `falcon salvage`: copies what is readable of a data folder into a fresh one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use falcon::io::RealDisk;
use falcon::store::local::{LocalConfig, Rescue, RescueError};
use serde::Serialize;

use super::failure::{CliError, Exit, chain};
use super::output::Output;
use super::verify::{Audit, Damage, PartitionAudit};

/// Arguments of `falcon salvage`.
#[derive(Debug, Args)]
pub(crate) struct SalvageArgs {
    /// The damaged data folder; no broker may run on it. It is not changed.
    #[arg(long, value_name = "DIR", env = "FALCON_DATA_DIR")]
    data_dir: PathBuf,
    /// The folder to create; a broker can run on it afterwards.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Copied(&'a PartitionAudit),
    Lost(&'a Damage),
    Summary {
        partitions: usize,
        records: u64,
        damages: usize,
        records_lost: u64,
    },
}

/// Copies, reads the copy back, and says what is in it and what is not.
pub(crate) fn run(args: &SalvageArgs, is_json: bool) -> Result<(), CliError> {
    refuse_inside(args)?;
    let mut audit = Audit::open("salvage", &args.data_dir)?;
    let copied = copy(&mut audit, &args.out)?;
    compare(&copied, &args.out)?;
    let damages = audit.damages;
    let records: u64 = copied.iter().map(|partition| partition.records).sum();
    let lost: u64 = damages.iter().map(Damage::records).sum();
    let mut output = Output::new();
    for partition in &copied {
        if is_json {
            output.json(&Line::Copied(partition))?;
            continue;
        }
        let (topic, number) = (&partition.topic, partition.partition);
        let (start, end) = (partition.log_start, partition.log_end);
        let range = format!("{} records of offsets {start} to {end}", partition.records);
        output.line(format!("copied: {topic}/{number}: {range}").as_bytes())?;
    }
    for damage in &damages {
        if is_json {
            output.json(&Line::Lost(damage))?;
        } else {
            let word = if damage.records() > 0 {
                "lost"
            } else {
                "damage"
            };
            output.line(format!("{word}: {}", damage.line()).as_bytes())?;
        }
    }
    if is_json {
        output.json(&Line::Summary {
            partitions: copied.len(),
            records,
            damages: damages.len(),
            records_lost: lost,
        })?;
    } else {
        let line = format!("records copied and read back: {records}, lost: {lost}");
        output.line(line.as_bytes())?;
    }
    output.flush()?;
    // What may have been in damaged bytes besides records is not known.
    let is_row_loss = |damage: &Damage| ["rot", "entry", "rows"].contains(&damage.kind);
    if lost == 0 && !damages.iter().any(is_row_loss) {
        return Ok(());
    }
    let why = format!("records lost: {lost}, damaged places: {}", damages.len());
    let remedy = "the copy can be served: it refuses the lost offsets and has all others";
    Err(CliError::new(Exit::Failed, "salvage", why, remedy))
}

/// The source is not changed, so the copy cannot be in it.
fn refuse_inside(args: &SalvageArgs) -> Result<(), CliError> {
    let whole = |path: &Path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let there = path.ancestors().find_map(|above| {
            let rest = path.strip_prefix(above).ok()?;
            Some(above.canonicalize().ok()?.join(rest))
        });
        there.unwrap_or(path)
    };
    if !whole(&args.out).starts_with(whole(&args.data_dir)) {
        return Ok(());
    }
    let why = format!("{} is inside the damaged folder", args.out.display());
    Err(CliError::new(
        Exit::Usage,
        "salvage",
        why,
        "choose a folder elsewhere",
    ))
}

fn copy(audit: &mut Audit, out: &Path) -> Result<Vec<PartitionAudit>, CliError> {
    let failed = |error: RescueError| {
        let exit = match &error {
            RescueError::NotEmpty { .. } => Exit::Usage,
            RescueError::Open(_) | RescueError::Io(_) | RescueError::Commit(_) => Exit::Failed,
        };
        let remedy = "the source is unchanged; remove what is in --out";
        let remedy = if exit == Exit::Usage { "" } else { remedy };
        CliError::new(exit, "salvage", chain(&error), remedy)
    };
    let partitions = audit.partitions();
    let bounds: Vec<_> = partitions
        .iter()
        .filter(|(_, _, range)| range.end.get() > 0)
        .map(|(id, _, range)| (*id, range.start, range.end))
        .collect();
    let config = LocalConfig {
        spare_segments: 0,
        ..LocalConfig::new(out)
    };
    let rows = audit.state.rows(audit.state.recovered_offsets());
    let epoch = audit.inspection.epoch();
    let mut rescue = Rescue::create(config, Arc::new(RealDisk), epoch, rows).map_err(failed)?;
    let mut copied = Vec::with_capacity(partitions.len());
    for (id, _, _) in partitions {
        let partition = audit.read(id, &mut |batch| {
            rescue.append(id, batch.clone()).map_err(failed)
        })?;
        audit.state.set_bytes(id, partition.bytes);
        copied.push(partition);
    }
    audit.finish();
    let rows = audit.state.rows(audit.state.recovered_offsets());
    rescue.finish(rows, &bounds).map_err(failed)?;
    Ok(copied)
}

/// The copy must be sound and hold the same records at the same offsets.
fn compare(copied: &[PartitionAudit], out: &Path) -> Result<(), CliError> {
    let mut audit = Audit::open("salvage", out)?;
    let partitions = audit.partitions();
    let is_complete = partitions.len() == copied.len();
    let mut is_same = is_complete;
    for ((id, _, _), expected) in partitions.iter().zip(copied) {
        let found = audit.read(*id, &mut |_| Ok(()))?;
        is_same &= found == *expected;
    }
    if is_same {
        return Ok(());
    }
    let why = "the copy does not hold what was read";
    let remedy = "do not use it; check the device that --out is on";
    Err(CliError::new(Exit::Failed, "salvage", why, remedy))
}
