//! `cargo xtask lint`.

use anyhow::Result;

use crate::{guide, shell, specification};

/// Checks the format of everything, the specification and the guide against code and tests, and the
/// dependencies against `deny.toml`; then runs clippy on everything.
pub fn run() -> Result<()> {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    // Reads sources that are formatted.
    specification::check()?;
    guide::check()?;
    dependencies()?;
    // The default members are all but the eBPF programs.
    shell::run(shell::cargo().args(["clippy", "--all-targets", "--", "--deny=warnings"]))?;
    ebpf()
}

/// Checks licences, duplicates and sources of the dependencies, if cargo-deny is installed. Setup does
/// not install it: it takes minutes to compile, and only a change of `Cargo.lock` or `deny.toml` can
/// change its result.
fn dependencies() -> Result<()> {
    if !is_cargo_deny_installed() {
        eprintln!(
            "lint: dependencies not checked, cargo-deny is missing: `cargo install --locked \
             cargo-deny`"
        );
        return Ok(());
    }
    let mut command = shell::cargo();
    command.args(["deny", "--log-level=error", "check"]);
    // Advisories need the network.
    shell::run(command.args(["licenses", "bans", "sources"]))
}

/// Whether cargo finds its subcommand `deny`: on the path or among its own programs.
fn is_cargo_deny_installed() -> bool {
    let own = shell::cargo_home().map(|home| home.join("bin/cargo-deny"));
    shell::find("cargo-deny").is_some() || own.is_ok_and(|path| path.is_file())
}

/// Checks the eBPF programs, compiled for this host: the compiler for the BPF target has no clippy.
fn ebpf() -> Result<()> {
    let mut command = shell::cargo();
    command
        // The same crates as in the build scripts.
        .env("RUSTC_BOOTSTRAP", "teredo_ebpf,teredo_datapath,aya_ebpf")
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
