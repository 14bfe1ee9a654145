//! The terminal: it is given back as it was, whatever ends or stops the view.

use std::{
    io::{self, BufWriter, Stdout, Write as _, stdout},
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result};
use crossterm::{
    cursor, execute,
    terminal::{
        Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
        enable_raw_mode, size,
    },
};
use nix::sys::signal::{Signal, raise};
use ratatui::{Terminal, TerminalOptions, Viewport, backend::CrosstermBackend, layout::Rect};

use super::{
    draw::{Theme, draw},
    model::Model,
};

/// Whether the terminal is not as it was.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// A terminal in which the view draws.
pub struct Screen(Terminal<CrosstermBackend<BufWriter<Stdout>>>);

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    ///
    /// When it cannot be used.
    pub fn enter() -> Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let report = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                give_back();
                report(panic);
            }));
        });
        take().context("use the terminal")?;
        // From here on it is given back.
        let terminal = blank().inspect_err(|_| give_back())?;
        Ok(Self(terminal))
    }

    /// Draws the view.
    ///
    /// # Errors
    ///
    /// When the terminal has gone.
    pub fn draw(&mut self, model: &Model, theme: &Theme) -> Result<()> {
        let draw = |frame: &mut ratatui::Frame<'_>| draw(frame, model, theme);
        self.0.draw(draw).context("draw")?;
        Ok(())
    }

    /// Forgets what is on the screen, so that everything is drawn anew in its size of now.
    ///
    /// # Errors
    ///
    /// When the terminal has gone.
    pub fn clear(&mut self) -> Result<()> {
        self.0 = blank()?;
        Ok(())
    }

    /// Gives the terminal back, stops this process until it gets SIGCONT, and takes the terminal again.
    ///
    /// # Errors
    ///
    /// When the terminal has gone.
    pub fn stop(&mut self) -> Result<()> {
        give_back();
        // It cannot fail for a signal that exists.
        let _ = raise(Signal::SIGSTOP);
        // Before anything is drawn.
        self.resume()
    }

    /// Takes the terminal again, after the process was stopped.
    ///
    /// # Errors
    ///
    /// When the terminal has gone.
    pub fn resume(&mut self) -> Result<()> {
        take().context("use the terminal again")?;
        self.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Returns a screen without anything on it. It keeps its size, since a change of size would make the
/// library ask the terminal for the place of the cursor, which not every terminal answers.
fn blank() -> Result<Terminal<CrosstermBackend<BufWriter<Stdout>>>> {
    let (width, height) = size().context("read the size of the terminal")?;
    execute!(stdout(), Clear(ClearType::All)).context("clear the screen")?;
    let viewport = Viewport::Fixed(Rect::new(0, 0, width, height));
    let backend = CrosstermBackend::new(BufWriter::new(stdout()));
    let terminal = Terminal::with_options(backend, TerminalOptions { viewport });
    terminal.context("use the terminal")
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    IS_TAKEN.store(true, Ordering::SeqCst);
    execute!(stdout(), EnterAlternateScreen, cursor::Hide).inspect_err(|_| give_back())
}

/// Gives the terminal back, once: to leave the second screen twice would move the cursor of the first.
fn give_back() {
    if !IS_TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // If the terminal has gone, nothing is left to be restored.
    let _ = execute!(stdout(), LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
    let _ = stdout().flush();
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        fs::File,
        io::Read as _,
        process::{Command, Stdio},
        thread,
    };

    use nix::{
        pty::{Winsize, openpty},
        sys::termios::{LocalFlags, tcgetattr},
    };

    use super::*;

    /// Set in the process that panics.
    const VARIABLE: &str = "TEREDO_TEST_PANIC";

    #[test]
    fn a_panic_gives_the_terminal_back() {
        if env::var_os(VARIABLE).is_some() {
            let _screen = Screen::enter().unwrap();
            panic!("on purpose");
        }
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(&size, None).unwrap();
        let terminal = || Stdio::from(pair.slave.try_clone().unwrap());
        let name = "top::screen::tests::a_panic_gives_the_terminal_back";
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", name, "--nocapture"])
            .env(VARIABLE, "1")
            .stdin(terminal())
            .stdout(terminal())
            .stderr(terminal());
        let mut master = File::from(pair.master);
        let reader = thread::spawn(move || {
            let mut octets = Vec::new();
            // It ends with an error when nobody has the terminal open any more.
            let _ = master.read_to_end(&mut octets);
            String::from_utf8_lossy(&octets).into_owned()
        });
        assert!(!command.status().unwrap().success());
        drop(command);
        let flags = tcgetattr(&pair.slave).unwrap().local_flags;
        assert!(flags.contains(LocalFlags::ECHO | LocalFlags::ICANON));
        drop(pair.slave);
        let text = reader.join().unwrap();
        let (before, after) = text.split_once("\x1b[?1049l").expect(&text);
        assert!(before.contains("\x1b[?1049h"), "{text:?}");
        assert!(after.contains("\x1b[?25h"), "{text:?}");
        assert!(
            after.contains("on purpose"),
            "the message is on the first screen: {text:?}"
        );
        assert_eq!(text.matches("\x1b[?1049l").count(), 1, "{text:?}");
    }
}
