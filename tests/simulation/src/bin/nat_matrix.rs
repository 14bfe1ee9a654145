//! Measures in the simulation which pairs of clients connect, and draws `docs/nat-matrix.svg`.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use teredo_simulation::matrix::picture;

fn main() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/nat-matrix.svg");
    fs::write(&path, picture::draw()).with_context(|| format!("cannot write {}", path.display()))
}
