//! A daemon under a small service manager that speaks systemd's protocol: it keeps descriptors in a store
//! (`FDSTORE=1`) over restarts and crashes, and closes them when the service stops.

use std::{
    fs::{self, File},
    io::{self, IoSliceMut},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::{net::UnixDatagram, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg},
    },
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    names::Names,
    namespace::Namespace,
    process::Daemon,
    teredo::{Config, Peer, Status, ask, binary, complete},
    wait::wait_for,
};

/// The number of the first descriptor that a service gets.
const FIRST: RawFd = 3;
/// Descriptors that the store has room for.
const ROOM: usize = 64;
/// Longest time that a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The time after which the manager looks whether it has to end.
const TICK: Duration = Duration::from_millis(50);
/// The time within which the service has to report that it works.
const WATCHDOG: Duration = Duration::from_secs(2);
/// The key of the manager's own message.
const MARK: &str = "X_MARK";
/// Octets of the longest message.
const MESSAGE: usize = 4096;

/// The descriptors of a service, and what it has said.
#[derive(Debug, Default)]
struct State {
    store: Vec<(String, OwnedFd)>,
    is_ready: bool,
    /// The process that the service has named as its main one.
    main: Option<i32>,
    /// Whether it was the child of another process of the service at that time. systemd does not wait for the end of such
    /// a process, but kills it at once.
    is_alien: bool,
    /// The reports to the watchdog.
    reports: u64,
    /// The last start whose mark was read, behind everything that earlier processes have said.
    mark: u32,
    /// What the manager has not taken note of, from the next main process on, if it is to be slow.
    held: Option<Vec<(String, Vec<OwnedFd>)>>,
}

/// A service.
#[derive(Debug)]
pub struct Service {
    directory: TempDir,
    file: PathBuf,
    program: PathBuf,
    /// The names that its processes know, if they are not the host's.
    names: Option<Arc<Names>>,
    state: Arc<Mutex<State>>,
    ends: Arc<AtomicBool>,
    manager: Option<thread::JoinHandle<()>>,
    child: Option<Child>,
    starts: u32,
}

impl Service {
    /// Starts the service, and waits until it says that it is ready.
    ///
    /// # Errors
    ///
    /// Fails when the service ends, or is not ready in time, with its log.
    pub fn start(namespace: &Namespace, config: &Config) -> Result<Self> {
        Self::start_with(namespace, config, None)
    }

    /// Starts the service as [`Self::start`] does, with host names of its own.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::start`].
    pub fn start_with(
        namespace: &Namespace,
        config: &Config,
        names: Option<Arc<Names>>,
    ) -> Result<Self> {
        let directory = Daemon::directory("service")?;
        let file = directory.path().join("teredo.toml");
        fs::write(&file, complete(config, namespace, &directory).to_string())?;
        let socket = UnixDatagram::bind(directory.path().join("notify"))?;
        socket.set_read_timeout(Some(TICK))?;
        let state = Arc::new(Mutex::new(State::default()));
        let ends = Arc::new(AtomicBool::new(false));
        let (theirs, over) = (Arc::clone(&state), Arc::clone(&ends));
        let manager = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if let Ok((text, descriptors)) = receive(&socket) {
                    lock(&theirs).handle(&text, descriptors);
                }
            }
        });
        let mut service = Self {
            directory,
            file,
            program: binary()?,
            names,
            state,
            ends,
            manager: Some(manager),
            child: None,
            starts: 0,
        };
        service.begin(namespace)?;
        Ok(service)
    }

    /// Sets the program that is started next.
    pub fn set_program(&mut self, program: &Path) {
        program.clone_into(&mut self.program);
    }

    /// The configuration file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The main process.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        let child = self.child.as_ref()?;
        let main = lock(&self.state).main;
        Some(Pid::from_raw(main.unwrap_or(child.id().cast_signed())))
    }

    /// The output of `teredo status --json`.
    ///
    /// # Errors
    ///
    /// Fails when the daemon does not answer, or answers in another form.
    pub fn status(&self) -> Result<Status> {
        ask(&self.file, "status")
    }

    /// The output of `teredo peers --json`.
    ///
    /// # Errors
    ///
    /// Fails when the daemon does not answer, or answers in another form.
    pub fn peers(&self) -> Result<Vec<Peer>> {
        ask(&self.file, "peers")
    }

    /// The names of the stored descriptors.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let state = lock(&self.state);
        state.store.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Renames the stored descriptors whose names begin like this, as if another release had stored them.
    pub fn rename(&self, from: &str, to: &str) {
        for (name, _) in &mut lock(&self.state).store {
            if let Some(rest) = name.strip_prefix(from) {
                *name = format!("{to}{rest}");
            }
        }
    }

    /// The output of all processes so far.
    #[must_use]
    pub fn log(&self) -> String {
        let logs = (1..=self.starts).map(|number| {
            let bytes = fs::read(self.log_file(number)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        logs.collect()
    }

    fn log_file(&self, number: u32) -> PathBuf {
        self.directory.path().join(format!("log{number}"))
    }

    /// Starts a process with the stored descriptors, as after a stop for a restart or after a crash.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::start`].
    pub fn begin(&mut self, namespace: &Namespace) -> Result<()> {
        self.starts += 1;
        self.hear_out()?;
        let log = File::create(self.log_file(self.starts))?;
        let (names, descriptors) = {
            let mut state = lock(&self.state);
            state.is_ready = false;
            state.main = None;
            let copies = state.store.iter().map(|(_, stored)| stored.try_clone());
            let names: Vec<_> = state.store.iter().map(|(name, _)| name.clone()).collect();
            (names.join(":"), copies.collect::<io::Result<Vec<_>>>()?)
        };
        // The shell has the number of the process that it becomes.
        let mut command = namespace.command("sh")?;
        command
            .args(["-c", "LISTEN_PID=$$ WATCHDOG_PID=$$ exec \"$@\"", "sh"])
            .arg(&self.program)
            .args(["run", "--config"])
            .arg(&self.file)
            .env("NOTIFY_SOCKET", self.directory.path().join("notify"))
            .env("FDSTORE", ROOM.to_string())
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        if let Some(names) = &self.names {
            names.prepare(&mut command)?;
        }
        if !descriptors.is_empty() {
            command
                .env("LISTEN_FDS", descriptors.len().to_string())
                .env("LISTEN_FDNAMES", names);
            pass(&mut command, descriptors);
        }
        self.child = Some(command.spawn().context("start the service")?);
        let state = Arc::clone(&self.state);
        let is_ready = || Ok(lock(&state).is_ready.then_some(()));
        let ready = wait_for("the service is ready", PATIENCE, || {
            if let Some(status) = self
                .child
                .as_mut()
                .map(Child::try_wait)
                .transpose()?
                .flatten()
            {
                bail!("the service has ended: {status}");
            }
            is_ready()
        });
        ready.with_context(|| self.log())
    }

    /// Waits until everything that earlier processes have said is read, as systemd does before it takes note of
    /// their end.
    fn hear_out(&self) -> Result<()> {
        let mark = format!("{MARK}={}", self.starts);
        UnixDatagram::unbound()?.send_to(mark.as_bytes(), self.directory.path().join("notify"))?;
        wait_for("the messages are read", PATIENCE, || {
            Ok((lock(&self.state).mark == self.starts).then_some(()))
        })
    }

    /// Ends the process as for a restart, and waits until it has ended.
    ///
    /// # Errors
    ///
    /// Fails when it does not end, or fails.
    pub fn terminate(&mut self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }

    /// Ends the process without warning.
    ///
    /// # Errors
    ///
    /// Fails when it does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL)
    }

    /// Restarts the service as `systemctl restart` does.
    ///
    /// # Errors
    ///
    /// Fails when the process does not end or does not come up again.
    pub fn restart(&mut self, namespace: &Namespace) -> Result<()> {
        self.terminate()?;
        self.begin(namespace)
    }

    /// Makes the manager take no note of the next main process, nor of anything after that, until
    /// [`Self::follow`].
    pub fn linger(&self) {
        lock(&self.state).held = Some(Vec::new());
    }

    /// Ends [`Self::linger`].
    pub fn follow(&self) {
        let mut state = lock(&self.state);
        for (text, descriptors) in state.held.take().unwrap_or_default() {
            state.handle(&text, descriptors);
        }
    }

    /// Whether the service manager notices the end of the main process.
    #[must_use]
    pub fn is_supervised(&self) -> bool {
        !lock(&self.state).is_alien
    }

    /// Waits until the service has reported to the watchdog. Without that, systemd ends it.
    ///
    /// # Errors
    ///
    /// Fails when it has not.
    pub fn is_watched(&self) -> Result<()> {
        let reports = || lock(&self.state).reports;
        let before = reports();
        wait_for("the service reports to the watchdog", PATIENCE, || {
            Ok((reports() > before).then_some(()))
        })
    }

    /// Sends a signal to the main process.
    ///
    /// # Errors
    ///
    /// Fails when there is none.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().context("the service does not run")?;
        Ok(kill(pid, signal)?)
    }

    /// Stops the service and closes the stored descriptors.
    ///
    /// # Errors
    ///
    /// Fails when the process does not end.
    pub fn stop(&mut self) -> Result<()> {
        let ended = self.terminate();
        lock(&self.state).store.clear();
        ended
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        let Some(pid) = self.pid() else {
            return Ok(());
        };
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        // It may have ended by itself.
        let _ = kill(pid, signal);
        wait_for("the service ends", PATIENCE, || {
            let is_child_over = child.try_wait()?.is_some();
            Ok((is_child_over && !is_alive(pid)).then_some(()))
        })
        .with_context(|| self.log())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.stop();
        self.ends.store(true, Ordering::Relaxed);
        if let Some(manager) = self.manager.take() {
            let _ = manager.join();
        }
    }
}

impl State {
    fn handle(&mut self, text: &str, descriptors: Vec<OwnedFd>) {
        let of = |key: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        };
        if let Some(held) = &mut self.held
            && (!held.is_empty() || of("MAINPID").is_some())
        {
            held.push((text.to_owned(), descriptors));
            return;
        }
        let name = of("FDNAME").unwrap_or("stored").to_owned();
        self.is_ready |= of("READY") == Some("1");
        self.reports += u64::from(of("WATCHDOG") == Some("1"));
        if let Some(mark) = of(MARK) {
            self.mark = mark.parse().unwrap_or_default();
        }
        if let Some(process) = of("MAINPID") {
            self.main = process.parse().ok();
            self.is_alien = self.main.is_some_and(is_child_of_a_daemon);
        }
        if of("FDSTOREREMOVE") == Some("1") {
            self.store.retain(|(stored, _)| *stored != name);
        }
        if of("FDSTORE") == Some("1") {
            let room = ROOM.saturating_sub(self.store.len());
            let stored = descriptors.into_iter().take(room);
            self.store
                .extend(stored.map(|descriptor| (name.clone(), descriptor)));
        }
        // That of a barrier is closed.
    }
}

fn is_child_of_a_daemon(process: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let mut lines = status.lines();
    let parent = lines.find_map(|line| line.strip_prefix("PPid:"));
    let parent = parent.map_or("", str::trim);
    let name = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
    name.trim() == "teredo"
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn receive(socket: &UnixDatagram) -> Result<(String, Vec<OwnedFd>)> {
    let mut message = [0; MESSAGE];
    let mut control = nix::cmsg_space!([RawFd; 16]);
    let mut parts = [IoSliceMut::new(&mut message)];
    let received = recvmsg::<UnixAddr>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut descriptors = Vec::new();
    for one in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = one {
            // SAFETY: the kernel has just opened these descriptors, and nothing else owns them.
            let owned = numbers
                .into_iter()
                .map(|number| unsafe { OwnedFd::from_raw_fd(number) });
            descriptors.extend(owned);
        }
    }
    let length = received.bytes;
    Ok((
        String::from_utf8_lossy(&message[..length]).into_owned(),
        descriptors,
    ))
}

/// Makes the command have these descriptors, from [`FIRST`] on.
fn pass(command: &mut Command, descriptors: Vec<OwnedFd>) {
    let count = RawFd::try_from(descriptors.len()).expect("the store has room for few");
    let highest = descriptors.iter().map(OwnedFd::as_raw_fd).max();
    // From here on, descriptors are out of the way.
    let aside = highest.unwrap_or(FIRST).max(FIRST + count) + 1;
    let duplicate = |from: RawFd, to: RawFd| {
        // SAFETY: the call takes its arguments by value.
        match unsafe { libc::dup2(from, to) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    let place = move || {
        let numbered = || (0..).zip(&descriptors);
        for (place, descriptor) in numbered() {
            duplicate(descriptor.as_raw_fd(), aside + place)?;
        }
        for (place, _) in numbered() {
            duplicate(aside + place, FIRST + place)?;
            // SAFETY: the call takes its arguments by value.
            unsafe { libc::close(aside + place) };
        }
        Ok(())
    };
    // SAFETY: between fork and exec only `dup2` and `close` are called, which are async-signal-safe.
    unsafe { command.pre_exec(place) };
}

/// Whether a process runs. One that waits for its parent does not.
fn is_alive(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit(") ").next().unwrap_or_default();
    !state.is_empty() && !state.starts_with('Z')
}
