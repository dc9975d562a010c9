//! Who gets which answer and which delivery.

use std::collections::HashMap;
use std::sync::Arc;

use falcon_protocol::message::Delivery;
use falcon_protocol::{Frame, Kind, Partition};
use tokio::sync::oneshot;

use super::gate::Gate;
use super::tray::Slip;
use crate::error::{LostReason, Refusal};

/// What the broker sends to a subscription.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Record batches.
    Delivery(Delivery),
    /// A partition cannot go on.
    Ended {
        /// Which, where the broker said so.
        partition: Option<Partition>,
        /// Why.
        refusal: Refusal,
    },
}

/// Where a subscription takes in what the broker sends. Never blocks.
pub(crate) trait Inlet: Send + Sync {
    /// Takes it, or names the rule of the protocol that was broken by sending it.
    fn accept(&self, incoming: Incoming) -> Result<(), &'static str>;
}

/// A request that waits for its answer.
struct Pending {
    kind: Kind,
    publish_bytes: u64,
    reply: Reply,
}

/// Where an answer goes.
pub(super) enum Reply {
    /// To whoever asked, alone.
    One(oneshot::Sender<Frame>),
    /// Among the others of a task.
    Tray(Slip),
}

/// Requests and subscriptions of one connection.
pub(super) struct Routes {
    next: u32,
    pub(super) gate: Gate,
    pub(super) is_open: bool,
    pub(super) is_draining: bool,
    pub(super) is_room_wanted: bool,
    pending: HashMap<u32, Pending>,
    inlets: HashMap<u32, Arc<dyn Inlet>>,
}

impl Routes {
    pub(super) fn new(gate: Gate) -> Self {
        Self {
            next: 1,
            gate,
            is_open: true,
            is_draining: false,
            is_room_wanted: false,
            pending: HashMap::new(),
            inlets: HashMap::new(),
        }
    }

    /// Registers a request that the gate let in. Its number is not in use: 0 is the connection's
    /// own, and a subscription keeps its number.
    pub(super) fn add(&mut self, kind: Kind, publish_bytes: u64, reply: Reply) -> u32 {
        let correlation = self.free_number();
        let pending = Pending {
            kind,
            publish_bytes,
            reply,
        };
        self.pending.insert(correlation, pending);
        correlation
    }

    /// What arrives for a subscription goes there.
    pub(super) fn add_inlet(&mut self, subscription: u32, inlet: Arc<dyn Inlet>) {
        self.inlets.insert(subscription, inlet);
    }

    /// Whether somebody found no room since the last answer.
    pub(super) fn take_is_room_wanted(&mut self) -> bool {
        std::mem::take(&mut self.is_room_wanted)
    }

    fn free_number(&mut self) -> u32 {
        loop {
            let number = self.next;
            self.next = self.next.wrapping_add(1);
            let is_free = number != 0
                && !self.pending.contains_key(&number)
                && !self.inlets.contains_key(&number);
            if is_free {
                return number;
            }
        }
    }

    /// Routes an answer; `Err` names the rule it breaks.
    pub(super) fn answer(&mut self, frame: Frame) -> Result<(), &'static str> {
        let correlation = frame.header.correlation;
        let Some(pending) = self.pending.remove(&correlation) else {
            return Ok(()); // Answers to heartbeats, or to nothing we know: harmless.
        };
        self.gate.leave(pending.publish_bytes);
        if pending.kind.number() != frame.header.kind {
            return Err("an answer has another kind than its request");
        }
        if frame.error().is_some() && pending.kind == Kind::Subscribe {
            self.inlets.remove(&correlation);
        }
        match pending.reply {
            // Whoever asked may have given up; then nobody needs the answer.
            Reply::One(reply) => drop(reply.send(frame)),
            Reply::Tray(slip) => slip.answer(frame),
        }
        Ok(())
    }

    /// Where deliveries of this subscription go; `None` when it was ended meanwhile.
    pub(super) fn inlet(&self, subscription: u32) -> Option<Arc<dyn Inlet>> {
        self.inlets.get(&subscription).cloned()
    }

    pub(super) fn remove_inlet(&mut self, subscription: u32) {
        self.inlets.remove(&subscription);
    }

    /// Ends all: waiting requests learn that their answers are lost.
    pub(super) fn close(&mut self, reason: &LostReason) {
        self.is_open = false;
        for (_, pending) in self.pending.drain() {
            match pending.reply {
                // Whoever asked sees that the channel closes, and looks the reason up.
                Reply::One(reply) => drop(reply),
                Reply::Tray(slip) => slip.lose(reason.clone()),
            }
        }
        self.inlets.clear();
    }
}
