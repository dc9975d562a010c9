//! Accepting connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use falcon_protocol::limits::HANDSHAKE_FRAME_BYTES_MAX;
use falcon_protocol::{ErrorCode, Frame, Kind};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::Shared;
use super::connection::{self, Stop, say_and_close};
use super::frames::FrameReader;
use super::refusal::Refusal;
use crate::metrics::Rejection;

/// Wait after the system refused to accept (no file descriptors left, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// LIMIT: connections that may be told at the same time that there is no room.
const REFUSALS_MAX: usize = 64;
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);

/// The listening socket and its connections.
pub struct Listener {
    tasks: TaskTracker,
    stop: Stop,
    address: SocketAddr,
}

impl Listener {
    /// Starts accepting on a bound socket.
    pub fn start(socket: TcpListener, shared: Arc<Shared>) -> std::io::Result<Self> {
        let address = socket.local_addr()?;
        let tasks = TaskTracker::new();
        let stop = Stop {
            draining: CancellationToken::new(),
            abort: CancellationToken::new(),
        };
        tasks.spawn(accept(socket, shared, tasks.clone(), stop.clone()));
        Ok(Self {
            tasks,
            stop,
            address,
        })
    }

    /// The address that is listened on.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, tells every connection that the broker is draining, and waits until all
    /// have answered what was in flight, at most `grace`; then ends those that are left. Returns
    /// whether none was. Nothing of any connection is left afterwards.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.stop.draining.cancel();
        self.tasks.close();
        let is_drained = timeout(grace, self.tasks.wait()).await.is_ok();
        self.stop.abort.cancel();
        self.tasks.wait().await;
        is_drained
    }
}

async fn accept(socket: TcpListener, shared: Arc<Shared>, tasks: TaskTracker, stop: Stop) {
    let places = Arc::new(Semaphore::new(shared.limits.connections_max as usize));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let mut refused = 0_u64;
    loop {
        // CANCEL SAFETY: `accept` holds no connection while it waits.
        let accepted = tokio::select! {
            biased;
            () = stop.draining.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        let connection = match accepted {
            Ok((connection, _)) => connection,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            let serve = connection::serve(connection, Arc::clone(&shared), stop.clone(), place);
            tasks.spawn(serve);
        } else {
            let max = shared.limits.connections_max;
            refused += 1;
            let limit = Some(Rejection::ConnectionLimit);
            let server = &shared.metrics.server;
            server.refused(ErrorCode::TooManyConnections, limit);
            if refused.is_power_of_two() {
                warn!(
                    connections_max = max,
                    "a connection was refused: there is no room"
                );
            }
            if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
                tasks.spawn(async move {
                    let _late = timeout(REFUSAL_PATIENCE, refuse(connection, max)).await;
                    drop(place);
                });
            }
        }
    }
}

async fn refuse(socket: TcpStream, max: u32) {
    let text = format!("the broker has {max} connections, its limit");
    let refusal = Refusal::new(ErrorCode::TooManyConnections, text).retry_later();
    let last = Frame::refusal(Kind::Hello, 0, refusal.code, refusal.encode()).to_bytes();
    let (read, mut write) = socket.into_split();
    let mut frames = FrameReader::new(
        read,
        HANDSHAKE_FRAME_BYTES_MAX,
        REFUSAL_PATIENCE,
        REFUSAL_PATIENCE,
    );
    say_and_close(&mut frames, &mut write, &last).await;
}
