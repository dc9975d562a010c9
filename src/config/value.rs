//! What a setting may be: kinds, ranges, and how text and TOML values become one.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::units::{parse_bytes, parse_millis, show_bytes, show_millis};
use super::{AdminListen, LogFormat};

/// Levels of the log, from least to most.
pub(crate) const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A value as it was written somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    /// From the environment or a flag: text whatever the kind of the key.
    Plain(String),
    /// A TOML string.
    Text(String),
    /// A TOML integer that is not negative.
    Integer(u64),
    /// A TOML boolean.
    Bool(bool),
    /// Anything else of TOML, which no key takes.
    Other(String),
}

impl Raw {
    /// For error messages: as it was written.
    pub(super) fn show(&self) -> String {
        match self {
            Self::Plain(text) | Self::Text(text) => format!("{text:?}"),
            Self::Integer(number) => number.to_string(),
            Self::Bool(value) => value.to_string(),
            Self::Other(text) => text.clone(),
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Plain(text) | Self::Text(text) => Some(text),
            Self::Integer(_) | Self::Bool(_) | Self::Other(_) => None,
        }
    }
}

/// A checked value, on its way into or out of a field of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    Bool(bool),
    Text(String),
    /// Not set.
    Absent,
}

/// What values a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A path.
    Path,
    /// `IP:PORT`.
    SocketAddress,
    /// `IP:PORT`, `auto` or `off`.
    AdminAddress,
    /// `HOST:PORT` as others reach it, or nothing.
    Endpoint,
    /// `true` or `false`.
    Bool,
    /// A whole number in a range.
    Count {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A size in a range, bytes.
    Bytes {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A duration in a range, milliseconds.
    Millis {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A log level, or levels by target.
    LogFilter,
    /// A form of the log.
    LogFormat,
}

impl Kind {
    /// What is allowed, for error messages and the documentation.
    pub fn allowed(&self) -> String {
        match self {
            Self::Path => "a path".into(),
            Self::SocketAddress => "IP:PORT, for example 127.0.0.1:7420".into(),
            Self::AdminAddress => "auto, off, or IP:PORT".into(),
            Self::Endpoint => "HOST:PORT as clients reach it, or empty".into(),
            Self::Bool => "true or false".into(),
            Self::Count { min, max } => format!("a whole number from {min} to {max}"),
            Self::Bytes { min, max } => format!(
                "{} to {}, as a number of bytes or with a unit (\"64MiB\")",
                show_bytes(*min),
                show_bytes(*max)
            ),
            Self::Millis { min, max } => format!(
                "{} to {}, as a number of milliseconds or with a unit (\"5s\")",
                show_millis(*min),
                show_millis(*max)
            ),
            Self::LogFilter => format!(
                "one of {}, or TARGET=LEVEL pairs joined by commas",
                LOG_LEVELS.join(", ")
            ),
            Self::LogFormat => format!("one of {}", LogFormat::NAMES.join(", ")),
        }
    }

    /// The value, when it is allowed.
    pub(super) fn read(&self, raw: &Raw) -> Option<Value> {
        match self {
            Self::Path => {
                let path = raw.text().filter(|path| !path.is_empty())?;
                Some(Value::Text(path.into()))
            }
            Self::SocketAddress => {
                let text = raw.text()?.replace("localhost:", "127.0.0.1:");
                text.parse::<SocketAddr>().ok()?;
                Some(Value::Text(text))
            }
            Self::AdminAddress => {
                let address = AdminListen::from_text(raw.text()?)?;
                Some(Value::Text(address.to_string()))
            }
            Self::Endpoint => match raw.text()? {
                "" => Some(Value::Absent),
                text => is_endpoint(text).then(|| Value::Text(text.into())),
            },
            Self::Bool => match raw {
                Raw::Bool(value) => Some(Value::Bool(*value)),
                Raw::Plain(text) => Some(Value::Bool(text.parse().ok()?)),
                Raw::Text(_) | Raw::Integer(_) | Raw::Other(_) => None,
            },
            Self::Count { .. } => self.number(match raw {
                Raw::Integer(number) => Some(*number),
                Raw::Plain(text) => text.parse().ok(),
                Raw::Text(_) | Raw::Bool(_) | Raw::Other(_) => None,
            }),
            Self::Bytes { .. } => self.number(match raw {
                Raw::Integer(number) => Some(*number),
                Raw::Plain(text) | Raw::Text(text) => parse_bytes(text),
                Raw::Bool(_) | Raw::Other(_) => None,
            }),
            Self::Millis { .. } => self.number(match raw {
                Raw::Integer(number) => Some(*number),
                Raw::Plain(text) | Raw::Text(text) => parse_millis(text),
                Raw::Bool(_) | Raw::Other(_) => None,
            }),
            Self::LogFilter => {
                let text = raw.text()?;
                is_log_filter(text).then(|| Value::Text(text.into()))
            }
            Self::LogFormat => {
                let text = raw.text()?;
                LogFormat::from_name(text)?;
                Some(Value::Text(text.into()))
            }
        }
    }

    fn number(&self, number: Option<u64>) -> Option<Value> {
        let number = number?;
        self.has_number(number).then_some(Value::Number(number))
    }

    /// Whether the number is in the range, for the kinds that have one.
    pub(super) fn has_number(&self, number: u64) -> bool {
        match self {
            Self::Count { min, max } | Self::Bytes { min, max } | Self::Millis { min, max } => {
                (*min..=*max).contains(&number)
            }
            Self::Path
            | Self::SocketAddress
            | Self::AdminAddress
            | Self::Endpoint
            | Self::Bool
            | Self::LogFilter
            | Self::LogFormat => false,
        }
    }

    /// The value as it is written in a TOML file.
    pub(super) fn show(&self, value: &Value) -> String {
        match (self, value) {
            (_, Value::Absent) => "\"\"".into(),
            (_, Value::Bool(value)) => value.to_string(),
            (_, Value::Text(text)) => toml::Value::String(text.clone()).to_string(),
            (Self::Bytes { .. }, Value::Number(bytes)) => format!("\"{}\"", show_bytes(*bytes)),
            (Self::Millis { .. }, Value::Number(millis)) => format!("\"{}\"", show_millis(*millis)),
            (_, Value::Number(number)) => number.to_string(),
        }
    }
}

fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_host = !host.is_empty() && !host.contains(['/', ' ', '@']);
    is_host && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn is_log_filter(text: &str) -> bool {
    text.split(',').all(|part| match part.split_once('=') {
        Some((target, level)) => !target.is_empty() && LOG_LEVELS.contains(&level),
        None => LOG_LEVELS.contains(&part),
    })
}

/// A field of the configuration. `from_value` answers `None` only for a value of another kind.
pub(super) trait Field: Sized {
    fn from_value(value: Value) -> Option<Self>;
    fn to_value(&self) -> Value;
}

impl Field for u64 {
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Number(number) => Some(number),
            Value::Bool(_) | Value::Text(_) | Value::Absent => None,
        }
    }
    fn to_value(&self) -> Value {
        Value::Number(*self)
    }
}

impl Field for u32 {
    fn from_value(value: Value) -> Option<Self> {
        u64::from_value(value)?.try_into().ok()
    }
    fn to_value(&self) -> Value {
        Value::Number(u64::from(*self))
    }
}

impl Field for bool {
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(value),
            Value::Number(_) | Value::Text(_) | Value::Absent => None,
        }
    }
    fn to_value(&self) -> Value {
        Value::Bool(*self)
    }
}

impl Field for String {
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text),
            Value::Number(_) | Value::Bool(_) | Value::Absent => None,
        }
    }
    fn to_value(&self) -> Value {
        Value::Text(self.clone())
    }
}

impl Field for Option<String> {
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(Some(text)),
            Value::Absent => Some(None),
            Value::Number(_) | Value::Bool(_) => None,
        }
    }
    fn to_value(&self) -> Value {
        self.clone().map_or(Value::Absent, Value::Text)
    }
}

impl Field for PathBuf {
    fn from_value(value: Value) -> Option<Self> {
        String::from_value(value).map(Self::from)
    }
    fn to_value(&self) -> Value {
        Value::Text(self.display().to_string())
    }
}

impl Field for SocketAddr {
    fn from_value(value: Value) -> Option<Self> {
        String::from_value(value)?.parse().ok()
    }
    fn to_value(&self) -> Value {
        Value::Text(self.to_string())
    }
}

impl Field for AdminListen {
    fn from_value(value: Value) -> Option<Self> {
        Self::from_text(&String::from_value(value)?)
    }
    fn to_value(&self) -> Value {
        Value::Text(self.to_string())
    }
}

impl Field for LogFormat {
    fn from_value(value: Value) -> Option<Self> {
        Self::from_name(&String::from_value(value)?)
    }
    fn to_value(&self) -> Value {
        Value::Text(self.name().into())
    }
}
