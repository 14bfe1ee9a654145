//! Commands, programs and paths.

use std::{
    env,
    ffi::OsStr,
    fmt::Write as _,
    io::{self, IsTerminal as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// Runs a command to its end, with our standard output and error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("{}: cannot be started", line(command)))?;
    ensure!(status.success(), "{}: {status}", line(command));
    Ok(())
}

/// Runs a command to its end. What it prints is of interest only if it fails, as the error.
pub fn run_quietly(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{}: cannot be started", line(command)))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{}: {}: {}",
        command.get_program().to_string_lossy(),
        output.status,
        text.trim()
    );
    Ok(())
}

/// Becomes the command, so that Ctrl-C and the exit status are its own.
pub fn become_command(command: &mut Command) -> Result<ExitCode> {
    let error = command.exec();
    Err(error).with_context(|| format!("{}: cannot be started", line(command)))
}

/// Runs a command to its end and returns what it prints; nothing when it fails.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let _ = write!(line, " {}", argument.to_string_lossy());
    }
    line
}

/// This repository's directory.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the repository")
}

/// Cargo, in the repository's directory.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

/// Cargo's own directory.
pub fn cargo_home() -> Result<PathBuf> {
    home("CARGO_HOME", ".cargo")
}

/// Rustup's own directory.
pub fn rustup_home() -> Result<PathBuf> {
    home("RUSTUP_HOME", ".rustup")
}

/// A directory that a variable names, or else one below the home directory.
pub fn home(variable: &str, default: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Ok(path.into());
    }
    let home = env::home_dir().with_context(|| format!("neither {variable} nor HOME is set"))?;
    Ok(home.join(default))
}

/// Where a program is, also those for root that are not on everybody's path.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_some_and(|id| id.trim() == "0")
}

/// The beginning of a command that becomes root; empty for root.
pub fn sudo() -> Vec<&'static str> {
    if is_root() {
        return Vec::new();
    }
    // Nobody is there to type a password.
    if io::stdin().is_terminal() {
        vec!["sudo"]
    } else {
        vec!["sudo", "-n"]
    }
}

/// A command that runs as root.
pub fn as_root(program: impl AsRef<OsStr>) -> Command {
    match sudo().split_first() {
        None => Command::new(program),
        Some((sudo, options)) => {
            let mut command = Command::new(sudo);
            command.args(options).arg(program);
            command
        }
    }
}
