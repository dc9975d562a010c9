//! Making a connection: resolve, connect, shake hands, start reader and writer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use falcon_protocol::limits::{FRAME_BYTES_MAX, HANDSHAKE_FRAME_BYTES_MAX, VERSION};
use falcon_protocol::message::{HelloRequest, HelloResponse};
use falcon_protocol::{Codec, Frame, FrameError, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::reader::{read_loop, take_frame};
use super::session::Session;
use super::writer::write_loop;
use crate::address::Addresses;
use crate::error::{ConnectReason, Error, LostReason, Refusal};

/// What every attempt to connect needs.
#[derive(Debug, Clone)]
pub(crate) struct DialOptions {
    pub(crate) addresses: Addresses,
    pub(crate) connect_timeout: Duration,
    pub(crate) name: String,
    pub(crate) credential: Vec<u8>,
}

/// Tries every address once, in turn; the error is that of the last. The connection's two tasks
/// run on `tracker` until the session ends.
pub(crate) async fn dial(
    options: &DialOptions,
    tracker: &TaskTracker,
) -> Result<Arc<Session>, Error> {
    let mut failed = None;
    for address in options.addresses.as_slice() {
        let attempt = timeout(options.connect_timeout, dial_one(options, address, tracker));
        let reason = match attempt.await {
            Ok(Ok(session)) => return Ok(session),
            Ok(Err(reason)) => reason,
            Err(_) => ConnectReason::Timeout(options.connect_timeout),
        };
        let address = address.clone();
        failed = Some(Error::Connect { address, reason });
    }
    Err(failed.unwrap_or(Error::Closed))
}

async fn dial_one(
    options: &DialOptions,
    address: &str,
    tracker: &TaskTracker,
) -> Result<Arc<Session>, ConnectReason> {
    let mut socket = connect(address).await?;
    socket
        .set_nodelay(true)
        .map_err(|e| ConnectReason::Io(e.kind()))?;
    let (granted, rest) = shake_hands(&mut socket, options).await?;
    let session = Arc::new(Session::new(address.to_owned(), granted));
    let (read_half, write_half) = socket.into_split();

    let reader = Arc::clone(&session);
    tracker.spawn(async move {
        // CANCEL SAFETY: a frame cut short by cancelling belongs to a connection that has ended.
        let end = read_loop(&reader, read_half, rest);
        if let Some(reason) = reader.ended().run_until_cancelled(end).await {
            reader.end(reason);
        }
    });
    let writer = Arc::clone(&session);
    tracker.spawn(async move {
        // CANCEL SAFETY: as above.
        let end = write_loop(&writer, write_half);
        if let Some(reason) = writer.ended().run_until_cancelled(end).await {
            writer.end(reason);
        }
        // A socket that was lent would stay open for as long as somebody knows the session.
        drop(writer.outbox.take_back());
    });
    Ok(session)
}

async fn connect(address: &str) -> Result<TcpStream, ConnectReason> {
    let found = lookup_host(address).await;
    let found = found.map_err(|_| ConnectReason::UnknownHost)?;
    let mut failed = ConnectReason::UnknownHost;
    for address in found {
        match TcpStream::connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = ConnectReason::Io(error.kind()),
        }
    }
    Err(failed)
}

/// Says hello and reads the answer; what was read behind it belongs to the connection.
async fn shake_hands(
    socket: &mut TcpStream,
    options: &DialOptions,
) -> Result<(HelloResponse, BytesMut), ConnectReason> {
    let hello = HelloRequest {
        version_min: VERSION,
        version_max: VERSION,
        frame_bytes_max: FRAME_BYTES_MAX,
        codecs: Codec::ALL.iter().fold(0, |set, codec| set | codec.bit()),
        features: 0,
        client: options.name.clone(),
        credential: options.credential.clone(),
    };
    let request = Frame::request(Kind::Hello, 0, hello.encode());
    socket.write_all(&request.to_bytes()).await.map_err(lost)?;
    let mut buffer = BytesMut::new();
    let frame = loop {
        match take_frame(&mut buffer, HANDSHAKE_FRAME_BYTES_MAX) {
            Ok(Some(frame)) => break frame,
            Ok(None) => {}
            Err(FrameError::TooLarge { .. } | FrameError::Http | FrameError::Flags { .. }) => {
                return Err(ConnectReason::NotFalcon);
            }
        }
        if socket.read_buf(&mut buffer).await.map_err(lost)? == 0 {
            return Err(ConnectReason::Lost(LostReason::ClosedByBroker));
        }
    };
    if let Some(refusal) = Refusal::of(&frame) {
        return Err(ConnectReason::Refused(refusal));
    }
    let is_answer = frame.header.is_response && frame.header.kind == Kind::Hello.number();
    let granted = HelloResponse::decode(&frame.body).map_err(|_| ConnectReason::NotFalcon)?;
    if !is_answer || granted.version != VERSION {
        return Err(ConnectReason::NotFalcon);
    }
    Ok((granted, buffer))
}

fn lost(error: io::Error) -> ConnectReason {
    ConnectReason::Lost(error.into())
}
