//! The daemon as the first process of a container, which ends with it.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use teredo_lab::{
    Namespace,
    teredo::{Config, Teredo},
    wait_until,
};

/// Longest time that any step may take.
const SOON: Duration = Duration::from_secs(15);
/// The reason of the refusal.
const REASON: &str = "the container would end with this process: restart the container";

#[test]
fn a_daemon_that_is_the_first_process_is_not_replaced() -> Result<()> {
    let namespace = Namespace::new("container")?;
    let config = Config::new().set("relay.xdp.mode", "off");
    let mut relay = Teredo::start(&namespace, &config)?;
    relay.daemon.terminate()?;
    relay.start_again_under(&namespace, &["unshare", "--pid", "--fork"])?;
    let outside = relay.daemon.pid();
    let children = fs::read_to_string(format!("/proc/{outside}/task/{outside}/children"))?;
    let daemon = Pid::from_raw(children.trim().parse().context("one child")?);
    for signal in [Signal::SIGHUP, Signal::SIGUSR2] {
        let before = relay.daemon.log().matches(REASON).count();
        kill(daemon, signal)?;
        wait_until("the daemon says that it goes on", SOON, || {
            Ok(relay.daemon.log().matches(REASON).count() > before)
        })?;
    }
    for command in ["reload", "upgrade"] {
        let said = relay.tell(command).map_err(|error| format!("{error:#}"));
        ensure!(
            said.as_ref().is_err_and(|said| said.contains(REASON)),
            "{command}: {said:?}"
        );
    }
    relay.status()?;
    kill(daemon, Signal::SIGTERM)?;
    let status = relay.daemon.wait(SOON)?;
    ensure!(status.success(), "{status}");
    Ok(())
}
