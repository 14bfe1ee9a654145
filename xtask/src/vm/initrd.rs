//! What runs before the root file system is there: busybox, the modules for the disks, and a
//! script.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use super::{cpio::Archive, tools::Tools};
use crate::shell;

/// Loads the modules, mounts the root and the kernel's modules, and starts systemd.
pub const INIT: &str = include_str!("guest/init");
/// Modules for disks, their file system and the ports of the machine; with those that they need.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "ext4", "virtio_console"];

/// The archive for a kernel whose modules are below `root`/lib/modules.
pub fn build(tools: &Tools, root: &Path, release: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "modules", "proc", "root", "sys"] {
        archive.directory(directory);
    }
    archive.device("dev/console", 5, 1);
    let busybox = tools.busybox();
    let busybox = fs::read(&busybox).with_context(|| busybox.display().to_string())?;
    archive.file("bin/busybox", &busybox);
    archive.file("init", INIT.as_bytes());
    let mut order = String::new();
    for file in modules(tools, root, release)? {
        let (name, content) = module(tools, Path::new(&file))?;
        archive.file(&format!("modules/{name}"), &content);
        order.push_str(&name);
        order.push('\n');
    }
    archive.file("modules/order", order.as_bytes());
    Ok(archive.finish())
}

/// The files of the modules, each behind those that it needs. Modules that are part of the kernel
/// have none.
fn modules(tools: &Tools, root: &Path, release: &str) -> Result<Vec<String>> {
    let mut files: Vec<String> = Vec::new();
    for module in MODULES {
        let mut command = tools.command("modprobe");
        command
            .args([
                "--show-depends",
                "--ignore-install",
                "--set-version",
                release,
            ])
            .arg("--dirname")
            .arg(root)
            .arg(module);
        let text = shell::output(&mut command)
            .with_context(|| format!("the kernel {release} has no {module}"))?;
        for file in text.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let file = file.trim().to_owned();
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// The name and the uncompressed content of a module.
fn module(tools: &Tools, file: &Path) -> Result<(String, Vec<u8>)> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return Ok((name.into_owned(), fs::read(file)?)),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => bail!("{} is compressed in an unknown way", file.display()),
    };
    let mut command = tools.command(program);
    let output = command.args(["-d", "-c"]).arg(file).output()?;
    if !output.status.success() {
        bail!("{}: {}", shell::line(&command), output.status);
    }
    let name = name.rsplit_once('.').map_or(&*name, |(name, _)| name);
    Ok((name.to_owned(), output.stdout))
}
