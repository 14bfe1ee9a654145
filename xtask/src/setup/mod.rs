//! `cargo xtask setup`: the requirements of building, running and testing beyond cargo.

mod packages;
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;
pub use packages::{Tool, ensure as ensure_tools, install, is_installed};

/// Installs everything that is missing.
pub fn ensure() -> Result<()> {
    // The toolchain last: it takes longest and is most likely to fail.
    packages::ensure(packages::TOOLS)?;
    ensure_build()
}

/// Installs the requirements of building that are missing.
pub fn ensure_build() -> Result<()> {
    toolchain::ensure()
}

/// Prints the names of missing requirements.
pub fn check() -> Result<ExitCode> {
    let mut missing = packages::missing(packages::TOOLS)
        .map(|tool| format!("{} (package {})", tool.program, tool.package))
        .collect::<Vec<_>>();
    if !toolchain::is_ready()? {
        missing.push("a toolchain for eBPF with its linker, or the proof that it works".to_owned());
    }
    if missing.is_empty() {
        println!("nothing is missing");
        return Ok(ExitCode::SUCCESS);
    }
    for name in missing {
        println!("missing: {name}");
    }
    println!("`cargo xtask setup` installs it");
    Ok(ExitCode::FAILURE)
}
