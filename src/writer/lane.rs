//! One place between two threads: what is put in is taken out in order, by a thread that says when it is done.
//!
//! Promises that at most one item waits while another is being worked on. Must not know: what they are.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(super) struct Lane<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    next: Option<T>,
    /// Something was taken and is not done.
    is_busy: bool,
    is_closed: bool,
}

impl<T> Lane<T> {
    pub(super) const fn new() -> Self {
        Self {
            state: Mutex::new(State {
                next: None,
                is_busy: false,
                is_closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, until: impl Fn(&State<T>) -> bool) -> MutexGuard<'_, State<T>> {
        let held = self.lock();
        let waited = self.changed.wait_while(held, |state| !until(state));
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all that was put in is done.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().is_idle()
    }

    /// Blocks until all that was put in is done.
    pub(super) fn wait_until_idle(&self) {
        drop(self.wait(State::is_idle));
    }

    /// Blocks until something can be put in without waiting.
    pub(super) fn wait_for_room(&self) {
        drop(self.wait(|state| state.next.is_none()));
    }

    /// Puts something in when there is room; gives it back when nobody takes it any more.
    pub(super) fn put(&self, item: T) -> Result<(), T> {
        let mut state = self.wait(|state| state.next.is_none());
        if state.is_closed {
            return Err(item);
        }
        state.next = Some(item);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Says that what was taken last is done, and blocks for the next; `None` after the end.
    pub(super) fn take(&self) -> Option<T> {
        self.lock().is_busy = false;
        self.changed.notify_all();
        let mut state = self.wait(|state| state.next.is_some() || state.is_closed);
        let taken = state.next.take();
        state.is_busy = taken.is_some();
        drop(state);
        self.changed.notify_all();
        taken
    }

    /// Nothing is put in any more; what waits is still taken.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Nobody takes anything any more: what waits is dropped.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.is_busy = false;
        let dropped = state.next.take();
        drop(state);
        drop(dropped);
        self.changed.notify_all();
    }
}

impl<T> State<T> {
    const fn is_idle(&self) -> bool {
        self.next.is_none() && !self.is_busy
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    #[test]
    fn one_is_worked_on_and_one_waits() {
        let lane = Arc::new(Lane::new());
        let (go, gone) = channel::<()>();
        let taker = thread::Builder::new().spawn({
            let lane = Arc::clone(&lane);
            move || {
                let mut taken = Vec::new();
                while let Some(item) = lane.take() {
                    taken.push(item);
                    gone.recv().ok();
                }
                taken
            }
        });
        let taker = taker.expect("a thread");
        assert!(lane.is_idle());
        lane.put(1).expect("taken");
        lane.wait_for_room();
        lane.put(2).expect("taken");
        assert!(!lane.is_idle());
        let (done, putting) = channel();
        let putter = thread::Builder::new().spawn({
            let lane = Arc::clone(&lane);
            move || {
                lane.put(3).expect("taken");
                done.send(()).expect("somebody listens");
            }
        });
        let putter = putter.expect("a thread");
        assert!(putting.try_recv().is_err());
        go.send(()).expect("it works");
        putting.recv().expect("there is room now");
        drop(go);
        putter.join().expect("no panic");
        lane.wait_until_idle();
        lane.close();
        assert_eq!(taker.join().expect("no panic"), vec![1, 2, 3]);
        assert_eq!(lane.put(4), Err(4));
    }

    #[test]
    fn nobody_waits_for_one_who_is_gone() {
        let lane = Arc::new(Lane::new());
        lane.put(1).expect("there is room");
        assert_eq!(lane.take(), Some(1));
        lane.put(2).expect("there is room");
        lane.abandon();
        lane.wait_until_idle();
        lane.wait_for_room();
        assert_eq!((lane.put(3), lane.take()), (Err(3), None));
    }
}
