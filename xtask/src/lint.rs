//! `cargo xtask lint`.

use anyhow::Result;

use crate::{shell, specification};

/// Checks the format of everything, holds specification, code and tests against each other, and
/// lets clippy look at everything.
pub fn run() -> Result<()> {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    // Reads sources that are formatted.
    specification::check()?;
    // The default members are all but the eBPF programs.
    shell::run(shell::cargo().args(["clippy", "--all-targets", "--", "--deny=warnings"]))?;
    ebpf()
}

/// Checks the eBPF programs, compiled for this host: the compiler for the BPF target has no clippy.
fn ebpf() -> Result<()> {
    let mut command = shell::cargo();
    command
        // The same crates as in the build scripts.
        .env("RUSTC_BOOTSTRAP", "teredo_ebpf,aya_ebpf")
        .args([
            "clippy",
            "--package=teredo-ebpf",
            "--package=teredo-lab-ebpf",
        ])
        // Cargo would build everything again after each change of these settings.
        .arg("--target-dir")
        .arg(shell::target().join("ebpf-lint"))
        // Without a standard library there is no unwinding.
        .args(["--config", "profile.dev.panic=\"abort\""])
        .args(["--", "--deny=warnings"]);
    shell::run(&mut command)
}
