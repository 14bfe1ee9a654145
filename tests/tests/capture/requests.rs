//! The command and the API: bounds, refusals, and a file that others read.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use teredo_lab::{Scene, Topology, teredo::binary, wait_until};

use super::{SOON, World, packets};

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
