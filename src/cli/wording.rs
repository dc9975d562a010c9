//! Errors of the client in the words of the command line: what happened, and what to do.
//!
//! The client's errors end with "; WHAT TO DO", in terms of its API. Here the two are told apart,
//! and where the API's terms are of no use the flags are named instead.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the text of other errors, also those to come, is good as it is"
)]

use std::error::Error as StdError;

use falcon_client::{Error as ClientError, PublishError, SubscribeError};
use falcon_protocol::{ErrorCode, Offset};

use super::failure::chain;

/// Why something did not work, and what to do about it; that may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) why: String,
    pub(crate) remedy: String,
}

impl Words {
    fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            remedy: remedy.into(),
        }
    }

    /// An error whose text ends with what to do, if it says that at all.
    pub(crate) fn of(error: &dyn StdError, code: Option<ErrorCode>) -> Self {
        let text = chain(error);
        if let Some(remedy) = code.map(ErrorCode::remedy)
            && let Some(why) = text.strip_suffix(remedy)
            && let Some(why) = why.strip_suffix("; ")
        {
            return Self::new(why, remedy);
        }
        match text.rsplit_once("; ") {
            Some((why, remedy)) => Self::new(why, remedy),
            None => Self::new(text, ""),
        }
    }

    /// An error of administration. `is_for_records` says that a missing topic was to be written
    /// or read, so that creating it helps.
    pub(crate) fn of_client(error: &ClientError, is_for_records: bool) -> Self {
        let mut words = Self::of(error, error.code());
        match error {
            ClientError::UnknownTopic { topic } => {
                words.why = format!("topic {topic:?} does not exist");
                words.remedy = if is_for_records {
                    format!("create it: falcon topic create {topic} --partitions N")
                } else {
                    "falcon topic list shows what there is".into()
                };
            }
            ClientError::Timeout { .. } => {
                words.remedy = "check the broker, or allow more time with --timeout".into();
            }
            ClientError::Lost(_) if words.remedy.is_empty() => {
                words.remedy = "look whether it was done before doing it again".into();
            }
            ClientError::InvalidName { .. } => words.remedy = "choose another name".into(),
            ClientError::InvalidOption { option, reason } => {
                words = Self::new(format!("{} is not usable: {reason}", flag(option)), "");
            }
            ClientError::Refused(refusal) if refusal.code == ErrorCode::OffsetOutOfRange => {
                let (start, end) = (Offset(refusal.low), Offset(refusal.high));
                if let Some(partition) = refusal.partition {
                    words.why = format!("partition {partition} {}", holds(start, end));
                    words.remedy = "use an offset that is there, earliest or latest".into();
                }
            }
            _ => {}
        }
        words
    }

    /// A record that was not published.
    pub(crate) fn of_publish(error: &PublishError) -> Self {
        if let PublishError::Client(error) = error {
            return Self::of_client(error, true);
        }
        let mut words = Self::of(error, error.code());
        match error {
            PublishError::DeliveryTimeout { .. } => {
                words.remedy = "check the broker, or allow more time with --timeout".into();
            }
            PublishError::WindowFull { .. } => {
                words.remedy = "allow more time with --timeout, or publish slower".into();
            }
            PublishError::EarlierFailed { cause } => {
                words.remedy = Self::of_publish(cause).remedy;
            }
            _ => {}
        }
        words
    }

    /// A subscription that could not be opened or went wrong.
    pub(crate) fn of_subscribe(error: &SubscribeError) -> Self {
        match error {
            SubscribeError::Client(error) => Self::of_client(error, true),
            SubscribeError::OffsetOutOfRange {
                partition,
                position,
                available,
            } => Self::new(
                format!(
                    "offset {position} of partition {partition} is not there, it {}",
                    holds(available.start, available.end)
                ),
                "start at an offset that is there, at earliest or at latest",
            ),
            _ => Self::of(error, error.code()),
        }
    }
}

/// What a partition has; the end is the offset that the next record gets, and may be read from.
fn holds(start: Offset, end: Offset) -> String {
    if start >= end {
        return format!("is empty and starts at offset {end}");
    }
    format!("starts at offset {start}, and {end} comes next")
}

/// The flag that sets an option of the client.
fn flag(option: &str) -> String {
    if option.ends_with("_timeout") {
        return "--timeout".into();
    }
    if option.starts_with("retention_") {
        return format!("--{}", option.replace('_', "-"));
    }
    option.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use falcon_protocol::Partition;

    #[test]
    fn an_unknown_topic_is_created_for_records_and_looked_up_for_the_rest() {
        let error = ClientError::UnknownTopic { topic: "t".into() };
        let words = Words::of_client(&error, true);
        assert_eq!(words.why, "topic \"t\" does not exist");
        assert!(words.remedy.contains("falcon topic create t"));
        let words = Words::of_client(&error, false);
        assert!(words.remedy.contains("falcon topic list"));
    }

    #[test]
    fn offsets_that_are_there_are_said_in_words() {
        let error = |start, end| SubscribeError::OffsetOutOfRange {
            partition: Partition(1),
            position: Offset(200),
            available: Offset(start)..Offset(end),
        };
        let why = |start, end| Words::of_subscribe(&error(start, end)).why;
        assert!(why(0, 92).ends_with("it starts at offset 0, and 92 comes next"));
        assert!(why(7, 7).ends_with("it is empty and starts at offset 7"));
    }

    #[test]
    fn flags_are_named_and_not_options_of_the_library() {
        let error = PublishError::DeliveryTimeout {
            after: std::time::Duration::from_secs(1),
            last: "connection refused; is the broker running there?".into(),
            is_uncertain: true,
        };
        let words = Words::of_publish(&error);
        assert!(words.why.starts_with("not acknowledged within 1000 ms"));
        assert!(words.remedy.contains("--timeout"));
        assert!(!words.remedy.contains('_') && !words.why.contains("delivery_timeout"));
        assert_eq!(flag("connect_timeout"), "--timeout");
    }
}
