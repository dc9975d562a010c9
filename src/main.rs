//! The `falcon` command: runs a broker, and speaks to one. Everything is in [`cli`].

use std::process::ExitCode;

mod cli;

// The C library's keeps ever more of what is free: docs/adr/0006-allocator.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::main()
}
