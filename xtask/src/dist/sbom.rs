//! The dependencies of the binary, as a CycloneDX software bill of materials.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::tools;
use crate::shell;

/// The name of the file, without its ending.
const NAME: &str = "teredo.cdx";

/// Writes the list.
pub fn make(directory: &Path) -> Result<PathBuf> {
    let mut command = tools::CYCLONEDX.command()?;
    command.args(["--manifest-path", "teredo-userspace/Cargo.toml"]);
    command.args(["--format", "json", "--override-filename", NAME]);
    // Without those of tests.
    command.args(["--no-build-deps", "--quiet"]);
    shell::run(&mut command)?;
    let file = directory.join(format!("{NAME}.json"));
    // It writes beside the manifest of each package of the workspace, and only there.
    for manifest in manifests()? {
        let made = manifest.with_file_name(format!("{NAME}.json"));
        if manifest.ends_with("teredo-userspace/Cargo.toml") {
            let list = fs::read_to_string(&made)
                .with_context(|| format!("{} is missing", made.display()))?;
            // Packages of the workspace are named by their paths.
            let list = list.replace(&shell::root().display().to_string(), "/teredo");
            fs::write(&file, list).with_context(|| format!("cannot write {}", file.display()))?;
        }
        let _ = fs::remove_file(made);
    }
    Ok(file)
}

fn manifests() -> Result<Vec<PathBuf>> {
    let mut command = shell::cargo();
    command.args(["metadata", "--no-deps", "--format-version=1"]);
    let text = shell::output(&mut command).context("cargo metadata fails")?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let paths = packages.filter_map(|package| package["manifest_path"].as_str());
    Ok(paths.map(PathBuf::from).collect())
}
