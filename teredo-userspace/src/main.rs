//! The `teredo` command.
fn main() {}
