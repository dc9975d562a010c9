//! A peer that speaks frames by hand: for what the client crate would never do.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use falcon_protocol::message::*;
use falcon_protocol::*;

/// A blocking connection. Reads give up after ten seconds.
pub(crate) struct Peer {
    pub(crate) socket: TcpStream,
    next: u32,
}

impl Peer {
    /// Connects without saying anything.
    pub(crate) fn silent(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("the broker listens");
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("valid");
        socket
            .set_write_timeout(Some(Duration::from_secs(60)))
            .expect("valid");
        socket.set_nodelay(true).expect("valid");
        Self { socket, next: 1 }
    }

    /// Connects and shakes hands.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let mut peer = Self::silent(address);
        peer.send(&Frame::request(Kind::Hello, 0, hello().encode()));
        let answer = peer.receive().expect("an answer");
        assert_eq!(answer.error(), None, "the handshake was refused");
        HelloResponse::decode(&answer.body).expect("a valid answer");
        peer
    }

    pub(crate) fn send(&mut self, frame: &Frame) {
        self.socket
            .write_all(&frame.to_bytes())
            .expect("the broker reads");
    }

    /// The next frame that is not a heartbeat; `None` when the broker closed.
    pub(crate) fn receive(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; FRAME_HEADER_BYTES];
            match self.socket.read_exact(&mut head) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no frame came: {error}"),
            }
            let header = FrameHeader::decode(&head, u32::MAX).expect("a valid header");
            let mut body = vec![0; header.body_bytes as usize];
            self.socket
                .read_exact(&mut body)
                .expect("the rest of the frame");
            if header.kind == Kind::Ping.number() {
                continue;
            }
            return Some(Frame {
                header,
                body: Bytes::from(body),
            });
        }
    }

    /// Waits for a heartbeat and answers it.
    pub(crate) fn answer_ping(&mut self) {
        let mut head = [0; FRAME_HEADER_BYTES];
        self.socket.read_exact(&mut head).expect("a heartbeat");
        let header = FrameHeader::decode(&head, u32::MAX).expect("a valid header");
        assert_eq!(header.kind, Kind::Ping.number());
        self.send(&Frame::response(
            Kind::Ping,
            header.correlation,
            Bytes::new(),
        ));
    }

    /// Sends a control request and waits for its answer.
    pub(crate) fn ask<T: serde::Serialize>(&mut self, kind: Kind, message: &T) -> Frame {
        let correlation = self.next;
        self.next += 1;
        self.send(&Frame::request(
            kind,
            correlation,
            encode(message).expect("encodes"),
        ));
        let answer = self.receive().expect("an answer");
        assert_eq!(
            (answer.header.kind, answer.header.correlation),
            (kind.number(), correlation)
        );
        answer
    }

    /// Creates a topic and returns its number.
    pub(crate) fn create_topic(
        &mut self,
        name: &str,
        partitions: u32,
        config: Vec<ConfigEntry>,
    ) -> TopicId {
        let request = CreateTopic {
            name: name.into(),
            partitions,
            config,
        };
        let answer = self.ask(Kind::CreateTopic, &request);
        assert_eq!(
            answer.error(),
            None,
            "{:?}",
            ErrorBody::decode(&answer.body)
        );
        decode::<TopicCreated>(&answer.body)
            .expect("valid")
            .topic_id
    }

    /// Sends a publish without waiting for its answer.
    pub(crate) fn publish(&mut self, correlation: u32, topic: TopicId, batch: &[u8]) {
        self.send(&publish_frame(correlation, topic, batch));
    }

    /// The broker must still serve: asks something of it on a connection of its own.
    pub(crate) fn assert_serves(address: SocketAddr) {
        let mut peer = Self::connect(address);
        let answer = peer.ask(
            Kind::ListTopics,
            &ListTopics {
                after: None,
                rows_max: 1,
            },
        );
        assert_eq!(answer.error(), None);
    }
}

pub(crate) fn hello() -> HelloRequest {
    HelloRequest {
        version_min: 1,
        version_max: 1,
        frame_bytes_max: 64 << 20,
        codecs: 7,
        features: 0,
        client: "test/1".into(),
        credential: Vec::new(),
    }
}

pub(crate) fn publish_frame(correlation: u32, topic: TopicId, batch: &[u8]) -> Frame {
    let mut body = BytesMut::with_capacity(PUBLISH_HEADER_BYTES + batch.len());
    let partition = PartitionId {
        topic,
        partition: Partition(0),
    };
    PublishHeader {
        partition,
        timeout_ms: 0,
    }
    .encode(&mut body);
    body.extend_from_slice(batch);
    Frame::request(Kind::Publish, correlation, body.freeze())
}

/// A batch of `count` records of `bytes` bytes, without a producer.
pub(crate) fn batch(count: u32, bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, 32 << 20);
    for _ in 0..count {
        builder
            .push(&Record::new(vec![b'x'; bytes]), 1_700_000_000_000)
            .expect("fits");
    }
    builder.build(Producer::default()).expect("not empty")
}
