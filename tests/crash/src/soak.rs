//! A broker at work for an hour while clients, topics and groups come and go.
//!
//! Owns the plan of it and the judgement: what was read is what was acknowledged, and whatever the broker
//! holds on to stays flat. Limits are the defaults; only segments, retention, the memory of silent
//! publishers and its size are small, so that a run reaches its steady state within minutes.
//!
//! Must not know: how samples are taken and drawn.

mod chart;
mod fleeting;
mod heirs;
mod lasting;
mod samples;
mod shared;
mod silent;
mod trend;
mod values;
mod visitors;

use std::path::Path;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::CrashError;
use crate::process::{Broker, Program, free_port};
use crate::trial::{Findings, TrialOptions};
use lasting::Lasting;
use samples::Samples;
use shared::Shared;
use trend::judge;

const LONG: Duration = Duration::from_secs(60 * 60);
const SHORT: Duration = Duration::from_secs(12);
/// Clients that do one thing for a few seconds, and are followed by others.
const VISITORS: u32 = 8;
/// Makers of topics that are soon deleted.
const MAKERS: u32 = 6;

/// What differs from the defaults.
fn environment() -> Vec<(String, String)> {
    let settings = [
        // The smallest that the default batch allows: about ten rolls a minute.
        ("FALCON_STORAGE_SEGMENT_BYTES", "8MiB"),
        // At the default of a day, the table would grow for as long as the run lasts, as it should.
        ("FALCON_TIMEOUTS_PRODUCER_EXPIRY_MS", "1m"),
        // Some times what is needed at a time, and less than the names of a quarter of an hour.
        ("FALCON_LIMITS_PRODUCERS_MAX", "600"),
    ];
    let settings = settings.into_iter();
    settings
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Runs it.
pub(crate) fn soak(options: &TrialOptions) -> Result<Findings, CrashError> {
    if !Path::new("/proc/self/fd").exists() {
        let what = "there is no /proc to look at the broker with";
        return Err(CrashError::Unavailable(what.into()));
    }
    let minutes = options.minutes.map(|n| Duration::from_secs(n * 60));
    let is_judged = options.is_long || minutes.is_some();
    let length = minutes.unwrap_or(if options.is_long { LONG } else { SHORT });
    let program = Program {
        path: options.program.clone(),
        data_dir: options.folder.join("data"),
        log: options.folder.join("falcon.log"),
        environment: environment(),
        port: free_port()?,
    };
    let broker = program.start()?;
    if broker.wait_ready().is_none() {
        return Err(CrashError::Program(program.read_log()));
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CrashError::Program(format!("no runtime: {error}")))?;
    let shared = Shared::new(&program, options.seed);
    let samples = runtime.block_on(run(&shared, &broker, &program, length))?;

    let mut findings = Findings::default();
    shared.report(&mut findings);
    samples.report(&mut findings);
    if is_judged {
        judge(&samples, length, &mut findings);
    }
    std::fs::create_dir_all(&options.kept).map_err(CrashError::io("create", &options.kept))?;
    samples.write_csv(&options.kept.join("soak.csv"))?;
    chart::draw(&samples, &options.kept.join("soak.svg"))?;

    findings.expect(broker.stop(), || "the broker did not stop orderly".into());
    for line in program.read_log().lines() {
        let is_bad = line.contains(" ERROR ") || line.contains("panicked");
        findings.expect(!is_bad, || line.to_owned());
    }
    Ok(findings)
}

async fn run(
    shared: &Shared,
    broker: &Broker,
    program: &Program,
    length: Duration,
) -> Result<Samples, CrashError> {
    let lasting = Lasting::start(shared).await?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    for number in 0..VISITORS {
        tasks.spawn(visitors::run(shared.clone(), number, stop.clone()));
    }
    for number in 0..MAKERS {
        tasks.spawn(fleeting::run(shared.clone(), number, stop.clone()));
    }
    tasks.spawn(silent::run(shared.clone(), stop.clone()));
    tasks.spawn(heirs::run(shared.clone(), stop.clone()));
    tasks.close();

    let samples = samples::take(shared, broker.id(), &program.data_dir, length).await;
    stop.cancel();
    tasks.wait().await;
    lasting.finish().await;
    samples
}
