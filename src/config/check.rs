//! Rules over more than one setting, and ranges for configurations made in code.

use super::units::show_bytes;
use super::value::Value;
use super::{Config, ConfigError, KEYS, Key, Origin};

/// Bytes of a publish frame around its batch.
const PUBLISH_OVERHEAD_BYTES: u32 = 64;

/// Checks every range and every rule; `origin` says where a key's value came from.
pub(super) fn check(
    config: &Config,
    origin: impl Fn(&'static str) -> Origin,
) -> Result<(), ConfigError> {
    for key in KEYS {
        check_range(key, config, &origin)?;
    }
    let rules = [batch_fits_frame, window_fits_batch, total_fits_window];
    let rules = rules.into_iter().chain([
        segment_fits_batches,
        idle_allows_heartbeats,
        listens_on_loopback,
        admin_listens_on_loopback,
    ]);
    for rule in rules {
        if let Some((name, rule)) = rule(config)
            && let Some(key) = Key::find(name)
        {
            return Err(ConfigError::Contradiction {
                key: key.name,
                value: key.show(config),
                origin: origin(key.name),
                rule,
            });
        }
    }
    Ok(())
}

fn check_range(
    key: &'static Key,
    config: &Config,
    origin: &impl Fn(&'static str) -> Origin,
) -> Result<(), ConfigError> {
    let is_allowed = match (key.get)(config) {
        Value::Number(number) => key.kind.has_number(number),
        Value::Text(text) => key.kind.read(&super::value::Raw::Plain(text)).is_some(),
        Value::Bool(_) | Value::Absent => true,
    };
    if is_allowed {
        return Ok(());
    }
    Err(ConfigError::Value {
        key: key.name,
        value: key.show(config),
        origin: origin(key.name),
        allowed: key.kind.allowed(),
    })
}

/// A broken rule: the key to blame, and what it breaks.
type Broken = Option<(&'static str, String)>;

fn batch_fits_frame(config: &Config) -> Broken {
    let frame = config.limits.frame_bytes_max;
    let most = frame.saturating_sub(PUBLISH_OVERHEAD_BYTES);
    (config.limits.batch_bytes_max > most).then(|| {
        let rule = format!(
            "does not fit a frame; use at most {most}, or raise limits.frame_bytes_max ({})",
            show_bytes(frame.into())
        );
        ("limits.batch_bytes_max", rule)
    })
}

fn window_fits_batch(config: &Config) -> Broken {
    let batch = u64::from(config.limits.batch_bytes_max);
    (config.limits.in_flight_bytes_per_connection < batch + u64::from(PUBLISH_OVERHEAD_BYTES)).then(
        || {
            let rule = format!(
                "is too small for one batch; use more than limits.batch_bytes_max ({})",
                show_bytes(batch)
            );
            ("limits.in_flight_bytes_per_connection", rule)
        },
    )
}

fn total_fits_window(config: &Config) -> Broken {
    let window = config.limits.in_flight_bytes_per_connection;
    (config.limits.in_flight_bytes_total < window).then(|| {
        let rule = format!(
            "is less than one connection may have; use at least \
             limits.in_flight_bytes_per_connection ({})",
            show_bytes(window)
        );
        ("limits.in_flight_bytes_total", rule)
    })
}

fn segment_fits_batches(config: &Config) -> Broken {
    let least = 2 * u64::from(config.limits.batch_bytes_max);
    (config.storage.segment_bytes < least).then(|| {
        let rule = format!(
            "is too small; use at least {}, twice limits.batch_bytes_max",
            show_bytes(least)
        );
        ("storage.segment_bytes", rule)
    })
}

fn idle_allows_heartbeats(config: &Config) -> Broken {
    let least = config.timeouts.heartbeat_ms.saturating_mul(2);
    (config.timeouts.idle_ms < least).then(|| {
        let rule = format!(
            "would close healthy connections; use at least {least}, twice timeouts.heartbeat_ms"
        );
        ("timeouts.idle_ms", rule)
    })
}

fn listens_on_loopback(config: &Config) -> Broken {
    (!config.listen.ip().is_loopback() && !config.allow_remote).then(|| {
        let rule = "can be reached from other machines and there is no authentication yet; \
                    listen on 127.0.0.1, or accept that with --allow-remote";
        ("listen", rule.into())
    })
}

fn admin_listens_on_loopback(config: &Config) -> Broken {
    let address = config.admin.listen.address(config.listen)?;
    (!address.ip().is_loopback() && !config.allow_remote).then(|| {
        let rule = "can be reached from other machines and there is no authentication yet; \
                    use 127.0.0.1, or accept that with --allow-remote";
        ("admin.listen", rule.into())
    })
}
