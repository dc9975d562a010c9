//! `falcon config`, and the flags it shares with `falcon serve`.

use std::path::PathBuf;

use clap::Args;
use falcon::config::{Config, ConfigError, Flag, KEYS, Loaded, Sources};
use serde::Serialize;

use super::failure::{CliError, chain};
use super::output::Output;
use super::wording::Words;

/// Flags that decide the configuration of a broker.
#[derive(Debug, Args)]
pub(crate) struct ConfigFlags {
    /// Configuration file (TOML).
    #[arg(long, env = "FALCON_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder that holds everything durable; created when missing.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Address to accept connections on; port 0 takes a free one.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Address that clients are told to connect to.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Allow a listen address that other machines can reach. There is no authentication yet.
    #[arg(long)]
    allow_remote: bool,
    /// A level (off, error, warn, info, debug, trace), or levels by target.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Form of the log: auto, human or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Any other setting, as often as needed: --set limits.connections_max=100
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Arguments of `falcon config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    flags: ConfigFlags,
    /// Print nothing but what is wrong.
    #[arg(long)]
    check: bool,
}

#[derive(Serialize)]
struct Row {
    key: &'static str,
    value: String,
    from: String,
    environment: String,
    meaning: &'static str,
}

/// Prints every setting with its value and where that came from.
pub(crate) fn run(args: &ConfigArgs, is_json: bool) -> Result<(), CliError> {
    let loaded = load(&args.flags)?;
    let mut output = Output::new();
    if args.check {
        return Ok(());
    }
    if is_json {
        for key in KEYS {
            output.json(&Row {
                key: key.name,
                value: key.show(&loaded.config).trim_matches('"').into(),
                from: loaded.origin(key.name).to_string(),
                environment: key.environment(),
                meaning: key.meaning,
            })?;
        }
    } else {
        print_toml(&loaded, &mut output)?;
    }
    output.flush()
}

fn print_toml(loaded: &Loaded, output: &mut Output) -> Result<(), CliError> {
    let mut section = "";
    for key in KEYS {
        let (of, field) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        if of != section {
            section = of;
            output.line(format!("\n[{section}]").as_bytes())?;
        }
        let setting = format!("{field} = {}", key.show(&loaded.config));
        let line = format!("{setting:<44} # {}", loaded.origin(key.name));
        output.line(line.as_bytes())?;
    }
    Ok(())
}

/// The configuration of flags, environment and file.
pub(crate) fn load(flags: &ConfigFlags) -> Result<Loaded, CliError> {
    let sources = Sources {
        file: flags.config.clone(),
        environment: std::env::vars_os()
            .filter_map(|(name, value)| {
                let name = name.into_string().ok()?;
                Some((name, value.to_string_lossy().into_owned()))
            })
            .collect(),
        flags: flags.settings()?,
    };
    Config::load(&sources).map_err(|error| {
        let remedy = match &error {
            ConfigError::Read { .. } => "check the path and its permissions",
            ConfigError::Syntax { .. } => "falcon config prints a file in the right form",
            ConfigError::UnknownKey { .. }
            | ConfigError::Value { .. }
            | ConfigError::Contradiction { .. } => "",
        };
        if remedy.is_empty() {
            let words = Words::of(&error, None);
            let remedy = if words.remedy.is_empty() {
                "falcon config lists the settings and their values".into()
            } else {
                words.remedy
            };
            return CliError::usage("configuration", words.why, remedy);
        }
        CliError::usage("configuration", chain(&error), remedy)
    })
}

impl ConfigFlags {
    fn settings(&self) -> Result<Vec<Flag>, CliError> {
        let named = [
            ("--data-dir", "data_dir", self.data_dir.clone()),
            ("--listen", "listen", self.listen.clone()),
            ("--advertise", "advertise", self.advertise.clone()),
            (
                "--allow-remote",
                "allow_remote",
                self.allow_remote.then(|| "true".into()),
            ),
            ("--log-level", "log.level", self.log_level.clone()),
            ("--log-format", "log.format", self.log_format.clone()),
        ];
        let named = named.into_iter().filter_map(|(flag, key, value)| {
            Some(Flag {
                flag: flag.into(),
                key: key.into(),
                value: value?,
            })
        });
        let mut settings: Vec<Flag> = named.collect();
        for pair in &self.set {
            let Some((key, value)) = pair.split_once('=') else {
                let why = format!("--set {pair:?} has no '='");
                let remedy = "write --set KEY=VALUE; falcon config lists the keys";
                return Err(CliError::usage("configuration", why, remedy));
            };
            settings.push(Flag {
                flag: "--set".into(),
                key: key.trim().into(),
                value: value.trim().into(),
            });
        }
        Ok(settings)
    }
}
