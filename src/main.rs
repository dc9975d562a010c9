//! The `falcon` command: runs a broker, and speaks to one. Everything is in [`cli`].

use std::process::ExitCode;

mod cli;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::main()
}
