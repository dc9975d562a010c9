//! Why a connection could not be made, or ended.

use core::fmt;
use std::io;
use std::time::Duration;

use falcon_protocol::codes::{ErrorCode, Retry};

use super::Refusal;

/// Why no connection came about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectReason {
    /// The network said no.
    Io(io::ErrorKind),
    /// The host's name has no address.
    UnknownHost,
    /// Connecting or the handshake took too long.
    Timeout(Duration),
    /// The broker refused the handshake.
    Refused(Refusal),
    /// The peer ended the connection during the handshake.
    Lost(LostReason),
    /// What answered does not speak Falcon's protocol.
    NotFalcon,
}

impl ConnectReason {
    /// Whether trying again later may help.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Io(_) | Self::UnknownHost | Self::Timeout(_) | Self::Lost(_) => true,
            Self::Refused(refusal) => refusal.code.retry() != Retry::Never,
            Self::NotFalcon => false,
        }
    }

    pub(crate) fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            Self::Lost(reason) => reason.code(),
            Self::Io(_) | Self::UnknownHost | Self::Timeout(_) | Self::NotFalcon => None,
        }
    }
}

impl fmt::Display for ConnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(io::ErrorKind::ConnectionRefused) => {
                f.write_str("connection refused; is the broker running there?")
            }
            Self::Io(kind) => write!(f, "{kind}; check the address and the network"),
            Self::UnknownHost => f.write_str("the host name has no address; check its spelling"),
            Self::Timeout(after) => write!(
                f,
                "no answer within {} ms; check the address and the network",
                after.as_millis()
            ),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Lost(reason) => write!(f, "{reason}; is that a Falcon broker?"),
            Self::NotFalcon => {
                f.write_str("what answers there does not speak Falcon's protocol; check the port")
            }
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostReason {
    /// The broker closed it.
    ClosedByBroker,
    /// The network failed.
    Io(io::ErrorKind),
    /// Nothing was received for this long.
    Silent(Duration),
    /// The broker did not take what was sent to it for this long.
    Stalled(Duration),
    /// The broker said why it ends the connection.
    Refused(Refusal),
    /// The broker announced that it is shutting down.
    Draining,
    /// The broker broke a rule of the protocol.
    Protocol(&'static str),
    /// It could not be made again so far.
    Connect(Box<ConnectReason>),
    /// The client was shut down.
    ShutDown,
}

impl LostReason {
    pub(crate) fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            Self::Connect(reason) => reason.code(),
            Self::Draining => Some(ErrorCode::Draining),
            Self::ClosedByBroker
            | Self::Io(_)
            | Self::Silent(_)
            | Self::Stalled(_)
            | Self::Protocol(_)
            | Self::ShutDown => None,
        }
    }
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosedByBroker => f.write_str("the broker closed the connection"),
            Self::Io(kind) => kind.fmt(f),
            Self::Silent(after) => {
                write!(
                    f,
                    "nothing came from the broker for {} ms",
                    after.as_millis()
                )
            }
            Self::Stalled(after) => {
                write!(f, "the broker read nothing for {} ms", after.as_millis())
            }
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Draining => f.write_str("the broker is shutting down"),
            Self::Protocol(rule) => write!(f, "the broker broke the protocol: {rule}"),
            Self::Connect(reason) => reason.fmt(f),
            Self::ShutDown => f.write_str("the client was shut down"),
        }
    }
}

impl From<io::Error> for LostReason {
    fn from(error: io::Error) -> Self {
        let kind = error.kind();
        if kind == io::ErrorKind::UnexpectedEof {
            return Self::ClosedByBroker;
        }
        Self::Io(kind)
    }
}
