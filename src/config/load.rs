//! Layers of configuration: default, file, environment, flags; the later wins.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::Raw;
use super::{Config, ConfigError, KEYS, Key, Origin};

/// Variables that start with `FALCON_` and are not settings of the broker.
const OTHER_VARIABLES: [&str; 6] = [
    "FALCON_CONFIG",
    "FALCON_SERVER",
    "FALCON_FLIGHTS",
    "FALCON_LOG",
    "FALCON_TEST_SYNC_DELAY_MS",
    "FALCON_TEST_UNSAFE_NO_SYNC",
];

/// A setting given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The flag as it was typed, for error messages: `--listen`.
    pub flag: String,
    /// The key it sets.
    pub key: String,
    /// The value.
    pub value: String,
}

/// Where settings come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file, if any.
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not start with `FALCON_` are ignored.
    pub environment: Vec<(String, String)>,
    /// Flags, in the order given.
    pub flags: Vec<Flag>,
}

/// A configuration and where each of its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration; valid.
    pub config: Config,
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// Where the value of a key came from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }
}

/// Reads all sources and checks the result.
pub(super) fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut layers = Layers {
        config: Config::default(),
        origins: BTreeMap::new(),
    };
    if let Some(path) = &sources.file {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        layers.apply_file(path, &text)?;
    }
    layers.apply_environment(&sources.environment)?;
    for flag in &sources.flags {
        let origin = Origin::Flag(flag.flag.clone());
        layers.set(&flag.key, &Raw::Plain(flag.value.clone()), origin)?;
    }
    let loaded = Loaded {
        config: layers.config,
        origins: layers.origins,
    };
    super::check::check(&loaded.config, |key| loaded.origin(key))?;
    Ok(loaded)
}

struct Layers {
    config: Config,
    origins: BTreeMap<&'static str, Origin>,
}

impl Layers {
    fn set(&mut self, name: &str, raw: &Raw, origin: Origin) -> Result<(), ConfigError> {
        let Some(key) = Key::find(name) else {
            return Err(ConfigError::UnknownKey {
                key: name.into(),
                origin,
                similar: similar(name),
            });
        };
        let value = key.kind.read(raw);
        if value
            .and_then(|value| (key.set)(&mut self.config, value))
            .is_none()
        {
            return Err(ConfigError::Value {
                key: key.name,
                value: raw.show(),
                origin,
                allowed: key.kind.allowed(),
            });
        }
        self.origins.insert(key.name, origin);
        Ok(())
    }

    fn apply_environment(&mut self, variables: &[(String, String)]) -> Result<(), ConfigError> {
        for (name, value) in variables {
            if !name.starts_with("FALCON_")
                || OTHER_VARIABLES.contains(&name.as_str())
                || is_service_link(name, value)
            {
                continue;
            }
            let origin = Origin::Environment(name.clone());
            let key = KEYS.iter().find(|key| key.environment() == *name);
            let key = key.map_or(name.as_str(), |key| key.name);
            self.set(key, &Raw::Plain(value.clone()), origin)?;
        }
        Ok(())
    }

    fn apply_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            path: path.into(),
            line: line_of(text, &error.span().unwrap_or_default()),
            message: error.message().replace('\n', " "),
        })?;
        for (name, value) in table.get_ref() {
            let at = |span: &Range<usize>| Origin::File {
                path: path.into(),
                line: line_of(text, span),
            };
            let name_text: &str = name.get_ref();
            let section = value.get_ref().as_table();
            let Some(section) = section.filter(|_| Key::find(name_text).is_none()) else {
                let raw = raw(value.get_ref(), text, value);
                self.set(name_text, &raw, at(&name.span()))?;
                continue;
            };
            let prefix = format!("{name_text}.");
            if !KEYS.iter().any(|key| key.name.starts_with(&prefix)) {
                return Err(ConfigError::UnknownKey {
                    key: format!("[{name_text}]"),
                    origin: at(&name.span()),
                    similar: None,
                });
            }
            for (field, value) in section {
                let key = format!("{prefix}{}", field.get_ref());
                self.set(&key, &raw(value.get_ref(), text, value), at(&field.span()))?;
            }
        }
        Ok(())
    }
}

fn raw(value: &DeValue<'_>, text: &str, spanned: &Spanned<DeValue<'_>>) -> Raw {
    let other = || Raw::Other(text.get(spanned.span()).unwrap_or("?").replace('\n', " "));
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Boolean(value) => Raw::Bool(*value),
        DeValue::Integer(number) => {
            let number = u64::from_str_radix(number.as_str(), number.radix());
            number.map_or_else(|_| other(), Raw::Integer)
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => other(),
    }
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    let before = text.get(..span.start).unwrap_or(text);
    before.matches('\n').count() + 1
}

/// Kubernetes and Docker describe every service to every container in such variables; a service
/// named `falcon` must not stop the broker from starting.
fn is_service_link(name: &str, value: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
}

/// A key with the same last word, or one that starts or ends the same way.
fn similar(name: &str) -> Option<&'static str> {
    let name = name.strip_prefix("FALCON_").unwrap_or(name).to_lowercase();
    let flat = name.replace(['.', '-'], "_");
    let last = |key: &'static str| key.rsplit('.').next().unwrap_or(key);
    let names = || KEYS.iter().map(|key| key.name);
    names()
        .find(|key| key.replace('.', "_") == flat)
        .or_else(|| names().find(|key| flat.ends_with(last(key))))
        .or_else(|| {
            let word = name.rsplit('.').next().unwrap_or_default();
            let is_close = |key: &&str| shared_prefix(last_word(key), word) >= 5;
            names()
                .filter(is_close)
                .max_by_key(|key| shared_prefix(last_word(key), word))
        })
}

fn last_word(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

fn shared_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}
