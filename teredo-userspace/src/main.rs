//! The `teredo` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    teredo::cli::main()
}
