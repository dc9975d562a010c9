//! The first exchange of a connection.

use falcon_protocol::limits::{FRAME_BYTES_MAX, VERSION};
use falcon_protocol::message::{HelloRequest, HelloResponse};
use falcon_protocol::{Codec, ErrorCode, Frame, Kind};
use tokio::time::timeout;

use super::Shared;
use super::frames::{FrameReader, ReadError};
use super::refusal::Refusal;
use crate::metrics::Rejection;

/// Smallest frame limit a client may ask for: room for an error and a small batch.
const FRAME_BYTES_MIN: u32 = 4 * 1024;
const BROKER: &str = concat!("falcon/", env!("CARGO_PKG_VERSION"));

/// What was agreed.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) frame_bytes_max: u32,
    pub(super) client: String,
    pub(super) answer: Frame,
}

/// Why there is no agreement.
#[derive(Debug)]
pub(super) enum HandshakeError {
    /// Tell the peer.
    Refused { correlation: u32, refusal: Refusal },
    /// The peer speaks HTTP: tell it in its own language.
    Http,
    /// The peer is gone.
    Gone(ReadError),
}

/// Waits for `Hello` and decides what is granted.
pub(super) async fn run(
    frames: &mut FrameReader,
    shared: &Shared,
    connection_id: u64,
) -> Result<Agreed, HandshakeError> {
    let patience = std::time::Duration::from_millis(shared.timeouts.handshake_ms);
    match timeout(patience, hello(frames, shared, connection_id)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(refused(0, Refusal::of(ErrorCode::HandshakeTimeout))),
    }
}

async fn hello(
    frames: &mut FrameReader,
    shared: &Shared,
    connection_id: u64,
) -> Result<Agreed, HandshakeError> {
    let header = frames.header().await.map_err(explain)?;
    if let Some(kind) = Kind::from_number(header.kind) {
        shared.metrics.server.frames_received.of(kind).add(1);
    }
    let correlation = header.correlation;
    if header.kind != Kind::Hello.number() || header.is_response {
        return Err(refused(
            correlation,
            Refusal::of(ErrorCode::HandshakeRequired),
        ));
    }
    let body = frames
        .body(header.body_bytes as usize)
        .await
        .map_err(explain)?;
    let hello =
        HelloRequest::decode(&body).map_err(|error| refused(correlation, invalid(error)))?;
    if hello.version_min > VERSION || hello.version_max < VERSION {
        let (min, max) = (hello.version_min, hello.version_max);
        let text = format!("this broker speaks version {VERSION}, the client {min} to {max}");
        let refusal = Refusal::new(ErrorCode::UnsupportedVersion, text);
        let spoken = u64::from(VERSION);
        return Err(refused(correlation, refusal.range(spoken, spoken)));
    }
    if hello.frame_bytes_max < FRAME_BYTES_MIN {
        let text = format!(
            "a frame limit of {} is below {FRAME_BYTES_MIN}",
            hello.frame_bytes_max
        );
        return Err(refused(
            correlation,
            Refusal::new(ErrorCode::MalformedRequest, text).because(Rejection::HandshakeInvalid),
        ));
    }
    Ok(agree(hello, shared, connection_id, correlation))
}

fn agree(hello: HelloRequest, shared: &Shared, connection_id: u64, correlation: u32) -> Agreed {
    let limits = &shared.limits;
    let frame_bytes_max = hello
        .frame_bytes_max
        .min(limits.frame_bytes_max)
        .min(FRAME_BYTES_MAX);
    let millis = |ms: u64| u32::try_from(ms).unwrap_or(u32::MAX);
    let response = HelloResponse {
        version: VERSION,
        frame_bytes_max,
        batch_bytes_max: limits.batch_bytes_max,
        publish_window_bytes: limits.in_flight_bytes_per_connection,
        requests_in_flight_max: limits.requests_in_flight_per_connection,
        subscriptions_max: limits.subscriptions_per_connection,
        heartbeat_ms: millis(shared.timeouts.heartbeat_ms),
        idle_timeout_ms: millis(shared.timeouts.idle_ms),
        codecs: Codec::ALL.iter().map(|codec| codec.bit()).sum(),
        features: 0,
        connection_id,
        broker: BROKER.to_owned(),
        cluster: shared.cluster.clone(),
    };
    let answer = Frame::response(Kind::Hello, correlation, response.encode());
    Agreed {
        frame_bytes_max,
        client: hello.client,
        answer,
    }
}

fn invalid(error: impl Into<Refusal>) -> Refusal {
    error.into().because(Rejection::HandshakeInvalid)
}

fn refused(correlation: u32, refusal: Refusal) -> HandshakeError {
    HandshakeError::Refused {
        correlation,
        refusal,
    }
}

fn explain(error: ReadError) -> HandshakeError {
    match error {
        ReadError::Frame(falcon_protocol::FrameError::Http) => HandshakeError::Http,
        ReadError::Frame(frame) => refused(0, Refusal::from(frame)),
        ReadError::Idle(_) | ReadError::Stalled(_) => {
            refused(0, Refusal::of(ErrorCode::HandshakeTimeout))
        }
        gone @ (ReadError::Closed | ReadError::Cut | ReadError::Broken(_)) => {
            HandshakeError::Gone(gone)
        }
    }
}
