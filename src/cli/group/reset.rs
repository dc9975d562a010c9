//! `falcon group reset`: where a group reads next.

use std::collections::BTreeMap;

use clap::Args;
use falcon_client::{
    Client, Error as ClientError, ErrorCode, ListedOffset, Offset, Partition, Start,
};
use serde::Serialize;

use crate::cli::arguments;
use crate::cli::failure::{CliError, Exit};
use crate::cli::output::Output;
use crate::cli::positions;

/// Arguments of `falcon group reset`.
#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    /// The group.
    group: String,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// Only this partition; without it, all partitions.
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
    /// The new position: earliest, latest, offset:N, last:N, time:RFC3339, or shift:-N from where it is.
    #[arg(long, value_name = "POSITION", value_parser = target, allow_hyphen_values = true)]
    to: Target,
    /// Although it has members; they read on from there.
    #[arg(long)]
    force: bool,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy)]
enum Target {
    Position(Start),
    Shift(i64),
}

/// A partition, and where it goes.
struct Move {
    partition: Partition,
    from: Option<Offset>,
    to: Offset,
    note: &'static str,
}

fn target(text: &str) -> Result<Target, String> {
    let Some(shift) = text.strip_prefix("shift:") else {
        let position = arguments::position(text).map(Target::Position);
        return position.map_err(|error| format!("{error}, or shift:-100"));
    };
    let shift = shift.parse().map(Target::Shift);
    shift.map_err(|_| "write a shift as shift:-100 or shift:100".into())
}

/// Resets, or says what it would do.
pub(super) async fn run(client: &Client, args: &ResetArgs, is_json: bool) -> Result<(), CliError> {
    let moves = moves(client, args).await?;
    let is_active = members(client, &args.group).await? > 0;
    if !args.dry_run {
        let offsets: Vec<_> = moves
            .iter()
            .map(|a_move| (args.topic.as_str(), a_move.partition, a_move.to))
            .collect();
        let reset = client
            .reset_offsets(&args.group, &offsets, args.force)
            .await;
        reset.map_err(|error| failed(&error))?;
    }
    let mut output = Output::new();
    if is_json {
        for a_move in &moves {
            output.json(&Row {
                group: &args.group,
                topic: &args.topic,
                partition: a_move.partition.0,
                from: a_move.from.map(|offset| offset.0),
                to: a_move.to.0,
                note: a_move.note,
                is_done: !args.dry_run,
            })?;
        }
        return output.flush();
    }
    let row = |a_move: &Move| {
        [
            a_move.partition.to_string(),
            a_move
                .from
                .map_or_else(|| "-".into(), |from| from.to_string()),
            a_move.to.to_string(),
            a_move.note.to_owned(),
        ]
    };
    let rows: Vec<[String; 4]> = moves.iter().map(row).collect();
    output.table(["partition", "from", "to", "note"], &rows)?;
    if args.dry_run {
        let force = if is_active && !args.force {
            "; the group has members, so it needs --force"
        } else {
            ""
        };
        output.line(format!("nothing was changed{force}").as_bytes())?;
    }
    output.flush()
}

fn failed(error: &ClientError) -> CliError {
    CliError::from_client("group reset", error)
}

/// How many members there are; none of a group that does not exist yet.
async fn members(client: &Client, group: &str) -> Result<usize, CliError> {
    match client.describe_group(group).await {
        Ok(described) => Ok(described.members.len()),
        Err(error) if error.code() == Some(ErrorCode::UnknownGroup) => Ok(0),
        Err(error) => Err(failed(&error)),
    }
}

async fn moves(client: &Client, args: &ResetArgs) -> Result<Vec<Move>, CliError> {
    let at = match args.to {
        Target::Position(start) => start,
        Target::Shift(_) => Start::Latest,
    };
    let listed = positions::resolve(client, &args.topic, args.partition, at).await;
    let listed = listed.map_err(|error| failed(&error))?;
    let committed = client.offsets(&args.group).fetch(&args.topic).await;
    let committed: BTreeMap<Partition, Offset> = committed
        .map_err(|error| failed(&error))?
        .into_iter()
        .map(|row| (row.partition, row.offset))
        .collect();
    let mut moves = Vec::with_capacity(listed.len());
    for row in &listed {
        let from = committed.get(&row.partition).copied();
        match args.to {
            Target::Position(_) if row.offset > row.high_watermark => {
                let (partition, end) = (row.partition, row.high_watermark);
                let why = format!("partition {partition} ends at offset {end}");
                let remedy = "use an offset that is there, earliest or latest";
                return Err(CliError::new(Exit::Failed, "group reset", why, remedy));
            }
            Target::Position(_) => moves.push(Move {
                partition: row.partition,
                from,
                to: row.offset,
                note: "",
            }),
            // What has no offset stays without one.
            Target::Shift(by) => moves.extend(from.map(|from| shifted(row, from, by))),
        }
    }
    if moves.is_empty() {
        let why = format!("group {:?} has no offsets to shift there", args.group);
        let remedy = "use --to earliest, latest, offset:N or time:...";
        return Err(CliError::new(Exit::Failed, "group reset", why, remedy));
    }
    Ok(moves)
}

fn shifted(row: &ListedOffset, from: Offset, by: i64) -> Move {
    let wanted = Offset(from.0.saturating_add_signed(by));
    let to = wanted.max(row.log_start).min(row.high_watermark);
    let is_before = wanted < row.log_start || (by < 0 && from.0 < by.unsigned_abs());
    let note = if is_before {
        "cut off at the log's start"
    } else if wanted > row.high_watermark {
        "cut off at the log's end"
    } else {
        ""
    };
    Move {
        partition: row.partition,
        from: Some(from),
        to,
        note,
    }
}

#[derive(Serialize)]
struct Row<'a> {
    group: &'a str,
    topic: &'a str,
    partition: u32,
    from: Option<u64>,
    to: u64,
    note: &'static str,
    is_done: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_ends_where_the_log_does_and_says_so() {
        let row = ListedOffset {
            partition: Partition(0),
            offset: Offset(0),
            log_start: Offset(10),
            high_watermark: Offset(20),
        };
        for (from, by, to, note) in [
            (15, -3, 12, ""),
            (15, -6, 10, "cut off at the log's start"),
            (15, -100, 10, "cut off at the log's start"),
            (15, 5, 20, ""),
            (15, i64::MAX, 20, "cut off at the log's end"),
        ] {
            let a_move = shifted(&row, Offset(from), by);
            assert_eq!((a_move.to, a_move.note), (Offset(to), note));
        }
    }

    #[test]
    fn targets_are_positions_or_shifts() {
        assert!(matches!(target("shift:-5"), Ok(Target::Shift(-5))));
        assert!(matches!(target("shift:5"), Ok(Target::Shift(5))));
        assert!(matches!(
            target("earliest"),
            Ok(Target::Position(Start::Earliest))
        ));
        for bad in ["shift:", "shift:x", "-5", "end"] {
            assert!(target(bad).is_err(), "{bad:?}");
        }
    }
}
