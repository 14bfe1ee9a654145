//! Commands and daemons.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::{Pid, SysconfVar, sysconf},
};
use tempfile::TempDir;

use super::wait::{wait_for, wait_until};

/// Longest time that a daemon may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(10);
/// Lines of a log that a failure shows.
const TAIL: usize = 30;

/// Runs a command to its end and returns its standard output.
///
/// # Errors
///
/// Fails when the command cannot be started or fails, with its command line and standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let result = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", line(command)))?;
    if !result.status.success() {
        let message = String::from_utf8_lossy(&result.stderr).into_owned();
        bail!("{}: {}: {}", line(command), result.status, message.trim());
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

/// The command as typed in a shell.
fn line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let _ = write!(line, " {}", argument.to_string_lossy());
    }
    line
}

/// A background process with a directory of its own, which holds its log.
///
/// Dropping it ends the process: SIGTERM first, so that it can clean up.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    directory: TempDir,
    ended: Option<ExitStatus>,
}

impl Daemon {
    /// Makes a directory for a daemon's files.
    ///
    /// # Errors
    ///
    /// Fails when the directory cannot be made.
    pub fn directory(name: &str) -> Result<TempDir> {
        tempfile::Builder::new()
            .prefix(&format!("teredo-{name}-"))
            .tempdir()
            .context("make a temporary directory")
    }

    /// Starts `command`, its standard output and error going to `log` in `directory`.
    ///
    /// # Errors
    ///
    /// Fails when the process cannot be started.
    pub fn start(name: &str, mut command: Command, directory: TempDir) -> Result<Self> {
        let log = File::create(directory.path().join("log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A Ctrl-C is meant for this process, which ends its daemons itself.
            .process_group(0);
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
        unsafe {
            // If this process is killed, its daemons end too.
            command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
        }
        let child = command
            .spawn()
            .with_context(|| format!("start {}", line(&command)))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            directory,
            ended: None,
        })
    }

    /// The process identifier.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The process's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The output so far.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(self.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines = log.lines().collect::<Vec<_>>();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        format!("log of {}:\n{tail}", self.name)
    }

    /// The exit status once the process has ended.
    ///
    /// # Errors
    ///
    /// Fails when the process cannot be waited for.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Waits for a value that appears while the daemon runs.
    ///
    /// # Errors
    ///
    /// Fails when the daemon ends or the time is over, with the last lines of its log.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        timeout: Duration,
        mut probe: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let what = format!("{}: {what}", self.name);
        let result = wait_for(&what, timeout, || {
            if let Some(value) = probe()? {
                return Ok(Some(value));
            }
            match self.status()? {
                Some(status) => bail!("{what}: it ended with {status}"),
                None => Ok(None),
            }
        });
        result.with_context(|| self.tail())
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// Fails when the process has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    ///
    /// Fails when the process does not end within `timeout`, with the last lines of its log.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        wait_for(&what, timeout, || self.status()).with_context(|| self.tail())
    }

    /// Ends the process with SIGTERM and waits until it has ended.
    ///
    /// # Errors
    ///
    /// Fails when the process does not end within 10 seconds.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.status()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        self.wait(PATIENCE)
    }

    /// Ends the process without warning (SIGKILL).
    ///
    /// # Errors
    ///
    /// Fails when the process cannot be waited for.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        if self.status()?.is_none() {
            self.child.kill()?;
        }
        self.wait(PATIENCE)
    }

    /// CPU time that the process has used, in user and kernel mode.
    ///
    /// # Errors
    ///
    /// Fails when the process has ended.
    pub fn cpu_time(&self) -> Result<Duration> {
        cpu_time(self.pid())
    }

    /// Resident memory, in octets.
    ///
    /// # Errors
    ///
    /// Fails when the process has ended.
    pub fn resident(&self) -> Result<u64> {
        resident(self.pid())
    }
}

/// Resident memory of a process, in octets; a kernel thread has none.
///
/// # Errors
///
/// Fails when the process has ended.
pub fn resident(pid: Pid) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let Some(resident) = status.lines().find_map(|line| line.strip_prefix("VmRSS:")) else {
        return Ok(0);
    };
    let kibibytes = resident.trim().trim_end_matches(" kB").parse::<u64>()?;
    Ok(kibibytes * 1024)
}

/// Memory that the kernel charges for the maps that a process has open, each once, in octets.
///
/// # Errors
///
/// Fails when the process has ended.
pub fn maps(pid: Pid) -> Result<u64> {
    let directory = format!("/proc/{pid}/fdinfo");
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("read {directory}"))? {
        // The file may have been closed meanwhile.
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        // A program has a memlock too, but no map_id.
        if let (Some(id), Some(octets)) = (field(&info, "map_id:"), field(&info, "memlock:")) {
            maps.insert(id, octets);
        }
    }
    Ok(maps.values().sum())
}

/// The number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// CPU time of a process, in user and kernel mode.
///
/// # Errors
///
/// Fails when the process has ended.
pub fn cpu_time(pid: Pid) -> Result<Duration> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let stat = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    // The command, in parentheses, may hold anything; user and system time are the 12th and 13th
    // field after it.
    let fields = stat.rsplit_once(')').context("stat has a command")?.1;
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<u64, _>>()?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let failed = match self.terminate() {
            Ok(status) => status.core_dumped() || status.code() == Some(101),
            Err(_) => self.kill().is_err(),
        };
        if failed || std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
    }
}

/// Waits until a socket is bound to this UDP port in the namespace of the calling thread.
///
/// # Errors
///
/// Fails when none is within `timeout`.
pub fn wait_for_udp_port(port: u16, timeout: Duration) -> Result<()> {
    wait_until(&format!("UDP port {port} is open"), timeout, || {
        udp_port_is_open(port)
    })
}

/// Waits until no socket is bound to this UDP port in the namespace of the calling thread. A process that another test
/// is starting has a copy of every socket for a moment.
///
/// # Errors
///
/// Fails when one still is after `timeout`.
pub fn wait_for_free_udp_port(port: u16, timeout: Duration) -> Result<()> {
    wait_until(&format!("UDP port {port} is free"), timeout, || {
        Ok(!udp_port_is_open(port)?)
    })
}

/// Whether a socket is bound to this UDP port in the namespace of the calling thread.
///
/// # Errors
///
/// Fails when the kernel's table cannot be read.
pub fn udp_port_is_open(port: u16) -> Result<bool> {
    let suffix = format!(":{port:04X}");
    let table = fs::read_to_string("/proc/thread-self/net/udp")?;
    Ok(table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(1))
        .any(|local| local.ends_with(&suffix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_files_are_parsed() {
        let text = "map_type:\t1\nmax_entries:\t4\nmemlock:\t4096\nmap_id:\t17\n";
        assert_eq!(field(text, "memlock:"), Some(4096));
        assert_eq!(field(text, "map_id:"), Some(17));
        assert_eq!(field(text, "absent:"), None);
    }
}
