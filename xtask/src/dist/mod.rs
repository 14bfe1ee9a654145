//! `cargo xtask dist`: what is given to others. Everything goes to `target/dist` of this repository.
//!
//! Two builds of a commit are equal in every octet, wherever they are made: see [`reproducible`] for the
//! means, and [`verify`] for the test.

mod archive;
mod binary;
mod deb;
mod pages;
mod reproducible;
mod rpm;
mod sbom;
mod tools;
pub mod tree;
mod verify;

use std::{fs, path::Path, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;

pub use binary::{Binary, Triple};
pub use pages::make as make_pages;

use crate::shell;

/// What to make; without an option, everything for this machine's architecture.
#[derive(Args, Debug)]
pub struct Arguments {
    /// A package for Debian and Ubuntu
    #[arg(long)]
    deb: bool,
    /// A package for Fedora and other distributions with RPM
    #[arg(long)]
    rpm: bool,
    /// A static binary, alone and as an archive with unit, pages and examples, for this architecture and for
    /// those of --target
    #[arg(long = "static")]
    is_static: bool,
    /// A static binary and its archive for another architecture, such as aarch64
    #[arg(long, value_name = "ARCHITECTURE")]
    target: Vec<String>,
    /// The list of dependencies that the binary is made of, as a CycloneDX SBOM
    #[arg(long)]
    sbom: bool,
    /// Make it twice, from the last commit and in different directories, and compare every octet
    #[arg(long)]
    verify_reproducible: bool,
}

/// Makes what the arguments ask for, and lists the files with their sizes.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let choice = Choice::new(arguments);
    if arguments.verify_reproducible {
        return verify::run(&choice);
    }
    let files = choice.make()?;
    for file in files {
        let size = fs::metadata(&file)
            .with_context(|| format!("{} was not made", file.display()))?
            .len();
        let file = file.strip_prefix(shell::root()).unwrap_or(&file);
        println!("{:>12} octets  {}", size, file.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the directory of the results.
pub fn directory() -> PathBuf {
    // The metadata of the packages names it, so that it cannot be elsewhere.
    shell::root().join("target/dist")
}

/// The results to make.
#[derive(Debug)]
struct Choice {
    deb: bool,
    rpm: bool,
    sbom: bool,
    /// The architectures of static binaries.
    statics: Vec<String>,
}

impl Choice {
    fn new(arguments: &Arguments) -> Self {
        let Arguments {
            deb,
            rpm,
            is_static,
            target,
            sbom,
            ..
        } = arguments;
        let all = !(*deb || *rpm || *is_static || *sbom || !target.is_empty());
        let mut statics = Vec::new();
        if *is_static || all {
            statics.push(std::env::consts::ARCH.to_owned());
        }
        statics.extend(target.iter().cloned());
        statics.dedup();
        Self {
            deb: *deb || all,
            rpm: *rpm || all,
            sbom: *sbom || all,
            statics,
        }
    }

    /// Makes everything, and returns the files.
    fn make(&self) -> Result<Vec<PathBuf>> {
        let directory = directory();
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let mut files = Vec::new();
        if self.deb || self.rpm || !self.statics.is_empty() {
            make_pages(&directory)?;
        }
        for architecture in &self.statics {
            let binary = Binary::build(&Triple::of_static(architecture)?)?;
            files.push(archive::make(&binary, architecture, &directory)?);
            files.extend([binary.program, binary.debug]);
        }
        if self.deb || self.rpm {
            let binary = Binary::build(&Triple::host()?)?;
            stage(&binary, &directory)?;
            files.extend([binary.program, binary.debug]);
        }
        if self.deb {
            files.push(deb::make(&directory, None)?);
        }
        if self.rpm {
            files.push(rpm::make(&directory)?);
        }
        if self.sbom {
            files.push(sbom::make(&directory)?);
        }
        Ok(files)
    }
}

/// Makes packages for Debian that differ in nothing but their versions, in another directory.
pub fn debs(versions: &[&str], to: &Path) -> Result<Vec<PathBuf>> {
    let directory = directory();
    let binary = Binary::build(&Triple::host()?)?;
    make_pages(&directory)?;
    stage(&binary, &directory)?;
    let versions = versions.iter();
    versions
        .map(|version| deb::make(to, Some(version)))
        .collect()
}

/// Lays out the files of a package below `root`, as the metadata in teredo-userspace/Cargo.toml names
/// them.
fn stage(binary: &Binary, directory: &Path) -> Result<()> {
    let root = directory.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    tree::lay_out(
        &tree::files(Path::new("/usr"), &binary.program, directory)?,
        &root,
    )
}

#[cfg(test)]
mod tests {
    const RECIPE: &str = include_str!("../../../packaging/openwrt/Makefile");
    const GUIDE: &str = include_str!("../../../docs/install.md");

    #[test]
    fn recipe_and_guide_name_this_version() {
        let version = env!("CARGO_PKG_VERSION");
        assert!(RECIPE.contains(&format!("\nPKG_VERSION:={version}\n")));
        for name in [
            format!("`teredo_{version}_amd64.deb`"),
            format!("`teredo-{version}-1.x86_64.rpm`"),
        ] {
            assert!(
                GUIDE.contains(&name),
                "docs/install.md does not name {name}"
            );
        }
    }
}
