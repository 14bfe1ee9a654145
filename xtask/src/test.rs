//! `cargo xtask test`.

use std::{env::consts::ARCH, thread};

use anyhow::Result;

use crate::{build, shell};

/// Runs every test, or those with `filter` in their names. Test programs run as root, because many
/// of them make network namespaces or load XDP programs.
pub fn run(filter: Option<&str>) -> Result<()> {
    build::everything()?;
    let daemon = build::directory(false).join("teredo");
    let mut command = shell::cargo();
    // The default members are all but the eBPF programs, which run nowhere but in the kernel.
    command
        .args(["test", "--no-fail-fast"])
        .env("TEREDO_BIN", daemon);
    let sudo = shell::sudo();
    if !sudo.is_empty() {
        let variable = format!(
            "CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER",
            ARCH.to_uppercase()
        );
        let runner = format!(
            "{} --preserve-env=TEREDO_BIN,RUST_BACKTRACE,PROPTEST_CASES",
            sudo.join(" ")
        );
        command.env(variable, runner);
    }
    if let Some(filter) = filter {
        command.arg(filter);
    }
    // Slow tests wait more than they compute.
    let threads = 2 * thread::available_parallelism()?.get();
    command.args(["--", &format!("--test-threads={}", threads.min(8))]);
    shell::run(&mut command)
}
