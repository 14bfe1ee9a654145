//! Network namespaces.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    os::{
        fd::AsFd as _,
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    panic,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid},
};
use teredo::datapath::xdp::remove_leftovers;

use super::{process::output, wait::wait_until};

/// Directory in which `ip netns` keeps its namespaces.
const DIRECTORY: &str = "/run/netns";
/// Directory in which daemons pin their BPF objects; its entries have the names of the namespaces.
const PINS: &str = "/sys/fs/bpf/teredo";
/// Prefix of the names of all our namespaces; the process identifier follows.
const PREFIX: &str = "teredo-";

/// A network namespace of this process, named `teredo-PID-NUMBER-NAME`, or one that is there already.
///
/// Dropping one of this process ends every process in it and deletes it, with all its interfaces.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
    file: File,
    /// Whether this process made it.
    is_ours: bool,
}

impl Namespace {
    /// Makes a namespace: loopback up, duplicate address detection, reverse path filter and
    /// forwarding off.
    ///
    /// # Errors
    ///
    /// Fails without root, or when `ip` fails.
    pub fn new(name: &str) -> Result<Self> {
        static SWEEP: Once = Once::new();
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        // `ip netns add` sets up the directory's mount, which is no atomic operation.
        static ADD: Mutex<()> = Mutex::new(());

        ensure!(
            Uid::effective().is_root(),
            "network namespaces need root: run this through `cargo xtask`"
        );
        SWEEP.call_once(sweep);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{name}", std::process::id());
        {
            let _guard = ADD.lock().unwrap_or_else(PoisonError::into_inner);
            output(Command::new("ip").args(["netns", "add", &name]))?;
        }
        let mut namespace = Self::open(&name)?;
        namespace.is_ours = true;
        namespace.ip("link set lo up")?;
        for (key, value) in [
            ("net.ipv6.conf.all.disable_ipv6", 0),
            ("net.ipv6.conf.default.disable_ipv6", 0),
            ("net.ipv6.conf.all.accept_dad", 0),
            ("net.ipv6.conf.default.accept_dad", 0),
            ("net.ipv6.conf.default.dad_transmits", 0),
            ("net.ipv6.conf.default.accept_ra", 0),
            ("net.ipv6.conf.default.router_solicitations", 0),
            ("net.ipv4.conf.all.rp_filter", 0),
            ("net.ipv4.conf.default.rp_filter", 0),
        ] {
            namespace.sysctl(key, value)?;
        }
        Ok(namespace)
    }

    /// Opens a namespace that another program made with `ip netns`. It stays as it is.
    ///
    /// # Errors
    ///
    /// Fails when there is none of this name.
    pub fn open(name: &str) -> Result<Self> {
        let path = Path::new(DIRECTORY).join(name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self {
            name: name.to_owned(),
            path,
            file,
            is_ours: false,
        })
    }

    /// The name of the namespace, as `ip netns` has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that represents the namespace, for `nsenter --net=FILE`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` on a thread of its own in this namespace; sockets that it opens stay in it. The
    /// mounts remain those of the host, so `/sys/fs/bpf` is available and `/sys/class/net` is the
    /// host's.
    ///
    /// # Errors
    ///
    /// Fails when the namespace cannot be entered. A panic of `work` continues in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let result = thread::scope(|scope| {
            scope
                .spawn(|| self.enter().map(|()| work()))
                .join()
                .unwrap_or_else(|panic| panic::resume_unwind(panic))
        });
        result.with_context(|| format!("enter namespace {}", self.name))
    }

    /// Runs work as [`Self::run`] does, in the background.
    ///
    /// # Errors
    ///
    /// Fails when the namespace's file cannot be duplicated. Entering it may fail on the thread.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<thread::JoinHandle<Result<T>>> {
        let file = self.file.try_clone()?;
        Ok(thread::spawn(move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?;
            work()
        }))
    }

    fn enter(&self) -> nix::Result<()> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
    }

    /// Prepares a command that will run in this namespace, with the host's mounts.
    ///
    /// # Errors
    ///
    /// Fails when the namespace's file cannot be duplicated.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let file = self.file.try_clone()?;
        let mut command = Command::new(program);
        // SAFETY: between fork and exec only setns is called, which is async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
            });
        }
        Ok(command)
    }

    /// Runs a command in this namespace to its end, as [`output`] does. That is quicker than with [`Self::command`], for which
    /// the kernel copies the tables of this process's pages.
    ///
    /// # Errors
    ///
    /// Fails when the command cannot be started or fails.
    pub fn output(&self, command: &mut Command) -> Result<String> {
        self.run(|| output(command))?
    }

    /// Runs `ip` with these arguments (separated by spaces) and returns its output.
    ///
    /// # Errors
    ///
    /// Fails when `ip` fails, with its message.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        self.output(Command::new("ip").args(arguments.split_whitespace()))
    }

    /// Runs `ip -batch` with one command a line.
    ///
    /// # Errors
    ///
    /// Fails when `ip` fails, with its message.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        self.feed("ip", &["-batch", "-"], lines)
    }

    /// Loads a ruleset of nftables.
    ///
    /// # Errors
    ///
    /// Fails when `nft` refuses the ruleset, with its message.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        self.feed("nft", &["-f", "-"], ruleset)
    }

    /// Sets offload features of an interface, as in `ethtool -K INTERFACE tx off`.
    ///
    /// # Errors
    ///
    /// Fails when `ethtool` refuses the features, with its message.
    pub fn offload(&self, interface: &str, features: &str) -> Result<()> {
        let mut command = Command::new("ethtool");
        command.args(["-K", interface]);
        self.output(command.args(features.split_whitespace()))
            .map(drop)
    }

    /// Steers the packets that an interface receives to one core for processing by the network
    /// stack.
    ///
    /// # Errors
    ///
    /// Fails when the kernel cannot steer packets.
    pub fn steer(&self, interface: &str, core: usize) -> Result<()> {
        // `ip netns exec` mounts the sysfs that shows this namespace.
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "sh", "-c"]);
        let mask = 1_u32 << core;
        let file = format!("/sys/class/net/{interface}/queues/rx-0/rps_cpus");
        command.arg(format!("echo {mask:x} > {file}"));
        output(&mut command).map(drop)
    }

    /// Writes a sysctl; `key` with dots. Interface names with dots are not supported.
    ///
    /// # Errors
    ///
    /// Fails when there is no such key or it does not accept the value.
    pub fn sysctl(&self, key: &str, value: impl ToString) -> Result<()> {
        let path = sysctl_path(key);
        let value = value.to_string();
        self.run(|| fs::write(&path, &value))?
            .with_context(|| format!("set {key} to {value} in {}", self.name))
    }

    /// Reads a sysctl; `key` with dots.
    ///
    /// # Errors
    ///
    /// Fails when there is no such key.
    pub fn read_sysctl(&self, key: &str) -> Result<String> {
        let path = sysctl_path(key);
        let value = self
            .run(|| fs::read_to_string(&path))?
            .with_context(|| format!("read {key} in {}", self.name))?;
        Ok(value.trim().to_owned())
    }

    /// Lets the namespace forward IPv4 and IPv6 packets.
    ///
    /// # Errors
    ///
    /// Fails when a sysctl cannot be written.
    pub fn forward(&self) -> Result<()> {
        self.sysctl("net.ipv4.ip_forward", 1)?;
        self.sysctl("net.ipv6.conf.all.forwarding", 1)
    }

    /// The processes in this namespace.
    ///
    /// # Errors
    ///
    /// Fails when the namespace's file cannot be examined.
    pub fn processes(&self) -> Result<Vec<Pid>> {
        processes_in(&self.path)
    }

    fn feed(&self, program: &str, arguments: &[&str], input: &str) -> Result<()> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = self
            .run(|| command.spawn())?
            .with_context(|| format!("start {program}"))?;
        let mut stdin = child.stdin.take().context("stdin is piped")?;
        // A program that refuses its input may end before it has read all of it; only its exit
        // status counts.
        match stdin.write_all(input.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error.into()),
            _ => drop(stdin),
        }
        let result = child.wait_with_output()?;
        if !result.status.success() {
            let message = String::from_utf8_lossy(&result.stderr).into_owned();
            bail!("{program} in {}: {}\n{input}", self.name, message.trim());
        }
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        if let Err(error) = remove(&self.path) {
            eprintln!("namespace {} stays: {error:#}", self.name);
        }
    }
}

fn sysctl_path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key.replace('.', "/"))
}

/// Processes whose main thread is in the namespace of the file `path`.
fn processes_in(path: &Path) -> Result<Vec<Pid>> {
    let namespace = fs::metadata(path)?;
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process that ended meanwhile is in no namespace.
        let Ok(theirs) = fs::metadata(entry.path().join("ns/net")) else {
            continue;
        };
        if (theirs.dev(), theirs.ino()) == (namespace.dev(), namespace.ino()) {
            pids.push(Pid::from_raw(pid));
        }
    }
    Ok(pids)
}

/// Ends all processes in the namespace, then deletes it.
fn remove(path: &Path) -> Result<()> {
    wait_until("its processes end", Duration::from_secs(5), || {
        let pids = processes_in(path)?;
        for pid in &pids {
            // The process may have ended by itself.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        Ok(pids.is_empty())
    })?;
    output(
        Command::new("ip")
            .args(["netns", "del"])
            .arg(path.file_name().unwrap_or_default()),
    )?;
    Ok(())
}

/// Removes the namespaces that a killed process of ours has left behind, and the objects that
/// killed daemons in them have pinned, which would keep their XDP programs attached.
fn sweep() {
    for path in orphans(DIRECTORY) {
        // Another process may be removing them too.
        let _ = remove(&path);
    }
    for path in orphans(PINS) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let _ = remove_leftovers(&name, None);
    }
}

/// The entries of the directory with a name of ours whose process no longer exists.
fn orphans(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let orphans = entries.filter(|entry| {
        let owner = entry.file_name().to_str().and_then(owner);
        owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    });
    orphans.map(|entry| entry.path()).collect()
}

/// The process that made the namespace of this name, if it is one of ours.
fn owner(name: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let (number, _) = rest.split_once('-')?;
    number.parse::<usize>().ok()?;
    pid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_form_have_an_owner() {
        assert_eq!(owner("teredo-123-4-client"), Some(123));
        for name in [
            "teredo-x-4-client",
            "teredo-123",
            "teredo-1-a-b",
            "other-1-2-c",
        ] {
            assert_eq!(owner(name), None, "{name}");
        }
    }
}
