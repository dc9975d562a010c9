//! `falcon serve`: a broker until a signal.

use std::io::{self, Write};

use clap::Args;
use falcon::broker::Broker;
use falcon::config::AdminListen;
use tracing::{debug, info, warn};

use super::config::{self, ConfigFlags};
use super::failure::{CliError, Exit};
use super::signals::Signals;

/// Arguments of `falcon serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    flags: ConfigFlags,
}

/// Starts a broker, says so on standard output, and stops it at the first signal.
pub(crate) async fn run(args: ServeArgs) -> Result<(), CliError> {
    let loaded = config::load(&args.flags)?;
    falcon::telemetry::start(&loaded.config.log)
        .map_err(|error| CliError::failed("log", &error, "correct log.level"))?;
    let mut signals = Signals::new()
        .map_err(|error| CliError::failed("signals", &error, "report this as a bug"))?;

    let has_given_admin = matches!(loaded.config.admin.listen, AdminListen::At(_));
    // CANCEL SAFETY: a start that is dropped ends with the process; recovery only repeats itself.
    let broker = tokio::select! {
        started = Broker::start(loaded.config) => started.map_err(|error| {
            CliError::failed("serve", &error, "")
        })?,
        name = signals.next() => {
            warn!(signal = name, "stopped before the start was complete");
            exit_now();
        }
    };
    announce(&broker, has_given_admin);

    let name = signals.next().await;
    info!(
        signal = name,
        "shutting down; a second signal stops at once"
    );
    // CANCEL SAFETY: the second signal ends the process, nothing is left half done but what a
    // crash leaves too.
    tokio::select! {
        report = broker.shutdown() => debug!(?report, "the broker is stopped"),
        name = signals.next() => {
            warn!(signal = name, "stopped at once; the next start recovers");
            exit_now();
        }
    }
    Ok(())
}

/// What is printed on standard output, by which scripts learn that the broker serves, and where: one
/// line, and a second one for whoever set the address of the admin port.
fn announce(broker: &Broker, has_given_admin: bool) {
    let admin = broker.admin_address().filter(|_| has_given_admin);
    let admin = admin.map(|address| format!("falcon admin on {address}\n"));
    let ready = format!("falcon ready on {}\n", broker.address());
    let lines = ready + &admin.unwrap_or_default();
    let mut output = io::stdout().lock();
    // A reader that went away is no reason to stop serving.
    let _ = output
        .write_all(lines.as_bytes())
        .and_then(|()| output.flush());
}

/// Ends the process without waiting for threads, which may hang where the shutdown did.
fn exit_now() -> ! {
    std::process::exit(i32::from(Exit::Interrupted.code()))
}
