//! `cargo xtask setup`: what building, running and testing need beyond cargo.

mod packages;
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;
pub use packages::is_installed;

/// Gets everything that is missing.
pub fn ensure() -> Result<()> {
    // First what can be had without the network, then what most likely fails.
    packages::ensure(packages::TOOLS)?;
    ensure_build()
}

/// Gets what building needs, if it is missing.
pub fn ensure_build() -> Result<()> {
    toolchain::ensure()
}

/// Names what is missing.
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
    for what in missing {
        println!("missing: {what}");
    }
    println!("`cargo xtask setup` gets it");
    Ok(ExitCode::FAILURE)
}
