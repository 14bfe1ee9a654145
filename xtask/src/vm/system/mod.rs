//! `cargo xtask vm --system`: the package on releases of Debian with systemd.

mod table;
mod walk;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

pub use table::DOCUMENT;
use table::Report;
use walk::Walk;

use super::{
    debian,
    kernel::Kernel,
    machine,
    machine::Job,
    matrix,
    supply::{Parts, Supply},
};
use crate::{build, dist, setup, shell};

/// The releases that are tried by default. The package is for them and for later ones.
const RELEASES: [&str; 2] = ["bookworm", "trixie"];
/// The scripts in the machine. The first one is called.
const SCRIPTS: [(&str, &str); 5] = [
    ("system.sh", include_str!("../guest/system/system.sh")),
    ("world.sh", include_str!("../guest/system/world.sh")),
    ("traffic.sh", include_str!("../guest/system/traffic.sh")),
    ("traces.sh", include_str!("../guest/system/traces.sh")),
    ("walk.sh", include_str!("../guest/system/walk.sh")),
];
/// The program that counts packets.
const STREAMS: &str = "streams";
/// How long a release may take on a machine with KVM.
const TIMEOUT: Duration = Duration::from_secs(900);
/// Mebibytes of memory of a machine.
const MEMORY: u32 = 2048;

/// Tries the package on the named releases, or on all, and prints tables. `packages` has the packages if they
/// are not to be made; `write` puts the tables into docs/reliability.md.
pub fn run(names: &[String], packages: Option<&Path>, write: bool) -> Result<ExitCode> {
    let names = match names {
        [] => RELEASES.map(str::to_owned).to_vec(),
        names => names.to_vec(),
    };
    // Before the package, since building takes longer than finding out that there is no network.
    let mut machines = Vec::new();
    for name in &names {
        let release = debian::release(name)?;
        let kernel = Kernel::named(name)?;
        machines.push(Supply::new()?.prepare(&[kernel], release)?);
    }
    setup::ensure_build()?;
    let walk = Walk::new()?;
    let files = Files::new(&walk, packages)?;
    let mut reports = Vec::new();
    for parts in &machines {
        let report = attempt(parts, &files)?;
        println!("{}", report.summary());
        reports.push(report);
    }
    let tables = table::render(&reports);
    print!("\n{tables}");
    if write {
        DOCUMENT.write(&tables)?;
    }
    Ok(match reports.iter().all(Report::is_green) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Boots a release and runs the script.
fn attempt(parts: &Parts, files: &Files) -> Result<Report> {
    let kernel = &parts.kernels[0];
    let suite = kernel.kernel.name;
    let out = shell::target().join("vm/system").join(suite);
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    fs::create_dir_all(&out)?;
    println!(
        "\n{suite} ({}); its logs will be in {}",
        kernel.version,
        out.display()
    );
    let job = Job {
        files: &files.paths,
        script: &files.script,
        out: Some(&out),
        console: Some(&out.join("console")),
        may_restart: true,
    };
    let start = Instant::now();
    let mut log = Vec::new();
    let keep = |piece: &[u8]| {
        log.extend_from_slice(piece);
        machine::print(piece)
    };
    // A machine that fails is a red column, and the other releases are still tried.
    let failure = match parts.machine(kernel, MEMORY, TIMEOUT).run(&job, keep) {
        Ok(0) => None,
        Ok(code) => Some(format!("the script ended with status {code}")),
        Err(error) => Some(format!("{error:#}")),
    };
    let log = String::from_utf8_lossy(&log);
    Ok(Report::new(suite, &log, failure, start.elapsed().as_secs()))
}

/// What the machines have: packages, programs, scripts and the commands of the guide.
#[derive(Debug)]
struct Files {
    _directory: TempDir,
    paths: Vec<PathBuf>,
    script: String,
}

impl Files {
    fn new(walk: &Walk, packages: Option<&Path>) -> Result<Self> {
        let this = env!("CARGO_PKG_VERSION");
        let next = walk::version(&walk.upgrade).context("docs/install.md installs no package")?;
        build::packages(&["teredo-scene"], false)?;
        let directory = tempfile::tempdir_in(shell::target())?;
        let path = directory.path();
        match packages {
            Some(packages) => {
                for version in [this, next] {
                    let name = format!("teredo_{version}_amd64.deb");
                    fs::copy(packages.join(&name), path.join(&name))
                        .with_context(|| format!("{} has no {name}", packages.display()))?;
                }
            }
            None => drop(dist::debs(&[this, next], path)?),
        }
        matrix::copy(&build::directory(false).join(STREAMS), &path.join(STREAMS))?;
        for (name, text) in SCRIPTS {
            fs::write(path.join(name), text)?;
        }
        for (name, commands) in [
            ("walk", walk.to_first_packet.join("\n")),
            ("walk-upgrade", walk.upgrade.clone()),
            ("walk-roll-back", walk.roll_back.clone()),
            ("walk-remove", walk.remove.clone()),
            ("walk-purge", walk.purge.clone()),
        ] {
            fs::write(path.join(name), format!("{commands}\n"))?;
        }
        Ok(Self {
            paths: entries(path)?,
            script: format!("bash ./{} {this} {next}", SCRIPTS[0].0),
            _directory: directory,
        })
    }
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?;
    Ok(entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_does_every_step() {
        let (_, script) = SCRIPTS[0];
        for name in table::steps() {
            assert!(script.contains(&format!("step {name} ")), "{name}");
        }
        let done = script
            .lines()
            .filter(|line| line.trim().starts_with("step "));
        assert_eq!(done.count(), table::steps().count());
    }

    #[test]
    fn the_script_sources_the_others() {
        let (_, script) = SCRIPTS[0];
        for (name, _) in &SCRIPTS[1..] {
            assert!(script.contains(&format!(". ./{name}\n")), "{name}");
        }
    }
}
