//! Publishing: from the frame's header to the writer's queue.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use falcon_protocol::message::{PUBLISH_HEADER_BYTES, PublishAck, PublishHeader};
use falcon_protocol::{Batch, ErrorCode, FrameHeader, Kind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::connection::Connection;
use super::frames::{FrameReader, READ_BYTES, ReadError};
use super::refusal::Refusal;
use crate::metrics::WriterMetrics;
use crate::writer::{Appended, Command, Publish, PublishAnswer, PublishError};

/// Charged for each publish beside its body: the command, its answer, its place in the queue.
pub(super) const OVERHEAD_BYTES: usize = 512;

/// A large body that takes longer than this, beside a second for each MiB, is late.
const PROMPT: Duration = Duration::from_millis(500);

/// What pays for a publish or a step until it is answered.
pub(super) struct Permits {
    /// A place among the requests, bytes of the connection's window, of the share of large bodies,
    /// of the total.
    _held: [Option<OwnedSemaphorePermit>; 4],
}

impl Connection {
    /// Handles a publish whose header was read. Refusals are answered here; an error ends the
    /// connection.
    pub(super) async fn publish(
        &mut self,
        frames: &mut FrameReader,
        header: FrameHeader,
    ) -> Result<(), ReadError> {
        let (correlation, body_bytes) = (header.correlation, header.body_bytes as usize);
        if body_bytes < PUBLISH_HEADER_BYTES {
            frames.skip(body_bytes).await?;
            self.refuse_publish(correlation, &Refusal::of(ErrorCode::MalformedRequest));
            return Ok(());
        }
        let batch_bytes = body_bytes - PUBLISH_HEADER_BYTES;
        let max = self.shared.limits.batch_bytes_max;
        if batch_bytes > max as usize {
            frames.skip(body_bytes).await?;
            let text = format!("the batch has {batch_bytes} bytes, at most {max} are allowed");
            let refusal = Refusal::new(ErrorCode::BatchTooLarge, text).range(u64::from(max), 0);
            self.refuse_publish(correlation, &refusal);
            return Ok(());
        }
        let mut head = frames.peek(ahead(body_bytes, PUBLISH_HEADER_BYTES)).await?;
        let Ok(publish) = PublishHeader::decode(&mut head) else {
            return Err(ReadError::Cut);
        };
        let charge = body_bytes + OVERHEAD_BYTES;
        let received = self.receive(frames, body_bytes, charge, publish.timeout_ms);
        let (mut body, permits) = match received.await? {
            Ok(received) => received,
            Err(refusal) => {
                self.refuse_publish(correlation, &refusal);
                return Ok(());
            }
        };
        body.advance(PUBLISH_HEADER_BYTES);
        match self.shared.checks.check(body).await {
            Err(refusal) => self.refuse_publish(correlation, &refusal),
            Ok(batch) => self.hand_over(correlation, publish, batch, permits).await,
        }
        Ok(())
    }

    /// Takes permits for `charge` bytes, then the body; or passes it over and says why.
    pub(super) async fn receive(
        &mut self,
        frames: &mut FrameReader,
        body_bytes: usize,
        charge: usize,
        timeout_ms: u32,
    ) -> Result<Result<(Bytes, Permits), Refusal>, ReadError> {
        let is_small = body_bytes <= READ_BYTES;
        let permits = match self.pay(charge, is_small, timeout_ms).await {
            Ok(permits) => permits,
            Err(refusal) => {
                frames.skip(body_bytes).await?;
                return Ok(Err(refusal));
            }
        };
        if is_small {
            // It was there before it was paid for.
            return Ok(Ok((frames.body(body_bytes).await?, permits)));
        }
        let begun = Instant::now();
        let waiting = self.shared.receiving.waiting();
        let body = frames.body_while(body_bytes, waiting).await?;
        let allowed = PROMPT + Duration::from_secs((body_bytes >> 20) as u64);
        self.is_prompt = begun.elapsed() <= allowed;
        Ok(Ok((body, permits)))
    }

    async fn hand_over(
        &self,
        correlation: u32,
        publish: PublishHeader,
        batch: Batch,
        permits: Permits,
    ) {
        let (outbox, begun) = (Arc::clone(&self.outbox), self.begun);
        let bytes = batch.bytes().len() as u64;
        let answer = move |result: Result<Appended, PublishError>| {
            let flush = match result {
                Ok(appended) => {
                    count_acked(&outbox.metrics().writer, &appended, bytes);
                    outbox.ack(correlation, &ack(&appended))
                }
                Err(error) => {
                    outbox.refuse(Kind::Publish, correlation, &error.into());
                    None
                }
            };
            outbox.answered(Kind::Publish, begun);
            drop(permits);
            flush
        };
        let partition = publish.partition;
        let command = Publish {
            partition,
            batch,
            answer: PublishAnswer::new(answer),
        };
        if let Err(closed) = self.shared.writer.send(Command::Publish(command)).await {
            self.refuse_publish(correlation, &closed.into());
        }
    }

    /// Takes permits for `bytes`, waiting at most the request's timeout or the broker's.
    ///
    /// ORDER: the connection's own limits before the total, so that a connection that waits for itself
    /// keeps nothing from the others.
    async fn pay(&self, bytes: usize, is_small: bool, timeout_ms: u32) -> Result<Permits, Refusal> {
        if is_small && let Some(permits) = self.pay_now(bytes) {
            return Ok(permits);
        }
        let limit_ms = self.shared.timeouts.queue_ms;
        let patience_ms = match timeout_ms {
            0 => limit_ms,
            asked => limit_ms.min(u64::from(asked)),
        };
        let take = async {
            let request = self.request_permit().await?;
            let window = acquire(&self.window, bytes).await?;
            let share = if is_small {
                None
            } else {
                Some(self.shared.receiving.take(bytes, self.is_prompt).await?)
            };
            let total = acquire(&self.shared.in_flight_total, bytes).await?;
            Some(Permits {
                _held: [Some(request), Some(window), share, Some(total)],
            })
        };
        match timeout(Duration::from_millis(patience_ms), take).await {
            Ok(Some(permits)) => Ok(permits),
            Ok(None) => Err(Refusal::of(ErrorCode::Draining).retry_later()),
            Err(_) => {
                let text = format!("the publish queue stayed full for {patience_ms} ms");
                Err(Refusal::new(ErrorCode::QueueFull, text).retry_later())
            }
        }
    }

    /// Takes permits that nobody waits for: no clock is read, no timer made. `None`: there are too few.
    fn pay_now(&self, bytes: usize) -> Option<Permits> {
        let bytes = u32::try_from(bytes).ok()?;
        let take = |of: &Arc<Semaphore>, count| Arc::clone(of).try_acquire_many_owned(count).ok();
        let request = take(&self.requests, 1)?;
        let window = take(&self.window, bytes)?;
        let total = take(&self.shared.in_flight_total, bytes)?;
        Some(Permits {
            _held: [Some(request), Some(window), None, Some(total)],
        })
    }

    /// Pays for the body of a control request.
    pub(super) async fn pay_control(
        &self,
        body_bytes: usize,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        let patience = Duration::from_millis(self.shared.timeouts.queue_ms);
        match timeout(patience, acquire(&self.shared.in_flight_total, body_bytes)).await {
            Ok(Some(paid)) => Ok(paid),
            Ok(None) => Err(Refusal::of(ErrorCode::Draining).retry_later()),
            Err(_) => Err(Refusal::of(ErrorCode::QueueFull).retry_later()),
        }
    }

    fn refuse_publish(&self, correlation: u32, refusal: &Refusal) {
        self.refuse(Kind::Publish, correlation, refusal);
    }
}

/// How much of a body is read before it is paid for: all that fits into the read buffer, so that a peer
/// that sends slowly holds nothing that others wait for; else its head.
pub(super) const fn ahead(body_bytes: usize, head_bytes: usize) -> usize {
    if body_bytes <= READ_BYTES {
        body_bytes
    } else {
        head_bytes
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    Arc::clone(semaphore).acquire_many_owned(permits).await.ok()
}

pub(super) fn count_acked(metrics: &WriterMetrics, appended: &Appended, bytes: u64) {
    metrics.batches_acked.add(1);
    if appended.is_duplicate {
        metrics.duplicates.add(1);
    } else {
        metrics.records_acked.add(u64::from(appended.record_count));
        metrics.bytes_acked.add(bytes);
    }
}

pub(super) fn ack(appended: &Appended) -> PublishAck {
    PublishAck {
        base_offset: appended.base_offset,
        append_time_ms: appended.append_time_ms,
        record_count: appended.record_count,
        is_duplicate: appended.is_duplicate,
    }
}
