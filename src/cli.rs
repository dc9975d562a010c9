//! The command line.
//!
//! Owns arguments, output and exit codes; one file per command. Promises: results go to standard
//! output, everything else to standard error; a failure is one line that says what to do; exit
//! codes ([`failure::Exit`]) are stable. Must not know: sockets, frames, files of the broker; it
//! uses the broker as a library and the client like any other program.

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use falcon::config::{Log, LogFormat};

mod arguments;
mod bench;
mod completions;
mod config;
mod connect;
mod demo;
mod doctor;
mod errors;
mod failure;
mod fields;
mod group;
mod lines;
mod notice;
mod offsets;
mod output;
mod positions;
mod progress;
mod publish;
mod salvage;
mod serve;
mod signals;
mod subscribe;
mod topic;
mod verify;
mod why;
mod wording;

use failure::{CliError, Exit};

/// Falcon, a durable event broker: an acknowledged event survives power loss.
#[derive(Debug, Parser)]
#[command(name = "falcon", version, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 the operation failed, 2 wrong usage or configuration,
            3 the broker cannot be reached, 4 timed out, 130 interrupted.
Try it:     falcon demo";

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Every command")]
pub(crate) struct Global {
    /// The broker to speak to.
    #[arg(
        long,
        global = true,
        env = "FALCON_SERVER",
        default_value = "falcon://127.0.0.1:7420",
        value_name = "falcon://HOST:PORT"
    )]
    pub(crate) server: String,
    /// Results, and errors, as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Give up when nothing happens for this long: 5s, 2m.
    #[arg(long, global = true, value_name = "DURATION", value_parser = arguments::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Say more on standard error; twice for even more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker until SIGTERM or SIGINT.
    Serve(serve::ServeArgs),
    /// Create, list, describe, change and delete topics.
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Publish records, one a line.
    Publish(publish::PublishArgs),
    /// Print records, one a line.
    Subscribe(subscribe::SubscribeArgs),
    /// Look at and change the committed offsets of groups.
    #[command(subcommand)]
    Offsets(offsets::OffsetsCommand),
    /// Consumer groups: who is in them and how far they are; set them back, delete them.
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Say for each partition of a group why nothing moves, or that it does.
    Why(why::WhyArgs),
    /// Measure a running broker through the public client.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// See Falcon work on a day of real flights: publish, subscribe, replay, restart, compare.
    Demo(demo::DemoArgs),
    /// Print the configuration that `falcon serve` would use, or check it.
    Config(config::ConfigArgs),
    /// Read a data folder through, without a broker, and name everything that is damaged.
    Verify(verify::VerifyArgs),
    /// Copy what is readable of a damaged data folder into a fresh one, at the same offsets.
    Salvage(salvage::SalvageArgs),
    /// Check the machine: file system, syncs, space, limits, permissions, clock.
    Doctor(doctor::DoctorArgs),
    /// List the error codes and what to do about each.
    Errors(errors::ErrorsArgs),
    /// Print shell completions.
    Completions(completions::CompletionsArgs),
}

/// Runs the command of this process's arguments.
pub(crate) fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let is_json = arguments.iter().any(|argument| argument == "--json");
    let result = match Cli::try_parse_from(arguments) {
        Ok(cli) => run(cli),
        Err(error) if !error.use_stderr() => {
            // Help and version are results; a closed pipe is the reader's choice.
            let _ = error.print();
            Ok(())
        }
        Err(error) if error.kind() == HELP_WHEN_EMPTY => {
            let _ = error.print();
            return Exit::Usage.into();
        }
        Err(error) => Err(CliError::from_clap(&error)),
    };
    match result {
        Ok(()) => Exit::Ok.into(),
        Err(error) => error.report(is_json).into(),
    }
}

const HELP_WHEN_EMPTY: clap::error::ErrorKind =
    clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;

fn run(cli: Cli) -> Result<(), CliError> {
    let global = cli.global;
    match cli.command {
        Command::Serve(args) => return block_on(serve::run(args)),
        Command::Config(args) => return config::run(&args, global.json),
        Command::Errors(args) => return errors::run(&args, global.json),
        Command::Completions(args) => return completions::run(&args),
        Command::Doctor(args) => return doctor::run(&args, global.json),
        Command::Verify(args) => {
            start_log(global.verbose, "off")?;
            let is_json = global.json;
            return block_on(offline(move || verify::run(&args, is_json)));
        }
        Command::Salvage(args) => {
            start_log(global.verbose, "off")?;
            let is_json = global.json;
            return block_on(offline(move || salvage::run(&args, is_json)));
        }
        Command::Topic(_)
        | Command::Publish(_)
        | Command::Subscribe(_)
        | Command::Offsets(_)
        | Command::Group(_)
        | Command::Why(_)
        | Command::Bench(_)
        | Command::Demo(_) => {}
    }
    start_log(global.verbose, "error")?;
    match cli.command {
        Command::Topic(command) => block_on(interruptible(topic::run(command, global))),
        Command::Publish(args) => block_on(interruptible(publish::run(args, global))),
        // A member ends in order by itself.
        Command::Subscribe(args) if args.is_member() => block_on(subscribe::run(args, global)),
        Command::Subscribe(args) => block_on(interruptible(subscribe::run(args, global))),
        Command::Offsets(command) => block_on(interruptible(offsets::run(command, global))),
        Command::Group(command) => block_on(interruptible(group::run(command, global))),
        Command::Why(args) => block_on(interruptible(why::run(args, global))),
        // It deletes what it made, also when it is interrupted.
        Command::Bench(command) => {
            let pacers = command.pacers();
            block_on_more(pacers, bench::run(command, global))
        }
        Command::Demo(args) => block_on(interruptible(demo::run(args, global))),
        Command::Serve(_)
        | Command::Config(_)
        | Command::Errors(_)
        | Command::Completions(_)
        | Command::Doctor(_)
        | Command::Verify(_)
        | Command::Salvage(_) => Ok(()),
    }
}

/// A command says what went wrong by itself, in one line; `-v` shows what the client logs.
fn start_log(verbose: u8, least: &str) -> Result<(), CliError> {
    let level = match verbose {
        0 => least,
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let log = Log {
        level: level.into(),
        format: LogFormat::Auto,
    };
    falcon::telemetry::start(&log)
        .map_err(|error| CliError::failed("log", &error, "report this as a bug"))
}

fn block_on(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    block_on_more(0, command)
}

/// With so many workers beyond one for each core.
fn block_on_more(
    workers: usize,
    command: impl Future<Output = Result<(), CliError>>,
) -> Result<(), CliError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores + workers)
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("start threads", &error, "raise the process limits"))?;
    let result = runtime.block_on(command);
    // A thread that waits for a line of standard input never ends by itself.
    runtime.shutdown_background();
    result
}

/// Work on files, which blocks; it ends with the process at Ctrl-C.
async fn offline(
    work: impl FnOnce() -> Result<(), CliError> + Send + 'static,
) -> Result<(), CliError> {
    let working = tokio::task::spawn_blocking(work);
    let joined = interruptible(async {
        working
            .await
            .map_err(|error| CliError::failed("work", &error, "report this as a bug"))
    });
    joined.await?
}

/// Ends a command at Ctrl-C; what it printed so far is complete lines.
async fn interruptible<T>(
    command: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    // CANCEL SAFETY: the command is dropped for good, and `ctrl_c` keeps no state.
    tokio::select! {
        result = command => result,
        _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_form_in_the_documentation_is_understood() {
        for form in [
            "serve --data-dir DIR --listen 127.0.0.1:7420",
            "serve --data-dir DIR --listen 127.0.0.1:0 --set limits.topics_max=5 --allow-remote",
            "topic create NAME --partitions 3 --retention-age 7d --retention-bytes 10GiB",
            "topic list --json",
            "topic describe NAME --json",
            "topic alter NAME --partitions 4 --retention-age none",
            "topic delete NAME",
            "publish TOPIC --file - --key-field tailnum --receipts",
            "publish TOPIC --file F --partition 2 --compression zstd --timeout 5s --json",
            "subscribe TOPIC --from earliest --until-end",
            "subscribe TOPIC --from offset:300000 --partition 1 --count 5 --json",
            "subscribe TOPIC --from time:2013-01-01T10:00:00Z",
            "subscribe TOPIC --from last:10 --server falcon://127.0.0.1:1",
            "subscribe TOPIC --group GROUP --from latest --count 5",
            "offsets list",
            "offsets list GROUP",
            "offsets get GROUP TOPIC",
            "offsets set GROUP TOPIC --to offset:5 --partition 0",
            "offsets delete GROUP --topic TOPIC",
            "group list --json",
            "group describe GROUP",
            "group reset GROUP --topic TOPIC --to earliest --force",
            "group reset GROUP --topic TOPIC --partition 3 --to shift:-100 --dry-run",
            "group reset GROUP --topic TOPIC --to time:2013-01-01T10:00:00Z",
            "group delete GROUP --force",
            "why GROUP",
            "bench publish --size 1024 --publishers 4 --partitions 4 --rate 1000 --json",
            "bench replay --records 1000 --subscribers 2",
            "bench latency --rate 1000 --delivery --duration 5s --warm-up 1s",
            "bench fanout --subscribers 100",
            "bench rebalance --members 100 --partitions 1000 --rounds 5",
            "bench scale --tasks 256 --connections 4 --topic NAME",
            "demo --keep",
            "config --check --config falcon.toml",
            "verify --data-dir DIR --json",
            "salvage --data-dir DIR --out DIR",
            "doctor --data-dir DIR --json",
            "errors --markdown",
            "completions bash",
        ] {
            let words = std::iter::once("falcon").chain(form.split(' '));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{form}: {error}");
            }
        }
    }
}
