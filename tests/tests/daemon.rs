//! The life of a daemon: its output, its end, and the state that it leaves.

mod host;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixDatagram,
        process::ExitStatusExt as _,
    },
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::Value;
use teredo_lab::{Daemon, teredo::binary, uninterrupted, wait_until};

use host::Host;

/// Longest time that a daemon may take for any step.
const PATIENCE: Duration = Duration::from_secs(15);

/// Starts `teredo run` and waits until its API answers.
fn start(host: &Host, file: &Path) -> Result<Daemon> {
    start_with(host, file, |_| {})
}

fn start_with(host: &Host, file: &Path, prepare: impl FnOnce(&mut Command)) -> Result<Daemon> {
    let mut command = host.namespace.command(binary()?)?;
    command.args(["run", "--config"]).arg(file);
    prepare(&mut command);
    let mut daemon = Daemon::start("teredo", command, Daemon::directory("daemon")?)?;
    daemon.wait_for("its API answers", PATIENCE, || {
        let status = ask(file, "status")?;
        Ok(status.status.success().then_some(()))
    })?;
    Ok(daemon)
}

fn ask(file: &Path, what: &str) -> Result<Output> {
    let mut command = Command::new(binary()?);
    Ok(command
        .args([what, "--json", "--config"])
        .arg(file)
        .output()?)
}

#[test]
fn a_clean_end_leaves_nothing_behind() -> Result<()> {
    let host = Host::new()?;
    for mode in ["native", "generic", "off"] {
        let file = host.configure("", &format!("xdp.mode = \"{mode}\""))?;
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let before = host.traces()?;
            let mut daemon = start(&host, &file)?;
            let running = host.traces()?;
            assert!(running.contains("2001::/32"), "{running}");
            let has_fast_path = mode != "off";
            assert_eq!(running.contains("prog/xdp"), has_fast_path, "{running}");
            let pinned = "in /sys/fs/bpf: true";
            assert_eq!(running.contains(pinned), has_fast_path, "{running}");
            daemon.signal(signal)?;
            let status = daemon.wait(PATIENCE)?;
            assert_eq!(status.code(), Some(0), "{signal}: {}", daemon.log());
            assert_eq!(host.traces()?, before, "{mode}, {signal}");
        }
    }
    Ok(())
}

#[test]
fn a_second_signal_exits_at_once_and_the_next_start_recovers() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "")?;
    let before = host.traces()?;
    let mut daemon = start(&host, &file)?;
    // Both exist when the daemon continues.
    for signal in [
        Signal::SIGSTOP,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGCONT,
    ] {
        daemon.signal(signal)?;
    }
    let status = daemon.wait(PATIENCE)?;
    let code = status.code().context("it was killed")?;
    assert!(
        [128 + 2, 128 + 15].contains(&code),
        "{code}: {}",
        daemon.log()
    );

    let mut daemon = start(&host, &file)?;
    assert_eq!(daemon.terminate()?.code(), Some(0), "{}", daemon.log());
    assert_eq!(host.traces()?, before);
    Ok(())
}

#[test]
fn the_next_start_cleans_up_after_a_killed_daemon() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "")?;
    let before = host.traces()?;
    let mut daemon = start(&host, &file)?;
    assert_eq!(daemon.kill()?.signal(), Some(Signal::SIGKILL as i32));
    assert!(host.socket().exists(), "the killed daemon left no socket");

    let mut daemon = start(&host, &file)?;
    assert_eq!(daemon.terminate()?.code(), Some(0), "{}", daemon.log());
    assert_eq!(host.traces()?, before);
    Ok(())
}

#[test]
fn a_second_daemon_is_refused_and_the_first_keeps_running() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "")?;
    let mut daemon = start(&host, &file)?;
    let running = host.traces()?;
    let mut command = host.namespace.command(binary()?)?;
    let second = command.args(["run", "--config"]).arg(&file).output()?;
    let said = String::from_utf8(second.stderr)?;
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.starts_with("teredo: already running: "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(host.traces()?, running);
    assert!(ask(&file, "status")?.status.success());

    // `check` recognises that this very daemon holds the resources in use.
    let mut command = host.namespace.command(binary()?)?;
    let check = command.args(["check", "--config"]).arg(&file).output()?;
    let said = String::from_utf8(check.stdout)?;
    assert!(check.status.success(), "{said}");
    assert!(said.contains("is running"), "{said}");
    daemon.terminate()?;
    Ok(())
}

#[test]
fn output_has_the_documented_form() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "")?;
    let mut daemon = start(&host, &file)?;
    let status: Value = serde_json::from_slice(&ask(&file, "status")?.stdout)?;
    for pointer in [
        "/packets/encap/xdp",
        "/packets/encap/userspace",
        "/packets/decap/xdp",
        "/packets/decap/userspace",
        "/bytes/decap/userspace",
        "/dropped/decap-unknown-peer",
        "/passed/not-ip",
        "/bubbles/sent",
        "/bubbles/received",
        "/peers/trusted",
        "/peers/untrusted",
    ] {
        let number = status.pointer(pointer).and_then(Value::as_u64);
        assert!(number.is_some(), "{pointer} in {status}");
    }
    assert_eq!(status["name"], host.namespace.name());
    assert_eq!(status["roles"], serde_json::json!(["relay"]));
    assert_eq!(
        status["xdp"],
        serde_json::json!([{ "interface": "wan", "mode": "native", "reason": "" }])
    );
    assert!(
        status["uptime_seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds > 0.0)
    );
    assert!(status["version"].is_string());
    let peers: Value = serde_json::from_slice(&ask(&file, "peers")?.stdout)?;
    assert_eq!(peers, serde_json::json!([]));
    daemon.terminate()?;
    Ok(())
}

#[test]
fn prometheus_reads_metrics_over_tcp() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "")?;
    let text = fs::read_to_string(&file)?;
    let unix = format!("\"unix:{}\"", host.socket().display());
    fs::write(
        &file,
        text.replace(&unix, &format!("[{unix}, \"tcp:127.0.0.1:9580\"]")),
    )?;
    let mut daemon = start(&host, &file)?;
    let answer = host.namespace.run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9580")?;
        stream
            .write_all(b"GET /metrics HTTP/1.0\r\naccept: application/openmetrics-text\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    })??;
    for part in [
        "application/openmetrics-text",
        "teredo_packets_total{role=\"relay\",direction=\"encap\",path=\"xdp\"} 0\n",
        "teredo_peers{role=\"relay\",state=\"trusted\"} 0\n",
        "teredo_xdp_attached{interface=\"wan\",mode=\"native\"} 1\n",
    ] {
        assert!(answer.contains(part), "{part} in {answer}");
    }
    daemon.terminate()?;
    Ok(())
}

/// Reports to the watchdog, ten times a second, find no room.
#[test]
fn a_service_manager_that_reads_nothing_holds_up_nothing() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "")?;
    let path = host.directory.path().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    let mut daemon = start_with(&host, &file, |command| {
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "200000");
    })?;
    let other = UnixDatagram::unbound()?;
    other.set_nonblocking(true)?;
    while other.send_to(b"X_FULL=1", &path).is_ok() {}
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        let status = ask(&file, "status")?;
        assert!(status.status.success(), "{status:?}");
    }
    // Otherwise the end of the daemon would wait for it, too.
    drop(manager);
    daemon.terminate()?;
    Ok(())
}

#[test]
fn systemd_is_notified() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "")?;
    let path = host.directory.path().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let next = || -> Result<String> {
        let mut buffer = [0; 256];
        let length = uninterrupted(PATIENCE, || socket.recv(&mut buffer))?;
        Ok(String::from_utf8_lossy(&buffer[..length]).trim().to_owned())
    };
    let mut daemon = start_with(&host, &file, |command| {
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "200000");
    })?;
    assert_eq!(next()?, "READY=1");
    for _ in 0..3 {
        assert_eq!(next()?, "WATCHDOG=1");
    }
    daemon.signal(Signal::SIGTERM)?;
    let stopping =
        std::iter::repeat_with(next).find(|told| !matches!(told, Ok(told) if told == "WATCHDOG=1"));
    assert_eq!(stopping.context("endless")??, "STOPPING=1");
    daemon.wait(PATIENCE)?;
    Ok(())
}

#[test]
fn a_relay_drops_all_but_the_needed_privileges() -> Result<()> {
    /// `CAP_NET_ADMIN`, `CAP_NET_RAW`, `CAP_PERFMON` and `CAP_BPF` as /proc shows them.
    const KEPT: u64 = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;

    let host = Host::new()?;
    let file = host.configure("user = \"nobody\"", "xdp.pin = false")?;
    let before = host.traces()?;
    let mut daemon = start(&host, &file)?;
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    assert_eq!(field("Uid:"), "65534\t65534\t65534\t65534");
    assert_eq!(field("Groups:"), "65534");
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(u64::from_str_radix(&field(set), 16)?, KEPT, "{set}");
    }
    assert_eq!(field("CapInh:"), "0000000000000000");
    assert_eq!(field("NoNewPrivs:"), "1");
    let owner = fs::metadata(host.socket())?.uid();
    assert_eq!(owner, 65534);
    assert!(host.traces()?.contains("prog/xdp"));

    assert_eq!(daemon.terminate()?.code(), Some(0), "{}", daemon.log());
    assert_eq!(host.traces()?, before);
    Ok(())
}

/// The directory is root's, as service managers and earlier daemons of root make it.
#[test]
fn a_user_gets_its_socket_in_a_directory_of_root() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("user = \"nobody\"", "xdp.mode = \"off\"")?;
    let directory = host.directory.path().join("run");
    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
    // The second start finds the socket that the first could not remove.
    for _ in 0..2 {
        let mut check = host.namespace.command(binary()?)?;
        let check = check.args(["check", "--config"]).arg(&file).output()?;
        assert!(check.status.success(), "{check:?}");
        let mut daemon = start(&host, &file)?;
        let socket = fs::metadata(host.socket())?;
        assert_eq!((socket.uid(), socket.mode() & 0o777), (65534, 0o660));
        assert!(ask(&file, "status")?.status.success());
        let kept = fs::metadata(&directory)?;
        assert_eq!((kept.uid(), kept.mode() & 0o777), (0, 0o755));
        assert_eq!(daemon.terminate()?.code(), Some(0), "{}", daemon.log());
        let names: Vec<_> = fs::read_dir(&directory)?.flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }
    Ok(())
}

#[test]
fn a_server_reads_its_keys_before_dropping_privileges() -> Result<()> {
    /// `CAP_NET_ADMIN`, `CAP_NET_RAW` and `CAP_BPF` as /proc shows them.
    const KEPT: u64 = 1 << 12 | 1 << 13 | 1 << 39;
    const DIGITS: &str = "00112233445566778899aabbccddeeff";

    let host = Host::new()?;
    // The rest is readable by all users; the key by root alone.
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(host.directory.path(), everybody)?;
    let key = host.directory.path().join("alice.key");
    fs::write(&key, DIGITS)?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    let client = format!("[[server.client]]\nid = \"alice\"\nsecret-file = {key:?}");
    let server = format!("xdp.mode = \"off\"\n{client}");
    let file = host.configure_server("user = \"nobody\"\nlog = \"trace\"", &server)?;
    let before = host.traces()?;
    let mut daemon = start(&host, &file)?;
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let kept = u64::from_str_radix(line.unwrap_or_default().trim(), 16)?;
    assert_eq!(kept, KEPT);
    let told = ask(&file, "status")?.stdout;
    assert_eq!(daemon.terminate()?.code(), Some(0), "{}", daemon.log());
    assert_eq!(host.traces()?, before);
    let told = String::from_utf8(told)? + &daemon.log();
    for secret in ["33445566", "51, 68, 85"] {
        assert!(!told.contains(secret), "{told}");
    }
    Ok(())
}

#[test]
fn a_server_reports_its_state_and_drains() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure_server("", "sunset = \"9999-12-31\"\n[relay]")?;
    let before = host.traces()?;
    let mut daemon = start(&host, &file)?;
    let status = || -> Result<Value> { Ok(serde_json::from_slice(&ask(&file, "status")?.stdout)?) };
    let told = status()?;
    assert_eq!(told["roles"], serde_json::json!(["relay", "server"]));
    assert_eq!(told["draining"], serde_json::json!([]));
    assert_eq!(
        told["sunset"],
        serde_json::json!({ "server": "9999-12-31" })
    );
    for pointer in [
        "/server/requests/solicitation/advertised/userspace",
        "/server/requests/bubble/forwarded/userspace",
        "/server/bindings",
        "/dropped/solicitation-invalid",
    ] {
        let number = told.pointer(pointer).and_then(Value::as_u64);
        assert_eq!(number, Some(0), "{pointer} in {told}");
    }

    let mut command = Command::new(binary()?);
    let drain = command.args(["drain", "--config"]).arg(&file).output()?;
    assert!(
        drain.status.success(),
        "{}",
        String::from_utf8(drain.stderr)?
    );
    assert_eq!(
        status()?["draining"],
        serde_json::json!(["relay", "server"])
    );
    let mut command = Command::new(binary()?);
    let human = command.args(["status", "--config"]).arg(&file).output()?;
    let human = String::from_utf8(human.stdout)?;
    for part in [
        "relay, server, up",
        "draining: relay, server",
        "the server ends on 9999-12-31",
    ] {
        assert!(human.contains(part), "no {part} in {human}");
    }
    assert_eq!(daemon.terminate()?.code(), Some(0), "{}", daemon.log());
    assert_eq!(host.traces()?, before);
    Ok(())
}

#[test]
fn drain_is_refused_over_tcp() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "xdp.mode = \"off\"")?;
    let text = fs::read_to_string(&file)?;
    let unix = format!("\"unix:{}\"", host.socket().display());
    let both = format!("[{unix}, \"tcp:127.0.0.1:9580\"]");
    fs::write(&file, text.replace(&unix, &both))?;
    let mut daemon = start(&host, &file)?;
    let mut command = host.namespace.command(binary()?)?;
    let drain = command
        .args(["drain", "--api", "tcp:127.0.0.1:9580"])
        .output()?;
    let said = String::from_utf8(drain.stderr)?;
    assert_eq!(drain.status.code(), Some(1), "{said}");
    assert!(
        said.contains("refuses") && said.contains("unix socket"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    let status: Value = serde_json::from_slice(&ask(&file, "status")?.stdout)?;
    assert_eq!(status["draining"], serde_json::json!([]));
    daemon.terminate()?;
    Ok(())
}

#[test]
fn the_log_filter_applies() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("log = \"error\"", "")?;
    let mut daemon = start(&host, &file)?;
    daemon.terminate()?;
    assert_eq!(daemon.log(), "");

    let file = host.configure("log = \"info\"", "")?;
    let mut daemon = start(&host, &file)?;
    wait_until("it says so", PATIENCE, || {
        Ok(daemon.log().contains("is running"))
    })?;
    daemon.terminate()?;
    assert!(daemon.log().contains("is stopping"), "{}", daemon.log());
    Ok(())
}
