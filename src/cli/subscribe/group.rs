//! `falcon subscribe TOPIC --group G`: as a member of a consumer group.
//!
//! Promises: what was printed and handed to the reader is committed, nothing else is; Ctrl-C ends it in
//! order, so that others go on at once.

use falcon_client::{Client, CommitError, Consumer, ConsumerError, Delivered, Start};
use futures_util::FutureExt;

use super::{Printer, SubscribeArgs};
use crate::cli::failure::{CliError, Exit};

/// Records printed between two commits, at most.
const UNCOMMITTED_MAX: u64 = 1000;

/// Prints what the group has not read yet.
pub(super) async fn run(
    client: &Client,
    args: &SubscribeArgs,
    group: &str,
    mut printer: Printer,
) -> Result<(), CliError> {
    let from = args.from.unwrap_or(Start::Earliest);
    let joining = client.consumer(group).topics([&args.topic]).start(from);
    let mut consumer = joining.join().await.map_err(|error| failure(&error))?;
    let mut uncommitted = 0;
    let ended = loop {
        if printer.left == Some(0) {
            break Ok(());
        }
        let next = match consumer.next().now_or_never() {
            Some(next) if uncommitted < UNCOMMITTED_MAX => next,
            Some(next) => {
                settle(&mut printer, &consumer).await?;
                uncommitted = 0;
                next
            }
            None => {
                settle(&mut printer, &consumer).await?;
                uncommitted = 0;
                match wait(&printer, &mut consumer).await {
                    Ok(next) => next,
                    Err(ended) => break Err(ended),
                }
            }
        };
        match next {
            Some(Ok(record)) => {
                printer.print(&record)?;
                printer.left = printer.left.map(|left| left - 1);
                uncommitted += 1;
            }
            Some(Err(error)) => break Err(failure(&error)),
            None => break Ok(()),
        }
    };
    settle(&mut printer, &consumer).await?;
    consumer.close().await.map_err(|error| failure(&error))?;
    ended
}

/// Hands the reader what was printed, then commits it.
async fn settle(printer: &mut Printer, consumer: &Consumer) -> Result<(), CliError> {
    printer.output.flush()?;
    match consumer.commit_all().await {
        // Its new owner prints it again.
        Ok(()) | Err(CommitError::StaleOwner { .. }) => Ok(()),
        Err(error) => Err(CliError::failed("subscribe", &error, "")),
    }
}

async fn wait(
    printer: &Printer,
    consumer: &mut Consumer,
) -> Result<Option<Result<Delivered, ConsumerError>>, CliError> {
    let timeout = async {
        match printer.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    // CANCEL SAFETY: a record not returned stays; the others keep no state.
    tokio::select! {
        next = consumer.next() => Ok(next),
        _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
        () = timeout => {
            let why = "no record came within --timeout";
            let remedy = "allow a longer --timeout";
            Err(CliError::new(Exit::TimedOut, "subscribe", why, remedy))
        }
    }
}

fn failure(error: &ConsumerError) -> CliError {
    CliError::failed("subscribe", error, "")
}
