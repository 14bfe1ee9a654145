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

/// Replaces this process by the command, so that Ctrl-C and the exit status are the command's own.
pub fn become_command(command: &mut Command) -> Result<ExitCode> {
    let error = command.exec();
    Err(error).with_context(|| format!("{}: cannot be started", line(command)))
}

/// Runs a command to its end and returns its output, or `None` if it fails.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// Returns the command as typed in a shell.
pub fn line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let _ = write!(line, " {}", argument.to_string_lossy());
    }
    line
}

/// Returns this repository's directory.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the repository")
}

/// Returns a command that runs cargo in the repository's directory.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Returns a command that runs the compiler that cargo uses.
pub fn rustc() -> Command {
    let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.current_dir(root());
    command
}

/// Returns cargo's target directory.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

/// Returns cargo's own directory.
pub fn cargo_home() -> Result<PathBuf> {
    home("CARGO_HOME", ".cargo")
}

/// Returns rustup's own directory.
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

/// Finds a program, also in the directories for root that are not on every user's path.
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

/// Returns the words that run a command as root; none if this process is root.
pub fn sudo() -> Vec<&'static str> {
    if is_root() {
        return Vec::new();
    }
    // Without a terminal a password cannot be typed.
    if io::stdin().is_terminal() {
        vec!["sudo"]
    } else {
        vec!["sudo", "-n"]
    }
}

/// Returns a command that runs as root.
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
