//! A small broker over a real socket, which can be told to misbehave.

mod answers;
mod connection;
mod world;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use falcon_client::{Client, ClientBuilder, ErrorCode};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{DEADLINE, within};
pub(crate) use world::{Hello, OnPublish, World};

pub(crate) const TOPIC: &str = "orders";

/// The peer; dropping it closes its socket and connections.
pub(crate) struct Peer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

pub(crate) struct Shared {
    world: Mutex<World>,
    version: watch::Sender<u64>,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }
}

impl Peer {
    /// A peer with one topic of so many partitions.
    pub(crate) async fn start(partitions: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            world: Mutex::new(World::new(partitions)),
            version: watch::Sender::new(0),
        });
        let stop = CancellationToken::new();
        let tracker = TaskTracker::new();
        let (accepted, token) = (Arc::clone(&shared), stop.clone());
        let connections = tracker.clone();
        tracker.spawn(async move {
            while let Some(Ok((socket, _))) = token.run_until_cancelled(listener.accept()).await {
                let (shared, token) = (Arc::clone(&accepted), token.clone());
                connections.spawn(async move {
                    token
                        .run_until_cancelled(connection::serve(socket, shared))
                        .await;
                });
            }
        });
        Self {
            address,
            shared,
            stop,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("falcon://{}", self.address)
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder(self.url())
    }

    pub(crate) async fn client(&self) -> Client {
        within(Client::connect(&self.url())).await.unwrap()
    }

    /// Changes how the peer behaves, or looks at what it has seen.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut World) -> T) -> T {
        let result = work(&mut self.shared.world());
        self.shared.changed();
        result
    }

    /// Closes every connection there is now.
    pub(crate) fn kill_connections(&self) {
        self.with(|world| world.generation += 1);
    }

    /// Waits until the peer has seen something.
    pub(crate) async fn until(&self, what: &str, mut is_true: impl FnMut(&World) -> bool) {
        let mut version = self.shared.version.subscribe();
        let waiting = async {
            loop {
                version.borrow_and_update();
                if is_true(&self.shared.world()) {
                    return;
                }
                version.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(DEADLINE, waiting).await;
        assert!(waited.is_ok(), "did not come: {what}");
    }

    /// What the next publishes meet, in order; then all are acknowledged again.
    pub(crate) fn script(&self, steps: impl IntoIterator<Item = OnPublish>) {
        self.with(|world| world.script.extend(steps));
    }

    /// Tells every subscriber that a partition ended.
    pub(crate) fn end_partition(&self, partition: u32, code: ErrorCode, low: u64, high: u64) {
        self.with(|world| world.endings.push((partition, code, low, high)));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
