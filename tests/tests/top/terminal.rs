//! A program in a terminal of its own, and what is on the screen.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    pty::{Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{LocalFlags, tcgetattr},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, setsid},
};
use teredo_lab::{teredo::binary, wait_until};

const TIMEOUT: Duration = Duration::from_secs(20);

/// The octets that a program wrote, and the screen that they make.
struct Output {
    parser: vt100::Parser,
    octets: Vec<u8>,
}

/// A running `teredo top` with a terminal.
pub struct Terminal {
    child: Child,
    keyboard: File,
    /// Keeps the terminal open, so that its state can be read after the program has ended.
    terminal: OwnedFd,
    output: Arc<Mutex<Output>>,
}

impl Terminal {
    /// Starts `teredo top` with these arguments and variables, in a terminal of `columns` and `lines`.
    pub fn start(
        arguments: &[&str],
        variables: &[(&str, &str)],
        (columns, lines): (u16, u16),
    ) -> Result<Self> {
        let size = Winsize {
            ws_row: lines,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(&size, None).context("open a terminal")?;
        for end in [&pair.master, &pair.slave] {
            // Daemons that are started meanwhile would keep it open.
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        let mut command = Command::new(binary()?);
        command
            .arg("top")
            .args(arguments)
            .env_remove("NO_COLOR")
            .env_remove("LC_ALL")
            .env_remove("LC_CTYPE")
            .env("TERM", "xterm-256color")
            .env("LANG", "C.UTF-8")
            .envs(variables.iter().copied())
            .stdin(Stdio::from(pair.slave.try_clone()?))
            .stdout(Stdio::from(pair.slave.try_clone()?))
            .stderr(Stdio::from(pair.slave.try_clone()?));
        // SAFETY: between fork and exec only setsid and ioctl are called, which are async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                setsid()?;
                // Standard input becomes the controlling terminal.
                Errno::result(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
                Ok(())
            });
        }
        let child = command.spawn().context("start teredo top")?;
        let output = Arc::new(Mutex::new(Output {
            parser: vt100::Parser::new(lines, columns, 0),
            octets: Vec::new(),
        }));
        let mut screen = File::from(pair.master.try_clone()?);
        let shared = Arc::clone(&output);
        // It ends when nobody has the terminal open any more.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                let mut output = lock(&shared);
                output.parser.process(&buffer[..length]);
                output.octets.extend(&buffer[..length]);
            }
        });
        Ok(Self {
            child,
            keyboard: File::from(pair.master),
            terminal: pair.slave,
            output,
        })
    }

    /// Types text.
    pub fn keys(&mut self, text: &str) -> Result<()> {
        Ok(self.keyboard.write_all(text.as_bytes())?)
    }

    /// The text on the screen.
    pub fn text(&self) -> String {
        lock(&self.output).parser.screen().contents()
    }

    /// Everything that the program wrote.
    pub fn octets(&self) -> Vec<u8> {
        lock(&self.output).octets.clone()
    }

    /// Waits until the screen has all of these texts.
    pub fn shows(&self, parts: &[&str]) -> Result<()> {
        let is_shown = || {
            let text = self.text();
            Ok(parts.iter().all(|part| text.contains(part)))
        };
        wait_until(&format!("the screen shows {parts:?}"), TIMEOUT, is_shown)
            .with_context(|| self.text())
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid(), signal)?)
    }

    /// Waits until the program is stopped.
    pub fn is_stopped(&self) -> Result<()> {
        wait_until("teredo top is stopped", TIMEOUT, || {
            let flags = WaitPidFlag::WUNTRACED | WaitPidFlag::WNOHANG;
            let status = waitpid(self.pid(), Some(flags))?;
            Ok(matches!(status, WaitStatus::Stopped(_, Signal::SIGSTOP)))
        })
    }

    /// Waits for the end of the program and returns its exit code.
    pub fn code(&mut self) -> Result<Option<i32>> {
        wait_until("teredo top ends", TIMEOUT, || {
            Ok(self.child.try_wait()?.is_some())
        })
        .with_context(|| self.text())?;
        Ok(self.child.wait()?.code())
    }

    /// Waits until the terminal is as it was before: with echo and lines, the cursor, and the first screen.
    pub fn is_given_back(&self) -> Result<()> {
        wait_until("the terminal is given back", TIMEOUT, || {
            let flags = tcgetattr(&self.terminal)?.local_flags;
            let output = lock(&self.output);
            let screen = output.parser.screen();
            Ok(
                flags.contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG)
                    && !screen.alternate_screen()
                    && !screen.hide_cursor(),
            )
        })
    }

    /// Whether the program has the terminal: keys come at once, and it has a screen of its own.
    pub fn is_taken(&self) -> Result<bool> {
        let flags = tcgetattr(&self.terminal)?.local_flags;
        let output = lock(&self.output);
        Ok(!flags.intersects(LocalFlags::ECHO | LocalFlags::ICANON)
            && output.parser.screen().alternate_screen())
    }

    /// Gives the terminal another size.
    pub fn resize(&self, columns: u16, lines: u16) -> Result<()> {
        let size = Winsize {
            ws_row: lines,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        lock(&self.output)
            .parser
            .screen_mut()
            .set_size(lines, columns);
        // SAFETY: the descriptor is open, and the size is a valid one of the type that is expected.
        let result = unsafe { libc::ioctl(self.terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) };
        Errno::result(result)?;
        Ok(())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A program that has ended already is no failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock(output: &Mutex<Output>) -> MutexGuard<'_, Output> {
    output.lock().unwrap_or_else(PoisonError::into_inner)
}
