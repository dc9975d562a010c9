//! From values to bytes and back.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest value that [`Bincode`] decodes.
const BINCODE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How a topic's values are laid out. Errors are texts for people.
pub trait Codec: Send + Sync + 'static {
    /// Lays a value out.
    fn encode<T: Serialize>(&self, value: &T) -> Result<Bytes, String>;

    /// Reads a value, which must fill `bytes`.
    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, String>;
}

/// JSON: readable everywhere, with fields by name. The default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Json;

impl Codec for Json {
    fn encode<T: Serialize>(&self, value: &T) -> Result<Bytes, String> {
        let bytes = serde_json::to_vec(value).map_err(|error| error.to_string())?;
        Ok(Bytes::from(bytes))
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }
}

/// Bincode 2, standard configuration: small and quick, for Rust programs that are updated
/// together, because fields are known by their order only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bincode;

impl Bincode {
    fn config() -> impl bincode::config::Config {
        bincode::config::standard().with_limit::<BINCODE_BYTES_MAX>()
    }
}

impl Codec for Bincode {
    fn encode<T: Serialize>(&self, value: &T) -> Result<Bytes, String> {
        let bytes = bincode::serde::encode_to_vec(value, Self::config());
        bytes.map(Bytes::from).map_err(|error| error.to_string())
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, String> {
        let (value, used) = bincode::serde::decode_from_slice(bytes, Self::config())
            .map_err(|error| error.to_string())?;
        match bytes.len() - used {
            0 => Ok(value),
            left => Err(format!("{left} bytes are left over behind the value")),
        }
    }
}
