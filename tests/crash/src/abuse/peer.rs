//! A peer that speaks frames by hand: for what the client crate is too polite to do.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use falcon_protocol::message::{
    CreateTopic, HelloRequest, PUBLISH_HEADER_BYTES, PublishHeader, TopicCreated, decode, encode,
};
use falcon_protocol::{
    BatchBuilder, Codec, ErrorCode, FRAME_HEADER_BYTES, Frame, FrameHeader, Kind, PartitionId,
    Producer, Record, TopicId,
};

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(20);
const FRAME_BYTES_MAX: u32 = 64 << 20;
const RECORD_TIME_MS: i64 = 1_700_000_000_000;

/// A blocking connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) socket: TcpStream,
    /// Whether it answers heartbeats while it waits, so that it is not ended as idle.
    pub(super) answers_pings: bool,
}

impl Peer {
    /// Connects without a word.
    pub(super) fn silent(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            answers_pings: false,
        })
    }

    /// Connects and asks for a handshake; the answer is left to the caller.
    pub(super) fn calling(address: SocketAddr) -> Result<Self> {
        let mut peer = Self::silent(address)?;
        peer.socket.write_all(&hello())?;
        Ok(peer)
    }

    /// Connects and shakes hands.
    pub(super) fn greeted(address: SocketAddr) -> Result<Self> {
        let mut peer = Self::calling(address)?;
        match peer.receive()?.map(|answer| answer.error()) {
            Some(None) => Ok(peer),
            refused => Err(std::io::Error::other(format!("no handshake: {refused:?}"))),
        }
    }

    /// Whether the handshake it asked for is granted.
    pub(super) fn is_welcome(&mut self) -> bool {
        matches!(self.receive(), Ok(Some(answer)) if answer.error().is_none())
    }

    pub(super) fn request(&mut self, kind: Kind, correlation: u32, body: Bytes) -> Result<()> {
        let frame = Frame::request(kind, correlation, body).to_bytes();
        self.socket.write_all(&frame)
    }

    /// The next frame that is no heartbeat; `None`: the broker has closed.
    pub(super) fn receive(&mut self) -> Result<Option<Frame>> {
        loop {
            let mut head = [0; FRAME_HEADER_BYTES];
            match self.socket.read_exact(&mut head) {
                Ok(()) => {}
                Err(error) if is_closed(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
            let header = FrameHeader::decode(&head, FRAME_BYTES_MAX);
            let header = header.map_err(std::io::Error::other)?;
            let mut body = vec![0; header.body_bytes as usize];
            match self.socket.read_exact(&mut body) {
                Ok(()) => {}
                Err(error) if is_closed(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
            if header.kind != Kind::Ping.number() || header.is_response {
                let body = Bytes::from(body);
                return Ok(Some(Frame { header, body }));
            }
            if self.answers_pings && !header.is_response {
                let answer = Frame::response(Kind::Ping, header.correlation, Bytes::new());
                self.socket.write_all(&answer.to_bytes())?;
            }
        }
    }

    /// The code of the next frame: an error, or `None` for a success or a closed connection.
    pub(super) fn refusal(&mut self) -> Result<Option<ErrorCode>> {
        Ok(self.receive()?.and_then(|frame| frame.error()))
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask<T: serde::Serialize>(&mut self, kind: Kind, message: &T) -> Result<Frame> {
        self.request(kind, 1, body(message)?)?;
        let answer = self.receive()?;
        answer.ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    /// Creates a topic; answers its number.
    pub(super) fn create_topic(&mut self, name: &str, partitions: u32) -> Result<TopicId> {
        let request = CreateTopic {
            name: name.to_owned(),
            partitions,
            config: Vec::new(),
        };
        let answer = self.ask(Kind::CreateTopic, &request)?;
        if let Some(code) = answer.error() {
            let text = format!("topic {name} was refused: {}", code.name());
            return Err(std::io::Error::other(text));
        }
        let created: TopicCreated = decode(&answer.body).map_err(std::io::Error::other)?;
        Ok(created.topic_id)
    }

    /// Publishes, and waits; answers the refusal, if any.
    pub(super) fn publish(&mut self, topic: TopicId, batch: &[u8]) -> Result<Option<ErrorCode>> {
        self.socket.write_all(&publish_frame(topic, batch))?;
        self.refusal()
    }

    /// Whether the broker has said something or closed, without waiting.
    pub(super) fn is_told(&self) -> Result<bool> {
        self.socket.set_nonblocking(true)?;
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let told = match self.socket.peek(&mut bytes) {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        self.socket.set_nonblocking(false)?;
        Ok(told)
    }
}

/// Whether an error only says that the broker has ended the connection.
pub(super) fn is_closed(error: &std::io::Error) -> bool {
    let kinds = [
        ErrorKind::UnexpectedEof,
        ErrorKind::ConnectionReset,
        ErrorKind::ConnectionAborted,
        ErrorKind::BrokenPipe,
    ];
    kinds.contains(&error.kind())
}

/// Encodes a control message.
pub(super) fn body<T: serde::Serialize>(message: &T) -> Result<Bytes> {
    encode(message).map_err(std::io::Error::other)
}

/// A handshake as it should be.
pub(super) fn hello() -> Bytes {
    let request = HelloRequest {
        version_min: 1,
        version_max: 1,
        frame_bytes_max: FRAME_BYTES_MAX,
        codecs: 7,
        features: 0,
        client: "abuse/1".into(),
        credential: Vec::new(),
    };
    Frame::request(Kind::Hello, 0, request.encode()).to_bytes()
}

pub(super) fn publish_frame(topic: TopicId, batch: &[u8]) -> Bytes {
    let mut body = BytesMut::with_capacity(PUBLISH_HEADER_BYTES + batch.len());
    let header = PublishHeader {
        partition: PartitionId::new(topic.0, 0),
        timeout_ms: 0,
    };
    header.encode(&mut body);
    body.extend_from_slice(batch);
    Frame::request(Kind::Publish, 1, body.freeze()).to_bytes()
}

/// A batch of one record of so many bytes that do not compress.
pub(super) fn batch(bytes: usize, codec: Codec, producer: Producer) -> Result<Bytes> {
    let value: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
        .take(bytes)
        .collect();
    batch_of(value, codec, producer)
}

/// A batch of one record.
pub(super) fn batch_of(value: Vec<u8>, codec: Codec, producer: Producer) -> Result<Bytes> {
    let mut builder = BatchBuilder::new(codec, FRAME_BYTES_MAX as usize / 2);
    let pushed = builder.push(&Record::new(value), RECORD_TIME_MS);
    pushed.map_err(std::io::Error::other)?;
    let built = builder.build(producer);
    built.ok_or_else(|| std::io::Error::other("an empty batch"))
}
