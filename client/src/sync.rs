//! Locking that goes on after a panic elsewhere.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. A panic of another holder does not spread: every critical section of this crate leaves
/// its data whole at each point where it could panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
