//! The `ctwhy` command: arguments in, text out.
fn main() {}
