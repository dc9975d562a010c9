//! What the broker allows to be unanswered: requests, and bytes of publish bodies.

/// Requests kept free for control requests, so that publishing cannot lock them out.
const CONTROL_RESERVE: usize = 4;

/// Counts what is unanswered against what was granted.
#[derive(Debug)]
pub(super) struct Gate {
    requests: usize,
    requests_max: usize,
    publish_bytes: u64,
    publish_window_bytes: u64,
}

impl Gate {
    pub(super) fn new(requests_max: u32, publish_window_bytes: u64) -> Self {
        Self {
            requests: 0,
            requests_max: usize::try_from(requests_max).unwrap_or(usize::MAX).max(1),
            publish_bytes: 0,
            publish_window_bytes,
        }
    }

    /// Enters a request; `publish_bytes` is 0 for everything but a publish. A publish larger than
    /// the whole window enters alone.
    pub(super) fn try_enter(&mut self, publish_bytes: u64) -> bool {
        let reserve = match publish_bytes {
            0 => 0,
            _ => CONTROL_RESERVE.min(self.requests_max / 2),
        };
        let fits = self.publish_bytes.saturating_add(publish_bytes) <= self.publish_window_bytes;
        let is_allowed = self.requests < self.requests_max - reserve
            && (publish_bytes == 0 || fits || self.publish_bytes == 0);
        if is_allowed {
            self.requests += 1;
            self.publish_bytes = self.publish_bytes.saturating_add(publish_bytes);
        }
        is_allowed
    }

    /// A request was answered.
    pub(super) fn leave(&mut self, publish_bytes: u64) {
        self.requests = self.requests.saturating_sub(1);
        self.publish_bytes = self.publish_bytes.saturating_sub(publish_bytes);
    }

    /// The broker changed the publish window.
    pub(super) fn set_publish_window(&mut self, bytes: u64) {
        self.publish_window_bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishes_stop_at_the_window_and_leave_room_for_control_requests() {
        let mut gate = Gate::new(8, 100);
        assert!(gate.try_enter(60));
        assert!(!gate.try_enter(60));
        assert!(gate.try_enter(40));
        gate.leave(60);
        gate.leave(40);
        assert!(gate.try_enter(500), "alone, or it could never be sent");
        assert!(!gate.try_enter(1));
        gate.leave(500);
        for _ in 0..4 {
            assert!(gate.try_enter(1));
        }
        assert!(!gate.try_enter(1), "the rest is for control requests");
        for _ in 0..4 {
            assert!(gate.try_enter(0));
        }
        assert!(!gate.try_enter(0));
    }
}
