//! `cargo xtask vm --kernels`: the product on one kernel after the other.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::{
    debian::Release,
    kernel::{KERNELS, Kernel},
    machine::{self, Job},
    supply::{Parts, PreparedKernel, Supply},
    table::{self, Row},
};
use crate::{build, setup, shell};

/// The script that runs in each machine.
const SCRIPT: &str = include_str!("guest/kernels.sh");
/// Test programs that the script runs.
const TESTS: [&str; 13] = [
    "bad_input",
    "devices",
    "differential",
    "respond_differential",
    "xdp_attach",
    "xdp_builds",
    "xdp_decap",
    "xdp_encap",
    "xdp_respond",
    "xdp_state",
    "xdp_vectors",
    "xdp_verifier",
    "xdp_vlan",
];
/// Binaries that the script runs.
const BINARIES: [&str; 2] = ["teredo", "scene"];
/// How long a kernel may take on a machine with KVM.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Mebibytes of memory of a machine.
const MEMORY: u32 = 2048;

/// Tries the named kernels, or all, and prints a table. `write` puts it into docs/kernels.md.
pub fn run(names: &[String], release: &'static Release, write: bool) -> Result<ExitCode> {
    let kernels: Vec<&Kernel> = match names {
        [] => KERNELS.iter().collect(),
        names => names
            .iter()
            .map(|name| Kernel::named(name))
            .collect::<Result<_>>()?,
    };
    // Before the programs, since building takes longer than finding out that there is no network.
    let parts = Supply::new()?.prepare(&kernels, release)?;
    setup::ensure_build()?;
    let programs = programs()?;
    let logs = shell::target().join("vm");
    let mut rows = Vec::new();
    for kernel in &parts.kernels {
        let out = logs.join(kernel.kernel.name);
        let row = attempt(&parts, kernel, programs.path(), &out)?;
        println!("{}", row.summary());
        if !row.is_green() {
            println!("its logs are in {}", out.display());
        }
        rows.push(row);
    }
    let table = table::render(&rows);
    print!("\n{table}");
    if write {
        table::DOCUMENT.write(&table)?;
    }
    Ok(match rows.iter().all(Row::is_green) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Boots one kernel and runs the script.
fn attempt(parts: &Parts, kernel: &PreparedKernel, programs: &Path, out: &Path) -> Result<Row> {
    if out.exists() {
        fs::remove_dir_all(out)?;
    }
    fs::create_dir_all(out)?;
    let (suite, version) = (kernel.kernel.name, kernel.version.clone());
    println!("\n{suite} ({version})");
    let names = ["kernels.sh"].iter().chain(&TESTS).chain(&BINARIES);
    let files: Vec<_> = names.map(|name| programs.join(name)).collect();
    let is_supported = kernel.kernel.is_supported;
    let kind = match is_supported {
        true => "supported",
        false => "unsupported",
    };
    let job = Job {
        files: &files,
        script: &format!("bash ./kernels.sh {kind}"),
        out: Some(out),
        console: Some(&out.join("console")),
        may_restart: false,
    };
    let start = Instant::now();
    // The log tells how far a machine came that leaves no files.
    let mut log = Vec::new();
    let keep = |piece: &[u8]| {
        log.extend_from_slice(piece);
        machine::print(piece)
    };
    // A machine that fails is a red row, and the other kernels are still tried.
    let failure = match parts.machine(kernel, MEMORY, TIMEOUT).run(&job, keep) {
        Ok(0) => None,
        Ok(code) => Some(format!("the script ended with status {code}")),
        Err(error) => Some(format!("{error:#}")),
    };
    Ok(Row {
        suite,
        version,
        is_supported,
        steps: table::steps(&String::from_utf8_lossy(&log)),
        failure,
        seconds: start.elapsed().as_secs(),
    })
}

/// Builds all programs and copies them without their debug information.
fn programs() -> Result<TempDir> {
    let tests = build::everything()?;
    let directory = tempfile::tempdir_in(shell::target())?;
    for name in TESTS {
        let program = tests.get(name);
        let program = program.with_context(|| format!("cargo built no test {name}"))?;
        copy(program, &directory.path().join(name))?;
    }
    for name in BINARIES {
        let program = build::directory(false).join(name);
        copy(&program, &directory.path().join(name))?;
    }
    fs::write(directory.path().join("kernels.sh"), SCRIPT)?;
    Ok(directory)
}

/// Copies a program without its debug information, which is most of it.
pub fn copy(program: &Path, to: &Path) -> Result<()> {
    shell::run(
        Command::new("strip")
            .args(["--strip-debug", "-o"])
            .arg(to)
            .arg(program),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_runs_every_program() {
        for name in TESTS.iter().chain(&BINARIES) {
            assert!(SCRIPT.contains(name), "{name}");
        }
    }
}
