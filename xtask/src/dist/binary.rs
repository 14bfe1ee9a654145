//! The daemon for a machine, with the debug information apart.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{directory, reproducible};
use crate::{setup, shell};

/// A target of the compiler.
#[derive(Clone, Debug)]
pub struct Triple(String);

impl Triple {
    /// Returns the target of this machine, whose binaries use the C library of the system.
    pub fn host() -> Result<Self> {
        let text = shell::output(shell::rustc().arg("-vV")).context("rustc -vV fails")?;
        let mut lines = text.lines();
        let host = lines.find_map(|line| line.strip_prefix("host: "));
        Ok(Self(host.context("rustc -vV prints no host")?.to_owned()))
    }

    /// Returns the target of static binaries for an architecture, and installs its standard library if
    /// it is missing.
    pub fn of_static(architecture: &str) -> Result<Self> {
        let abi = match architecture {
            "arm" | "armv7" => "musleabihf",
            _ => "musl",
        };
        let triple = Self(format!("{architecture}-unknown-linux-{abi}"));
        if !triple.has_library()? {
            let by_hand = format!("rustup target add {}", triple.0);
            eprintln!("dist: {by_hand}");
            shell::run(Command::new("rustup").args(["target", "add", &triple.0])).with_context(
                || {
                    format!(
                        "dist: there is no standard library for {architecture}; known to work are \
                         x86_64 and aarch64; by hand: {by_hand}"
                    )
                },
            )?;
        }
        Ok(triple)
    }

    fn has_library(&self) -> Result<bool> {
        let directory = rustlib()?.join(&self.0).join("lib");
        Ok(directory.is_dir())
    }

    fn is_static(&self) -> bool {
        self.0.contains("-musl")
    }
}

/// A binary and its debug information.
#[derive(Debug)]
pub struct Binary {
    /// The stripped program.
    pub program: PathBuf,
    /// Its debug information, which debuggers find beside it.
    pub debug: PathBuf,
}

impl Binary {
    /// Builds the daemon, and copies it to the directory of the results.
    pub fn build(triple: &Triple) -> Result<Self> {
        setup::ensure_build()?;
        let name = &triple.0;
        let mut command = shell::cargo();
        command.args(["build", "--release", "--package=teredo-userspace", "--bins"]);
        command.args(["--locked", "--target", name]);
        reproducible::prepare(&mut command)?;
        if triple.is_static() {
            // The compiler's own linker, which knows every architecture. Nothing of the daemon is in C.
            let variable = name.to_uppercase().replace('-', "_");
            command.env(format!("CARGO_TARGET_{variable}_LINKER"), "rust-lld");
        }
        shell::run(&mut command)?;
        let built = shell::target().join(name).join("release/teredo");
        let directory = directory().join(name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        split(&built, &directory)
    }
}

/// Splits a program into itself and its debug information.
fn split(built: &Path, directory: &Path) -> Result<Binary> {
    let binary = Binary {
        program: directory.join("teredo"),
        debug: directory.join("teredo.debug"),
    };
    let objcopy = objcopy()?;
    shell::run(
        Command::new(&objcopy)
            .arg("--only-keep-debug")
            .args([built, &binary.debug]),
    )?;
    let mut command = Command::new(&objcopy);
    command.current_dir(directory).arg("--strip-all");
    command.arg("--add-gnu-debuglink=teredo.debug");
    shell::run(command.args([built, &binary.program]))?;
    Ok(binary)
}

/// Returns the compiler's own objcopy, which knows every architecture.
fn objcopy() -> Result<PathBuf> {
    let Triple(host) = Triple::host()?;
    let program = rustlib()?.join(host).join("bin/rust-objcopy");
    ensure!(
        program.is_file(),
        "{} is missing; use a toolchain of rustup, which has it",
        program.display()
    );
    Ok(program)
}

fn rustlib() -> Result<PathBuf> {
    let root = shell::output(shell::rustc().args(["--print", "sysroot"]));
    let root = root.context("rustc --print sysroot fails")?;
    Ok(Path::new(root.trim()).join("lib/rustlib"))
}
