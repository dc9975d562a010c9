//! Keys and times out of lines of JSON.

use bytes::Bytes;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

use jiff::Timestamp;

/// Which fields of a line decide its record's key and time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields {
    /// Top-level field with the key.
    pub(crate) key: Option<String>,
    /// Top-level field with the time of the event.
    pub(crate) timestamp: Option<String>,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// A string's text, a number's or boolean's JSON text; `None` when it is null or missing.
    pub(crate) key: Option<Bytes>,
    /// Milliseconds since the Unix epoch; `None` when it is null or missing.
    pub(crate) timestamp_ms: Option<i64>,
}

impl Fields {
    /// Reads the fields of a line; the error says what is wrong with the line.
    pub(crate) fn find(&self, line: &[u8]) -> Result<Found, String> {
        if self.key.is_none() && self.timestamp.is_none() {
            return Ok(Found::default());
        }
        let mut deserializer = serde_json::Deserializer::from_slice(line);
        let raw = Wanted(self)
            .deserialize(&mut deserializer)
            .and_then(|raw| deserializer.end().map(|()| raw))
            .map_err(|error| format!("is not a JSON object ({error})"))?;
        Ok(Found {
            key: match (raw.key, &self.key) {
                (Some(value), Some(name)) => key(value, name)?,
                (_, _) => None,
            },
            timestamp_ms: match (raw.timestamp, &self.timestamp) {
                (Some(value), Some(name)) => timestamp(value, name)?,
                (_, _) => None,
            },
        })
    }
}

fn key(value: &RawValue, name: &str) -> Result<Option<Bytes>, String> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'"') => {
            let text: String = serde_json::from_str(text)
                .map_err(|error| format!("has a field {name:?} that is no text ({error})"))?;
            Ok(Some(text.into()))
        }
        Some(b'{' | b'[') => Err(format!(
            "has an object or array in {name:?}; a key is a string, a number or a boolean"
        )),
        _ if text == "null" => Ok(None),
        _ => Ok(Some(Bytes::copy_from_slice(text.as_bytes()))),
    }
}

fn timestamp(value: &RawValue, name: &str) -> Result<Option<i64>, String> {
    let text = value.get();
    if text == "null" {
        return Ok(None);
    }
    let milliseconds = if text.starts_with('"') {
        let text: Option<String> = serde_json::from_str(text).ok();
        text.and_then(|text| text.parse::<Timestamp>().ok())
            .map(Timestamp::as_millisecond)
    } else {
        text.parse().ok()
    };
    milliseconds.map(Some).ok_or_else(|| {
        format!(
            "has {text} in {name:?}; a time is RFC 3339 text or whole milliseconds since the \
             Unix epoch"
        )
    })
}

#[derive(Default)]
struct Raw<'de> {
    key: Option<&'de RawValue>,
    timestamp: Option<&'de RawValue>,
}

/// Takes the wanted fields and skips the others without storing them.
struct Wanted<'a>(&'a Fields);

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = Raw<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = Raw<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut raw = Raw::default();
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let is_key = self.0.key.as_deref() == Some(&*name);
            let is_timestamp = self.0.timestamp.as_deref() == Some(&*name);
            if is_key || is_timestamp {
                let value = map.next_value()?;
                raw.key = if is_key { Some(value) } else { raw.key };
                raw.timestamp = if is_timestamp {
                    Some(value)
                } else {
                    raw.timestamp
                };
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(line: &str) -> Result<Option<Bytes>, String> {
        let fields = Fields {
            key: Some("k".into()),
            timestamp: None,
        };
        fields.find(line.as_bytes()).map(|found| found.key)
    }

    #[test]
    fn keys_are_texts_numbers_and_booleans() {
        for (line, expected) in [
            (r#"{"k":"N14228"}"#, "N14228"),
            (r#"{"a":[1,{"k":2}],"k":"a \u00e4 \" b"}"#, "a ä \" b"),
            (r#"{"k": 17 }"#, "17"),
            (r#"{"k":1.50}"#, "1.50"),
            (
                r#"{"k":123456789012345678901234567890}"#,
                "123456789012345678901234567890",
            ),
            (r#"{"k":true}"#, "true"),
            (r#"{"k":""}"#, ""),
        ] {
            assert_eq!(key_of(line), Ok(Some(Bytes::from(expected))), "{line}");
        }
        for line in [r#"{"k":null}"#, "{}", r#"{"x":{"k":1}}"#] {
            assert_eq!(key_of(line), Ok(None), "{line}");
        }
    }

    #[test]
    fn lines_without_a_usable_key_say_why() {
        for (line, expected) in [
            ("", "JSON"),
            ("N14228", "JSON"),
            ("[1]", "JSON"),
            (r#"{"k":1} x"#, "JSON"),
            (r#"{"k":{}}"#, "object or array"),
            (r#"{"k":[1]}"#, "object or array"),
        ] {
            let error = key_of(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn times_are_texts_or_milliseconds() {
        let fields = Fields {
            key: None,
            timestamp: Some("t".into()),
        };
        let time_of = |line: &str| fields.find(line.as_bytes()).map(|found| found.timestamp_ms);
        assert_eq!(
            time_of(r#"{"t":"2013-01-01T10:00:00Z"}"#),
            Ok(Some(1_357_034_400_000))
        );
        assert_eq!(time_of(r#"{"t":-5}"#), Ok(Some(-5)));
        assert_eq!(time_of(r#"{"t":null}"#), Ok(None));
        for bad in [r#"{"t":"today"}"#, r#"{"t":1.5}"#, r#"{"t":[1]}"#] {
            assert!(time_of(bad).unwrap_err().contains("RFC 3339"));
        }
    }

    #[test]
    fn without_fields_a_line_need_not_be_json() {
        assert_eq!(Fields::default().find(b"\xff"), Ok(Found::default()));
    }
}
