//! A broker's refusal.

use core::fmt;
use std::time::Duration;

use falcon_protocol::codes::ErrorCode;
use falcon_protocol::message::ErrorBody;
use falcon_protocol::{Frame, Partition};

/// What the broker said when it refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why, for programs.
    pub code: ErrorCode,
    /// What happened in particular; one line, may be empty.
    pub text: String,
    /// How long to wait before a retry, where the broker suggests something.
    pub retry_after: Option<Duration>,
    /// The partition concerned.
    pub partition: Option<Partition>,
    /// First of the two numbers some codes carry: log start offset, start of a damaged range, the
    /// sequence expected, or a limit; else 0.
    pub low: u64,
    /// The second: high watermark or end of a damaged range; else 0.
    pub high: u64,
}

impl Refusal {
    /// What `frame` refuses with; `None` when it reports success.
    pub(crate) fn of(frame: &Frame) -> Option<Self> {
        let code = frame.error()?;
        // A body that cannot be read leaves the code, which is what programs act on.
        let body = ErrorBody::decode(&frame.body).unwrap_or_default();
        let after = Duration::from_millis(u64::from(body.retry_after_ms));
        Some(Self {
            code,
            text: one_line(&body.text),
            retry_after: (!after.is_zero()).then_some(after),
            partition: body.partition,
            low: body.low,
            high: body.high,
        })
    }

    /// A refusal with nothing but a code.
    pub(crate) fn bare(code: ErrorCode) -> Self {
        Self {
            code,
            text: String::new(),
            retry_after: None,
            partition: None,
            low: 0,
            high: 0,
        }
    }
}

/// The peer's text without line breaks and terminal escapes.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.is_empty() {
            write!(f, "{}", self.code)?;
        } else {
            f.write_str(&self.text)?;
        }
        write!(f, " ({}); {}", self.code.name(), self.code.remedy())
    }
}
