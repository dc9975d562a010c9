//! A proxy between publishers and a broker that loses answers.
//!
//! Owns both sides of every connection. Promises: what it says was sent went to the broker as a whole, and
//! trouble begins when publishes are under way. Must not know: what publishers make of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::sent::{Identity, Sent, publish_in, remove_identity};
use crate::error::CrashError;
use falcon_protocol::FRAME_HEADER_BYTES;

/// Requests kept back at a time.
const HELD_MAX: usize = 256;
/// Publishes of a connection until its trouble begins, at most.
const PUBLISHES_MAX: u64 = 40;
/// Longest that a trouble lasts.
const HOLD_US_MAX: u64 = 12_000;
/// Long enough for a client to come back and send again.
const COME_BACK: Duration = Duration::from_millis(80);
/// Pause between two parts of slow answers.
const SLOW: Duration = Duration::from_millis(2);

/// What happens to a connection; each ends with a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Answers are lost.
    Lost,
    /// Half of an answer comes, the others are lost.
    TornAnswer,
    /// Half of a request reaches the broker, and no answer the client.
    TornRequest,
    /// The client hears the end, and what it sends on goes to the broker still.
    HalfClosed,
    /// Answers come slowly, then not at all.
    Slow,
    /// The client hears the end while its requests are on the way: they arrive when it has sent them again.
    Late,
}

const TROUBLES: [(Trouble, &str); 6] = [
    (Trouble::Lost, "cuts_answers_lost"),
    (Trouble::TornAnswer, "cuts_in_an_answer"),
    (Trouble::TornRequest, "cuts_in_a_request"),
    (Trouble::HalfClosed, "cuts_half_closed"),
    (Trouble::Slow, "cuts_after_delays"),
    (Trouble::Late, "cuts_with_late_requests"),
];

/// What becomes of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    Pass,
    Slow,
    Lose,
    Tear,
    End,
}

/// What becomes of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Requests {
    Pass,
    Hold,
    Tear,
}

/// The proxy.
#[derive(Debug)]
pub(super) struct Proxy {
    /// Where publishers connect.
    pub(super) port: u16,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    broker: u16,
    identity: Identity,
    sent: Sent,
    random: Mutex<Rng>,
    is_calm: AtomicBool,
    /// Whether no answer gets through on any connection.
    is_swallowing: AtomicBool,
    connections: AtomicU64,
    cuts: [AtomicU64; TROUBLES.len()],
}

impl Proxy {
    /// Accepts publishers from now on.
    pub(super) async fn start(
        runtime: &Handle,
        broker: u16,
        identity: Identity,
        seed: u64,
    ) -> Result<Self, CrashError> {
        let failed = |error| CrashError::Unavailable(format!("no port for a proxy: {error}"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let shared = Arc::new(Shared {
            broker,
            identity,
            sent: Sent::default(),
            random: Mutex::new(Rng::with_seed(seed)),
            is_calm: AtomicBool::new(false),
            is_swallowing: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            cuts: Default::default(),
        });
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let accept = accept(listener, Arc::clone(&shared), tasks.clone(), stop.clone());
        tasks.spawn_on(accept, runtime);
        Ok(Self {
            port,
            shared,
            tasks,
            stop,
        })
    }

    /// What went to the broker.
    pub(super) fn sent(&self) -> &Sent {
        &self.shared.sent
    }

    /// Makes no trouble on connections that come from now on.
    pub(super) fn calm(&self) {
        self.shared.is_calm.store(true, Ordering::Relaxed);
    }

    /// Whether answers are lost on all connections.
    pub(super) fn swallow_answers(&self, is_swallowing: bool) {
        let now = &self.shared.is_swallowing;
        now.store(is_swallowing, Ordering::Relaxed);
    }

    /// Ends every connection.
    pub(super) async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// What was done, by name.
    pub(super) fn figures(&self) -> Vec<(&'static str, u64)> {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let cuts = self.shared.cuts.iter().map(of);
        let mut figures = vec![
            ("connections", of(&self.shared.connections)),
            ("cuts", cuts.clone().sum()),
        ];
        let names = TROUBLES.iter().map(|(_, name)| *name);
        figures.extend(names.zip(cuts));
        figures
    }
}

impl Shared {
    fn random<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    while let Some(Ok((client, _))) = stop.run_until_cancelled(listener.accept()).await {
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(carry(&shared, client)).await;
        });
    }
}

/// Carries one connection to its end.
async fn carry(shared: &Shared, client: TcpStream) {
    // While it is killed, nobody answers there.
    let Ok(broker) = TcpStream::connect(("127.0.0.1", shared.broker)).await else {
        return;
    };
    shared.connections.fetch_add(1, Ordering::Relaxed);
    // Without it small requests would wait for each other.
    if client.set_nodelay(true).is_err() || broker.set_nodelay(true).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let (frames, held) = mpsc::channel(HELD_MAX);
    let (publishes, published) = watch::channel(0);
    let (answers, answers_now) = watch::channel(Answers::Pass);
    let (requests, requests_now) = watch::channel(Requests::Pass);
    let carried = async {
        tokio::join!(
            receive(from_client, frames),
            forward(shared, held, (to_broker, requests_now), publishes),
            answer(shared, from_broker, to_client, answers_now),
        )
    };
    let trouble = make_trouble(shared, published, &answers, &requests);
    // CANCEL SAFETY: the other one is given up with the connection.
    tokio::select! {
        _ = carried => {}
        () = trouble => {}
    }
}

/// Waits for its moment; returns when the connection is to be cut.
async fn make_trouble(
    shared: &Shared,
    mut published: watch::Receiver<u64>,
    answers: &watch::Sender<Answers>,
    requests: &watch::Sender<Requests>,
) {
    if shared.is_calm.load(Ordering::Relaxed) {
        return std::future::pending().await;
    }
    let nth = shared.random(|random| random.usize(0..TROUBLES.len()));
    let after = shared.random(|random| random.u64(1..=PUBLISHES_MAX));
    let hold = shared.random(|random| Duration::from_micros(random.u64(0..HOLD_US_MAX)));
    if published.wait_for(|count| *count >= after).await.is_err() {
        return std::future::pending().await;
    }
    if let Some(cuts) = shared.cuts.get(nth) {
        cuts.fetch_add(1, Ordering::Relaxed);
    }
    match TROUBLES.get(nth).map(|(trouble, _)| *trouble) {
        None | Some(Trouble::Lost) => {
            answers.send_replace(Answers::Lose);
        }
        Some(Trouble::TornAnswer) => {
            answers.send_replace(Answers::Tear);
        }
        Some(Trouble::TornRequest) => {
            answers.send_replace(Answers::Lose);
            requests.send_replace(Requests::Tear);
        }
        Some(Trouble::HalfClosed) => {
            answers.send_replace(Answers::End);
        }
        Some(Trouble::Slow) => {
            answers.send_replace(Answers::Slow);
            sleep(hold * 2).await;
            answers.send_replace(Answers::Lose);
        }
        Some(Trouble::Late) => {
            requests.send_replace(Requests::Hold);
            sleep(hold).await;
            answers.send_replace(Answers::End);
            sleep(COME_BACK).await;
            requests.send_replace(Requests::Pass);
        }
    }
    sleep(hold).await;
}

/// Takes whole frames from the client.
async fn receive(mut from: OwnedReadHalf, frames: mpsc::Sender<Vec<u8>>) {
    loop {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        if from.read_exact(&mut frame).await.is_err() {
            return;
        }
        let body_bytes = frame.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let body_bytes = u64::from(body_bytes.unwrap_or_default());
        let body = (&mut from).take(body_bytes).read_to_end(&mut frame).await;
        if body.map_or(true, |read| read as u64 != body_bytes) {
            return;
        }
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}

/// Sends them to the broker.
async fn forward(
    shared: &Shared,
    mut frames: mpsc::Receiver<Vec<u8>>,
    (mut to, mut now): (OwnedWriteHalf, watch::Receiver<Requests>),
    publishes: watch::Sender<u64>,
) {
    while let Some(mut frame) = frames.recv().await {
        let publish = publish_in(&frame);
        if publish.is_some() && shared.identity == Identity::Removed {
            remove_identity(&mut frame);
        }
        // A sender that is gone changes nothing any more.
        now.wait_for(|now| *now != Requests::Hold).await.ok();
        let is_torn = *now.borrow() == Requests::Tear;
        let part = if is_torn {
            frame.len() / 2
        } else {
            frame.len()
        };
        let written = to.write_all(frame.get(..part).unwrap_or_default()).await;
        if written.is_err() || is_torn {
            return;
        }
        if let Some(publish) = publish {
            shared.sent.note(publish);
            publishes.send_modify(|count| *count += 1);
        }
    }
}

/// Gives the broker's answers to the client, or not.
async fn answer(
    shared: &Shared,
    mut from: OwnedReadHalf,
    to: OwnedWriteHalf,
    mut now: watch::Receiver<Answers>,
) {
    let mut to = Some(to);
    let mut bytes = vec![0; 16 << 10];
    loop {
        // CANCEL SAFETY: both; what was read is never thrown away.
        let read = tokio::select! {
            read = from.read(&mut bytes) => read.unwrap_or_default(),
            changed = now.changed() => {
                if *now.borrow() == Answers::End || changed.is_err() {
                    to = None;
                }
                continue;
            }
        };
        if read == 0 {
            return;
        }
        let what = *now.borrow();
        let is_lost = shared.is_swallowing.load(Ordering::Relaxed);
        let pass = match what {
            _ if is_lost => 0,
            Answers::Pass => read,
            Answers::Slow => {
                sleep(SLOW).await;
                read
            }
            Answers::Tear => read / 2,
            Answers::Lose | Answers::End => 0,
        };
        let part = bytes.get(..pass).unwrap_or_default();
        if let Some(to) = to.as_mut().filter(|_| !part.is_empty())
            && to.write_all(part).await.is_err()
        {
            return;
        }
        if what == Answers::Tear {
            to = None;
        }
    }
}
