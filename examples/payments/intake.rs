//! From the file to `payments.orders`.
//!
//! Orders go in chunks, a step each. The step also appends the chunk's number to `payments.intake`, and
//! expects its offset to be that number: so a chunk is taken once, whoever tries again, and how many
//! there are is where to go on.

use std::path::Path;

use falcon_client::{Client, Offset, Record, StepError};

use crate::model::{Order, write};
use crate::{Failure, INTAKE, ORDERS, patiently};

const CHUNK: usize = 500;

pub(crate) async fn run(client: &Client, file: &Path) -> Result<(), Failure> {
    let text = std::fs::read_to_string(file)?;
    let lines: Vec<&str> = text.lines().collect();
    let chunks: Vec<&[&str]> = lines.chunks(CHUNK).collect();
    let taken = patiently(async || Ok(client.latest_offsets(INTAKE).await?)).await?;
    let mut next = taken.first().map_or(Offset::ZERO, |listed| listed.offset);
    while let Some(chunk) = usize::try_from(next.get()).ok().and_then(|n| chunks.get(n)) {
        let mut step = client.step();
        for (id, line) in (next.get() * CHUNK as u64..).zip(*chunk) {
            let order = Order::of(id, line)?;
            let record = Record::new(write(&order)?).key(order.account);
            step = step.publish(ORDERS, record);
        }
        let mark = Record::new(next.to_string());
        let step = step.publish_to(INTAKE, 0, mark).expect_offset(next);
        next = match step.send().await {
            Ok(_) => next.advance(1),
            // Somebody else took it.
            Err(StepError::OffsetMismatch { next, .. }) => next,
            Err(error) => return Err(error.into()),
        };
    }
    println!("{} orders are in", lines.len());
    Ok(())
}
