//! The unit of systemd.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use teredo_lab::process::output;

use super::workspace;

/// The highest exposure that the unit may have, of 10.
const LIMIT: f64 = 2.5;

#[test]
fn the_unit_exposes_little() -> Result<()> {
    let unit = workspace("packaging/systemd/teredo.service");
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager"]);
    let text = output(command.arg(unit))?;
    let line = text.lines().find(|line| line.contains("exposure level"));
    let line = line.context("no figure")?;
    let figure = line
        .split_whitespace()
        .find_map(|word| word.parse::<f64>().ok());
    ensure!(figure.context("no figure")? < LIMIT, "{text}");
    Ok(())
}
