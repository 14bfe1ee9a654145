//! Compiles an eBPF package. Build scripts of crates that embed the object include this module.

use std::{env, ffi::OsString, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};

/// The toolchain that `cargo xtask setup` links where rustup has no nightly with rust-src.
const LINKED_TOOLCHAIN: &str = "teredo-ebpf";

/// Compiles the binaries of `package`, which lies in `directory`, into `OUT_DIR`.
pub fn compile(package: &str, directory: &str) -> Result<()> {
    for name in ["TEREDO_EBPF_TOOLCHAIN", "CARGO_HOME"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let toolchain = toolchain();
    let path = search_path().context("no search path for bpf-linker")?;
    // SAFETY: a build script has one thread until it starts another; nothing else reads the
    // environment meanwhile.
    unsafe {
        env::set_var("PATH", path);
        // Only these crates may use unstable features; a stable compiler that comes with its own
        // core library for BPF does not need to build one.
        env::set_var("RUSTC_BOOTSTRAP", "teredo,capture,teredo_datapath,aya_ebpf");
        // aya-build shows every line that cargo prints as a warning.
        env::set_var("CARGO_TERM_QUIET", "true");
    }
    let package = Package {
        name: package,
        root_dir: directory,
        ..Package::default()
    };
    aya_build::build_ebpf([package], Toolchain::Custom(&toolchain))
        .context("the eBPF program was not built; `cargo xtask setup` gets what it needs")
}

fn toolchain() -> String {
    if let Ok(name) = env::var("TEREDO_EBPF_TOOLCHAIN") {
        return name;
    }
    let linked = Command::new("rustup")
        .args(["run", LINKED_TOOLCHAIN, "rustc", "-V"])
        .output();
    match linked {
        Ok(output) if output.status.success() => LINKED_TOOLCHAIN.to_owned(),
        _ => "nightly".to_owned(),
    }
}

/// `bpf-linker` has to match the compiler's LLVM, so setup keeps ours apart from the user's.
fn search_path() -> Result<OsString> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .context("cargo sets CARGO_HOME")?;
    let mut paths = vec![home.join("teredo-ebpf/bin")];
    paths.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    Ok(env::join_paths(paths)?)
}
