//! The `falcon` command: runs a broker, and speaks to one.
fn main() {}
