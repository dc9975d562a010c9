//! Row 11: how much memory the broker has taken after everything was done to it with 10 GB of logs.

use crate::LIGHT;
use crate::broker::Broker;
use crate::limits::Fallible;
use crate::line::{Goal, Line, Round, Subject, Unit};
use crate::load::{Stage, Topic};
use crate::process::resident_bytes;

/// Of all logs together.
pub(crate) const LOG_BYTES: f64 = 10e9;
/// Rows that are run on the filled broker.
const ROWS: [u8; 8] = [1, 2, 3, 4, 5, 6, 8, 9];

/// Several topics, without retention.
pub(crate) fn fill_logs(stage: &Stage, broker: &Broker) -> Fallible<()> {
    let topics = [
        ("logs-a", 1024),
        ("logs-b", 1024),
        ("logs-c", 1024),
        ("logs-d", 100),
    ];
    let each = stage.bytes(LOG_BYTES) / 4.0;
    for (name, record_bytes) in topics {
        stage.fill(broker, Topic { name, record_bytes }, each)?;
    }
    Ok(())
}

pub(crate) fn resident(stage: &Stage, broker: &mut Broker) -> Fallible<Vec<Line>> {
    fill_logs(stage, broker)?;
    let once = Stage {
        rounds: 1,
        program: stage.program.clone(),
        folder: stage.folder.clone(),
        ..*stage
    };
    let mut reached = Vec::new();
    for (row, measure) in LIGHT.iter().filter(|(row, _)| ROWS.contains(row)) {
        for line in measure(&once, broker)? {
            let unit = line.subject.unit;
            reached.push(format!("row {row}: {}", unit.show(line.reached)));
        }
    }
    let (now, most) = resident_bytes(broker.pid())?;
    let bytes = broker.metric("falcon_journal_bytes")?;
    let what =
        "resident memory of the broker, highest (VmHWM), rows 1 to 6, 8, 9 run on 10 GB of logs";
    let subject = Subject::new(11, what, Unit::Megabytes, Goal::AtMost(128.0));
    let notes = vec![
        format!(
            "{:.0} MB in the end (VmRSS), {:.1} GB on disk",
            now / 1e6,
            bytes / 1e9
        ),
        format!("reached meanwhile, one round each: {}", reached.join(", ")),
    ];
    Ok(vec![subject.line(vec![Round::alone(most / 1e6)], notes)])
}
