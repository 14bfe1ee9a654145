//! The laboratory itself: the properties that other tests rely on.

use std::{fs, net::Ipv4Addr, path::PathBuf, time::Duration};

use anyhow::Result;
use teredo_lab::{Capture, Daemon, Namespace, links, traffic::UdpStream};

const A: Ipv4Addr = Ipv4Addr::new(20, 1, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(20, 1, 0, 2);

/// Two hosts on one cable, both with an interface `v4`.
fn pair() -> Result<(Namespace, Namespace)> {
    let (a, b) = (Namespace::new("a")?, Namespace::new("b")?);
    links::cable((&a, "v4"), (&b, "v4"))?;
    a.ip(&format!("addr add {A}/24 dev v4"))?;
    b.ip(&format!("addr add {B}/24 dev v4"))?;
    Ok((a, b))
}

#[test]
fn dropping_a_namespace_ends_its_processes() -> Result<()> {
    let namespace = Namespace::new("processes")?;
    let path = namespace.path().to_owned();
    let mut command = namespace.command("sh")?;
    // The process ignores SIGTERM and has a child.
    command.args(["-c", "trap '' TERM; sleep 1000 & wait; sleep 1000"]);
    let mut child = command.spawn()?;
    teredo_lab::wait_until("both run", Duration::from_secs(5), || {
        Ok(namespace.processes()?.len() == 2)
    })?;
    let pids = namespace.processes()?;
    drop(namespace);
    child.wait()?;
    assert!(!path.exists());
    for pid in pids {
        // A process that has ended and still waits for its parent has no command line.
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(command.is_empty(), "{pid} is alive");
    }
    Ok(())
}

#[test]
fn a_namespace_does_not_survive_a_panic() -> Result<()> {
    let result = std::panic::catch_unwind(|| {
        let namespace = Namespace::new("panic").unwrap();
        let path = namespace.path().to_owned();
        assert!(path.exists());
        std::panic::panic_any(path);
    });
    let path = result.unwrap_err().downcast::<PathBuf>().unwrap();
    assert!(!path.exists());
    Ok(())
}

#[test]
fn a_daemon_that_ends_too_early_shows_its_log() -> Result<()> {
    let namespace = Namespace::new("daemon")?;
    let mut command = namespace.command("sh")?;
    command.args(["-c", "echo no such thing; exit 3"]);
    let mut daemon = Daemon::start("shell", command, Daemon::directory("shell")?)?;
    let error = daemon
        .wait_for("it is ready", Duration::from_secs(10), || Ok(None::<()>))
        .unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("no such thing") && text.contains("exit status: 3"),
        "{text}"
    );
    Ok(())
}

#[test]
fn tcpdump_finds_unfinished_checksums_and_only_those() -> Result<()> {
    let (a, b) = pair()?;
    for (offload, clean) in [("tx off", true), ("tx on", false)] {
        a.offload("v4", offload)?;
        let capture = Capture::start(&b, "v4")?;
        let stream = UdpStream::start(&a, &b, B.into(), 100, Duration::from_millis(1))?;
        capture.wait_for("ten datagrams", Duration::from_secs(10), |frame| {
            let number = frame.udp_payload().and_then(|payload| payload.get(..8));
            number == Some(&10_u64.to_be_bytes())
        })?;
        let report = stream.stop()?;
        assert_eq!(report.sent, report.received);
        let bad = capture.stop()?.bad_checksums()?;
        assert_eq!(bad.is_empty(), clean, "{offload}: {bad:?}");
    }
    Ok(())
}
