//! The `falcon` command: runs a broker, and speaks to one. Everything is in [`cli`].

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main()
}
