//! Manual pages and completions.

use std::path::Path;

use anyhow::Result;

use super::reproducible;
use crate::{setup, shell};

/// Writes `man` and `completions` into the directory.
pub fn make(directory: &Path) -> Result<()> {
    setup::ensure_build()?;
    let mut command = shell::cargo();
    // Without optimisation: the program runs once.
    command.args(["run", "--quiet", "--locked", "--package=teredo-pages", "--"]);
    command.arg(directory);
    reproducible::prepare(&mut command)?;
    shell::run(&mut command)
}
