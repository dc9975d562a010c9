//! Atomic steps: from the frame's header to the writer's queue.
//!
//! Paid for and received as a publish is; each batch is verified as a published one is.

use std::sync::Arc;

use bytes::Bytes;
use falcon_protocol::limits::{OFFSETS_ENTRIES_MAX, STEP_BATCHES_MAX};
use falcon_protocol::message::{self, PublishAck, STEP_HEADER_BYTES, encode_step_acks};
use falcon_protocol::wire::read_u32;
use falcon_protocol::{ErrorCode, FrameHeader, Kind};

use super::connection::Connection;
use super::frames::{FrameReader, ReadError};
use super::publish::{OVERHEAD_BYTES, Permits, ack, ahead, count_acked};
use super::refusal::Refusal;
use crate::writer::{Appended, Command, Step, StepEntry, StepError};

impl Connection {
    /// Handles a step whose header was read. Refusals are answered here; an error ends the connection.
    pub(super) async fn step(
        &mut self,
        frames: &mut FrameReader,
        header: FrameHeader,
    ) -> Result<(), ReadError> {
        let (correlation, body_bytes) = (header.correlation, header.body_bytes as usize);
        if body_bytes < STEP_HEADER_BYTES {
            frames.skip(body_bytes).await?;
            self.refuse_step(correlation, &Refusal::of(ErrorCode::MalformedRequest));
            return Ok(());
        }
        let window = self.shared.limits.in_flight_bytes_per_connection;
        let window = usize::try_from(window).unwrap_or(usize::MAX);
        if body_bytes + OVERHEAD_BYTES > window {
            frames.skip(body_bytes).await?;
            let text = format!(
                "the step has {body_bytes} bytes, a connection may have {window} in flight"
            );
            let refusal = Refusal::new(ErrorCode::FrameTooLarge, text).range(window as u64, 0);
            self.refuse_step(correlation, &refusal);
            return Ok(());
        }
        let mut head = frames.peek(ahead(body_bytes, STEP_HEADER_BYTES)).await?;
        let (Ok(timeout_ms), Ok(batches)) = (
            read_u32(&mut head, "timeout_ms"),
            read_u32(&mut head, "batches"),
        ) else {
            return Err(ReadError::Cut);
        };
        // LIMIT: each batch is charged as a publish of its own.
        let places = (batches as usize).clamp(1, STEP_BATCHES_MAX);
        let charge = window.min(body_bytes + places * OVERHEAD_BYTES);
        let received = self.receive(frames, body_bytes, charge, timeout_ms);
        let (body, permits) = match received.await? {
            Ok(received) => received,
            Err(refusal) => {
                self.refuse_step(correlation, &refusal);
                return Ok(());
            }
        };
        match self.check_step(body).await {
            Err(refusal) => self.refuse_step(correlation, &refusal),
            Ok(step) => self.hand_over_step(correlation, step, permits).await,
        }
        Ok(())
    }

    async fn check_step(&self, body: Bytes) -> Result<Step, Refusal> {
        let step = message::Step::decode(body)?;
        if step.batches.is_empty() && step.commit.is_none() {
            let text = "the step has neither batches nor offsets";
            return Err(Refusal::new(ErrorCode::MalformedRequest, text));
        }
        let offsets = step.commit.as_ref().map(|commit| commit.offsets.len());
        if offsets.is_some_and(|offsets| offsets == 0 || offsets > OFFSETS_ENTRIES_MAX) {
            let text = format!("1 to {OFFSETS_ENTRIES_MAX} offsets can be committed at a time");
            return Err(Refusal::new(ErrorCode::MalformedRequest, text));
        }
        let max = self.shared.limits.batch_bytes_max;
        let mut batches = Vec::with_capacity(step.batches.len());
        for entry in step.batches {
            let (partition, bytes) = (entry.partition, entry.batch.len());
            if bytes > max as usize {
                let text = format!(
                    "the batch for partition {partition} has {bytes} bytes, at most {max} are allowed"
                );
                let refusal = Refusal::new(ErrorCode::BatchTooLarge, text);
                return Err(refusal
                    .range(u64::from(max), 0)
                    .partition(partition.partition));
            }
            let checked = self.shared.checks.check(entry.batch).await;
            let batch = checked.map_err(|refusal| refusal.partition(partition.partition))?;
            batches.push(StepEntry {
                partition,
                expected: entry.expected,
                batch,
            });
        }
        Ok(Step {
            batches,
            commit: step.commit,
        })
    }

    async fn hand_over_step(&self, correlation: u32, step: Step, permits: Permits) {
        let (outbox, begun) = (Arc::clone(&self.outbox), self.begun);
        let bytes: Vec<u64> = step
            .batches
            .iter()
            .map(|entry| entry.batch.bytes().len() as u64)
            .collect();
        let answer = move |result: Result<Vec<Appended>, StepError>| {
            match result {
                Ok(appended) => {
                    for (appended, bytes) in appended.iter().zip(bytes) {
                        count_acked(&outbox.metrics().writer, appended, bytes);
                    }
                    let acks: Vec<PublishAck> = appended.iter().map(ack).collect();
                    outbox.answer(Kind::Step, correlation, encode_step_acks(&acks));
                }
                Err(error) => outbox.refuse(Kind::Step, correlation, &error.into()),
            }
            outbox.answered(Kind::Step, begun);
            drop(permits);
        };
        let command = Command::Step(step, Box::new(answer));
        if let Err(closed) = self.shared.writer.send(command).await {
            self.refuse_step(correlation, &closed.into());
        }
    }

    fn refuse_step(&self, correlation: u32, refusal: &Refusal) {
        self.refuse(Kind::Step, correlation, refusal);
    }
}
