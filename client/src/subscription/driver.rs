//! The task of a subscription: subscribes, again after each loss, and ends it.

use std::sync::Arc;
use std::time::Duration;

use falcon_protocol::codes::{ErrorCode, Retry};
use falcon_protocol::message::StartPosition;
use falcon_protocol::message::{Subscribe, Subscribed, Unsubscribe, decode, encode};
use falcon_protocol::{Kind, Partition};
use tokio::time::{sleep, timeout};

use super::events::SubscriptionEvent;
use super::shared::{Port, Shared};
use super::state::Line;
use crate::backoff::Backoff;
use crate::clock;
use crate::connection::StartError;
use crate::core::start_when_room;
use crate::error::{Error, Refusal, SubscribeError};
use crate::sync::lock;

/// How often the number of partitions is looked up.
const TOPIC_REFRESH: Duration = Duration::from_secs(5);
/// A subscription that lasted this long begins again without waiting.
const CALM: Duration = Duration::from_secs(5);
/// How long the broker may take to answer an Unsubscribe.
const UNSUBSCRIBE: Duration = Duration::from_secs(5);

/// Why a subscription has to begin again.
enum Break {
    /// The connection is gone.
    Lost,
    /// Positions or partitions have changed.
    Restart,
}

/// What comes after an attempt that did not succeed.
enum Next {
    /// Another, at once.
    Now,
    /// Another, later.
    Later(Option<Duration>),
    /// None: this is why.
    Never(SubscribeError),
}

/// Keeps the subscription open until it is closed or the client stops.
pub(super) async fn drive(shared: Arc<Shared>, first: Line) {
    let stop = shared.core.stop.clone();
    let draining = shared.core.draining.clone();
    // CANCEL SAFETY: what is cut short belongs to a subscription that ends.
    tokio::select! {
        () = shared.closing.cancelled() => {}
        () = draining.cancelled() => {}
        () = stop.cancelled() => {}
        () = keep_open(&shared, first) => {}
    }
    let line = {
        let mut state = lock(&shared.state);
        state.is_closed = true;
        state.wake();
        state.line.take()
    };
    if let Some(line) = line {
        // CANCEL SAFETY: without an answer the connection's end ends the subscription.
        stop.run_until_cancelled(unsubscribe(&line)).await;
    }
    shared.ended.cancel();
}

async fn keep_open(shared: &Arc<Shared>, first: Line) {
    let mut line = first;
    let mut backoff = Backoff::default();
    loop {
        let opened_at = clock::now();
        let cause = watch_line(shared, &line).await;
        match cause {
            Break::Lost => {
                let reason = line.session.reason();
                shared.tell(SubscriptionEvent::Disconnected { reason });
            }
            Break::Restart => {
                unsubscribe(&line).await;
                // A partition that ends again and again must not make a busy loop.
                if opened_at.elapsed() < CALM {
                    sleep(backoff.next_wait()).await;
                } else {
                    backoff.reset();
                }
            }
        }
        line = match reopen(shared, matches!(cause, Break::Lost)).await {
            Ok(next) => next,
            Err(error) => {
                // The stream does not end by itself, but there is nothing more to do here.
                if error != SubscribeError::NothingLeft {
                    end_all(shared, error);
                }
                std::future::pending().await
            }
        };
    }
}

async fn watch_line(shared: &Arc<Shared>, line: &Line) -> Break {
    loop {
        // CANCEL SAFETY: waiting for tokens and timers holds nothing; a restart asked for stays.
        tokio::select! {
            () = line.session.ended().cancelled() => return Break::Lost,
            () = shared.restart.notified() => return Break::Restart,
            () = sleep(TOPIC_REFRESH), if shared.has_all_partitions => {
                if pick_up_partitions(shared).await.is_ok_and(|added| added) {
                    return Break::Restart;
                }
            }
        }
    }
}

/// Ends every partition because of `error`.
fn end_all(shared: &Shared, error: SubscribeError) {
    let mut state = lock(&shared.state);
    let all: Vec<Partition> = state.partitions.keys().copied().collect();
    for partition in all {
        state.end_partition(partition);
    }
    state.report(error);
}

/// Adds partitions that the topic has gained; fails when the topic is another one now.
async fn pick_up_partitions(shared: &Shared) -> Result<bool, SubscribeError> {
    let meta = match shared.core.refresh_topic(&shared.topic).await {
        Ok(meta) => meta,
        Err(Error::UnknownTopic { .. }) => return Err(deleted(shared)),
        Err(error) => return Err(error.into()),
    };
    let mut state = lock(&shared.state);
    if meta.id != state.topic_id {
        drop(state);
        return Err(deleted(shared));
    }
    let before = state.partitions.len();
    if shared.has_all_partitions {
        for partition in (0..meta.partitions).map(Partition) {
            // Whatever the start of the others: nothing of a new partition has been missed.
            state.add_partition(partition, StartPosition::Earliest);
        }
    }
    let has_grown = state.partitions.len() > before;
    drop(state);
    if has_grown {
        let partitions = meta.partitions;
        shared.tell(SubscriptionEvent::PartitionsAdded { partitions });
    }
    Ok(has_grown)
}

fn deleted(shared: &Shared) -> SubscribeError {
    SubscribeError::TopicDeleted {
        topic: shared.topic.to_string(),
    }
}

/// Subscribes from the positions reached until it succeeds or cannot.
async fn reopen(shared: &Arc<Shared>, is_new_connection: bool) -> Result<Line, SubscribeError> {
    let mut backoff = Backoff::default();
    let mut asks_topic = is_new_connection;
    loop {
        if asks_topic {
            match pick_up_partitions(shared).await {
                Ok(_) => {}
                Err(SubscribeError::Client(error)) if error.is_retryable() => {
                    sleep(backoff.next_wait()).await;
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        match open(shared).await {
            Ok(line) => return Ok(line),
            Err(Next::Now) => asks_topic = true,
            Err(Next::Later(after)) => {
                asks_topic = true;
                sleep(after.unwrap_or_else(|| backoff.next_wait())).await;
            }
            Err(Next::Never(error)) => return Err(error),
        }
    }
}

/// The first Subscribe, whose failure is the caller's: errors of positions included.
pub(super) async fn open_first(shared: &Arc<Shared>) -> Result<Line, SubscribeError> {
    let mut backoff = Backoff::default();
    loop {
        let next = match open(shared).await {
            Ok(line) => return Ok(line),
            Err(next) => next,
        };
        match next {
            Next::Now => {}
            Next::Later(after) => sleep(after.unwrap_or_else(|| backoff.next_wait())).await,
            Next::Never(error) => return Err(error),
        }
        if let Some(error) = lock(&shared.state).take_fatal() {
            return Err(error);
        }
    }
}

/// One attempt to subscribe.
async fn open(shared: &Arc<Shared>) -> Result<Line, Next> {
    let core = &shared.core;
    let session = core
        .link
        .session()
        .await
        .map_err(|e| Next::Never(e.into()))?;
    let (incarnation, request) = {
        let mut state = lock(&shared.state);
        let (incarnation, partitions, credit_bytes) = state.begin();
        let request = Subscribe {
            topic_id: state.topic_id,
            partitions,
            credit_bytes,
            credit_records: u64::MAX,
        };
        (incarnation, request)
    };
    if request.partitions.is_empty() {
        return Err(Next::Never(SubscribeError::NothingLeft));
    }
    let answer_error = Error::Answer {
        operation: "subscribe",
    };
    let body = encode(&request).map_err(|_| Next::Never(answer_error.clone().into()))?;
    let port = Arc::new(Port {
        shared: Arc::clone(shared),
        incarnation,
    });
    let (number, answer) = match session.start_subscribe(body, port) {
        Ok(started) => started,
        Err(StartError::Busy) => return Err(Next::Later(None)),
        Err(StartError::Ended) => {
            core.link.left(&session).await;
            return Err(Next::Now);
        }
    };
    let frame = answer.await.map_err(|_| Next::Later(None))?;
    if let Some(refusal) = Refusal::of(&frame) {
        return Err(refused(shared, refusal));
    }
    let subscribed: Subscribed =
        decode(&frame.body).map_err(|_| Next::Never(answer_error.clone().into()))?;
    let is_complete = request.partitions.iter().all(|asked| {
        let mut opened = subscribed.partitions.iter();
        opened.any(|opened| opened.partition == asked.partition)
    });
    if !is_complete {
        return Err(Next::Never(answer_error.into()));
    }
    let line = Line { session, number };
    let is_caught_up = lock(&shared.state).opened(line.clone(), &subscribed);
    let address = line.session.address().to_owned();
    shared.tell(SubscriptionEvent::Connected { address });
    if is_caught_up {
        shared.tell(SubscriptionEvent::CaughtUp);
    }
    Ok(line)
}

/// What a refused Subscribe means.
fn refused(shared: &Shared, refusal: Refusal) -> Next {
    let is_about_position = matches!(
        refusal.code,
        ErrorCode::OffsetOutOfRange | ErrorCode::DamagedRange
    );
    match refusal.code.retry() {
        Retry::Rejoin if refusal.code == ErrorCode::UnknownTopic => Next::Never(deleted(shared)),
        Retry::Backoff | Retry::Rejoin => Next::Later(refusal.retry_after),
        Retry::Never if is_about_position => {
            let partition = refusal.partition;
            let (error, is_restart) = shared.end_partition(partition, refusal.clone());
            match error {
                Some(error) if is_restart => lock(&shared.state).report(error),
                Some(error) => lock(&shared.state).report_fatal(error),
                None => return Next::Never(Error::Refused(refusal).into()),
            }
            Next::Now
        }
        Retry::Never => Next::Never(Error::Refused(refusal).into()),
    }
}

/// Tells the broker to end the subscription, and waits a little for it to do so.
async fn unsubscribe(line: &Line) {
    line.session.forget(line.number);
    let request = Unsubscribe {
        subscription: line.number,
    };
    let Ok(body) = encode(&request) else { return };
    // Without an answer the connection's end ends the subscription.
    let ended = async {
        if let Some(answer) = start_when_room(&line.session, Kind::Unsubscribe, &body).await {
            answer.await.ok();
        }
    };
    timeout(UNSUBSCRIBE, ended).await.ok();
}
