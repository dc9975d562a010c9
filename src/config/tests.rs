use std::fs;

use super::value::{Raw, Value};
use super::*;

fn from_file(text: &str) -> Result<Loaded, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("falcon.toml");
    fs::write(&path, text).unwrap();
    Config::load(&Sources {
        file: Some(path),
        ..Sources::default()
    })
}

fn from_environment(name: &str, value: &str) -> Result<Loaded, ConfigError> {
    Config::load(&Sources {
        environment: vec![(name.into(), value.into())],
        ..Sources::default()
    })
}

fn flag(key: &str, value: &str) -> Flag {
    Flag {
        flag: "--set".into(),
        key: key.into(),
        value: value.into(),
    }
}

fn error(result: Result<Loaded, ConfigError>) -> String {
    result.expect_err("it should be refused").to_string()
}

#[test]
fn the_defaults_are_valid_and_so_are_those_for_tests() {
    Config::default().check().unwrap();
    Config::for_tests("/tmp/x").check().unwrap();
}

#[test]
fn later_sources_win_over_earlier_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("falcon.toml");
    fs::write(
        &path,
        "shutdown_grace_ms = 1\n[limits]\nconnections_max = 1\ntopics_max = 1\n",
    )
    .unwrap();
    let loaded = Config::load(&Sources {
        file: Some(path.clone()),
        environment: vec![
            ("FALCON_LIMITS_CONNECTIONS_MAX".into(), "2".into()),
            ("FALCON_LIMITS_TOPICS_MAX".into(), "2".into()),
            ("HOME".into(), "/root".into()),
        ],
        flags: vec![flag("limits.connections_max", "3")],
    })
    .unwrap();
    assert_eq!(loaded.config.shutdown_grace_ms, 1);
    assert_eq!(loaded.config.limits.topics_max, 2);
    assert_eq!(loaded.config.limits.connections_max, 3);
    assert_eq!(
        loaded.origin("shutdown_grace_ms"),
        Origin::File { path, line: 1 }
    );
    assert_eq!(
        loaded.origin("limits.connections_max"),
        Origin::Flag("--set".into())
    );
    assert_eq!(loaded.origin("listen"), Origin::Default);
}

#[test]
fn sizes_and_durations_take_units_everywhere() {
    let loaded = from_file(
        "shutdown_grace_ms = \"2s\"\n\
         [storage]\nsegment_bytes = \"16MiB\"\ncache_bytes = 2097152\n",
    )
    .unwrap();
    assert_eq!(loaded.config.shutdown_grace_ms, 2_000);
    assert_eq!(loaded.config.storage.segment_bytes, 16 << 20);
    assert_eq!(loaded.config.storage.cache_bytes, 2 << 20);
    let loaded = from_environment("FALCON_TIMEOUTS_QUEUE_MS", "250").unwrap();
    assert_eq!(loaded.config.timeouts.queue_ms, 250);
    let loaded = from_environment("FALCON_STORAGE_CACHE_BYTES", "1 GiB").unwrap();
    assert_eq!(loaded.config.storage.cache_bytes, 1 << 30);
}

#[test]
fn every_key_is_written_and_read_back() {
    let config = Config::for_tests("/var/lib/falcon \"x\"");
    assert_eq!(from_file(&config.to_toml()).unwrap().config, config);
}

#[test]
fn every_key_sets_only_its_own_field() {
    for key in KEYS {
        let other = match key.kind {
            Kind::Path => "/elsewhere",
            Kind::SocketAddress | Kind::AdminAddress => "127.0.0.1:1",
            Kind::Endpoint => "falcon.example:7420",
            Kind::Bool if (key.get)(&Config::default()) == Value::Bool(true) => "false",
            Kind::Bool => "true",
            Kind::Count { max, .. } | Kind::Bytes { max, .. } | Kind::Millis { max, .. } => {
                &max.to_string()
            }
            Kind::LogFilter => "warn,falcon::server=debug",
            Kind::LogFormat => "json",
        };
        let mut config = Config::default();
        let value = key.kind.read(&Raw::Plain(other.to_string())).unwrap();
        (key.set)(&mut config, value).expect("the kind fits the field");
        let changed: Vec<&str> = KEYS
            .iter()
            .filter(|key| (key.get)(&config) != (key.get)(&Config::default()))
            .map(|key| key.name)
            .collect();
        assert_eq!(changed, [key.name]);
    }
}

#[test]
fn every_range_fits_its_field() {
    for key in KEYS {
        if let Kind::Count { min, max } | Kind::Bytes { min, max } | Kind::Millis { min, max } =
            key.kind
        {
            for bound in [min, max] {
                let mut config = Config::default();
                (key.set)(&mut config, Value::Number(bound)).expect(key.name);
                assert_eq!((key.get)(&config), Value::Number(bound));
            }
        }
    }
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_a_guess() {
    let message = error(from_file(
        "listen = \"127.0.0.1:1\"\n[limits]\nconnection_max = 3\n",
    ));
    assert!(message.contains("limits.connection_max"), "{message}");
    assert!(message.contains("falcon.toml line 3"), "{message}");
    assert!(message.contains("limits.connections_max?"), "{message}");
    let message = error(from_file("connections_max = 3\n"));
    assert!(message.contains("limits.connections_max?"), "{message}");
    let message = error(from_file("[limit]\nconnections_max = 3\n"));
    assert!(message.contains("[limit]"), "{message}");
    let message = error(from_environment("FALCON_LISTN", "x"));
    assert!(message.contains("FALCON_LISTN"), "{message}");
    let message = error(from_file("zzz = 3\n"));
    assert!(message.contains("falcon config"), "{message}");
}

#[test]
fn variables_of_container_platforms_are_not_settings() {
    for (name, value) in [
        ("FALCON_SERVICE_HOST", "10.0.0.1"),
        ("FALCON_SERVICE_PORT", "7420"),
        ("FALCON_PORT", "tcp://10.0.0.1:7420"),
        ("FALCON_PORT_7420_TCP_ADDR", "10.0.0.1"),
        ("FALCON_SERVER", "falcon://elsewhere:7420"),
    ] {
        assert_eq!(
            from_environment(name, value).unwrap().config,
            Config::default()
        );
    }
}

#[test]
fn a_value_of_the_wrong_type_or_range_says_what_is_allowed() {
    for (text, key, allowed) in [
        ("listen = \"nowhere\"", "listen = \"nowhere\"", "IP:PORT"),
        (
            "allow_remote = \"yes\"",
            "allow_remote = \"yes\"",
            "true or false",
        ),
        ("allow_remote = 1", "allow_remote = 1", "true or false"),
        ("data_dir = \"\"", "data_dir = \"\"", "a path"),
        ("advertise = \"x\"", "advertise = \"x\"", "HOST:PORT"),
        (
            "[limits]\nconnections_max = 0",
            "limits.connections_max = 0",
            "a whole number from 1 to 65536",
        ),
        (
            "[limits]\nconnections_max = \"9\"",
            "limits.connections_max = \"9\"",
            "whole number",
        ),
        (
            "[limits]\nconnections_max = -1",
            "limits.connections_max = -1",
            "whole number",
        ),
        (
            "[limits]\nconnections_max = 1.5",
            "limits.connections_max = 1.5",
            "whole number",
        ),
        (
            "[limits]\nframe_bytes_max = \"1GiB\"",
            "limits.frame_bytes_max = \"1GiB\"",
            "64KiB to 64MiB",
        ),
        ("limits = 5", "limits", "not a setting"),
        (
            "[log]\nlevel = \"loud\"",
            "log.level = \"loud\"",
            "off, error, warn",
        ),
        (
            "[log]\nformat = \"xml\"",
            "log.format = \"xml\"",
            "auto, human, json",
        ),
    ] {
        let message = error(from_file(text));
        assert!(message.contains(key), "{text}: {message}");
        assert!(message.contains(allowed), "{text}: {message}");
        assert!(!message.contains('\n'), "{message}");
        assert!(message.contains("falcon.toml line"), "{message}");
    }
}

#[test]
fn contradictions_name_both_sides() {
    for (flags, expected) in [
        (
            vec![flag("limits.batch_bytes_max", "8MiB")],
            ["limits.batch_bytes_max", "limits.frame_bytes_max"],
        ),
        (
            vec![flag("limits.in_flight_bytes_per_connection", "1MiB")],
            [
                "limits.in_flight_bytes_per_connection",
                "limits.batch_bytes_max",
            ],
        ),
        (
            vec![flag("limits.in_flight_bytes_total", "1MiB")],
            [
                "limits.in_flight_bytes_total",
                "limits.in_flight_bytes_per_connection",
            ],
        ),
        (
            vec![flag("storage.segment_bytes", "1MiB")],
            ["storage.segment_bytes", "limits.batch_bytes_max"],
        ),
        (
            vec![flag("timeouts.idle_ms", "10s")],
            ["timeouts.idle_ms", "timeouts.heartbeat_ms"],
        ),
        (
            vec![flag("listen", "0.0.0.0:7420")],
            ["listen", "--allow-remote"],
        ),
        (
            vec![flag("admin.listen", "0.0.0.0:7421")],
            ["admin.listen", "--allow-remote"],
        ),
    ] {
        let message = error(Config::load(&Sources {
            flags,
            ..Sources::default()
        }));
        for part in expected {
            assert!(message.contains(part), "{message}");
        }
        assert!(message.contains("flag --set"), "{message}");
    }
    let flags = vec![flag("listen", "0.0.0.0:7420"), flag("allow_remote", "true")];
    Config::load(&Sources {
        flags,
        ..Sources::default()
    })
    .unwrap();
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_named() {
    let missing = Sources {
        file: Some("/nowhere/falcon.toml".into()),
        ..Sources::default()
    };
    assert!(error(Config::load(&missing)).contains("/nowhere/falcon.toml"));
    let message = error(from_file("listen = \"127.0.0.1:1\"\nlisten = \n"));
    assert!(message.contains("falcon.toml line 2"), "{message}");
    assert!(!message.contains('\n'), "{message}");
}

#[test]
fn a_configuration_made_in_code_is_checked_too() {
    let mut config = Config::for_tests("/tmp/x");
    config.limits.connections_max = 0;
    let message = config.check().expect_err("0 is too few").to_string();
    assert!(message.contains("limits.connections_max"), "{message}");
}

#[test]
fn the_admin_port_is_beside_the_brokers() {
    let address = |listen: &str, admin: &str| {
        let flags = vec![flag("listen", listen), flag("admin.listen", admin)];
        let sources = Sources {
            flags,
            ..Sources::default()
        };
        let config = Config::load(&sources).unwrap().config;
        let address = config.admin.listen.address(config.listen);
        address.map(|address| address.to_string())
    };
    let auto = |listen| address(listen, "auto");
    assert_eq!(auto("127.0.0.1:7420").as_deref(), Some("127.0.0.1:7421"));
    assert_eq!(auto("127.0.0.1:0").as_deref(), Some("127.0.0.1:0"));
    assert_eq!(auto("127.0.0.1:65535"), None);
    assert_eq!(address("127.0.0.1:7420", "off"), None);
    let given = address("127.0.0.1:7420", "localhost:9000");
    assert_eq!(given.as_deref(), Some("127.0.0.1:9000"));
    let message = error(from_environment("FALCON_ADMIN_LISTEN", "7421"));
    assert!(message.contains("auto, off, or IP:PORT"), "{message}");
}
