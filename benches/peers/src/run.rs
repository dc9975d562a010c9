//! One run: rounds of all loads on all systems, in turns.
//!
//! Owns the order and the servers. Promises: systems take turns within each load, those not measured stand
//! still, dirty pages are written before each measurement; what fails is written down and costs nobody else's
//! figures. Must not know: how figures are shown.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::limits;
use crate::loads::{self, Figures, Stage};
use crate::metric::{Load, Metric};
use crate::peer::Peer;
use crate::peers::{Connected, Programs, System};
use crate::results::{Failure, Figure, Results};
use crate::server::Server;

/// Between waking a server up and measuring it.
const SETTLE: Duration = Duration::from_millis(300);
/// A load may take so much longer than it is measured.
const LOAD_MAX: Duration = Duration::from_secs(60);
/// A system that failed so often is left alone.
const FAILURES_MAX: usize = 4;

/// What is to be done.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) programs: Programs,
    pub(crate) systems: Vec<System>,
    pub(crate) loads: Vec<Load>,
    pub(crate) rounds: u32,
    pub(crate) length: Duration,
    /// Empty, on the disk that is measured.
    pub(crate) folder: PathBuf,
}

type Servers = HashMap<System, (Arc<Server>, Connected)>;

/// Runs; `note` is called after each round with what there is.
pub(crate) async fn run(
    plan: &Plan,
    results: &mut Results,
    note: impl Fn(&Results) -> Result<()>,
) -> Result<()> {
    let begun = Instant::now();
    for round in 1..=plan.rounds {
        results.limits.push(limits::measure(&plan.folder)?);
        let mut servers = Servers::new();
        for load in plan.loads.iter().copied() {
            let mut peaks = Vec::new();
            if load.is_on_fresh() {
                servers.clear();
            }
            for system in plan.systems.iter().copied() {
                if load.is_replay() && !system.is_replayed() || is_given_up(results, system) {
                    continue;
                }
                let seconds = begun.elapsed().as_secs();
                eprintln!(
                    "{seconds:4} s  round {round}: {load:?} on {}",
                    system.name()
                );
                match one(plan, &mut servers, (round, system), load).await {
                    Ok(figures) => peaks.extend(figures.into_iter().map(|figure| (system, figure))),
                    Err(error) => {
                        servers.remove(&system);
                        let reason = format!("{error:#}");
                        eprintln!("        failed: {reason}");
                        results.failures.push(Failure {
                            round,
                            system,
                            load,
                            reason,
                        });
                    }
                }
            }
            for (system, (metric, value)) in peaks {
                add(
                    results,
                    Figure {
                        round,
                        system,
                        metric,
                        value,
                    },
                );
            }
        }
        drop(servers);
        note(results)?;
    }
    Ok(())
}

fn is_given_up(results: &Results, system: System) -> bool {
    let failures = results.failures.iter();
    failures.filter(|failure| failure.system == system).count() >= FAILURES_MAX
}

/// Of a round's peaks of memory the highest is kept.
fn add(results: &mut Results, figure: Figure) {
    let mut figures = results.figures.iter_mut();
    let known = figures.find(|known| {
        figure.metric == Metric::Memory
            && (known.round, known.system, known.metric)
                == (figure.round, figure.system, figure.metric)
    });
    match known {
        Some(known) => known.value = known.value.max(figure.value),
        None => results.figures.push(figure),
    }
}

/// One load on one system.
async fn one(
    plan: &Plan,
    servers: &mut Servers,
    (round, system): (u32, System),
    load: Load,
) -> Result<Figures> {
    let (server, peer) = match servers.entry(system) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(free) => {
            let (server, peer) = start(plan, round, system).await.context("starting")?;
            free.insert((Arc::new(server), peer))
        }
    };
    rustix::fs::sync();
    server.resume();
    server.forget_peak();
    tokio::time::sleep(SETTLE).await;
    let measured = tokio::spawn({
        let (server, peer, length) = (Arc::clone(server), peer.clone(), plan.length);
        async move { measure(peer, &server, load, length).await }
    });
    let stop = measured.abort_handle();
    let limited = tokio::time::timeout(LOAD_MAX + plan.length, measured).await;
    let figures = limited.unwrap_or_else(|_| {
        stop.abort();
        Ok(Err(anyhow!("it took too long")))
    });
    let mut figures = figures??;
    let peak = server.usage().peak_bytes;
    server.pause();
    figures.push((Metric::Memory, peak as f64));
    Ok(figures)
}

/// A server in a folder of its own, standing still.
async fn start(plan: &Plan, round: u32, system: System) -> Result<(Server, Connected)> {
    let name = system.name().replace(' ', "-");
    let folder = plan.folder.join(format!("{name}-{round}"));
    // The one before left something behind.
    std::fs::remove_dir_all(&folder).ok();
    std::fs::create_dir_all(&folder)?;
    let (server, peer) = system.start(&plan.programs, &folder).await?;
    server.pause();
    Ok((server, peer))
}

async fn measure(
    peer: Connected,
    server: &Server,
    load: Load,
    length: Duration,
) -> Result<Figures> {
    match peer {
        Connected::Falcon(peer) => on(peer, server, load, length).await,
        Connected::Nats(peer) => on(peer, server, load, length).await,
        Connected::Redis(peer) => on(peer, server, load, length).await,
        Connected::Rabbit(peer) => on(peer, server, load, length).await,
    }
}

async fn on<P: Peer>(peer: P, server: &Server, load: Load, length: Duration) -> Result<Figures> {
    loads::measure(
        &Stage {
            peer,
            server,
            length,
        },
        load,
    )
    .await
}

/// An empty folder that is removed in the end.
pub(crate) fn folder(parent: &Path) -> Result<tempfile::TempDir> {
    std::fs::create_dir_all(parent)?;
    Ok(tempfile::Builder::new()
        .prefix("peers-")
        .tempdir_in(parent)?)
}
