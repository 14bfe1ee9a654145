//! The programs that read profiles. They have to be of the compiler's LLVM.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use std::process::Command;

use super::{host, version};
use crate::{setup, shell};

/// `llvm-profdata` and `llvm-cov`.
#[derive(Debug)]
pub struct Tools {
    pub profdata: PathBuf,
    pub cov: PathBuf,
}

impl Tools {
    /// Finds the programs, or installs them: from rustup, else from the distribution.
    pub fn ensure() -> Result<Self> {
        if let Some(tools) = Self::find()? {
            return Ok(tools);
        }
        eprintln!("setup: installing the LLVM tools of the compiler");
        shell::output(Command::new("rustup").args(["component", "add", "llvm-tools"]));
        if let Some(tools) = Self::find()? {
            return Ok(tools);
        }
        let package = format!("llvm-{}", major()?);
        setup::install(&[&package])?;
        match Self::find()? {
            Some(tools) => Ok(tools),
            None => bail!("{package} has no llvm-profdata and llvm-cov"),
        }
    }

    fn find() -> Result<Option<Self>> {
        let sysroot = shell::output(shell::rustc().args(["--print", "sysroot"]));
        let sysroot = sysroot.context("rustc --print sysroot fails")?;
        let own = Path::new(sysroot.trim()).join("lib/rustlib").join(host()?);
        let distribution = PathBuf::from(format!("/usr/lib/llvm-{}", major()?));
        let mut directories = [own, distribution].into_iter().map(|path| path.join("bin"));
        Ok(directories.find_map(|directory| {
            let tools = Self {
                profdata: directory.join("llvm-profdata"),
                cov: directory.join("llvm-cov"),
            };
            (tools.profdata.is_file() && tools.cov.is_file()).then_some(tools)
        }))
    }
}

/// Returns the major version of the compiler's LLVM.
fn major() -> Result<String> {
    let version = version("LLVM version")?;
    Ok(version.split('.').next().unwrap_or_default().to_owned())
}
