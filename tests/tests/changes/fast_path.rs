//! Changes of the XDP program and its interfaces by others.

use std::{num::NonZeroUsize, slice};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{maps::MapData, programs::loaded_programs};
use nix::sys::{
    mman::{MapFlags, ProtFlags, mmap, munmap},
    signal::{self, Signal},
};
use teredo_common::{
    generations::{self, FIRST_BUCKET, Family, HEARTBEAT, NUMBERS},
    maps,
};
use teredo_faults::fault::program::detach;
use teredo_lab::{Namespace, Teredo, fixture::now, programs::Attached, teredo::Config, wait_until};

use super::{SOON, has_program, host::Host, is_said, is_well, shell};

/// The number of the XDP program on an interface.
fn number(namespace: &Namespace, interface: &str) -> Result<Option<u64>> {
    let text = namespace.ip(&format!("-json link show dev {interface}"))?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    Ok(links[0]["xdp"]["prog"]["id"].as_u64())
}

fn start(host: &Host, pin: bool) -> Result<Teredo> {
    let config = Config::new()
        .set("relay.port", 3545)
        .set("relay.xdp.pin", pin);
    let relay = Teredo::start(&host.namespace, &config)?;
    is_well(&relay)?;
    ensure!(has_program(&host.namespace, "wan")?);
    Ok(relay)
}

/// The mode of the fast path, as `status` says.
fn mode(relay: &Teredo) -> Result<String> {
    let xdp = relay.status()?.xdp;
    let one = xdp.first().context("no interface")?;
    Ok(one.mode.name().to_owned())
}

#[test]
fn a_program_that_others_detach_comes_back() -> Result<()> {
    let host = Host::new()?;
    let relay = start(&host, true)?;
    for round in 0..2 {
        let before = number(&host.namespace, "wan")?;
        ensure!(detach(relay.daemon.pid())? > 0, "there is no link");
        wait_until("another program is there", SOON, || {
            let now = number(&host.namespace, "wan")?;
            Ok(now.is_some() && now != before)
        })
        .with_context(|| format!("round {round}: {}", relay.daemon.log()))?;
        is_well(&relay)?;
        ensure!(mode(&relay)? == "native");
    }
    Ok(())
}

/// Between a removal of the interface and its return, another program takes it.
#[test]
fn a_foreign_program_is_told_until_it_goes() -> Result<()> {
    let host = Host::new()?;
    let relay = start(&host, true)?;
    shell(
        &host.namespace,
        "ip link set wan down; ip addr flush dev wan",
    )?;
    is_said(&relay, "address-missing")?;
    wait_until("the interface is free", SOON, || {
        Ok(!has_program(&host.namespace, "wan")?)
    })?;
    let foreign = Attached::nothing(&host.namespace, &["wan"])?;
    shell(&host.namespace, HEAL)?;
    is_said(&relay, "fast-path-off")?;
    ensure!(mode(&relay)? == "off");
    drop(foreign);
    wait_until("the relay's program is back", SOON, || {
        has_program(&host.namespace, "wan")
    })?;
    is_well(&relay)
}

/// Gives the host its addresses and routes again.
const HEAL: &str =
    "ip link set wan up; ip addr add 20.0.0.1/24 dev wan; ip addr add 20.0.0.2/24 dev wan
    ip route add default via 20.0.0.254; ip addr add 2001:db8::1/64 dev wan nodad
    ip -6 route add default via 2001:db8::2";

#[test]
fn another_mtu_keeps_the_program() -> Result<()> {
    let host = Host::new()?;
    let relay = start(&host, true)?;
    for mtu in [1400, 1500, 1450] {
        let command = format!("link set wan mtu {mtu}");
        host.far.ip(&command)?;
        host.namespace.ip(&command)?;
        wait_until("the program is there", SOON, || {
            has_program(&host.namespace, "wan")
        })?;
        is_well(&relay)?;
        ensure!(mode(&relay)? == "native");
    }
    Ok(())
}

#[test]
fn an_interface_that_is_down_is_told() -> Result<()> {
    let host = Host::new()?;
    host.namespace
        .ip("link add spare type veth peer name other")?;
    host.namespace.ip("link set spare up")?;
    host.namespace.ip("link set other up")?;
    let config = Config::new()
        .set("relay.port", 3545)
        .set("relay.xdp.interfaces", vec!["wan", "spare"]);
    let relay = Teredo::start(&host.namespace, &config)?;
    host.namespace.ip("link set spare down")?;
    is_said(&relay, "interface-missing")?;
    host.namespace.ip("link set spare up")?;
    is_well(&relay)
}

/// The program's map of generations.
fn generations_map(host: &Host) -> Result<MapData> {
    let id = number(&host.namespace, "wan")?.context("no program")?;
    let mut programs = loaded_programs().filter_map(Result::ok);
    let program = programs
        .find(|program| u64::from(program.id()) == id)
        .context("it has gone")?;
    for id in program.map_ids()?.unwrap_or_default() {
        let map = MapData::from_id(id)?;
        if map.info()?.name_as_str() == Some(maps::GENERATIONS) {
            return Ok(map);
        }
    }
    bail!("the program has no map of generations")
}

/// The numbers of all buckets in that map.
fn generations(host: &Host) -> Result<Vec<u32>> {
    let mut numbers = numbers(&generations_map(host)?)?;
    Ok(numbers.split_off(FIRST_BUCKET))
}

fn numbers(map: &MapData) -> Result<Vec<u32>> {
    let size = NonZeroUsize::new(NUMBERS * size_of::<u32>()).context("no numbers")?;
    // SAFETY: the kernel chooses the address; nothing refers to the memory when it is unmapped. The daemon may
    // change a number while it is copied, which is one access.
    unsafe {
        let memory = mmap(
            None,
            size,
            ProtFlags::PROT_READ,
            MapFlags::MAP_SHARED,
            map.fd(),
            0,
        )?;
        let numbers = slice::from_raw_parts(memory.as_ptr().cast::<u32>(), NUMBERS).to_vec();
        munmap(memory, size.get())?;
        Ok(numbers)
    }
}

/// The bits that decide on a host with short routes only.
const LEAST: u8 = 1;

/// How many bits of a destination in 2a01:203::/32 determine its route, as the program is told; all if zero.
fn shared_bits(host: &Host) -> Result<u8> {
    let bucket = Family::Ipv6.bucket(0x2a01_0203_u32.to_be());
    Ok(generations::shared_bits(
        generations(host)?[bucket as usize],
    ))
}

#[test]
fn destinations_share_a_next_hop_as_far_as_the_routing_is_understood() -> Result<()> {
    let host = Host::new()?;
    let relay = start(&host, true)?;
    let are = |bits: u8| {
        let waited = wait_until("the program is told", SOON, || {
            Ok(shared_bits(&host)? == bits)
        });
        waited.with_context(|| format!("{} instead of {bits}", shared_bits(&host).unwrap_or(255)))
    };
    are(LEAST)?;
    let gateway = "via fe80::1 dev wan onlink";
    for (add, remove, bits) in [
        (
            format!("ip -6 route add 2a01:203:4::/48 {gateway}"),
            "ip -6 route del 2a01:203:4::/48".to_owned(),
            48,
        ),
        (
            format!("ip -6 route add 2a01:203:4::/48 {gateway} table 50"),
            "ip -6 route del 2a01:203:4::/48 table 50".to_owned(),
            48,
        ),
        (
            "ip -6 route add unreachable 2a01:203:4::/56".to_owned(),
            "ip -6 route del unreachable 2a01:203:4::/56".to_owned(),
            56,
        ),
        (
            "ip -6 addr add 2a01:203::7/128 dev lo nodad".to_owned(),
            "ip -6 addr del 2a01:203::7/128 dev lo".to_owned(),
            0,
        ),
        (
            "ip -6 rule add to 2a01:203:4::/48 lookup 50".to_owned(),
            "ip -6 rule del to 2a01:203:4::/48 lookup 50".to_owned(),
            0,
        ),
        (
            format!(
                "ip -6 route add 2a01:200::/24 nexthop {gateway} nexthop {}",
                gateway.replace("::1", "::2")
            ),
            "ip -6 route del 2a01:200::/24".to_owned(),
            0,
        ),
    ] {
        shell(&host.namespace, &add)?;
        are(bits).context(add)?;
        shell(&host.namespace, &remove)?;
        // The last two lists of all routes count.
        let waited = wait_until("it is forgotten", SOON * 4, || {
            Ok(shared_bits(&host)? == LEAST)
        });
        waited.context(remove)?;
    }
    is_well(&relay)
}

#[test]
fn a_daemon_that_was_stopped_starts_anew() -> Result<()> {
    let host = Host::new()?;
    let relay = start(&host, true)?;
    wait_until("destinations share", SOON, || {
        Ok(shared_bits(&host)? == LEAST)
    })?;
    signal::kill(relay.daemon.pid(), Signal::SIGSTOP)?;
    wait_until("the program takes it for gone", SOON * 4, || {
        let heartbeat = numbers(&generations_map(&host)?)?[HEARTBEAT];
        Ok(generations::silence(heartbeat, now()) > generations::SILENCE)
    })?;
    let stopped = generations(&host)?;
    signal::kill(relay.daemon.pid(), Signal::SIGCONT)?;
    wait_until("all next hops are invalid", SOON, || {
        let now = generations(&host)?;
        let pairs = now.iter().zip(&stopped);
        let same = pairs
            .filter(|(now, old)| generations::generation(**now) == generations::generation(**old));
        Ok(same.count() == 0)
    })?;
    wait_until("destinations share again", SOON, || {
        Ok(shared_bits(&host)? == LEAST)
    })?;
    is_well(&relay)
}
