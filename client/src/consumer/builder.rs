//! Options of a consumer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use falcon_protocol::MemberId;
use falcon_protocol::codes::Outcome;
use falcon_protocol::ids::{check_group_name, check_publisher_name};
use falcon_protocol::limits::{
    INSTANCE_NAME_BYTES_MAX, MEMBER_PATTERNS_MAX, SESSION_MS_MAX, SESSION_MS_MIN,
};
use falcon_protocol::message::AssignorKind;
use tokio::sync::{Notify, broadcast, oneshot};
use tokio::time::timeout;

use super::Consumer;
use super::committer::store;
use super::desk::{Desk, Rules};
use super::events::EVENTS_KEPT;
use super::member::Wish;
use super::membership::Membership;
use super::reader::read;
use super::shared::Shared;
use crate::client::Client;
use crate::clock;
use crate::error::{ConsumerError, Error};
use crate::start::Start;
use crate::step::StepLanes;

const SESSION: Duration = Duration::from_secs(10);
const BUFFER_BYTES: u64 = 32 << 20;

/// How the group's partitions are shared among its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Assignor {
    /// Equal shares, and as little as possible moves.
    #[default]
    Sticky,
    /// Runs of partitions of each topic: equal keys of topics with equal partition counts meet at
    /// one member. In force only when all members want it.
    Range,
}

/// What is committed without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoCommit {
    /// Nothing: the application commits.
    #[default]
    Off,
    /// In [`Consumer::run`], what handlers have finished, as often as this.
    Handled {
        /// The time between two commits.
        every: Duration,
    },
}

/// What to do where records are damaged on the broker's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDamage {
    /// The partition waits there until somebody seeks, or the records are back.
    #[default]
    Wait,
    /// Goes on behind them, with an event.
    Skip,
}

/// Options of a consumer, made by [`Client::consumer`].
#[derive(Debug, Clone)]
#[must_use = "nothing happens until join is called"]
pub struct ConsumerBuilder {
    client: Client,
    group: String,
    topics: Vec<String>,
    instance: Option<String>,
    assignor: Assignor,
    session: Duration,
    max_poll_interval: Option<Duration>,
    start: Start,
    buffer_bytes: u64,
    publisher_id: Option<String>,
    auto_commit: AutoCommit,
    on_damage: OnDamage,
}

impl ConsumerBuilder {
    pub(crate) fn new(client: Client, group: String) -> Self {
        Self {
            client,
            group,
            topics: Vec::new(),
            instance: None,
            assignor: Assignor::default(),
            session: SESSION,
            max_poll_interval: None,
            start: Start::Earliest,
            buffer_bytes: BUFFER_BYTES,
            publisher_id: None,
            auto_commit: AutoCommit::default(),
            on_damage: OnDamage::default(),
        }
    }

    /// What to read: topic names, or patterns where `*` is one word and `>`, at the end, one or
    /// more, as in `payments.*`. Topics that appear later are read from their beginning on.
    pub fn topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// A name that stays the same when the process starts again: within the session it gets its
    /// partitions back, and nothing moves. An older consumer of the name ends with
    /// [`ConsumerError::InstanceTaken`].
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = Some(name.into());
        self
    }

    /// How partitions are shared. Default: [`Assignor::Sticky`].
    pub fn assignor(mut self, assignor: Assignor) -> Self {
        self.assignor = assignor;
        self
    }

    /// How long it may be unheard of before others get its partitions; 1 s to 10 min. Default:
    /// 10 s. Heartbeats go on whatever the application does.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session = timeout;
        self
    }

    /// Gives the partitions up when the application takes no record for so long although there are
    /// some; an event, a line in the log and an error name the record it sits on. Default: never.
    pub fn max_poll_interval(mut self, interval: Duration) -> Self {
        self.max_poll_interval = Some(interval);
        self
    }

    /// Where a partition begins that the group has no offset for. Default: [`Start::Earliest`].
    pub fn start(mut self, start: impl Into<Start>) -> Self {
        self.start = start.into();
        self
    }

    /// Bytes of records that may wait for the application, shared out among the partitions.
    /// Each has at least 64 KiB, and one batch. Default: 32 MiB.
    pub fn buffer_bytes(mut self, bytes: u64) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// A name for what its steps publish: takes over from an older consumer of this name, which
    /// can do no step any more.
    pub fn publisher_id(mut self, id: impl Into<String>) -> Self {
        self.publisher_id = Some(id.into());
        self
    }

    /// What is committed without being asked for. Default: nothing.
    pub fn auto_commit(mut self, auto_commit: AutoCommit) -> Self {
        self.auto_commit = auto_commit;
        self
    }

    /// What to do where records are damaged. Default: [`OnDamage::Wait`].
    pub fn on_damage(mut self, on_damage: OnDamage) -> Self {
        self.on_damage = on_damage;
        self
    }

    /// Joins the group; when this returns the group counts it as a member. Partitions follow.
    ///
    /// # Errors
    /// [`ConsumerError::Refused`] for a name or pattern that is not allowed, and through
    /// [`ConsumerError::Client`] whatever keeps a request from succeeding within the request timeout.
    pub async fn join(self) -> Result<Consumer, ConsumerError> {
        self.check().map_err(ConsumerError::Client)?;
        let core = Arc::clone(self.client.core());
        if core.draining.is_cancelled() {
            return Err(ConsumerError::Closed);
        }
        let lanes = match &self.publisher_id {
            Some(id) => StepLanes::take_over(&core, id.clone()).await?,
            None => Arc::clone(&core.steps),
        };
        let (joined, first) = oneshot::channel();
        let shared = Arc::new(self.shared(lanes));
        let wish = self.wish();
        // Dropped before it has joined, it ends like one that was dropped later.
        let consumer = Consumer {
            shared: Arc::clone(&shared),
            keep: Arc::clone(&self.client.keep),
        };
        core.tracker.spawn(read(Arc::clone(&shared)));
        core.tracker.spawn(store(Arc::clone(&shared)));
        // The client's shutdown waits for these: the group is told.
        core.publishers
            .spawn(Membership::new(shared, wish, joined).run());
        let limit = core.request_timeout;
        match timeout(limit, first).await {
            Ok(Ok(outcome)) => outcome.map(|()| consumer),
            Ok(Err(_)) => Err(ConsumerError::Closed),
            Err(_) => Err(ConsumerError::Client(Error::Timeout {
                operation: "join group",
                after: limit,
                outcome: Outcome::Unknown,
                reason: core.link.down_reason(),
            })),
        }
    }

    fn shared(&self, lanes: Arc<StepLanes>) -> Shared {
        let core = Arc::clone(self.client.core());
        let identity = MemberId(fastrand::u128(..));
        let rules = Rules {
            buffer_bytes: self.buffer_bytes,
            start: self.start.position(),
            on_damage: self.on_damage,
        };
        let (events, first_events) = broadcast::channel(EVENTS_KEPT);
        Shared {
            group: self.group.clone(),
            identity,
            auto_commit: self.auto_commit,
            max_poll_interval: self.max_poll_interval,
            lanes,
            desk: Mutex::new(Desk::new(identity, rules, clock::now())),
            stale: Mutex::default(),
            events,
            first_events: Mutex::new(Some(first_events)),
            hungry: Notify::new(),
            dirty: Notify::new(),
            membership: Notify::new(),
            running: Notify::new(),
            is_stopping: std::sync::atomic::AtomicBool::new(false),
            leaving: tokio_util::sync::CancellationToken::new(),
            left: tokio_util::sync::CancellationToken::new(),
            stop: core.stop.child_token(),
            core,
        }
    }

    fn wish(&self) -> Wish {
        Wish {
            instance: self.instance.clone(),
            patterns: self.topics.clone(),
            assignor: match self.assignor {
                Assignor::Sticky => AssignorKind::Sticky,
                Assignor::Range => AssignorKind::Range,
            },
            session_ms: u64::try_from(self.session.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let refuse = |option, reason| Err(Error::InvalidOption { option, reason });
        let named = |name: &str, reason| Error::InvalidName {
            name: name.to_owned(),
            reason,
        };
        check_group_name(&self.group).map_err(|reason| named(&self.group, reason))?;
        if let Some(id) = &self.publisher_id {
            check_publisher_name(id).map_err(|reason| named(id, reason))?;
            if id.len() > StepLanes::ID_BYTES_MAX {
                return refuse("publisher_id", "it is longer than 192 bytes");
            }
        }
        let session = u64::try_from(self.session.as_millis()).unwrap_or(u64::MAX);
        if !(SESSION_MS_MIN..=SESSION_MS_MAX).contains(&session) {
            return refuse("session_timeout", "it is not between 1 s and 10 min");
        }
        if self.topics.is_empty() || self.topics.len() > MEMBER_PATTERNS_MAX {
            return refuse("topics", "1 to 64 names or patterns are needed");
        }
        let instance = self.instance.as_deref();
        if instance.is_some_and(|name| name.is_empty() || name.len() > INSTANCE_NAME_BYTES_MAX) {
            return refuse("instance", "it is not a name of 1 to 200 bytes");
        }
        Ok(())
    }
}
