//! The connection in force: follows one session with the next.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dial::{DialOptions, dial};
use super::session::Session;
use crate::backoff::Backoff;
use crate::error::{Error, LostReason};

/// How long a broker that announced its end may take over it.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// What the link is doing.
#[derive(Clone)]
pub(crate) enum LinkState {
    /// Connected.
    Up(Arc<Session>),
    /// Not connected at the moment, since and because.
    Down(LostReason),
    /// Shut down, for good.
    Closed,
}

impl LinkState {
    /// The session in force.
    pub(crate) fn session(&self) -> Option<Arc<Session>> {
        match self {
            Self::Up(session) => Some(Arc::clone(session)),
            Self::Down(_) | Self::Closed => None,
        }
    }
}

/// Where users of the connection find the session in force.
#[derive(Clone)]
pub(crate) struct Link {
    state: watch::Receiver<LinkState>,
}

impl Link {
    /// Follows `first` with other sessions until `stop`; see [`supervise`].
    pub(crate) fn new(first: Arc<Session>) -> (Self, watch::Sender<LinkState>) {
        let (sender, state) = watch::channel(LinkState::Up(first));
        (Self { state }, sender)
    }

    /// Its state now and from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// Why there is no session, when there is none.
    pub(crate) fn down_reason(&self) -> Option<LostReason> {
        match &*self.state.borrow() {
            LinkState::Up(_) => None,
            LinkState::Down(reason) => Some(reason.clone()),
            LinkState::Closed => Some(LostReason::ShutDown),
        }
    }

    /// Waits for a session; fails when the client is shut down.
    ///
    /// CANCEL SAFETY: holds nothing between polls.
    pub(crate) async fn session(&self) -> Result<Arc<Session>, Error> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| !matches!(state, LinkState::Down(_)));
        match settled.await.as_deref() {
            Ok(LinkState::Up(session)) => Ok(Arc::clone(session)),
            Ok(LinkState::Down(_) | LinkState::Closed) | Err(_) => Err(Error::Closed),
        }
    }
}

impl Link {
    /// Waits until `session`, which takes no more requests, is no longer in force.
    ///
    /// CANCEL SAFETY: holds nothing between polls.
    pub(crate) async fn left(&self, session: &Session) {
        let mut state = self.state.clone();
        let left = state.wait_for(|state| match state {
            LinkState::Up(current) => current.number() != session.number(),
            LinkState::Down(_) | LinkState::Closed => true,
        });
        // An error says that the supervisor is gone, and with it every session.
        left.await.ok();
    }
}

/// Follows one session with the next, waiting longer after each failure, until `stop`.
pub(crate) async fn supervise(
    options: DialOptions,
    tracker: TaskTracker,
    first: Arc<Session>,
    state: watch::Sender<LinkState>,
    stop: CancellationToken,
) {
    let mut session = first;
    loop {
        // CANCEL SAFETY: waiting holds nothing.
        if stop
            .run_until_cancelled(outlive(&session, &state))
            .await
            .is_none()
        {
            break;
        }
        let reason = session.reason();
        if session.is_leaving() {
            break;
        }
        tracing::warn!(address = session.address(), %reason, "connection lost, connecting again");
        state.send_replace(LinkState::Down(reason));
        // CANCEL SAFETY: a half-made connection is dropped, which closes it.
        match stop
            .run_until_cancelled(redial(&options, &tracker, &state))
            .await
        {
            Some(next) => session = next,
            None => break,
        }
        tracing::info!(address = session.address(), "connected again");
        state.send_replace(LinkState::Up(Arc::clone(&session)));
    }
    state.send_replace(LinkState::Closed);
    session.end(LostReason::ShutDown);
}

/// Waits until the session has ended; a draining one is no longer in force before that.
async fn outlive(session: &Session, state: &watch::Sender<LinkState>) {
    // CANCEL SAFETY: both arms wait for a token, which holds nothing.
    tokio::select! {
        () = session.ended().cancelled() => return,
        () = session.draining().cancelled() => {}
    }
    tracing::info!(address = session.address(), "the broker is shutting down");
    state.send_replace(LinkState::Down(LostReason::Draining));
    // CANCEL SAFETY: both arms only wait.
    tokio::select! {
        () = session.ended().cancelled() => {}
        () = sleep(DRAIN_MAX) => session.end(LostReason::Draining),
    }
}

async fn redial(
    options: &DialOptions,
    tracker: &TaskTracker,
    state: &watch::Sender<LinkState>,
) -> Arc<Session> {
    let mut backoff = Backoff::default();
    loop {
        sleep(backoff.next_wait()).await;
        match dial(options, tracker).await {
            Ok(session) => return session,
            Err(error) => {
                tracing::debug!(%error, attempts = backoff.attempts(), "not connected yet");
                if let Error::Connect { reason, .. } = error {
                    state.send_replace(LinkState::Down(LostReason::Connect(Box::new(reason))));
                }
            }
        }
    }
}
