//! The compiler and the linker for the eBPF program.
//!
//! The choice is that of teredo-userspace's build script: the toolchain in `TEREDO_EBPF_TOOLCHAIN`,
//! else the linked toolchain `teredo-ebpf`, else rustup's nightly; with the `bpf-linker` of
//! `$CARGO_HOME/teredo-ebpf/bin` before any other.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::UNIX_EPOCH,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::packages;
use crate::shell;

/// Names the toolchain to use, before all others.
const VARIABLE: &str = "TEREDO_EBPF_TOOLCHAIN";
/// The distribution's compiler under rustup.
const LINKED: &str = "teredo-ebpf";
const NIGHTLY: &str = "nightly";
const TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};
/// The linker that setup builds. It has to be built against the compiler's LLVM.
const LINKER: &str = "bpf-linker";
const LINKER_VERSION: &str = "0.13.0";
/// The LLVM versions that it can be built against.
const LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// Whether the toolchain was tried with success and has not changed since.
pub fn is_ready() -> Result<bool> {
    let Ok(stamp) = fs::read_to_string(stamp_file()?) else {
        return Ok(false);
    };
    Ok(stamp == fingerprint(&preferred()?)?)
}

/// Finds or installs a toolchain that can build the eBPF program.
pub fn ensure() -> Result<()> {
    if is_ready()? {
        return Ok(());
    }
    eprintln!("setup: looking for a toolchain that builds eBPF programs");
    let name = choose()?;
    ensure!(
        name == preferred()?,
        "setup: the toolchain {name} works, but the build would take {}",
        preferred()?
    );
    fs::create_dir_all(directory()?)?;
    fs::write(stamp_file()?, fingerprint(&name)?)?;
    eprintln!("setup: the toolchain {name} builds eBPF programs");
    Ok(())
}

/// Returns the toolchain that the build takes now.
fn preferred() -> Result<String> {
    if let Ok(name) = env::var(VARIABLE) {
        return Ok(name);
    }
    let linked = rustup_directory(LINKED)?.join("bin/rustc").exists();
    Ok(if linked { LINKED } else { NIGHTLY }.to_owned())
}

fn choose() -> Result<String> {
    if let Ok(name) = env::var(VARIABLE) {
        prove(&name).with_context(|| format!("{VARIABLE}={name}"))?;
        return Ok(name);
    }
    ensure!(
        shell::find("rustup").is_some(),
        "setup: rustup is missing; by hand: see https://rustup.rs"
    );
    let mut failures = Vec::new();
    for (what, attempt) in [
        (
            "the linked toolchain",
            linked as fn() -> Result<&'static str>,
        ),
        ("rustup's nightly", nightly),
        ("the distribution's compiler", distribution),
        ("a new nightly", new_nightly),
    ] {
        match attempt() {
            Ok(name) => return Ok(name.to_owned()),
            Err(error) => failures.push(format!("  {what}: {error:#}")),
        }
    }
    bail!(
        "setup: there is no toolchain for eBPF:\n{}\nby hand, either of:\n  \
         rustup toolchain install nightly --component rust-src, and {LINKER} {LINKER_VERSION} \
         built against its LLVM (https://github.com/aya-rs/bpf-linker)\n  \
         {VARIABLE}=NAME for a toolchain of rustup that has it all",
        failures.join("\n")
    )
}

/// Tries the toolchain that an earlier setup has linked, and unlinks it if it fails.
fn linked() -> Result<&'static str> {
    ensure!(exists(LINKED), "there is none");
    if let Err(error) = prove(LINKED) {
        shell::output(Command::new("rustup").args(["toolchain", "uninstall", LINKED]));
        return Err(error);
    }
    Ok(LINKED)
}

/// Tries the installed nightly, with rust-src added where it is missing.
fn nightly() -> Result<&'static str> {
    ensure!(exists(NIGHTLY), "there is none");
    if core(NIGHTLY)? == Core::Missing {
        rustup(&["component", "add", "rust-src", "--toolchain", NIGHTLY])?;
    }
    prove(NIGHTLY)?;
    Ok(NIGHTLY)
}

/// Large, and seldom with an LLVM that the distribution has too: the last resort.
fn new_nightly() -> Result<&'static str> {
    ensure!(!exists(NIGHTLY), "there is one that does not serve");
    rustup(&[
        "toolchain",
        "install",
        NIGHTLY,
        "--profile=minimal",
        "--component=rust-src",
        "--no-self-update",
    ])?;
    prove(NIGHTLY)?;
    Ok(NIGHTLY)
}

/// The compiler of Debian or Ubuntu, with its standard library for BPF.
fn distribution() -> Result<&'static str> {
    ensure!(packages::is_debian(), "this is neither Debian nor Ubuntu");
    packages::update();
    let library = shell::output(Command::new("apt-cache").args([
        "search",
        "--names-only",
        "^libstd-rust-.*dev-bpf$",
    ]))
    .and_then(|text| Some(text.split_whitespace().next()?.to_owned()))
    .context("it has no package libstd-rust-*dev-bpf")?;
    // libstd-rust-web-dev-bpf belongs to rustc-web.
    let flavour = library
        .strip_prefix("libstd-rust")
        .and_then(|rest| rest.strip_suffix("-dev-bpf"))
        .unwrap_or_default();
    let compiler = format!("rustc{flavour}");
    let cargo = format!("cargo{flavour}");
    packages::install(&[&compiler, &cargo, &library])?;
    ensure!(
        Path::new("/usr/bin/rustc").exists(),
        "{compiler} has no /usr/bin/rustc"
    );
    rustup(&["toolchain", "link", LINKED, "/usr"])?;
    prove(LINKED)?;
    Ok(LINKED)
}

fn rustup(arguments: &[&str]) -> Result<()> {
    shell::run(
        Command::new("rustup")
            .args(arguments)
            // There is another way, so no long wait for a missing network.
            .env("RUSTUP_MAX_RETRIES", "0")
            .env("RUSTUP_DOWNLOAD_TIMEOUT", "15"),
    )
}

/// Whether rustup runs the compiler of this toolchain. Nothing is downloaded to find out.
fn exists(toolchain: &str) -> bool {
    shell::output(&mut with(toolchain, "rustc", &["-V"])).is_some()
}

fn with(toolchain: &str, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", toolchain, program])
        .args(arguments)
        .env("RUSTUP_AUTO_INSTALL", "0");
    // Cargo's variables for the toolchain of this program do not fit this one.
    for variable in [
        "RUSTUP_TOOLCHAIN",
        "CARGO",
        "RUSTC",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
    ] {
        command.env_remove(variable);
    }
    command
}

/// The source of a toolchain's core library for BPF.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Core {
    /// It is installed compiled.
    Compiled,
    /// It is compiled with the program; only a nightly compiler can.
    Source,
    Missing,
}

fn core(toolchain: &str) -> Result<Core> {
    let root = shell::output(&mut with(toolchain, "rustc", &["--print", "sysroot"]))
        .with_context(|| format!("rustup has no toolchain {toolchain}"))?;
    let rustlib = Path::new(root.trim()).join("lib/rustlib");
    let compiled = fs::read_dir(rustlib.join(TARGET).join("lib"));
    if compiled.is_ok_and(|mut entries| entries.any(|entry| is_core(entry.ok()))) {
        return Ok(Core::Compiled);
    }
    let version = shell::output(&mut with(toolchain, "rustc", &["-V"])).unwrap_or_default();
    let source = rustlib.join("src/rust/library/core/src/lib.rs").exists();
    Ok(if source && version.contains("nightly") {
        Core::Source
    } else {
        Core::Missing
    })
}

fn is_core(entry: Option<fs::DirEntry>) -> bool {
    entry.is_some_and(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

/// Builds a small eBPF program, with a linker made for this toolchain if no other serves.
fn prove(toolchain: &str) -> Result<()> {
    let core = core(toolchain)?;
    ensure!(
        core != Core::Missing,
        "the toolchain {toolchain} has no core library for {TARGET}; by hand: rustup component \
         add rust-src --toolchain {toolchain}"
    );
    if build_probe(toolchain, core).is_ok() {
        return Ok(());
    }
    install_linker(toolchain)?;
    build_probe(toolchain, core)
}

/// A whole program, so that the linker runs too.
const PROBE: &str = r#"#![no_std]
#![no_main]
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn probe(context: *const u32) -> u32 {
    unsafe { core::ptr::read_volatile(context) }
}
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
"#;
const PROBE_MANIFEST: &str = r#"[package]
name = "probe"
edition = "2024"
[workspace]
[profile.release]
panic = "abort"
lto = true
debug = 2
"#;

fn build_probe(toolchain: &str, core: Core) -> Result<()> {
    let directory = shell::target().join("setup/probe");
    fs::create_dir_all(directory.join("src"))?;
    fs::write(directory.join("Cargo.toml"), PROBE_MANIFEST)?;
    fs::write(directory.join("src/main.rs"), PROBE)?;
    let mut command = with(toolchain, "cargo", &["build", "--quiet", "--release"]);
    command
        .args(["--target", TARGET])
        .current_dir(&directory)
        .env("CARGO_TARGET_DIR", directory.join("target"))
        .env("RUSTFLAGS", "-Cdebuginfo=2 -Clink-arg=--btf")
        .env("PATH", search_path()?);
    if core == Core::Source {
        command.args(["-Z", "build-std=core"]);
    }
    // A linker that was exchanged does not make cargo link again.
    let _ = fs::remove_dir_all(directory.join("target").join(TARGET));
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = message.lines().take(12).collect::<Vec<_>>().join("\n    ");
    bail!("the toolchain {toolchain} with {LINKER} builds no eBPF program:\n    {last}")
}

/// Builds `bpf-linker` against the LLVM that the toolchain has.
fn install_linker(toolchain: &str) -> Result<()> {
    let version = llvm(toolchain)?;
    ensure!(
        LLVM.contains(&version),
        "{LINKER} {LINKER_VERSION} knows the LLVM versions {} to {}, not {version} of the \
         toolchain {toolchain}; by hand: cargo binstall {LINKER}",
        LLVM.start(),
        LLVM.end()
    );
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{version}"));
    let packages = [
        format!("llvm-{version}-dev"),
        format!("libpolly-{version}-dev"),
        "zlib1g-dev".to_owned(),
        "libzstd-dev".to_owned(),
        "g++".to_owned(),
    ];
    let missing = packages
        .iter()
        .map(String::as_str)
        .filter(|package| !packages::is_installed(package))
        .collect::<Vec<_>>();
    if !missing.is_empty() {
        ensure!(
            packages::is_debian()
                && missing
                    .iter()
                    .all(|package| packages::is_available(package)),
            "LLVM {version} to build {LINKER} against is not to be had here; by hand: cargo \
             binstall {LINKER}"
        );
        packages::install(&missing)?;
    }
    eprintln!("setup: building {LINKER} {LINKER_VERSION} against LLVM {version}");
    shell::run(
        shell::cargo()
            .args([
                "install",
                LINKER,
                "--version",
                LINKER_VERSION,
                "--quiet",
                "--locked",
            ])
            .args(["--force", "--no-default-features"])
            .args(["--features", &format!("llvm-{version}")])
            .arg("--root")
            .arg(directory()?)
            .env("LLVM_PREFIX", prefix)
            .env_remove("CARGO_TARGET_DIR"),
    )
}

/// Returns the major version of the toolchain's LLVM.
fn llvm(toolchain: &str) -> Result<u32> {
    let text = shell::output(&mut with(toolchain, "rustc", &["-vV"])).unwrap_or_default();
    parse_llvm(&text).with_context(|| format!("the toolchain {toolchain} names no LLVM version"))
}

fn parse_llvm(text: &str) -> Option<u32> {
    text.lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?
        .split('.')
        .next()?
        .parse()
        .ok()
}

/// Returns the directory of setup's linker and of the proof.
fn directory() -> Result<PathBuf> {
    Ok(shell::cargo_home()?.join("teredo-ebpf"))
}

fn stamp_file() -> Result<PathBuf> {
    Ok(directory()?.join("proved"))
}

fn rustup_directory(toolchain: &str) -> Result<PathBuf> {
    Ok(shell::rustup_home()?.join("toolchains").join(toolchain))
}

/// The build script's.
fn search_path() -> Result<OsString> {
    let mut paths = vec![directory()?.join("bin")];
    paths.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    Ok(env::join_paths(paths)?)
}

/// Returns the state that the proof holds for: the toolchain, its compiler and the linker, by size and time. No
/// process is started to find out.
fn fingerprint(toolchain: &str) -> Result<String> {
    // rustup's directories have the host's name behind the channel's.
    let host = fs::read_dir(shell::rustup_home()?.join("toolchains"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name == toolchain || name.starts_with(&format!("{toolchain}-"))
        })
        .unwrap_or_default();
    let linker = env::split_paths(&search_path()?)
        .map(|directory| directory.join(LINKER))
        .find(|path| path.is_file())
        .unwrap_or_default();
    let mut lines = vec![toolchain.to_owned()];
    for file in [host.join("bin/rustc"), linker] {
        let Ok(metadata) = fs::metadata(&file) else {
            lines.push(format!("{} missing", file.display()));
            continue;
        };
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH)?;
        lines.push(format!(
            "{} {} {}",
            file.display(),
            metadata.len(),
            modified.as_secs()
        ));
    }
    lines.push(String::new());
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_version_of_llvm() {
        assert_eq!(
            parse_llvm("release: 1.96.0\nLLVM version: 22.1.8\n"),
            Some(22)
        );
        assert_eq!(parse_llvm("release: 1.96.0\n"), None);
    }
}
