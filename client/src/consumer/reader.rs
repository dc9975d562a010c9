//! The task that reads: at most one request per partition, a long poll where there is nothing new.

use std::sync::Arc;

use falcon_protocol::codes::Retry;
use falcon_protocol::message::{Delivery, Fetch};
use falcon_protocol::{Frame, Kind};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Duration, sleep};

use super::desk::{Ask, Want};
use super::events::ConsumerEvent;
use super::shared::Shared;
use crate::connection::{LinkState, Session};
use crate::core::start_when_room;
use crate::error::{Error, Refusal};
use crate::sync::lock;

/// How long a fetch waits at the broker for a record to appear. Long polls of partitions that were
/// given up end by it.
const WAIT_MS: u32 = 10_000;
/// How long until a request that failed on this side is tried again.
const AGAIN: Duration = Duration::from_millis(500);

type Asked = BoxFuture<'static, ()>;

/// Reads until the consumer ends.
pub(super) async fn read(shared: Arc<Shared>) {
    // CANCEL SAFETY: answers not taken in belong to a consumer that ends.
    tokio::select! {
        () = shared.stop.cancelled() => {}
        () = serve(&shared) => {}
        () = watch_link(&shared) => {}
    }
}

async fn serve(shared: &Arc<Shared>) {
    let mut asked: FuturesUnordered<Asked> = FuturesUnordered::new();
    loop {
        while let Some(ask) = next_ask(shared) {
            let shared = Arc::clone(shared);
            asked.push(Box::pin(async move { ask_broker(&shared, ask).await }));
        }
        // CANCEL SAFETY: a notification not consumed stays; answers not taken stay in `asked`.
        tokio::select! {
            () = shared.hungry.notified() => {}
            Some(()) = asked.next() => {}
        }
    }
}

fn next_ask(shared: &Shared) -> Option<Ask> {
    lock(&shared.desk).ask()
}

async fn ask_broker(shared: &Shared, ask: Ask) {
    if let Some(delay) = ask.delay {
        sleep(delay).await;
    }
    match ask.want {
        Want::Place(at) => match shared.resolve(&ask.hold, at).await {
            Ok(listed) => lock(&shared.desk).placed(&ask, listed.offset, listed.high_watermark),
            Err(error) => failed(shared, &ask, &error).await,
        },
        Want::Records { offset, bytes_max } => {
            let fetch = Fetch {
                partition: ask.hold.partition,
                offset,
                bytes_max,
                wait_ms: WAIT_MS,
            };
            match fetch_once(shared, &fetch).await {
                Ok((frame, session)) => take_in(shared, &ask, frame, &session),
                Err(error) => failed(shared, &ask, &error).await,
            }
        }
    }
    report_end(shared);
}

async fn failed(shared: &Shared, ask: &Ask, error: &Error) {
    tracing::debug!(partition = ?ask.hold.partition, %error, "not read; trying again");
    sleep(AGAIN).await;
    lock(&shared.desk).unanswered(ask);
}

/// Tries until there is an answer; the connection may go meanwhile.
async fn fetch_once(shared: &Shared, fetch: &Fetch) -> Result<(Frame, Arc<Session>), Error> {
    let body = fetch.encode();
    loop {
        let session = shared.core.link.session().await?;
        match start_when_room(&session, Kind::Fetch, &body).await {
            Some(answer) => {
                if let Ok(frame) = answer.await {
                    return Ok((frame, session));
                }
                session.ended().cancelled().await;
                shared.core.link.left(&session).await;
            }
            None => shared.core.link.left(&session).await,
        }
    }
}

fn take_in(shared: &Shared, ask: &Ask, frame: Frame, session: &Session) {
    let event = match Refusal::of(&frame) {
        Some(refusal)
            if refusal.code.retry() == Retry::Backoff && session.ended().is_cancelled() =>
        {
            lock(&shared.desk).unanswered(ask);
            None
        }
        Some(refusal) => lock(&shared.desk).refused(ask, &refusal),
        None => match Delivery::decode(frame.body) {
            Ok(delivery) => lock(&shared.desk).fetched(ask, delivery),
            Err(error) => {
                lock(&shared.desk).unanswered(ask);
                tracing::warn!(%error, "a fetch answer cannot be read");
                None
            }
        },
    };
    if let Some(event) = event {
        tracing::warn!(
            group = shared.group,
            ?event,
            "reading does not go on as it should"
        );
        shared.tell(event);
    }
}

fn report_end(shared: &Shared) {
    let reached_end = lock(&shared.desk).take_end();
    if reached_end {
        shared.tell(ConsumerEvent::CaughtUp);
    }
}

/// Tells of connections lost and back.
async fn watch_link(shared: &Shared) {
    let mut link = shared.core.link.watch();
    let mut was_up = true;
    loop {
        let state = link.borrow_and_update().clone();
        match state {
            LinkState::Up(session) if !was_up => {
                was_up = true;
                let address = session.address().to_owned();
                shared.tell(ConsumerEvent::Reconnected { address });
            }
            LinkState::Down(reason) if was_up => {
                was_up = false;
                shared.tell(ConsumerEvent::Disconnected { reason });
            }
            LinkState::Up(_) | LinkState::Down(_) | LinkState::Closed => {}
        }
        if link.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
