//! `teredo capture`: packets at chosen points of their way, with the reason for their fate.

use std::{
    fs,
    io::Read as _,
    net::{IpAddr, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;
use teredo::{capture::Query, datapath::xdp::capture::Capture as XdpCapture};
use teredo_common::{capture::Filter, verdict::Verdict};
use teredo_lab::{
    Capture, Scene, Teredo, Topology,
    fixture::{Fixture, Port, ROUTER, Setup, WAN, relay},
    packet,
    process::output,
    scene::{Client, IPV4_INTERFACE, IPV6_INTERFACE, RELAY},
    teredo::binary,
    traffic::{Ping, Tcp},
    wait_until,
};

/// Time after which a step has failed.
const SOON: Duration = Duration::from_secs(30);

/// A relay with one client whose peer it is.
struct World {
    relay: Teredo,
    client: Client,
    scene: Scene,
}

/// A running `teredo capture`, and its file.
struct Capturing {
    child: Child,
    directory: TempDir,
}

/// A packet of the file.
#[derive(Clone, Debug)]
struct Packet {
    /// The name of the interface: `v4:received` or `relay:dropped`.
    point: String,
    comment: String,
    length: u32,
    octets: Vec<u8>,
    number: u64,
    /// What the XDP program returned.
    action: Option<u64>,
}

impl World {
    fn new(mode: &str) -> Result<Self> {
        let scene = Scene::new(Topology::default())?;
        let site = scene.site();
        let client = scene.start_client(&site.client, &scene.client_config(site.port))?;
        let relay = scene.start_relay(&scene.relay_config().set("relay.xdp.mode", mode))?;
        let host = scene.host();
        Ping::to(client.address()).all_from(&host.namespace)?;
        Ping::to(host.address).all_from(&site.client)?;
        Ok(Self {
            relay,
            client,
            scene,
        })
    }

    /// The number of the XDP program on an interface of the relay.
    fn program(&self, interface: &str) -> Result<Option<u64>> {
        let links = self
            .scene
            .relay
            .ip(&format!("-j link show dev {interface}"))?;
        let links: Value = serde_json::from_str(&links)?;
        Ok(links[0]["xdp"]["prog"]["id"].as_u64())
    }

    /// Starts to capture at the relay with these options, and waits until packets are captured.
    fn capture(&self, options: &str) -> Result<Capturing> {
        let usual = self.program(IPV4_INTERFACE)?;
        let capturing = Capturing::start(&self.relay, options)?;
        if usual.is_some() && !options.contains("daemon") {
            wait_until("the program captures", SOON, || {
                Ok(self.program(IPV4_INTERFACE)? != usual)
            })?;
        }
        Ok(capturing)
    }

    /// Captures while `work` runs.
    fn captured(&self, options: &str, work: impl FnOnce() -> Result<()>) -> Result<Vec<Packet>> {
        let capturing = self.capture(options)?;
        work()?;
        Ok(capturing.end()?.0)
    }

    /// Sends a datagram with this payload from the client's site to the relay, and waits until it was dropped.
    fn send_garbage(&self, payload: &[u8]) -> Result<()> {
        let dropped = |world: &Self| {
            let status = world.relay.status()?;
            anyhow::Ok(status.dropped.values().sum::<u64>())
        };
        let before = dropped(self)?;
        self.scene.site().client.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(payload, RELAY)
        })??;
        wait_until("it is dropped", SOON, || Ok(dropped(self)? > before))
    }

    fn ping(&self) -> Result<()> {
        let host = self.scene.host();
        Ping::to(host.address)
            .count(3)
            .all_from(&self.scene.site().client)?;
        Ping::to(self.client.address())
            .count(3)
            .all_from(&host.namespace)
    }

    /// The processes of the daemon that put the program back.
    fn guards(&self) -> Result<usize> {
        let pids = output(Command::new("ip").args(["netns", "pids", self.scene.relay.name()]))?;
        let command = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cmdline"));
        let is_guard = |pid: &&str| command(pid).unwrap_or_default().contains("restore-program");
        Ok(pids.lines().filter(is_guard).count())
    }

    fn is_back(&self, usual: Option<u64>) -> Result<bool> {
        Ok(self.program(IPV4_INTERFACE)? == usual
            && self.program(IPV6_INTERFACE)? == usual
            && self.guards()? == 0)
    }
}

impl Capturing {
    /// Starts to capture at a daemon with these options, and waits until that has begun.
    fn start(daemon: &Teredo, options: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let child = Command::new(binary()?)
            .arg("capture")
            .arg("--config")
            .arg(daemon.file())
            .arg("--write")
            .arg(directory.path().join("file"))
            .args(options.split_whitespace())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut capturing = Self { child, directory };
        wait_until("the capture begins", SOON, || {
            if let Some(status) = capturing.child.try_wait()? {
                let mut text = String::new();
                capturing.stderr(&mut text)?;
                anyhow::bail!("{status}: {text}");
            }
            Ok(fs::metadata(capturing.file()).is_ok_and(|file| file.len() > 0))
        })?;
        Ok(capturing)
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("file")
    }

    fn stderr(&mut self, text: &mut String) -> Result<()> {
        let stderr = self.child.stderr.as_mut().context("it has one")?;
        stderr.read_to_string(text)?;
        Ok(())
    }

    /// Ends the capture as a user does who has waited for the statistics, and returns packets and summary.
    fn end(self) -> Result<(Vec<Packet>, String)> {
        // Those of the last second are in the file with the statistics after them.
        let length = fs::metadata(self.file())?.len();
        let _ = wait_until("statistics", Duration::from_secs(3), || {
            Ok(fs::metadata(self.file())?.len() > length)
        });
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT)?;
        self.wait()
    }

    /// Waits for the end of the capture.
    fn wait(mut self) -> Result<(Vec<Packet>, String)> {
        let mut text = String::new();
        self.stderr(&mut text)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}: {text}");
        Ok((packets(&fs::read(self.file())?)?, text))
    }
}

impl Drop for Capturing {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the packets of a file.
fn packets(file: &[u8]) -> Result<Vec<Packet>> {
    let word = |at: usize| -> Result<u32> {
        let octets = file.get(at..at + 4).context("the file is cut short")?;
        Ok(u32::from_ne_bytes(octets.try_into()?))
    };
    // The options of a block from `at` on.
    let options = |mut at: usize| -> Result<Vec<(u32, Vec<u8>)>> {
        let mut options = Vec::new();
        loop {
            let (code, length) = (word(at)? & 0xffff, (word(at)? >> 16) as usize);
            if code == 0 {
                return Ok(options);
            }
            options.push((code, file[at + 4..at + 4 + length].to_vec()));
            at += 4 + length.next_multiple_of(4);
        }
    };
    let of = |options: &[(u32, Vec<u8>)], wanted: u32| {
        let found = options.iter().find(|(code, _)| *code == wanted);
        found.map(|(_, value)| value.clone())
    };
    let text = |value: Option<Vec<u8>>| anyhow::Ok(String::from_utf8(value.context("no text")?)?);
    let (mut at, mut names, mut packets) = (0, Vec::new(), Vec::new());
    while at < file.len() {
        let length = word(at + 4)? as usize;
        match word(at)? {
            1 => names.push(text(of(&options(at + 16)?, 2))?),
            6 => {
                let captured = word(at + 20)? as usize;
                let options = options(at + 28 + captured.next_multiple_of(4))?;
                let number = of(&options, 5).context("no number")?;
                let action = of(&options, 7).map(|value| value[1..].try_into());
                packets.push(Packet {
                    point: names[word(at + 8)? as usize].clone(),
                    comment: text(of(&options, 1))?,
                    length: word(at + 24)?,
                    octets: file[at + 28..at + 28 + captured].to_vec(),
                    number: u64::from_ne_bytes(number.as_slice().try_into()?),
                    action: action.transpose()?.map(u64::from_ne_bytes),
                });
            }
            _ => {}
        }
        ensure!(word(at + length - 4)? as usize == length, "lengths differ");
        at += length;
    }
    Ok(packets)
}

/// The packets at a point.
fn at<'a>(packets: &'a [Packet], point: &str) -> Vec<&'a Packet> {
    let here = packets.iter().filter(|packet| packet.point == point);
    here.collect()
}

#[test]
fn frames_of_the_fast_path_are_those_on_the_wire() -> Result<()> {
    let world = World::new("native")?;
    let usual = world.program(IPV4_INTERFACE)?;
    let capturing = world.capture("--points xdp --snaplen 4095")?;
    let wire = Capture::start(&world.scene.host().namespace, IPV6_INTERFACE)?;
    world.ping()?;
    let is_echo = |octets: &[u8]| octets.len() > 60 && octets[20] == 58 && octets[54] >> 1 == 64;
    wait_until("the echoes are captured", SOON, || {
        let frames = wire.frames();
        let echoes = frames.iter().filter(|frame| is_echo(&frame.bytes));
        Ok(echoes.count() >= 12)
    })?;
    let frames = wire.frames();
    let (packets, summary) = capturing.end()?;
    ensure!(
        summary.contains(" 0 lost for want of room, 0 not looked at"),
        "{summary}"
    );
    for (is_outgoing, point, comment) in [
        (true, "v6:received", "encap-forwarded: forwarded"),
        (false, "v4:forwarded", "decap-forwarded: forwarded"),
    ] {
        let on_wire: Vec<_> = frames
            .iter()
            .filter(|frame| frame.outgoing == is_outgoing && is_echo(&frame.bytes))
            .collect();
        ensure!(on_wire.len() == 6, "{} echoes at the host", on_wire.len());
        for frame in on_wire {
            let captured = at(&packets, point);
            let found = captured.iter().find(|packet| packet.octets == frame.bytes);
            let found = found.with_context(|| format!("{frame:?} is not in {captured:?}"))?;
            ensure!(found.comment == comment, "{found:?}");
            ensure!(found.length as usize == frame.bytes.len(), "{found:?}");
            ensure!(matches!(found.action, Some(3 | 4)), "{found:?}");
            // The other side of the same frame.
            let same = packets
                .iter()
                .filter(|packet| packet.number == found.number);
            ensure!(same.count() == 2, "{found:?}");
        }
    }
    // The client that goes ends the capture.
    wait_until("the usual program is back", SOON, || world.is_back(usual))?;
    let forwarded = world.relay.packets_during(|| world.ping())?;
    ensure!(
        forwarded.encap.xdp >= 6 && forwarded.decap.xdp >= 6,
        "{forwarded:?}"
    );
    Ok(())
}

#[test]
fn a_datagram_is_followed_from_the_fast_path_to_the_daemon() -> Result<()> {
    let world = World::new("native")?;
    let packets = world.captured("", || world.send_garbage(&[0xee; 40]))?;
    let ours = |packet: &&Packet| packet.octets.ends_with(&[0xee; 40]);
    let ours: Vec<_> = packets.iter().filter(ours).collect();
    let expected = [
        (
            "v4:received",
            "decap-not-ipv6: passed to the kernel",
            Some(2),
        ),
        ("v4:passed", "decap-not-ipv6: passed to the kernel", Some(2)),
        ("relay:received", "decap-malformed", None),
        ("relay:dropped", "decap-malformed", None),
    ];
    for (point, comment, action) in expected {
        let found = ours.iter().find(|packet| packet.point == point);
        let found = found.with_context(|| format!("nothing at {point}: {packets:?}"))?;
        ensure!(
            found.comment == comment && found.action == action,
            "{found:?}"
        );
    }
    ensure!(ours.len() == expected.len(), "{ours:?}");
    // The headers that the socket has taken away are those of the frame, but for what nobody knows any more.
    let [frame, _, datagram, _] = &*ours else {
        anyhow::bail!("{ours:?}")
    };
    let frame = &frame.octets[14..];
    ensure!(datagram.octets[12..26] == frame[12..26], "{datagram:?}");
    ensure!(datagram.octets[28..] == frame[28..], "{datagram:?}");
    Ok(())
}

#[test]
fn filters_select_packets() -> Result<()> {
    let world = World::new("native")?;
    let (host, client) = (world.scene.host().address, world.client.address());
    let nat = world.scene.site().nat.address();
    let work = || {
        world.ping()?;
        world.send_garbage(&[0xee; 40])
    };
    let xdp = "--points xdp:received";
    for (options, has_echoes, has_garbage) in [
        (String::new(), true, true),
        (format!("--peer {client}"), true, false),
        (format!("--peer {nat}"), true, true),
        ("--peer 192.0.2.1".to_owned(), false, false),
        (format!("--prefix {host}/128"), true, false),
        ("--prefix 2001:db8:ffff::/48".to_owned(), false, false),
        ("--reason decap-not-ipv6".to_owned(), false, true),
        (
            "--reason encap-forwarded,decap-forwarded".to_owned(),
            true,
            false,
        ),
        ("--role relay".to_owned(), true, true),
    ] {
        let packets = world.captured(&format!("{xdp} {options}"), work)?;
        let forwarded = packets
            .iter()
            .filter(|packet| packet.comment.contains("-forwarded"));
        let garbage = packets
            .iter()
            .filter(|packet| packet.octets.ends_with(&[0xee; 40]));
        let found = (forwarded.count() >= 12, garbage.count() == 1);
        ensure!(
            found == (has_echoes, has_garbage),
            "{options}: {found:?} in {packets:?}"
        );
    }
    Ok(())
}

#[test]
fn a_capture_is_bounded() -> Result<()> {
    let world = World::new("native")?;
    let capturing = world.capture("--points xdp:received --count 4 --snaplen 40")?;
    world.ping()?;
    let (packets, summary) = capturing.wait()?;
    ensure!(
        packets.len() == 4 && summary.starts_with("4 packets captured"),
        "{summary}"
    );
    ensure!(
        packets.iter().all(|packet| packet.octets.len() <= 40),
        "{packets:?}"
    );

    let capturing = world.capture("--points xdp:received --rate 1 --duration 3")?;
    world.ping()?;
    let (packets, summary) = capturing.wait()?;
    ensure!((1..8).contains(&packets.len()), "{summary}");
    ensure!(!summary.contains(" 0 not looked at"), "{summary}");

    let all = world.captured("--points xdp:received --prefix ::/0", || world.ping())?;
    let some = world.captured("--points xdp:received --prefix ::/0 --sample 4", || {
        world.ping()
    })?;
    ensure!(
        some.len() <= all.len() / 2 && !some.is_empty(),
        "{} of {}",
        some.len(),
        all.len()
    );
    Ok(())
}

#[test]
fn a_killed_daemon_leaves_the_usual_program() -> Result<()> {
    let mut world = World::new("native")?;
    let usual = world.program(IPV4_INTERFACE)?;
    ensure!(usual.is_some(), "no program");
    let capturing = world.capture("--points xdp")?;
    ensure!(world.guards()? == 1, "nobody would put the program back");
    world.relay.daemon.kill()?;
    wait_until("the usual program is back", SOON, || world.is_back(usual))?;
    drop(capturing);
    world.relay.start_again(&world.scene.relay)?;
    world.ping()
}

#[test]
fn a_reload_ends_the_capture_and_leaves_nothing() -> Result<()> {
    let world = World::new("native")?;
    let capturing = world.capture("--points xdp")?;
    let during = world.program(IPV4_INTERFACE)?;
    let mut reload = Command::new(binary()?);
    output(reload.arg("reload").arg("--config").arg(world.relay.file()))?;
    capturing.wait()?;
    let after = world.program(IPV4_INTERFACE)?;
    ensure!(
        after.is_some() && after != during,
        "{during:?} is still there"
    );
    wait_until("nothing is left", SOON, || world.is_back(after))?;
    let forwarded = world.relay.packets_during(|| world.ping())?;
    ensure!(forwarded.encap.xdp >= 6, "{forwarded:?}");
    Ok(())
}

#[test]
fn packets_of_userspace_are_captured() -> Result<()> {
    let world = World::new("off")?;
    for reason in ["", "--reason forwarded"] {
        let packets = world.captured(&format!("--points daemon {reason}"), || world.ping())?;
        for point in ["relay:received", "relay:forwarded"] {
            let here = at(&packets, point);
            let forwarded = here.iter().filter(|packet| packet.comment == "forwarded");
            ensure!(forwarded.count() == 12, "{point}: {packets:?}");
        }
        let others = packets
            .iter()
            .filter(|packet| packet.comment != "forwarded");
        ensure!(reason.is_empty() || others.count() == 0, "{packets:?}");
    }
    Ok(())
}

#[test]
fn packets_of_a_client_are_captured() -> Result<()> {
    let world = World::new("off")?;
    let client = world.client.teredo().context("ours")?;
    let site = world.scene.site();
    let capturing = Capturing::start(client, "--role client")?;
    world.ping()?;
    // A datagram of the host itself, to the client.
    let local = site.client.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(RELAY)?;
        let local = socket.local_addr()?.ip();
        socket.connect((local, site.port))?;
        socket.send(&[0xee; 40])?;
        anyhow::Ok(local)
    })??;
    wait_until("it is dropped", SOON, || {
        let status = client.status()?;
        Ok(status
            .dropped
            .get("own-source")
            .is_some_and(|&count| count > 0))
    })?;
    let (packets, summary) = capturing.end()?;
    ensure!(
        summary.contains(" 0 lost for want of room, 0 not looked at"),
        "{summary}"
    );
    for point in ["client:received", "client:forwarded"] {
        let here = at(&packets, point);
        let forwarded = here.iter().filter(|packet| packet.comment == "forwarded");
        ensure!(forwarded.count() == 12, "{point}: {packets:?}");
    }
    // The kernel's own packets to groups are dropped, too.
    let dropped = at(&packets, "client:dropped");
    let dropped = dropped
        .iter()
        .filter(|packet| packet.comment == "own-source");
    let dropped: Vec<_> = dropped.collect();
    let [dropped] = &*dropped else {
        anyhow::bail!("{dropped:?}");
    };
    ensure!(dropped.octets.ends_with(&[0xee; 40]), "{dropped:?}");
    // The socket of all addresses does not tell by which a datagram leaves.
    let forwarded = at(&packets, "client:forwarded");
    let datagrams = forwarded.iter().filter(|packet| packet.octets[0] == 0x45);
    for datagram in datagrams {
        let octets = &datagram.octets;
        let [from, to] = [12, 16].map(|start| <[u8; 4]>::try_from(&octets[start..start + 4]));
        ensure!(IpAddr::from(from?) == local, "{datagram:?}");
        ensure!(to? == RELAY.ip().octets(), "{datagram:?}");
        ensure!(octets[20..22] == site.port.to_be_bytes(), "{datagram:?}");
    }
    Ok(())
}

#[test]
fn super_packets_of_a_client_are_captured_as_the_packets_that_they_become() -> Result<()> {
    const OCTETS: u64 = 100_000;
    const MTU: u64 = 1280;
    let world = World::new("off")?;
    let client = world.client.teredo().context("ours")?;
    let host = world.scene.host();
    let options = format!(
        "--points daemon --reason forwarded --rate 100000 --prefix {}/128",
        host.address
    );
    let capturing = Capturing::start(client, &options)?;
    Tcp::to(host.address)
        .upload(OCTETS)
        .between(&world.scene.site().client, &host.namespace)?;
    let (packets, _) = capturing.end()?;
    let segments = packets.iter().filter_map(|packet| {
        // Behind the headers of IPv4 and UDP, which only datagrams have.
        let start = if packet.point == "client:forwarded" {
            28
        } else {
            0
        };
        let inner = packet.octets.get(start..)?;
        let is_sent = inner[0] >> 4 == 6 && inner[24..40] == host.address.octets();
        let length = packet.length - start as u32;
        is_sent.then_some((&*packet.point, length))
    });
    for point in ["client:received", "client:forwarded"] {
        let lengths = segments.clone().filter(|(one, _)| *one == point);
        let lengths: Vec<_> = lengths.map(|(_, length)| u64::from(length)).collect();
        // A burst may have more packets than wait for those that capture.
        ensure!(lengths.iter().max() == Some(&MTU), "{point}: {lengths:?}");
    }
    Ok(())
}

#[test]
fn requests_that_are_not_possible_are_refused() -> Result<()> {
    let world = World::new("native")?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("file");
    fs::write(&file, "old")?;
    let refusal = |options: &str| {
        let mut command = Command::new(binary()?);
        let command = command
            .arg("capture")
            .arg("--config")
            .arg(world.relay.file())
            .arg("--write")
            .arg(&file);
        let result = command.args(options.split_whitespace()).output()?;
        ensure!(!result.status.success(), "{options} is not refused");
        ensure!(fs::read(&file)? == b"old", "{options} touches the file");
        Ok(String::from_utf8(result.stderr)?)
    };
    for (options, sentence) in [
        ("--points lost", "there is no point \"lost\""),
        ("--reason weather", "there is no reason \"weather\""),
        ("--peer nobody", "\"nobody\" is no peer"),
        (
            "--rate 0",
            "rate = 0 is not possible: it must be from 1 to 100000",
        ),
        (
            "--count 0",
            "count = 0 is not possible: it must be at least 1",
        ),
        (
            "--role client",
            "this daemon is no client: its roles are relay",
        ),
        (
            "--points daemon --reason decap-forwarded",
            "no packet has this role, reason and point",
        ),
    ] {
        let text = refusal(options)?;
        ensure!(text.contains(sentence), "{options}: {text}");
    }
    let capturing = world.capture("--points xdp")?;
    let text = refusal("--points daemon")?;
    ensure!(text.contains("somebody captures already"), "{text}");
    drop(capturing);
    Ok(())
}

#[test]
fn tcp_gives_no_packets() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let mut relay = scene.start_relay(&scene.relay_config())?;
    relay.daemon.terminate()?;
    let text = fs::read_to_string(relay.file())?;
    let unix = text.lines().find_map(|line| line.strip_prefix("api = "));
    let unix = unix.context("it has a unix socket")?;
    let both = format!("[{unix}, \"tcp:127.0.0.1:9099\"]");
    fs::write(relay.file(), text.replace(unix, &both))?;
    relay.start_again(&scene.relay)?;
    let mut command = scene.relay.command(binary()?)?;
    let result = command
        .args(["capture", "--api", "tcp:127.0.0.1:9099"])
        .output()?;
    let said = String::from_utf8(result.stderr)?;
    ensure!(!result.status.success(), "{said}");
    ensure!(
        said.contains("refuses") && said.contains("unix socket"),
        "{said}"
    );
    Ok(())
}

/// The kernel's `bpf_attr` for running a program on a frame.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Run {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
}

/// The nanoseconds that a program takes for a frame.
fn nanoseconds(program: BorrowedFd<'_>, interface: u32, frame: &[u8], repeat: u32) -> Result<u32> {
    const TEST_RUN: libc::c_int = 10;
    let context: [u32; 6] = [0, frame.len() as u32, 0, interface, 0, 0];
    let mut run = Run {
        program: program.as_raw_fd() as u32,
        size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat,
        context_size_in: 24,
        context_in: context.as_ptr() as u64,
        ..bytemuck::Zeroable::zeroed()
    };
    // SAFETY: frame and context have the sizes that are given, and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, TEST_RUN, &raw mut run, size_of::<Run>()) };
    ensure!(result == 0, "{}", std::io::Error::last_os_error());
    Ok(run.duration)
}

/// Prints what a frame costs with and without a capture, as docs/performance.md has it.
#[test]
fn a_capture_costs_only_what_it_looks_at() -> Result<()> {
    /// Frames of one run, which have room in the ring buffer together.
    const FRAMES: u32 = 4_000;
    const ROUNDS: usize = 25;
    let mut fixture = Fixture::new(&Setup::default())?;
    let interface = fixture.interface(Port::Wan);
    let client = packet::address("2001:0:506:708:0:efff:f5f4:f3f2");
    let inner = packet::udp(client, packet::address("2000::b"), &[1; 16]);
    let datagram = packet::datagram(packet::endpoint("10.11.12.13:4096"), relay(), 7, &inner);
    let frame = packet::ethernet(WAN, ROUTER, 0x800, &datagram);
    let selection = |set: fn(&mut Query)| {
        let mut query = Query::default();
        set(&mut query);
        anyhow::Ok(query.selection()?.filter)
    };
    let all = Filter {
        interval: 0,
        ..selection(|_| {})?
    };
    let filters = [
        (
            "a filter of an address that matches nothing",
            selection(|query| query.peer = Some("192.0.2.1".to_owned()))?,
        ),
        (
            "a filter of a reason that matches nothing",
            selection(|query| query.reason = Some("encap-bubble".to_owned()))?,
        ),
        ("one frame of 100", Filter { sample: 100, ..all }),
        (
            "everything, beyond the rate of 1,000 a second",
            selection(|_| {})?,
        ),
        ("everything, 256 octets of each", all),
    ];
    let shared = fixture.program.shared()?;
    let captures = filters.map(|(name, filter)| (name, XdpCapture::load(&shared, &filter)));
    let usual = fixture.program.xdp()?.fd()?.try_clone()?;
    let mut times: Vec<(&str, Vec<u32>, usize)> = vec![("off", Vec::new(), 0)];
    let mut captures = captures
        .into_iter()
        .map(|(name, capture)| {
            times.push((name, Vec::new(), 0));
            Ok(capture?)
        })
        .collect::<Result<Vec<_>>>()?;
    for _ in 0..ROUNDS {
        let time = nanoseconds(usual.as_fd(), interface, &frame, FRAMES)?;
        times[0].1.push(time);
        for (capture, (_, times, records)) in captures.iter_mut().zip(&mut times[1..]) {
            times.push(nanoseconds(capture.program(), interface, &frame, FRAMES)?);
            while capture.next(|head, octets| {
                assert_eq!(
                    Verdict::ALL[usize::from(head.verdict)],
                    Verdict::DecapUnknownPeer
                );
                assert!(frame.starts_with(octets) && octets.len() == frame.len().min(256));
                *records += 1;
            }) {}
        }
    }
    for (name, times, records) in &mut times {
        times.sort_unstable();
        println!("| {name} | {} | {records} |", times[ROUNDS / 2]);
    }
    let frames = ROUNDS * FRAMES as usize;
    let records: Vec<_> = times.iter().map(|(_, _, records)| *records).collect();
    assert_eq!(records[..3], [0, 0, 0]);
    // Each is received and passed.
    assert_eq!(records[3], 2 * frames / 100);
    assert!(records[4] > 0 && records[4] < frames / 10, "{records:?}");
    assert_eq!(records[5], 2 * frames);
    Ok(())
}

#[test]
fn tshark_reads_the_file() -> Result<()> {
    let world = World::new("native")?;
    let capturing = world.capture("--points xdp,daemon:sent --snaplen 4095")?;
    world.ping()?;
    let file = capturing.file();
    let packets = {
        let length = fs::metadata(&file)?.len();
        wait_until("packets are written", SOON, || {
            Ok(fs::metadata(&file)?.len() > length)
        })?;
        packets(&fs::read(&file)?)?
    };
    let copy = capturing.directory.path().join("copy");
    fs::copy(&file, &copy)?;
    let mut tshark = Command::new("tshark");
    tshark
        .arg("-r")
        .arg(&copy)
        .args(["-T", "fields", "-e", "frame.comment"]);
    let Ok(result) = tshark.output() else {
        // It is not installed: the other tests read the file by themselves.
        return Ok(());
    };
    ensure!(
        result.status.success(),
        "{}",
        String::from_utf8_lossy(&result.stderr)
    );
    let comments = String::from_utf8(result.stdout)?;
    let comments: Vec<_> = comments.lines().collect();
    ensure!(comments.len() >= packets.len(), "{comments:?}");
    for (packet, comment) in packets.iter().zip(comments) {
        ensure!(packet.comment == comment, "{comment} for {packet:?}");
    }
    Ok(())
}
