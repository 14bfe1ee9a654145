//! `cargo xtask vm`: commands in virtual machines with Debian's kernels, and Debian as their root.

mod apt;
mod cache;
mod cpio;
mod debian;
mod document;
mod initrd;
mod kernel;
mod machine;
mod matrix;
mod root;
mod sources;
mod stanza;
mod supply;
mod system;
mod table;
mod tools;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use apt::Unavailable;
use kernel::{KERNELS, Kernel};
use machine::Job;
use supply::Supply;

/// What to run in which machine.
#[derive(Args, Debug)]
pub struct Arguments {
    /// List the kernels
    #[arg(long, conflicts_with = "command")]
    list: bool,
    /// Try the daemon on these kernels, or on all, and print a table
    #[arg(long, value_name = "NAMES", num_args = 0.., value_delimiter = ',', conflicts_with = "command")]
    kernels: Option<Vec<String>>,
    /// Install the package on these releases of Debian, by default bookworm and trixie, with systemd, and try it
    #[arg(
        long,
        value_name = "RELEASES",
        num_args = 0..,
        value_delimiter = ',',
        conflicts_with_all = ["command", "kernels"]
    )]
    system: Option<Vec<String>>,
    /// With --system: a directory that has both packages, which are otherwise made, with optimisation
    #[arg(long, value_name = "DIR", requires = "system")]
    packages: Option<PathBuf>,
    /// Put the table into docs/kernels.md or docs/reliability.md
    #[arg(long)]
    write: bool,
    /// Succeed, with a line that says so, if kernels cannot be downloaded here
    #[arg(long)]
    if_available: bool,
    /// The kernel, by its suite
    #[arg(long, value_name = "NAME", default_value = "bookworm")]
    kernel: String,
    /// The suite of the root file system; as a rule this host's, so that programs built here run
    #[arg(long)]
    suite: Option<String>,
    /// A file or directory that the machine's working directory has, /in
    #[arg(long, value_name = "PATH")]
    with: Vec<PathBuf>,
    /// Where files go that the command leaves in $OUT
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where the console's output goes
    #[arg(long, value_name = "FILE")]
    console: Option<PathBuf>,
    /// How long the machine may run; three times as long where there is no KVM
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// Memory of the machine
    #[arg(long, value_name = "MIB", default_value_t = 1536)]
    memory: u32,
    /// A command with its arguments, or one word with a script for bash
    #[arg(last = true)]
    command: Vec<String>,
}

/// Runs a command in a machine, tries kernels, or lists them.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match execute(arguments) {
        Err(error) if arguments.if_available && error.is::<Unavailable>() => {
            println!("vm: nothing is run: {error:#}");
            Ok(ExitCode::SUCCESS)
        }
        result => result.context("vm"),
    }
}

fn execute(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        return list();
    }
    let release = match &arguments.suite {
        Some(codename) => debian::release(codename)?,
        None => debian::matching_release()?,
    };
    if let Some(names) = &arguments.kernels {
        return matrix::run(names, release, arguments.write);
    }
    if let Some(names) = &arguments.system {
        return system::run(names, arguments.packages.as_deref(), arguments.write);
    }
    ensure!(
        !arguments.write,
        "--write is for the tables of --kernels and --system"
    );
    let script = machine::script(&arguments.command)?;
    for file in &arguments.with {
        ensure!(
            file.exists(),
            "--with {}: there is no such file",
            file.display()
        );
    }
    let kernel = Kernel::named(&arguments.kernel)?;
    let parts = Supply::new()?.prepare(&[kernel], release)?;
    let timeout = Duration::from_secs(arguments.timeout);
    let machine = parts.machine(&parts.kernels[0], arguments.memory, timeout);
    let job = Job {
        files: &arguments.with,
        script: &script,
        out: arguments.out.as_deref(),
        console: arguments.console.as_deref(),
        may_restart: false,
    };
    let code = machine.run(&job, machine::print)?;
    Ok(ExitCode::from(code))
}

/// Lists the kernels.
fn list() -> Result<ExitCode> {
    let mut supply = Supply::new()?;
    for kernel in KERNELS {
        let packages = match supply.packages(kernel) {
            Ok(packages) => packages,
            Err(error) => {
                println!("{:20} {error:#}", kernel.name);
                continue;
            }
        };
        let is_cached = packages.find(&supply.cache).is_some();
        println!(
            "{:20} {:20} {}{}",
            kernel.name,
            packages.version(),
            if is_cached { "cached" } else { "not cached" },
            if kernel.is_supported {
                ""
            } else {
                ", too old for teredo"
            }
        );
    }
    Ok(ExitCode::SUCCESS)
}
