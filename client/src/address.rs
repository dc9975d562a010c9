//! Connection strings: `falcon://HOST:PORT,HOST:PORT`.

use falcon_protocol::limits::PORT_DEFAULT;

use crate::error::Error;

const SCHEME: &str = "falcon://";

/// Brokers to try in turn, each `HOST:PORT`, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addresses(Vec<String>);

impl Addresses {
    /// Reads a connection string; scheme and port may be left out.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |reason| Error::Address {
            address: text.to_owned(),
            reason,
        };
        let hosts = text.trim().strip_prefix(SCHEME).unwrap_or(text.trim());
        let hosts = hosts.strip_suffix('/').unwrap_or(hosts);
        if hosts.contains("://") {
            return Err(refuse("the scheme is not falcon://"));
        }
        if hosts.contains(['/', '?', '@', ' ']) {
            return Err(refuse("only HOST:PORT may follow falcon://"));
        }
        let parsed = hosts.split(',').map(|host| with_port(host).map_err(refuse));
        parsed.collect::<Result<Vec<_>, _>>().map(Self)
    }

    /// The addresses, in the order given.
    pub(crate) fn as_slice(&self) -> &[String] {
        &self.0
    }
}

fn with_port(host: &str) -> Result<String, &'static str> {
    let (name, port) = match host.rsplit_once(':') {
        Some((_, rest)) if rest.ends_with(']') => (host, PORT_DEFAULT),
        // A bare IPv6 address has colons, but no brackets and no port.
        Some((name, _)) if name.contains(':') && !name.ends_with(']') => {
            return Err("an IPv6 address needs brackets: [::1]:7420");
        }
        Some((name, port)) => match port.parse() {
            Ok(port) if port != 0 => (name, port),
            Ok(_) | Err(_) => return Err("the port is not a number from 1 to 65535"),
        },
        None => (host, PORT_DEFAULT),
    };
    if name.is_empty() {
        return Err("the host is missing");
    }
    Ok(format!("{name}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<String> {
        Addresses::parse(text).expect("valid").0
    }

    #[test]
    fn scheme_and_port_may_be_left_out() {
        assert_eq!(parse("falcon://a:1"), ["a:1"]);
        assert_eq!(parse("falcon://a:1/"), ["a:1"]);
        assert_eq!(parse("a"), ["a:7420"]);
        assert_eq!(parse("a:1,b"), ["a:1", "b:7420"]);
        assert_eq!(parse("falcon://[::1]:9"), ["[::1]:9"]);
        assert_eq!(parse("[::1]"), ["[::1]:7420"]);
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        for bad in [
            "",
            "falcon://",
            "http://a",
            "a:0",
            "a:x",
            "a:65536",
            "a/b",
            "a,,b",
            "::1",
            ":7420",
        ] {
            let error = Addresses::parse(bad).expect_err(bad);
            assert!(!error.is_retryable());
        }
    }
}
