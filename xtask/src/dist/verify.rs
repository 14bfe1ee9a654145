//! The test of reproducibility: two builds of one commit, octet for octet.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{Choice, reproducible};
use crate::shell;

/// The directories of the two builds, whose paths have different lengths.
const COPIES: [&str; 2] = ["reproducible/one", "reproducible/in/another"];
/// The compiler's wrapper, which has the paths that it replaces.
const WRAPPER: &str = "rustc";

/// Makes the results of the last commit twice, and compares them.
pub fn run(choice: &Choice) -> Result<ExitCode> {
    let epoch = reproducible::epoch()?;
    let commit = commit()?;
    let mut results = Vec::new();
    for copy in COPIES {
        let directory = shell::root().join("target").join(copy);
        check_out(&commit, &directory)?;
        build(&directory, choice, &epoch)?;
        results.push(read(&directory.join("target/dist"))?);
    }
    let [one, other] = &*results else {
        unreachable!("there are two copies")
    };
    ensure!(
        !one.is_empty(),
        "dist: nothing was made, so nothing was compared"
    );
    let names = one.keys().chain(other.keys());
    let mut different: Vec<_> = names
        .filter(|name| one.get(*name) != other.get(*name))
        .collect();
    different.sort();
    different.dedup();
    for name in &different {
        eprintln!("differs: {}", name.display());
    }
    ensure!(
        different.is_empty(),
        "dist: two builds differ; they are in target/{} and target/{}",
        COPIES[0],
        COPIES[1]
    );
    println!("{} files are equal in two builds", one.len());
    fs::remove_dir_all(shell::root().join("target/reproducible"))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the last commit, which may be another one when the second build begins.
fn commit() -> Result<String> {
    let mut git = Command::new("git");
    git.current_dir(shell::root()).args(["rev-parse", "HEAD"]);
    let text = shell::output(&mut git).context("this is no checkout of git")?;
    Ok(text.trim().to_owned())
}

/// Copies a commit into a new directory.
fn check_out(commit: &str, directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let mut git = Command::new("git");
    git.current_dir(shell::root()).args(["archive", commit]);
    let mut archive = git
        .stdout(Stdio::piped())
        .spawn()
        .context("git cannot be started")?;
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--directory").arg(directory);
    if let Some(output) = archive.stdout.take() {
        tar.stdin(output);
    }
    shell::run(&mut tar)?;
    ensure!(archive.wait()?.success(), "git archive {commit} fails");
    Ok(())
}

fn build(directory: &Path, choice: &Choice, epoch: &str) -> Result<()> {
    let mut cargo = shell::cargo();
    cargo.current_dir(directory);
    cargo.env_remove("CARGO_TARGET_DIR");
    cargo.env("SOURCE_DATE_EPOCH", epoch);
    cargo.args(["xtask", "dist"]);
    for (is_chosen, option) in [
        (choice.deb, "--deb"),
        (choice.rpm, "--rpm"),
        (choice.sbom, "--sbom"),
    ] {
        if is_chosen {
            cargo.arg(option);
        }
    }
    for architecture in &choice.statics {
        cargo.args(["--target", architecture]);
    }
    shell::run(&mut cargo)
}

/// Returns the files below a directory with their contents.
fn read(root: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("{} cannot be read", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.strip_prefix(root)?.to_owned();
            if path.is_dir() {
                directories.push(path);
            } else if name != Path::new(WRAPPER) {
                files.insert(name, fs::read(&path)?);
            }
        }
    }
    Ok(files)
}
