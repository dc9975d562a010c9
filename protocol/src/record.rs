//! One event.

use bytes::Bytes;

/// A named value attached to a record, for tracing contexts, content types and the like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// At most 256 bytes of UTF-8. Names may repeat.
    pub name: String,
    /// Any bytes.
    pub value: Bytes,
}

/// One event as a publisher hands it over: key, value, headers and event time.
///
/// ```
/// use falcon_protocol::Record;
/// let record = Record::new("charged").key("order-17").header("source", "billing");
/// assert_eq!(record.key.as_deref(), Some(&b"order-17"[..]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Decides the partition, unless one is named: equal keys meet in one partition, in order.
    pub key: Option<Bytes>,
    /// The payload; `None` is a tombstone ("this key is gone").
    pub value: Option<Bytes>,
    /// Named values beside the payload.
    pub headers: Vec<Header>,
    /// When the event happened, milliseconds since the Unix epoch; `None`: when it is batched. A publisher takes the
    /// exact time of a batch's first record, and for those behind it the time of the system's last tick.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// A record with this payload, no key, no headers, stamped with the time of publishing.
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self {
            value: Some(value.into()),
            ..Self::default()
        }
    }

    /// A record that says its key is gone.
    pub fn tombstone(key: impl Into<Bytes>) -> Self {
        Self {
            key: Some(key.into()),
            ..Self::default()
        }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// Sets the time of the event, milliseconds since the Unix epoch.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// Bytes of key, value and headers: what the record costs in buffers and windows.
    pub fn payload_bytes(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|h| h.name.len() + h.value.len())
            .sum();
        self.key.as_ref().map_or(0, Bytes::len)
            + self.value.as_ref().map_or(0, Bytes::len)
            + headers
    }
}

impl<T: Into<Bytes>> From<T> for Record {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}
