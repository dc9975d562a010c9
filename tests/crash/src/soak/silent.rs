//! Clients that fall silent: the connection stands, nobody is there any more.
//!
//! They reach the broker through a relay of bytes that at some moment stops, in the midst of a frame or
//! not, and holds the broker's side open. The broker must close it by its own timeouts.

use std::net::Ipv4Addr;
use std::time::Duration;

use falcon_client::{Client, Record, Start, TopicOptions};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lasting::TOPICS;
use super::shared::{Shared, count};

/// Time between two of them; about thirty hang at any time.
const EVERY: Duration = Duration::from_secs(3);
/// The broker's longest timeout, a minute without a byte, and as long again.
const CLOSED_WITHIN: Duration = Duration::from_secs(120);

/// What they publish, which nobody checks: nobody knows how far it got.
const TOPIC: &str = "silence";
/// Large enough to be cut in the midst of a frame now and then.
const LARGE: usize = 50_000;
const PAUSE: Duration = Duration::from_millis(50);

/// One after the other, until told to stop.
pub(super) async fn run(shared: Shared, stop: CancellationToken) {
    let mut random = shared.random(3_000);
    let tasks = TaskTracker::new();
    if shared.heard(create(&shared).await).is_none() {
        return;
    }
    while !stop.is_cancelled() {
        let client = Silent {
            shared: shared.clone(),
            says: Duration::from_millis(random.u64(..3_000)),
            publishes: random.bool(),
            reaches: random.u8(..4) > 0,
        };
        tasks.spawn(client.run(stop.clone()));
        stop.run_until_cancelled(sleep(EVERY)).await;
    }
    tasks.close();
    tasks.wait().await;
}

async fn create(shared: &Shared) -> Result<(), String> {
    let client = shared.connect().await?;
    let options = TopicOptions::new(1).retention_bytes(1 << 20);
    let created = client.create_topic(TOPIC, options).await;
    created.map_err(|error| format!("{TOPIC}: {error}"))?;
    client.shutdown().await;
    Ok(())
}

struct Silent {
    shared: Shared,
    /// How long bytes are relayed.
    says: Duration,
    publishes: bool,
    /// Whether it says anything at all.
    reaches: bool,
}

impl Silent {
    async fn run(self, stop: CancellationToken) {
        count(&self.shared.tally.clients_silent, 1);
        let hung = stop.run_until_cancelled(self.hang()).await;
        if let Some(Err(error)) = hung {
            self.shared.complain(error);
        }
    }

    async fn hang(&self) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("a silent client: {error}");
        let broker = (Ipv4Addr::LOCALHOST, self.shared.port);
        let mut broker = TcpStream::connect(broker).await.map_err(failed)?;
        if self.reaches {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .await
                .map_err(failed)?;
            let port = listener.local_addr().map_err(failed)?.port();
            let relay = async {
                let (mut client, _) = listener.accept().await?;
                tokio::io::copy_bidirectional(&mut client, &mut broker).await
            };
            tokio::select! {
                () = self.talk(port) => {}
                relayed = relay => drop(relayed.map_err(failed)?),
                () = sleep(self.says) => {}
            }
        }
        // Not a byte is read: to the broker's side it is a peer that is gone.
        sleep(CLOSED_WITHIN / 2).await;
        let mut rest = Vec::new();
        // A reset closes it too.
        let closed = timeout(CLOSED_WITHIN / 2, broker.read_to_end(&mut rest)).await;
        if closed.is_err() {
            return Err("a connection without a byte for two minutes was not closed".into());
        }
        count(&self.shared.tally.silent_closed_by_broker, 1);
        Ok(())
    }

    /// Works until it is cut off. What fails is what shall fail.
    async fn talk(&self, port: u16) {
        let Ok(client) = Client::connect(&format!("falcon://127.0.0.1:{port}")).await else {
            return sleep(CLOSED_WITHIN).await;
        };
        if self.publishes {
            if let Ok(publisher) = client.publisher(TOPIC).build().await {
                while publisher.publish(Record::new(vec![0; LARGE])).await.is_ok() {
                    sleep(PAUSE).await;
                }
            }
        } else {
            let [topic, ..] = &TOPICS;
            let records = client.subscribe(topic.name).from(Start::Earliest);
            if let Ok(mut records) = records.open().await {
                while let Some(Ok(_)) = records.next().await {}
            }
        }
    }
}
