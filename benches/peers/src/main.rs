//! Falcon and its peers under the same loads, in one run.
//!
//! Owns the command line. Promises: every server it started ends with it, on every way out; its data is
//! removed. Must not know: Falcon's inside; it uses the binary and the client as anybody would.

mod limits;
mod loads;
mod machine;
mod metric;
mod peer;
mod peers;
mod record;
mod report;
mod results;
mod run;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use metric::{LOADS, Load};
use peers::{Programs, SYSTEMS, System};
use results::{Measured, Results};
use run::Plan;

/// Falcon and its peers under the same loads, in one run.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds that each load is measured.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Times that each load is put on each system; medians are reported.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Only these systems, in this order: falcon, nats, redis, rabbit.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these loads.
    #[arg(long, value_delimiter = ',')]
    loads: Vec<Load>,
    /// Print the table; leave the results and the README as they are.
    #[arg(long)]
    dry: bool,
    /// The broker's binary. Default: the release build of this repository.
    #[arg(long, env = "FALCON")]
    falcon: Option<PathBuf>,
    /// NATS's server.
    #[arg(long, env = "NATS_SERVER", default_value = "nats-server")]
    nats: PathBuf,
    /// Redis's server.
    #[arg(long, env = "REDIS_SERVER", default_value = "redis-server")]
    redis: PathBuf,
    /// RabbitMQ's server: the script that becomes it, not the one that changes the user before.
    #[arg(
        long,
        env = "RABBITMQ_SERVER",
        default_value = "/usr/lib/rabbitmq/bin/rabbitmq-server"
    )]
    rabbit: PathBuf,
    /// Where the temporary folder with all data goes. Default: this workspace's target folder.
    #[arg(long)]
    data: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let target = here.join("target");
    let folder = run::folder(arguments.data.as_ref().unwrap_or(&target))?;
    let runtime = tokio::runtime::Runtime::new()?;
    let done = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            done = whole(arguments, &here, folder.path()) => done,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            _ = terminated.recv() => Err(anyhow::anyhow!("terminated")),
        }
    });
    // Tasks of clients may wait for servers that are gone.
    runtime.shutdown_timeout(Duration::from_secs(1));
    // ORDER: after the runtime, whose tasks may hold servers that still write there.
    folder.close().context("removing the data")?;
    done
}

async fn whole(arguments: Arguments, here: &Path, folder: &Path) -> Result<()> {
    let release = here.join("../../target/release/falcon");
    let programs = Programs {
        falcon: arguments.falcon.unwrap_or(release),
        nats: arguments.nats,
        redis: arguments.redis,
        rabbit: arguments.rabbit,
    };
    let mut results = Results {
        machine: machine::Machine::this(folder),
        seconds: arguments.seconds,
        rounds: arguments.rounds,
        systems: Vec::new(),
        skipped: Vec::new(),
        limits: Vec::new(),
        failures: Vec::new(),
        figures: Vec::new(),
    };
    for system in named(&arguments.only) {
        find(system, &programs, &mut results);
    }
    ensure!(
        !results.systems.is_empty(),
        "nothing to measure: {:?}",
        results.skipped
    );
    let loads = if arguments.loads.is_empty() {
        LOADS.to_vec()
    } else {
        arguments.loads
    };
    let plan = Plan {
        programs,
        systems: results
            .systems
            .iter()
            .map(|measured| measured.system)
            .collect(),
        loads,
        rounds: arguments.rounds,
        length: Duration::from_secs_f64(arguments.seconds),
        folder: folder.to_owned(),
    };
    let (is_dry, page) = (arguments.dry, here.join("../README.md"));
    let note = |results: &Results| {
        if is_dry {
            return Ok(());
        }
        let path = here.join("results.json");
        std::fs::write(&path, results.json()?).with_context(|| path.display().to_string())
    };
    run::run(&plan, &mut results, note).await?;
    println!("{}", report::table(&results));
    if !is_dry {
        report::charts(&results, here)?;
        report::page(&results, &page)?;
    }
    Ok(())
}

/// The systems of these families, in this order; of none: all.
fn named(families: &[String]) -> Vec<System> {
    if families.is_empty() {
        return SYSTEMS.to_vec();
    }
    let of = |family| SYSTEMS.into_iter().filter(move |it| it.family() == family);
    families.iter().flat_map(of).collect()
}

/// Notes what is to be measured, or why not.
fn find(system: System, programs: &Programs, results: &mut Results) {
    let Some(server) = system.version(programs) else {
        eprintln!("{} is not there: skipped", system.name());
        results
            .skipped
            .push(format!("{}: its server is not installed", system.name()));
        return;
    };
    results.systems.push(Measured {
        system,
        name: system.name(),
        server,
        client: report::client(system),
        settings: system.settings(),
    });
}
