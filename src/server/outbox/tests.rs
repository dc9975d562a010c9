use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use falcon_protocol::Offset;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;

const ACK_FRAME_BYTES: usize = falcon_protocol::FRAME_HEADER_BYTES + ACK_BYTES as usize;

fn ack_to(outbox: &Arc<Outbox>, correlation: u32) -> Option<Arc<dyn Flush>> {
    let ack = PublishAck {
        base_offset: Offset(7),
        append_time_ms: 1,
        record_count: 1,
        is_duplicate: false,
    };
    outbox.ack(correlation, &ack)
}

async fn outbox_with_peer() -> (Arc<Outbox>, OwnedWriteHalf, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let peer = TcpStream::connect(address).await.expect("connected");
    let (socket, _) = listener.accept().await.expect("accepted");
    let (_read, write) = socket.into_split();
    write.writable().await.expect("open");
    (Arc::new(Outbox::new(Arc::default())), write, peer)
}

/// Whether the write task would be woken now.
fn is_woken(outbox: &Outbox) -> bool {
    let woken = pin!(outbox.wake.notified());
    woken
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_ready()
}

#[tokio::test]
async fn answers_of_a_turn_leave_without_the_write_task_while_it_waits() {
    let (outbox, write, mut peer) = outbox_with_peer().await;
    outbox.lend(write);
    let flush = ack_to(&outbox, 1).expect("the first of the turn");
    assert!(ack_to(&outbox, 2).is_none(), "flushed once");
    assert!(!is_woken(&outbox));
    flush.flush(1);
    assert!(!is_woken(&outbox));
    let mut both = [0; 2 * ACK_FRAME_BYTES];
    peer.read_exact(&mut both).await.expect("two answers");
    assert!(ack_to(&outbox, 3).is_some(), "a new turn");
}

#[tokio::test]
async fn answers_are_left_to_a_write_task_that_is_busy_or_one_of_many_or_delivers() {
    let (outbox, write, mut peer) = outbox_with_peer().await;
    let flush = ack_to(&outbox, 1).expect("the first of the turn");
    flush.flush(1);
    assert!(is_woken(&outbox), "it has the socket");
    outbox.lend(write);
    let flush = ack_to(&outbox, 2).expect("the first of the turn");
    flush.flush(DIRECT_MAX + 1);
    assert!(is_woken(&outbox), "one of many");
    outbox.subscribed();
    let flush = ack_to(&outbox, 3).expect("the first of the turn");
    flush.flush(1);
    assert!(is_woken(&outbox), "deliveries may follow");
    let mut answers = BytesMut::new();
    assert!(outbox.take(&mut answers, None));
    assert_eq!(answers.len(), 3 * ACK_FRAME_BYTES);
    drop(outbox.take_back());
    let mut nothing = Vec::new();
    peer.read_to_end(&mut nothing).await.expect("closed");
    assert!(nothing.is_empty());
}

#[tokio::test]
async fn what_the_socket_does_not_take_is_left_in_order() {
    let (outbox, write, mut peer) = outbox_with_peer().await;
    while write.try_write(&[0; 4096]).is_ok() {}
    outbox.lend(write);
    let flush = ack_to(&outbox, 1).expect("the first of the turn");
    flush.flush(1);
    assert!(is_woken(&outbox));
    let mut answers = BytesMut::new();
    outbox.take(&mut answers, None);
    assert_eq!(answers.len(), ACK_FRAME_BYTES);
    drop(outbox.take_back());
    let mut before = Vec::new();
    peer.read_to_end(&mut before).await.expect("closed");
    assert!(before.iter().all(|byte| *byte == 0));
}

fn deliver_to(outbox: &Arc<Outbox>, bytes: usize) -> Option<Direct> {
    outbox.deliver(b"head", &[Bytes::from(vec![1; bytes])])
}

#[tokio::test]
async fn a_delivery_and_the_answer_behind_it_leave_at_once() {
    let (outbox, write, mut peer) = outbox_with_peer().await;
    outbox.lend(write);
    let flush = deliver_to(&outbox, 2).expect("nothing is before it").0;
    let flush = flush.expect("the first of the turn");
    assert!(ack_to(&outbox, 1).is_none(), "flushed once");
    flush.flush(1);
    assert!(!is_woken(&outbox));
    let mut both = [0; 6 + ACK_FRAME_BYTES];
    peer.read_exact(&mut both).await.expect("both");
    assert!(both.starts_with(b"head\x01\x01"));
}

#[tokio::test]
async fn a_delivery_waits_for_those_that_the_write_task_has_not_written() {
    let (outbox, write, _peer) = outbox_with_peer().await;
    outbox.delivering();
    outbox.lend(write);
    assert!(deliver_to(&outbox, 1).is_none(), "not taken yet");
    let socket = outbox.take_back().expect("it was lent");
    let before = Delivery {
        kind: Kind::Deliver,
        head: Bytes::new(),
        batches: Vec::new(),
        permit: None,
        request: None,
    };
    outbox.take(&mut BytesMut::new(), Some(&before));
    assert!(deliver_to(&outbox, 1).is_none(), "not written yet");
    outbox.lend(socket);
    assert!(deliver_to(&outbox, 1).is_some());
}

#[tokio::test]
async fn deliveries_among_the_answers_are_bounded_while_the_peer_does_not_read() {
    let (outbox, write, _peer) = outbox_with_peer().await;
    while write.try_write(&[0; 4096]).is_ok() {}
    outbox.lend(write);
    let taken = (0..1000).take_while(|_| deliver_to(&outbox, 1000).is_some());
    assert!(taken.count() <= KEPT_BYTES_MAX / 1000);
}
