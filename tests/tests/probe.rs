//! `teredo probe`, run without privileges, recognises every kind of NAT with our server and with
//! Miredo's.

use std::{
    fs::File,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, UdpSocket},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::Output,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    libc::{gid_t, uid_t},
    unistd::{Gid, Uid, setgid, setgroups, setuid},
};
use serde_json::{Value, json};
use teredo_common::address::{ServicePrefix, TeredoAddress};
use teredo_lab::{
    Namespace, NatKind, Scene, Topology,
    scene::{Maker, RELAY, SECONDARY, SERVER},
    teredo::binary,
};

/// A user without privileges.
const NOBODY: (uid_t, gid_t) = (65534, 65534);
/// A host without a NAT.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(20, 0, 2, 1);

/// Runs the command as the user nobody.
fn teredo(namespace: &Namespace, arguments: &str) -> Result<Output> {
    // The user nobody may have no access to the directory of the binary.
    let binary = File::open(binary()?)?;
    let mut command = namespace.command(format!("/proc/self/fd/{}", binary.as_raw_fd()))?;
    command.arg0("teredo").args(arguments.split_whitespace());
    // SAFETY: between fork and exec only system calls are made.
    unsafe {
        command.pre_exec(|| {
            setgroups(&[])?;
            setgid(Gid::from_raw(NOBODY.1))?;
            Ok(setuid(Uid::from_raw(NOBODY.0))?)
        });
    }
    command.output().context("start teredo")
}

/// The command's JSON output and exit code.
fn probe(namespace: &Namespace, arguments: &str) -> Result<(Value, Option<i32>)> {
    let output = teredo(namespace, &format!("probe --json {arguments}"))?;
    let found = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((found, output.status.code()))
}

fn scene(nat: NatKind, server: Option<Maker>) -> Result<Scene> {
    Scene::new(Topology {
        nat,
        hosts: 0,
        server,
        ..Topology::default()
    })
}

const INDEPENDENT: &str = "endpoint-independent";
const DEPENDENT: &str = "address-dependent or address and port-dependent";
const NO_PATTERN: &str = "no pattern seen";

/// (kind of NAT, expected values of the report)
fn expectations() -> Vec<(NatKind, Value)> {
    let nat = |kind, mapping, filtering, hairpinning: Option<bool>, ports| {
        json!({
            "present": true, "type": kind, "mapping": mapping, "filtering": filtering,
            "hairpinning": hairpinning, "ports": ports,
        })
    };
    let no = Some(false);
    vec![
        (
            NatKind::PortRestricted,
            nat("moderate", INDEPENDENT, DEPENDENT, no, "preserved"),
        ),
        (
            NatKind::Unfiltered,
            nat("moderate", INDEPENDENT, DEPENDENT, no, "preserved"),
        ),
        (
            NatKind::Symmetric,
            nat("strict", DEPENDENT, DEPENDENT, None, NO_PATTERN),
        ),
        (
            NatKind::FullCone,
            nat("open", INDEPENDENT, INDEPENDENT, no, "preserved"),
        ),
        (
            NatKind::AddressRestricted,
            nat("moderate", INDEPENDENT, DEPENDENT, no, "preserved"),
        ),
    ]
}

fn every_kind_of_nat_is_told(server: Maker) -> Result<()> {
    for (kind, expected) in expectations() {
        let scene = scene(kind, Some(server))?;
        let site = scene.site();
        let start = Instant::now();
        let (found, code) = probe(&site.client, &format!("--port {} {SERVER}", site.port))?;
        let took = start.elapsed();
        ensure!(code == Some(0), "{kind:?}: {code:?}, {found:#}");
        ensure!(found["nat"] == expected, "{kind:?}: {found:#}");
        ensure!(found["works"] == true, "{kind:?}: {found:#}");
        ensure!(found["server"]["forwards_bubbles"] == true, "{found:#}");
        ensure!(found["mtu"] == 1280, "{found:#}");
        // The reported address is that of the mapping, and the mapping is the NAT's.
        let mapped: SocketAddrV4 = text(&found["mapped"])?.parse()?;
        let address: Ipv6Addr = text(&found["address"])?.parse()?;
        let fields = TeredoAddress::decode(address, ServicePrefix::STANDARD);
        let fields = fields.context("not a Teredo address")?;
        ensure!(*mapped.ip() == site.nat.address(), "{found:#}");
        ensure!((fields.server, fields.mapped) == (SERVER, mapped.into()));
        ensure!(
            (mapped.port() == site.port) == (kind != NatKind::Symmetric),
            "{kind:?}: {found:#}"
        );
        // A few seconds, on a busy machine.
        ensure!(took < Duration::from_secs(8), "{kind:?}: {took:?}");
    }
    Ok(())
}

fn text(value: &Value) -> Result<&str> {
    value
        .as_str()
        .with_context(|| format!("{value} is no text"))
}

#[test]
fn every_kind_of_nat_is_recognised_with_our_server() -> Result<()> {
    every_kind_of_nat_is_told(Maker::Teredo)
}

#[test]
fn every_kind_of_nat_is_recognised_with_miredos_server() -> Result<()> {
    every_kind_of_nat_is_told(Maker::Miredo)
}

/// Linux routers with and without an input filter get the same verdict, from a port of the client's
/// or any other, again and again.
#[test]
fn an_input_filter_changes_nothing() -> Result<()> {
    let scene = scene(NatKind::PortRestricted, Some(Maker::Teredo))?;
    let site = scene.site();
    let with_port = format!("--port {} {SERVER}", site.port);
    for kind in [NatKind::PortRestricted, NatKind::Unfiltered] {
        site.nat.set_kind(kind)?;
        for arguments in [&with_port, &with_port, &SERVER.to_string()] {
            let (found, code) = probe(&site.client, arguments)?;
            ensure!(code == Some(0), "{kind:?} {arguments}: {found:#}");
            let nat = json!({
                "present": true, "type": "moderate", "mapping": INDEPENDENT,
                "filtering": DEPENDENT, "hairpinning": false, "ports": "preserved",
            });
            ensure!(found["nat"] == nat, "{kind:?} {arguments}: {found:#}");
            ensure!(found["verdict"] == "Teredo works: NAT type moderate");
            ensure!(found["error"].is_null(), "{found:#}");
        }
    }
    Ok(())
}

/// The client finds the same behind both, and says it in the same words.
#[test]
fn the_client_agrees_with_the_probe() -> Result<()> {
    for kind in [NatKind::PortRestricted, NatKind::Unfiltered] {
        let scene = scene(kind, Some(Maker::Teredo))?;
        let client = scene.start_client_of(Maker::Teredo, scene.site())?;
        let daemon = client.teredo().context("our client")?;
        let status = daemon.status()?.client.context("a client's status")?;
        ensure!(
            status.nat.as_deref() == Some("restricted"),
            "{kind:?}: {status:?}"
        );
        let behaviour = "type open or moderate, mapping endpoint-independent, ports preserved";
        ensure!(
            status.nat_behaviour.as_deref() == Some(behaviour),
            "{status:?}"
        );
    }
    Ok(())
}

#[test]
fn a_host_without_nat_is_recognised() -> Result<()> {
    for maker in [Maker::Teredo, Maker::Miredo] {
        let scene = scene(NatKind::PortRestricted, Some(maker))?;
        let host = scene.add_ipv4_host("public", PUBLIC)?;
        let nat = |filtering, kind: &str| {
            json!({
                "present": false, "type": kind, "mapping": INDEPENDENT, "filtering": filtering,
                "hairpinning": null, "ports": "preserved",
            })
        };
        let (found, code) = probe(&host, &SERVER.to_string())?;
        ensure!(code == Some(0), "{found:#}");
        ensure!(found["nat"] == nat(INDEPENDENT, "open"), "{found:#}");
        ensure!(found["mapped"] == found["local"], "{found:#}");

        host.nft(
            "table ip firewall { chain input {
                type filter hook input priority filter; policy drop;
                iifname lo accept; ct state established accept;
            }; }",
        )?;
        let (found, code) = probe(&host, &SERVER.to_string())?;
        ensure!(code == Some(0), "{found:#}");
        ensure!(found["nat"] == nat(DEPENDENT, "moderate"), "{found:#}");
    }
    Ok(())
}

/// Hairpinning (RFC 4787 section 6), with the one port that this NAT forwards.
#[test]
fn hairpinning_is_reported() -> Result<()> {
    let scene = scene(NatKind::FullCone, Some(Maker::Teredo))?;
    let (site, outside) = (scene.site(), scene.site().nat.address());
    site.nat.namespace().nft(&format!(
        "table ip hairpin {{
          chain to {{
            type nat hook prerouting priority dstnat - 1;
            iifname lan ip daddr {outside} udp dport {port} dnat to {inside}:{port};
          }}
          chain from {{
            type nat hook postrouting priority srcnat - 1;
            oifname lan ip saddr {inside} ip daddr {inside} snat to {outside};
          }}
        }}",
        port = site.port,
        inside = "192.168.0.2",
    ))?;
    let (found, _) = probe(&site.client, &format!("--port {} {SERVER}", site.port))?;
    ensure!(found["nat"]["hairpinning"] == true, "{found:#}");
    ensure!(found["nat"]["type"] == "open", "{found:#}");
    Ok(())
}

#[test]
fn a_dead_server_is_explained() -> Result<()> {
    let scene = scene(NatKind::PortRestricted, None)?;
    let client = &scene.site().client;
    let output = teredo(client, &format!("probe {SERVER}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let sentence = format!("Teredo does not work: no answer from {SERVER} port 3544/udp\n");
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(said.starts_with(&sentence), "{said}");
    ensure!(said.contains("firewall"), "{said}");
    ensure!(output.stderr.is_empty(), "{output:?}");

    let (found, code) = probe(client, &SERVER.to_string())?;
    ensure!(code == Some(1) && found["works"] == false, "{found:#}");
    ensure!(found["server"]["primary"]["answers"] == false, "{found:#}");
    ensure!(found["mapped"].is_null() && found["nat"]["type"].is_null());

    ensure!(found["error"]["kind"] == "no-answer", "{found:#}");
    Ok(())
}

/// Who has trouble with a host finds out whom to ask.
#[test]
fn the_relay_of_a_native_host_is_told() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let client = &scene.site().client;
    let host = scene.host().address;
    let arguments = format!("{SERVER} --relay-of {host}");
    let (found, code) = probe(client, &arguments)?;
    ensure!(code == Some(0), "the NAT is measured as ever: {found:#}");
    ensure!(found["relay"]["endpoint"].is_null(), "{found:#}");

    let _relay = scene.start_relay(&scene.relay_config())?;
    let (found, code) = probe(client, &arguments)?;
    ensure!(code == Some(0), "{found:#}");
    let relay = json!(RELAY.to_string());
    ensure!(found["relay"]["endpoint"] == relay, "{found:#}");
    ensure!(found["relay"]["introduced"] == true, "{found:#}");
    let output = teredo(client, &format!("probe {arguments}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        said.contains(&format!("{RELAY} for {host}, which answers after")),
        "{said}"
    );

    let (found, code) = probe(client, &format!("{SERVER} --relay-of fe80::1"))?;
    ensure!(code == Some(2), "{found:#}");
    ensure!(found["error"]["kind"] == "host-invalid", "{found:#}");
    Ok(())
}

/// Asserts that the command fails with this sentence, as text and as JSON.
fn assert_fails(host: &Namespace, arguments: &str, kind: &str, part: &str) -> Result<()> {
    let output = teredo(host, &format!("probe {arguments}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{arguments}: {output:?}");
    ensure!(said.contains(part), "{arguments}: {said}");
    ensure!(said.lines().count() == 1, "{arguments}: {said}");
    ensure!(output.stdout.is_empty(), "{arguments}: {output:?}");

    let output = teredo(host, &format!("probe --json {arguments}"))?;
    ensure!(output.status.code() == Some(1), "{arguments}: {output:?}");
    ensure!(output.stderr.is_empty(), "{arguments}: {output:?}");
    let found: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(found["works"] == false, "{arguments}: {found:#}");
    ensure!(found["error"]["kind"] == kind, "{arguments}: {found:#}");
    let text = text(&found["error"]["text"])?;
    ensure!(text.contains(part), "{arguments}: {found:#}");
    Ok(())
}

#[test]
fn a_measurement_that_cannot_begin_is_explained() -> Result<()> {
    let scene = scene(NatKind::PortRestricted, None)?;
    let client = &scene.site().client;
    let server = SERVER.to_string();

    assert_fails(
        client,
        "nowhere.invalid",
        "look-up",
        "cannot look up nowhere.invalid",
    )?;
    let private = "192.168.8.1 is a private address, and a client refuses such a server";
    assert_fails(client, "192.168.8.1", "server-address", private)?;
    let secondary = format!("{server} --secondary 192.168.8.1");
    assert_fails(client, &secondary, "server-address", private)?;
    let taken = client.run(|| UdpSocket::bind("0.0.0.0:40077"))??;
    let port = format!("{server} --port 40077");
    assert_fails(client, &port, "port-in-use", "uses UDP port 40077")?;
    drop(taken);
    let privileged = format!("{server} --port 80");
    assert_fails(client, &privileged, "port", "cannot open UDP port 80")?;

    client.nft(
        "table ip firewall { chain output {
            type filter hook output priority filter; udp dport 3544 drop;
        }; }",
    )?;
    assert_fails(
        client,
        &server,
        "forbidden",
        "a firewall on this host forbids packets",
    )?;
    client.nft("flush ruleset")?;

    client.ip("route del default")?;
    let route = "there is no route to 20.0.0.1:3544";
    assert_fails(client, &server, "no-route", route)?;
    client.ip("-4 addr flush dev eth0")?;
    client.ip("addr add 2001:db8::7/64 dev eth0")?;
    let no_ipv4 = "this host has no IPv4 address";
    assert_fails(client, &server, "no-ipv4", no_ipv4)?;
    Ok(())
}

#[test]
fn wrong_server_addresses_are_explained() -> Result<()> {
    let scene = scene(NatKind::PortRestricted, Some(Maker::Teredo))?;
    let client = &scene.site().client;
    for (arguments, kind, part) in [
        (
            format!("{SERVER} --secondary 20.0.0.77"),
            "secondary-silent",
            "the server's secondary address 20.0.0.77 does not answer",
        ),
        (
            format!("{SECONDARY}"),
            "primary-rejected",
            "20.0.0.2 answers, but not as a server with this primary address",
        ),
        (
            format!("{SERVER}:3545"),
            "no-answer",
            "no answer from 20.0.0.1 port 3545/udp",
        ),
    ] {
        let (found, code) = probe(client, &arguments)?;
        ensure!(code == Some(1), "{arguments}: {found:#}");
        ensure!(found["error"]["kind"] == kind, "{arguments}: {found:#}");
        let verdict = text(&found["verdict"])?;
        ensure!(verdict.contains(part), "{arguments}: {found:#}");
    }
    let (found, code) = probe(client, &format!("{SERVER} --secondary {SECONDARY}"))?;
    ensure!(code == Some(0), "{found:#}");
    Ok(())
}

/// The lifetime of mappings (C-52), for people who wait a little longer.
#[test]
fn the_lifetime_of_mappings_is_measured() -> Result<()> {
    let scene = scene(NatKind::PortRestricted, Some(Maker::Teredo))?;
    let site = scene.site();
    site.nat.set_udp_timeout(Duration::from_secs(13))?;
    // This is the lifetime of new mappings, not of those that a client has.
    let nat = site.nat.namespace();
    nat.sysctl("net.netfilter.nf_conntrack_udp_timeout", 5)?;
    let output = teredo(&site.client, &format!("probe --json --interval {SERVER}"))?;
    let progress = String::from_utf8_lossy(&output.stderr);
    ensure!(progress.contains("after 10 s: kept"), "{progress}");
    ensure!(progress.contains("after 15 s: lost"), "{progress}");
    let found: Value = serde_json::from_slice(&output.stdout)?;
    let expected = json!({ "seconds": 30.0, "kept_seconds": 10.0, "lost_seconds": 15.0 });
    ensure!(found["refresh"] == expected, "{found:#}");
    Ok(())
}

#[test]
fn text_output_has_a_verdict_and_a_table() -> Result<()> {
    let scene = scene(NatKind::PortRestricted, Some(Maker::Teredo))?;
    let site = scene.site();
    let output = teredo(
        &site.client,
        &format!("probe --port {} {SERVER}", site.port),
    )?;
    let said = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> = said.lines().collect();
    ensure!(lines[0] == "Teredo works: NAT type moderate", "{said}");
    for line in [
        "  mapping     endpoint-independent",
        "  filtering   address-dependent or address and port-dependent",
        "  ports       preserved",
        "  hairpinning no",
        "mapped        20.0.10.1:40001",
    ] {
        let is_there = |printed: &&str| printed.split_whitespace().eq(line.split_whitespace());
        ensure!(lines.iter().any(is_there), "{line}: {said}");
    }
    ensure!(output.stderr.is_empty());
    Ok(())
}
