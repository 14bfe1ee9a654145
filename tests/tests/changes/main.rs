//! Changes of the host under a running daemon: within two seconds the host is as planned again, or a
//! condition says what is wrong for as long as it is, and traffic flows.

mod client;
mod fast_path;
mod histories;
#[path = "../host/mod.rs"]
mod host;
mod relay;
mod server;
mod start;

use std::{
    io::{Read as _, Write as _},
    net::Ipv6Addr,
    os::unix::net::UnixStream,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use teredo::api::types::Verdict;
use teredo_lab::{Namespace, Teredo, traffic::Ping, wait_until};

/// The time within which the daemon follows a change.
const SOON: Duration = Duration::from_secs(2);
/// The time until packets pass again: [`SOON`], and what the kernels of others take to ask for a neighbour
/// three times, a second each.
const PASSING: Duration = Duration::from_secs(5);
/// The time for steps without a promise.
const PATIENCE: Duration = Duration::from_secs(15);

/// The answer of the health page: the code and the text.
fn health(teredo: &Teredo) -> Result<(u16, String)> {
    let mut stream = UnixStream::connect(teredo.daemon.path().join("api"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let code = answer.split(' ').nth(1).context("no code")?.parse()?;
    let (_, text) = answer.split_once("\r\n\r\n").context("no text")?;
    Ok((code, text.to_owned()))
}

/// Waits until no condition is left, neither in `status` nor on the health page.
fn is_well(teredo: &Teredo) -> Result<()> {
    let well = (200, "ok\n".to_owned());
    let waited = wait_until("all is well", SOON, || {
        if health(teredo)? != well {
            return Ok(false);
        }
        let status = teredo.status()?;
        Ok(status.verdict == Verdict::Ok && status.conditions.is_empty())
    });
    waited.with_context(|| format!("{:?}", health(teredo)))
}

/// Waits until there is a condition of this kind, and checks that verdict and health page agree with
/// the severity of what is wrong.
fn is_said(teredo: &Teredo, kind: &str) -> Result<()> {
    let waited = wait_until("it is said", SOON, || {
        let (_, text) = health(teredo)?;
        Ok(text
            .lines()
            .any(|line| line.starts_with(&format!("{kind} "))))
    });
    waited.with_context(|| format!("{kind}: {:?}", health(teredo)))?;
    let status = teredo.status()?;
    let found = status.conditions.iter().find(|one| one.kind == kind);
    ensure!(found.is_some(), "{:?}", status.conditions);
    let severities = status.conditions.iter().map(|one| one.severity);
    let is_down = severities.max() == Some(teredo::condition::Severity::Down);
    let verdict = if is_down {
        Verdict::Down
    } else {
        Verdict::Degraded
    };
    ensure!(status.verdict == verdict, "{status:?}");
    let (code, text) = health(teredo)?;
    ensure!((code == 503) == is_down, "{code}: {text}");
    Ok(())
}

/// Waits until a packet comes back from the address.
fn answers(from: &Namespace, to: Ipv6Addr) -> Result<()> {
    let ping = Ping::to(to).wait(Duration::from_millis(500));
    wait_until("a ping is answered", PASSING, || {
        Ok(ping.from(from).is_ok_and(|pong| pong.received == 1))
    })
}

/// Whether an XDP program is attached to the interface.
fn has_program(namespace: &Namespace, interface: &str) -> Result<bool> {
    let link = namespace.ip(&format!("link show dev {interface}"))?;
    Ok(link.contains("prog/xdp"))
}

/// The Ethernet address of an interface.
fn station(namespace: &Namespace, interface: &str) -> Result<String> {
    let link = namespace.ip(&format!("-o link show dev {interface}"))?;
    let (_, rest) = link.split_once("link/ether ").context("no address")?;
    Ok(rest.chars().take_while(|digit| *digit != ' ').collect())
}

/// Runs a command of the shell on a host, as another program would.
fn shell(namespace: &Namespace, command: &str) -> Result<String> {
    namespace.output(Command::new("sh").args(["-c", command]))
}
