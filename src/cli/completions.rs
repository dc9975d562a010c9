//! `falcon completions SHELL`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::failure::CliError;
use super::output::Output;

/// Arguments of `falcon completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell; for bash: falcon completions bash > /etc/bash_completion.d/falcon
    shell: Shell,
}

/// Prints the script that the shell sources.
pub(crate) fn run(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "falcon", &mut script);
    let mut output = Output::new();
    output.line(script.trim_ascii_end())?;
    output.flush()
}
