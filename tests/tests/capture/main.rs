//! `teredo capture`: packets at chosen points of their way, with the reason for their fate.

mod cost;
mod daemon;
mod fast_path;
mod requests;

use std::{
    fs, io::Read as _, net::UdpSocket, path::PathBuf, process::Child, process::Command,
    process::Stdio, time::Duration, time::SystemTime, time::UNIX_EPOCH,
};

use anyhow::{Context as _, Result, ensure};
use nix::{sys::signal::Signal, sys::signal::kill, unistd::Pid};
use serde_json::Value;
use tempfile::TempDir;
use teredo_lab::{
    Scene, Teredo, Topology, process::output, scene::Client, scene::IPV4_INTERFACE,
    scene::IPV6_INTERFACE, scene::RELAY, teredo::binary, traffic::Ping, wait_until,
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
            let dropped = world.relay.status()?.dropped;
            anyhow::Ok(dropped.get("decap-malformed").copied().unwrap_or(0))
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
        // Statistics come behind everything that was captured before them; none without a packet.
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let _ =
            wait_until("statistics", Duration::from_secs(3), || {
                Ok(last_statistics(&fs::read(self.file())?)
                    .is_some_and(|time| u128::from(time) >= now))
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

/// Returns the time of the last statistics in a file, in nanoseconds since 1970.
fn last_statistics(file: &[u8]) -> Option<u64> {
    const STATISTICS: u32 = 5;
    let word = |at: usize| {
        let octets = file.get(at..at + 4)?;
        Some(u32::from_ne_bytes(octets.try_into().ok()?))
    };
    let (mut at, mut time) = (0, None);
    while let (Some(kind), Some(length)) = (word(at), word(at + 4)) {
        if kind == STATISTICS {
            time = Some(u64::from(word(at + 12)?) << 32 | u64::from(word(at + 16)?));
        }
        at += length as usize;
    }
    time
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
