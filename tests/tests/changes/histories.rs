//! Random histories: others change the host at random, and within two seconds after the last change the
//! host is as planned, no condition is left that is not true, and traffic flows.
//!
//! `TEREDO_SEED` replays a history, and `TEREDO_ACTS` sets its length.

use std::{env, fmt::Write as _, net::Ipv6Addr, time::Duration};

use anyhow::{Context as _, Result};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use teredo_lab::{
    Namespace, Scene, Teredo, Topology,
    scene::{IPV4_INTERFACE, IPV6_INTERFACE, RELAY, RELAY_IPV6},
    teredo::{binary, client_address},
    wait_until,
};

use super::{PATIENCE, SOON, answers, has_program, is_well, shell};

/// The number of acts of a history.
const ACTS: u32 = 200;
/// The number of acts after which the host is examined.
const STRETCH: u32 = 25;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// A daemon on a host that others change.
struct Case<'a> {
    /// Acts of others.
    acts: &'a [String],
    /// Commands after which the host lacks nothing that the daemon cannot make itself.
    mend: String,
    host: &'a Namespace,
    daemon: &'a Teredo,
    /// Checks that the daemon does its job.
    works: &'a dyn Fn() -> Result<()>,
}

impl Case<'_> {
    /// Runs a history.
    fn run(&self) -> Result<()> {
        let seed = number("TEREDO_SEED").unwrap_or_else(rand::random);
        let length = number("TEREDO_ACTS").map_or(Ok(ACTS), u32::try_from)?;
        let mut history = String::new();
        let played = self.play(seed, length, &mut history);
        played.with_context(|| {
            format!(
                "TEREDO_SEED={seed}\n{history}\n{}",
                self.daemon.daemon.log()
            )
        })
    }

    fn play(&self, seed: u64, length: u32, history: &mut String) -> Result<()> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut left = length;
        while left > 0 {
            let stretch = random.random_range(1..=STRETCH).min(left);
            left -= stretch;
            for _ in 0..stretch {
                let act = &self.acts[random.random_range(0..self.acts.len())];
                let _ = writeln!(history, "{act}");
                // Many acts fail, since an earlier one was the same.
                let _ = shell(self.host, act);
                // Some acts come at once, some after the daemon may have repaired the tunnel.
                if random.random_ratio(1, 4) {
                    let limit = Duration::from_millis(random.random_range(0..300));
                    let _ = wait_until("the tunnel is up", limit, || {
                        let tunnel = self.host.ip("-6 route show 2001::/32")?;
                        Ok(tunnel.contains("dev teredo"))
                    });
                }
            }
            let _ = writeln!(history, "# mended");
            shell(self.host, &self.mend)?;
            (self.works)()?;
            is_well(self.daemon)?;
            agrees(self.host, self.daemon)?;
        }
        Ok(())
    }
}

/// Checks that soon `teredo check` finds nothing in the way of the daemon, nor anything of the plan missing.
fn agrees(host: &Namespace, daemon: &Teredo) -> Result<()> {
    let mut left = None;
    let agreed = wait_until("check agrees", SOON, || {
        left = defect(host, daemon)?;
        Ok(left.is_none())
    });
    agreed.with_context(|| format!("{left:?}"))
}

/// Returns a finding of `teredo check` that something is in the way of the daemon.
fn defect(host: &Namespace, daemon: &Teredo) -> Result<Option<Value>> {
    let mut check = host.command(binary()?)?;
    let check = check
        .args(["check", "--json", "--config"])
        .arg(daemon.file());
    let told: Value = serde_json::from_slice(&check.output()?.stdout)?;
    let findings = told["findings"].as_array().context("no findings")?;
    let is_in = |value: &Value, words: &[&str]| words.iter().any(|word| value == word);
    let subjects = ["address", "forwarding", "route", "tun", "fast path", "plan"];
    let bad = findings.iter().find(|finding| {
        is_in(&finding["subject"], &subjects)
            && is_in(&finding["verdict"], &["degraded", "waiting", "trouble"])
    });
    Ok(bad.cloned())
}

/// The acts on a tunnel interface.
fn tunnel_acts() -> Vec<String> {
    [
        "ip link set teredo down",
        "ip link set teredo up",
        "ip link del teredo",
        "ip link set teredo mtu 1400",
        "ip -6 route flush dev teredo",
        "ip -6 route del 2001::/32 dev teredo",
        "ip -6 addr flush dev teredo",
        "ip addr add 2001:db8:9::9/64 dev teredo nodad",
        "echo 1 > /proc/sys/net/ipv6/conf/teredo/disable_ipv6",
        "echo 0 > /proc/sys/net/ipv6/conf/teredo/forwarding",
        "ip link set teredo down; ip link set teredo name other",
        "nft add table inet lab; nft delete table inet lab",
        "ip addr add 20.7.7.7/32 dev lo",
        "ip addr del 20.7.7.7/32 dev lo",
        "ip -6 rule add to 2001:db8:77::/48 lookup 50 priority 99",
        "ip -6 rule del to 2001:db8:77::/48 lookup 50 priority 99",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[test]
fn a_relay_follows_any_history() -> Result<()> {
    let mut scene = Scene::new(Topology::default())?;
    let config = scene
        .relay_config()
        .set("relay.xdp.interfaces", Vec::<String>::new());
    let host = &scene.relay;
    // A station that the neighbours know, whatever happens.
    let stations = [IPV4_INTERFACE, IPV6_INTERFACE].map(|name| super::station(host, name));
    let [outside, inside] = stations;
    let (outside, inside) = (outside?, inside?);
    let address = format!("{}/16 dev {IPV4_INTERFACE}", RELAY.ip());
    let mend = format!(
        "ip link set other down; ip link set other name teredo
        nft delete table inet lab
        ip -6 route del 2001::/32 dev {IPV6_INTERFACE}
        ip link set {IPV4_INTERFACE} mtu 1500 address {outside} up
        ip link set {IPV6_INTERFACE} mtu 1500 address {inside} up
        ip addr replace {address}; ip addr replace {RELAY_IPV6}/64 dev {IPV6_INTERFACE} nodad
        ip route replace default via 20.0.0.1 dev {IPV4_INTERFACE}
        ip -6 route replace default via 2001:db8:6::53 dev {IPV6_INTERFACE}
        echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"
    );
    let mend = mend.replace('\n', "\n true; ") + "; true";
    shell(host, &mend)?;
    let relay = Teredo::start(host, &config)?;
    let client = scene.start_client_of(teredo_lab::scene::Maker::Teredo, scene.site())?;
    let mut acts = tunnel_acts();
    acts.extend([
        format!("ip addr del {address}"),
        format!("ip addr replace {address}"),
        format!("ip addr add 20.0.1.7/16 dev {IPV4_INTERFACE}"),
        format!("ip addr del 20.0.1.7/16 dev {IPV4_INTERFACE}"),
        format!("ip link set {IPV4_INTERFACE} down"),
        format!("ip link set {IPV6_INTERFACE} down"),
        format!("ip link set {IPV6_INTERFACE} up"),
        format!("ip link set {IPV6_INTERFACE} mtu 1400"),
        format!("ip route replace default via 20.0.0.1 dev {IPV4_INTERFACE}"),
        "ip route del default".to_owned(),
        "ip -6 route del default".to_owned(),
        format!("ip -6 route add 2001::/32 dev {IPV6_INTERFACE}"),
        "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding".to_owned(),
        "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding".to_owned(),
        "nft 'add table inet lab; add chain inet lab input { type filter hook input priority 0; policy drop; }'"
            .to_owned(),
    ]);
    let native = &scene.hosts[0].namespace;
    let works = || {
        wait_until("prefix and program are there", SOON, || {
            let routes = host.ip("-6 route show 2001::/32")?;
            Ok(routes.contains("dev teredo")
                && has_program(host, IPV4_INTERFACE)?
                && has_program(host, IPV6_INTERFACE)?)
        })?;
        answers(native, client.address())
    };
    let case = Case {
        acts: &acts,
        mend,
        host,
        daemon: &relay,
        works: &works,
    };
    case.run()?;
    drop(relay);
    scene.take_programs();
    Ok(())
}

#[test]
fn a_client_follows_any_history() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let _relay = scene.start_relay(&scene.relay_config())?;
    let site = scene.site();
    let mut client = Teredo::start(&site.client, &scene.client_config(site.port))?;
    client.qualified(&site.client)?;
    let mend = "ip link set other down; ip link set other name teredo
        true; nft delete table inet lab
        true; ip -6 route del 2001::/32 dev eth0
        true; ip -6 route del default via fe80::77 dev eth0
        true; ip addr del 2001:db8:7::5/64 dev eth0; ip addr del 2001:db8:9::9/64 dev teredo
        true; ip link set eth0 mtu 1500 up; ip addr replace 192.168.0.2/24 dev eth0
        true; ip route replace default via 192.168.0.1 dev eth0";
    let mut acts = tunnel_acts();
    acts.extend(
        [
            "ip addr del 192.168.0.2/24 dev eth0",
            "ip addr replace 192.168.0.2/24 dev eth0; ip route replace default via 192.168.0.1",
            "ip link set eth0 down",
            "ip link set eth0 up; ip route replace default via 192.168.0.1",
            "ip route del default",
            "ip -6 route add default via fe80::77 dev eth0 proto ra metric 1024",
            "ip -6 route del default via fe80::77 dev eth0",
            "ip addr add 2001:db8:7::5/64 dev eth0 nodad",
            "ip -6 route add 2001::/32 dev eth0",
            "ip -6 route del default dev teredo",
        ]
        .map(str::to_owned),
    );
    let native: Ipv6Addr = scene.host().address;
    let works = || {
        // Its server limits how often a client may qualify anew.
        wait_until("it is qualified", PATIENCE, || {
            Ok(client_address(&site.client).is_some())
        })?;
        answers(&site.client, native)
    };
    let case = Case {
        acts: &acts,
        mend: mend.to_owned(),
        host: &site.client,
        daemon: &client,
        works: &works,
    };
    case.run()
}
