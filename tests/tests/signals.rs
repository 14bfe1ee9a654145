//! Signals that come while the kernel's verifier looks at a program, which it then gives up.

use std::{
    process::{self, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytemuck::Zeroable as _;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use teredo::datapath::xdp::capture::Capture;
use teredo_common::capture::Filter;
use teredo_lab::fixture::{Fixture, Setup};

/// Times that another process stops this one, with a pause of some milliseconds between them: much less than the verifier
/// takes.
const STOPS: u32 = 40;

/// Loads all programs of the fast path.
fn load() -> Result<()> {
    let fixture = Fixture::new(&Setup::default())?;
    let shared = fixture.program.shared()?;
    Capture::load(&shared, &Filter::zeroed())?;
    Ok(())
}

#[test]
fn signals_to_the_thread_do_not_keep_programs_from_being_loaded() -> Result<()> {
    extern "C" fn nothing(_signal: libc::c_int) {}
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action)? };
    // SAFETY: the function has no conditions.
    let thread = unsafe { libc::pthread_self() };
    thread::scope(|scope| {
        let (stop, stopped) = mpsc::channel::<()>();
        scope.spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(2)) == Err(RecvTimeoutError::Timeout) {
                // SAFETY: the thread outlives the scope.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
            }
        });
        let loaded = load();
        drop(stop);
        loaded
    })
}

#[test]
fn a_process_that_is_stopped_loads_programs_once_more() -> Result<()> {
    let script =
        format!("for _ in $(seq {STOPS}); do kill -STOP $0; kill -CONT $0; sleep 0.01; done");
    let mut child = Command::new("sh")
        .args(["-c", &script, &process::id().to_string()])
        .stdin(Stdio::null())
        .spawn()
        .context("sh")?;
    let mut loads = 0;
    while child.try_wait()?.is_none() {
        load()?;
        loads += 1;
    }
    assert!(loads > 0, "the stops were over before the first load");
    Ok(())
}
