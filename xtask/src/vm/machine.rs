//! A virtual machine from its start to its end.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use super::{cache::InUse, debian::Architecture, kernel, tools::Tools};
use crate::shell;

/// How much longer everything may take where there is no KVM.
const EMULATION: u32 = 3;
/// Octets of the disk that files leave the machine by, most of which are never written.
const OUT_SIZE: u64 = 1 << 30;
/// Lines of the console that a machine's failure is told with.
const LAST_LINES: usize = 30;

/// A virtual machine that can be started.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The programs to run it with.
    pub tools: &'a Tools,
    /// The machine's architecture.
    pub architecture: &'static Architecture,
    /// The kernel.
    pub kernel: &'a kernel::Files,
    /// The image of the root file system, which stays as it is.
    pub root: &'a Path,
    /// Where all of this is, and files are while the machine runs.
    pub cache: &'a InUse,
    /// Mebibytes.
    pub memory: u32,
    /// How long it may run on a machine with KVM.
    pub timeout: Duration,
}

/// What runs in a machine.
#[derive(Debug)]
pub struct Job<'a> {
    /// Files and directories that the machine's working directory has.
    pub files: &'a [PathBuf],
    /// A script for bash.
    pub script: &'a str,
    /// Where the files go that the script leaves in `$OUT`.
    pub out: Option<&'a Path>,
    /// Where the console's output goes, besides messages of failures.
    pub console: Option<&'a Path>,
    /// Whether the machine may start again, after which the script runs once more, with the files of before.
    /// Otherwise that is its end.
    pub may_restart: bool,
}

/// The files of a run.
struct Run {
    directory: TempDir,
}

impl Run {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Machine<'_> {
    /// Runs a job to its end, gives its output to `log` as it comes, and returns the script's exit
    /// status.
    pub fn run(&self, job: &Job<'_>, mut log: impl FnMut(&[u8]) -> Result<()>) -> Result<u8> {
        let run = Run {
            directory: tempfile::tempdir_in(self.cache.runs())?,
        };
        pack(job, &run)?;
        File::create(run.path("out"))?.set_len(OUT_SIZE)?;
        let has_kvm = self.architecture.has_kvm();
        let timeout = self.timeout * if has_kvm { 1 } else { EMULATION };
        let mut command = self.command(&run, has_kvm);
        if !job.may_restart {
            command.arg("-no-reboot");
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(run.path("errors"))?)
            .spawn()
            .with_context(|| format!("{} cannot be started", self.architecture.qemu))?;
        let ended = follow(&mut child, timeout, &mut log);
        if ended.is_err() || matches!(ended, Ok(None)) {
            let _ = child.kill();
        }
        let status = child.wait()?;
        let ended = ended?;
        let console = fs::read(run.path("console")).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        if let Some(file) = job.console {
            fs::write(file, &*console)?;
        }
        let end = || last_lines(&console);
        if ended.is_none() {
            bail!(
                "the machine was not ready after {} s (--timeout sets another limit); its \
                 console ended with:\n{}",
                timeout.as_secs(),
                end()
            );
        }
        let result = fs::read_to_string(run.path("status")).unwrap_or_default();
        match result.trim() {
            "full" => bail!("the files in $OUT take more than {} MiB", OUT_SIZE >> 20),
            result => {
                let code = result.parse::<u8>().ok();
                let code = code.with_context(|| failure(&run, status, &end()))?;
                if let Some(out) = job.out {
                    unpack(&run, out)?;
                }
                Ok(code)
            }
        }
    }

    /// The emulator with all of its arguments.
    fn command(&self, run: &Run, has_kvm: bool) -> Command {
        let mut command = bound_to_us(self.tools.qemu());
        let (accelerator, cpu) = match has_kvm {
            true => ("kvm", "host"),
            false => ("tcg,thread=multi,tb-size=256", "max"),
        };
        command
            .args(["-machine", self.architecture.machine])
            .args(["-accel", accelerator, "-cpu", cpu, "-smp", "2"])
            .args(["-m", &self.memory.to_string()])
            .args(["-nodefaults", "-no-user-config"])
            .args(["-display", "none"])
            .arg("-kernel")
            .arg(self.kernel.image())
            .arg("-initrd")
            .arg(self.kernel.initrd())
            .arg("-append")
            .arg(format!(
                "console={} quiet rw net.ifnames=0 mitigations=off panic=-1",
                self.architecture.console
            ))
            .args(["-device", "virtio-rng-pci"])
            .arg("-serial")
            .arg(format!("file:{}", escaped(&run.path("console"))))
            .args(["-device", "virtio-serial-pci"]);
        let status = format!("file,path={}", escaped(&run.path("status")));
        for (name, backend) in [("log", "file,path=/dev/stdout"), ("status", &status)] {
            let (kind, options) = backend.split_once(',').unwrap_or((backend, ""));
            command
                .arg("-chardev")
                .arg(format!("{kind},id={name},{options}"))
                .arg("-device")
                .arg(format!("virtserialport,chardev={name},name={name}"));
        }
        for (name, file, options) in [
            ("root", self.root, "snapshot=on"),
            ("modules", &self.kernel.modules(), "readonly=on"),
            ("in", &run.path("in"), "readonly=on"),
            ("out", &run.path("out"), "cache=unsafe"),
        ] {
            command
                .arg("-drive")
                .arg(format!(
                    "if=none,id={name},format=raw,{options},file={}",
                    escaped(file)
                ))
                .arg("-device")
                .arg(format!("virtio-blk-pci,drive={name},serial={name}"));
        }
        command
    }
}

/// A path in an option of the emulator, where commas separate.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The command, killed when this process ends.
fn bound_to_us(command: Command) -> Command {
    let Some(setpriv) = shell::find("setpriv") else {
        return command;
    };
    let mut bound = Command::new(setpriv);
    bound
        .args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    for (variable, value) in command.get_envs() {
        if let Some(value) = value {
            bound.env(variable, value);
        }
    }
    bound
}

/// Passes on what the machine's log port has until the machine ends; returns nothing if that takes
/// longer than `timeout`.
fn follow(
    child: &mut Child,
    timeout: Duration,
    log: &mut impl FnMut(&[u8]) -> Result<()>,
) -> Result<Option<()>> {
    let deadline = Instant::now() + timeout;
    let pieces = pieces(child)?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match pieces.recv_timeout(left) {
            Ok(piece) => log(&piece?)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(Some(())),
            Err(RecvTimeoutError::Timeout) => return Ok(None),
        }
    }
}

/// What the log port has, as it comes.
fn pieces(child: &mut Child) -> Result<Receiver<io::Result<Vec<u8>>>> {
    let mut output = child.stdout.take().context("the output is a pipe")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let piece = output
                .read(&mut buffer)
                .map(|length| buffer[..length].to_vec());
            let is_last = piece.as_ref().map_or(true, Vec::is_empty);
            if sender.send(piece).is_err() || is_last {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Puts the files and the script into an archive on the machine's disk.
fn pack(job: &Job<'_>, run: &Run) -> Result<()> {
    fs::write(run.path(".command"), job.script)?;
    let mut command = Command::new("tar");
    command
        .arg("--create")
        .arg("--file")
        .arg(run.path("in"))
        .args(["--owner=root", "--group=root", "--directory"])
        .arg(run.directory.path())
        .arg(".command");
    for file in job.files {
        // The name that the file has by itself, even if it was called `..`.
        let file = file
            .canonicalize()
            .with_context(|| format!("--with {}", file.display()))?;
        let (Some(parent), Some(name)) = (file.parent(), file.file_name()) else {
            bail!("--with {}: not the whole file system", file.display());
        };
        let mut added = OsString::from("--add-file=");
        added.push(name);
        command.arg("--directory").arg(parent).arg(added);
    }
    shell::run_quietly(&mut command)?;
    // A disk has whole sectors.
    let disk = File::options().append(true).open(run.path("in"))?;
    disk.set_len(disk.metadata()?.len().next_multiple_of(1 << 20))?;
    Ok(())
}

fn unpack(run: &Run, out: &Path) -> Result<()> {
    let context = || format!("--out {}", out.display());
    fs::create_dir_all(out).with_context(context)?;
    let mut command = Command::new("tar");
    command
        .arg("--extract")
        .arg("--no-same-owner")
        .arg("--file")
        .arg(run.path("out"))
        .arg("--directory")
        .arg(out);
    shell::run_quietly(&mut command).with_context(context)
}

/// Why a machine ended without the script's exit status.
fn failure(run: &Run, status: ExitStatus, console: &str) -> String {
    let errors = fs::read_to_string(run.path("errors")).unwrap_or_default();
    if !status.success() {
        return format!("the emulator failed, {status}: {}", errors.trim());
    }
    format!("the machine ended before the command did; its console ended with:\n{console}")
}

fn last_lines(text: &str) -> String {
    let lines = text.lines().map(str::trim_end);
    let lines = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

/// Gives a log to standard output.
pub fn print(piece: &[u8]) -> Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(piece)?;
    Ok(output.flush()?)
}

/// The script that runs a command: a single word may hold any script, several are a command with
/// its arguments.
pub fn script(command: &[String]) -> Result<String> {
    ensure!(
        !command.is_empty(),
        "there is nothing to run; name it behind --"
    );
    Ok(match command {
        [script] => script.clone(),
        words => words
            .iter()
            .map(|word| quoted(word))
            .collect::<Vec<_>>()
            .join(" "),
    })
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_the_words_of_a_command_but_not_a_script() -> Result<()> {
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(script(&words(&["uname -r; ls"]))?, "uname -r; ls");
        assert_eq!(
            script(&words(&["echo", "it's", "$OUT"]))?,
            r"'echo' 'it'\''s' '$OUT'"
        );
        assert!(script(&[]).is_err());
        Ok(())
    }

    #[test]
    fn tells_the_last_lines_without_empty_ones() {
        let text = (0..50)
            .map(|number| format!("{number}\r\n\r\n"))
            .collect::<String>();
        let lines = last_lines(&text);
        assert_eq!(lines.lines().count(), LAST_LINES);
        assert!(lines.ends_with("\n49"));
        assert_eq!(last_lines(""), "");
    }
}
