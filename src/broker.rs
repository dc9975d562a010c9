//! Composition root: lock, recover, start, shut down.
//!
//! Owns the order in which the parts start and end. [`Broker`] also serves for embedding a broker in
//! a program or in its tests:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let broker = falcon::Broker::start(falcon::Config::for_tests(folder.path())).await?;
//! println!("listening on {}", broker.address());
//! broker.shutdown().await;
//! # Ok(()) }
//! ```

mod housekeeping;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::admin::{AdminPort, Served, Status};
use crate::clock::Instant;
use crate::config::{AdminListen, Config, ConfigError};
use crate::io::RealDisk;
use crate::metrics::Metrics;
use crate::reader::Reader;
use crate::server::{Checks, Groups, Listener, Needs, Receiving, Shared, Spare, Warnings};
use crate::store::local::{LocalConfig, LocalStore, OpenError, RecoveryReport};
use crate::store::{CommitError, Store};
use crate::writer::{self, State, StateLimits, WriterHandle};

/// Why a broker did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {reason}; choose another address with --listen")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        reason: String,
    },
    /// The address of the admin port, which was asked for, cannot be listened on.
    #[error(
        "cannot serve the admin port on {address}: {reason}; set admin.listen to another address, auto or off"
    )]
    AdminBind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        reason: String,
    },
    /// The data folder cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// What a broker did, told when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Whether every connection ended within the grace period.
    pub is_drained: bool,
    /// Whether the journal was closed with a clean-stop marker.
    pub is_clean: bool,
    /// Connections served.
    pub connections: u64,
    /// Batches acknowledged.
    pub batches_acked: u64,
    /// Records acknowledged, duplicates not counted.
    pub records_acked: u64,
}

/// A running broker. Dropping it without [`shutdown`](Self::shutdown) is like a crash: nothing
/// acknowledged is lost, and the next start has to look through the journal.
pub struct Broker {
    address: SocketAddr,
    grace: Duration,
    listener: Listener,
    admin: Option<AdminPort>,
    status: Arc<Status>,
    shared: Arc<Shared>,
    writer: JoinHandle<Result<(), CommitError>>,
    background: TaskTracker,
    stopping: CancellationToken,
    recovery: RecoveryReport,
}

impl Broker {
    /// Starts a broker: checks the configuration, binds, locks and recovers the data folder, accepts.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.check()?;
        let started = Instant::now();
        // ORDER: bind before recovery, so that a port in use is told at once.
        let socket = bind(config.listen).await?;
        let metrics = Arc::new(Metrics::default());
        let status = Arc::new(Status::new(Arc::clone(&metrics)));
        let admin = start_admin(&config, &status).await?;
        let (store, state, recovery) = open(&config, &metrics).await?;
        store.retain(&state.live_partitions());
        let dyn_store = Arc::clone(&store) as Arc<dyn Store>;
        let fences = state.fences().iter();
        let fences = fences.map(|(group, id, epoch)| (group.to_owned(), id, epoch));
        let fences = fences.collect();
        let running = writer::spawn(state, dyn_store, Arc::clone(&metrics));
        let running = running.map_err(StartError::Thread)?;
        let (background, stopping) = (TaskTracker::new(), CancellationToken::new());
        let (groups, coordinating) = Groups::new(needs(&config, &metrics, &running), fences);
        let ending = stopping.clone();
        background.spawn(async move { ending.run_until_cancelled(coordinating).await });
        let shared = share(&config, &store, &running, (groups, metrics));
        let writer::Running { handle, thread, .. } = running;
        start_housekeeping(&background, &stopping, &config, &store, &shared, handle);
        let bind_error = |error: std::io::Error| StartError::Bind {
            address: config.listen,
            reason: error.to_string(),
        };
        let listener = Listener::start(socket, Arc::clone(&shared)).map_err(bind_error)?;
        status.serve(served(&config, &store, &shared));
        let address = listener.address();
        info!(%address, data_dir = %config.data_dir.display(), epoch = shared.epoch,
            millis = started.elapsed().as_millis(), "ready");
        let grace = Duration::from_millis(config.shutdown_grace_ms);
        Ok(Self {
            address,
            grace,
            listener,
            admin,
            status,
            shared,
            writer: thread,
            background,
            stopping,
            recovery,
        })
    }

    /// The address it listens on; the port is the real one when 0 was asked for.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the admin port, when there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(AdminPort::address)
    }

    /// What recovery found at the start.
    pub const fn recovery(&self) -> &RecoveryReport {
        &self.recovery
    }

    /// Stops: accepts no more, answers what is in flight, closes the journal, releases the lock.
    pub async fn shutdown(self) -> ShutdownReport {
        info!("shutting down");
        self.status.drain();
        let is_drained = self.listener.drain(self.grace).await;
        if !is_drained {
            warn!(
                grace_ms = self.grace.as_millis(),
                "connections were still busy"
            );
        }
        self.stopping.cancel();
        self.background.close();
        self.background.wait().await;
        let metrics = &self.status.metrics;
        let connections = metrics.server.accepted.value();
        let (batches_acked, records_acked) = (
            metrics.writer.batches_acked.value(),
            metrics.writer.records_acked.value(),
        );
        // ORDER: the writer ends when the last handle is gone.
        drop(self.shared);
        drop(self.listener);
        let writer = self.writer;
        let closed = tokio::task::spawn_blocking(move || writer.join()).await;
        let is_clean = match closed {
            Ok(Ok(Ok(()))) => true,
            // It was said when it happened.
            Ok(Ok(Err(CommitError::Stopped))) => false,
            Ok(Ok(Err(failure))) => {
                error!(%failure, "the journal was not closed cleanly");
                false
            }
            Ok(Err(_)) | Err(_) => {
                error!("the writer panicked");
                false
            }
        };
        // ORDER: last, so that whoever watches sees the broker drain to its end.
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
        info!(
            is_drained,
            is_clean, connections, batches_acked, records_acked, "stopped"
        );
        ShutdownReport {
            is_drained,
            is_clean,
            connections,
            batches_acked,
            records_acked,
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| StartError::Bind {
        address,
        reason: why(&error),
    })
}

fn why(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::AddrInUse {
        "the port is in use".to_owned()
    } else {
        error.to_string()
    }
}

/// The admin port, if there is to be one. One that nobody asked for by address may be missing.
async fn start_admin(
    config: &Config,
    status: &Arc<Status>,
) -> Result<Option<AdminPort>, StartError> {
    let listen = config.admin.listen;
    let Some(address) = listen.address(config.listen) else {
        return Ok(None);
    };
    let socket = TcpListener::bind(address).await;
    let started = socket.and_then(|socket| AdminPort::start(socket, Arc::clone(status)));
    match started {
        Ok(admin) => {
            info!(address = %admin.address(), "serving /metrics, /livez and /readyz");
            Ok(Some(admin))
        }
        Err(error) if listen == AdminListen::Auto => {
            let reason = why(&error);
            warn!(%address, reason, "there is no admin port, set admin.listen");
            Ok(None)
        }
        Err(error) => Err(StartError::AdminBind {
            address,
            reason: why(&error),
        }),
    }
}

/// What the admin port looks at.
fn served(config: &Config, store: &Arc<LocalStore>, shared: &Shared) -> Served {
    let store: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
    Served {
        views: Arc::clone(&shared.views),
        store: Arc::downgrade(&store),
        in_flight: Arc::clone(&shared.in_flight_total),
        in_flight_bytes_max: config.limits.in_flight_bytes_total,
        free_floor_bytes: config.storage.free_floor_bytes,
        lag_series_max: config.admin.lag_series_max as usize,
    }
}

async fn open(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<(Arc<LocalStore>, State, RecoveryReport), StartError> {
    let limits = StateLimits {
        topics_max: u64::from(config.limits.topics_max),
        partitions_max: u64::from(config.limits.partitions_max),
        committed_offsets_max: u64::from(config.limits.committed_offsets_max),
        producers_max: u64::from(config.limits.producers_max),
    };
    let storage = LocalConfig {
        segment_bytes: config.storage.segment_bytes,
        cache_bytes: usize::try_from(config.storage.cache_bytes).unwrap_or(usize::MAX),
        free_floor_bytes: config.storage.free_floor_bytes,
        direct_io: config.storage.direct_io,
        spare_segments: config.storage.spare_segments as usize,
        index_open_timeout: Duration::from_millis(config.storage.index_open_timeout_ms),
        metrics: Arc::clone(metrics),
        ..LocalConfig::new(config.data_dir.clone())
    };
    let opening = tokio::task::spawn_blocking(move || {
        let mut state = State::new(limits);
        let (store, report) = LocalStore::open(storage, Arc::new(RealDisk), &mut state)?;
        // What only the clean-stop marker knew (where a lost tail ended) must survive the next crash.
        if store.wants_snapshot()
            && let Err(failure) = store.commit_snapshot(state.rows(state.recovered_offsets()))
        {
            warn!(%failure, "what was recovered is not written down yet");
        }
        Ok((store, state, report))
    });
    match opening.await {
        Ok(opened) => opened,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn needs(config: &Config, metrics: &Arc<Metrics>, running: &writer::Running) -> Needs {
    Needs {
        views: Arc::clone(&running.views),
        writer: running.handle.clone(),
        metrics: Arc::clone(metrics),
        // Each has a fence, and of these there are no more.
        partitions_max: config.limits.committed_offsets_max as usize,
    }
}

fn share(
    config: &Config,
    store: &Arc<LocalStore>,
    running: &writer::Running,
    (groups, metrics): (Groups, Arc<Metrics>),
) -> Arc<Shared> {
    Arc::new(Shared {
        limits: config.limits.clone(),
        timeouts: config.timeouts.clone(),
        advertise: config.advertise.clone(),
        cluster: store.identity(),
        epoch: store.epoch(),
        reader: Reader::new(Arc::clone(store) as Arc<dyn Store>),
        views: Arc::clone(&running.views),
        writer: running.handle.clone(),
        in_flight_total: crate::server::semaphore(config.limits.in_flight_bytes_total),
        receiving: Receiving::new(config.limits.in_flight_bytes_total),
        groups,
        spare: Spare::default(),
        checks: Checks::default(),
        warnings: Warnings::default(),
        metrics,
    })
}

fn start_housekeeping(
    background: &TaskTracker,
    stopping: &CancellationToken,
    config: &Config,
    store: &Arc<LocalStore>,
    shared: &Arc<Shared>,
    writer: WriterHandle,
) {
    let keeper = housekeeping::Housekeeping {
        store: Arc::clone(store) as Arc<dyn Store>,
        views: Arc::clone(&shared.views),
        writer,
        retention_check: Duration::from_millis(config.storage.retention_check_ms),
        metrics: Arc::clone(&shared.metrics),
        producer_expiry_ms: i64::try_from(config.timeouts.producer_expiry_ms).unwrap_or(i64::MAX),
    };
    let stopping = stopping.clone();
    background.spawn(async move { stopping.run_until_cancelled(keeper.run()).await });
}
