//! Changes of a relay's host.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use teredo_lab::{
    Namespace, Scene, Teredo, Topology,
    process::output,
    scene::{IPV4_INTERFACE, IPV6_INTERFACE, Maker, ONE_ARM, RELAY, RELAY_IPV6},
    teredo::{Config, binary},
    traffic::Ping,
    wait_until,
};

use super::{PATIENCE, SOON, answers, has_program, health, is_said, is_well, shell, station};

/// A relay that serves a client and a native host.
struct Site {
    relay: Teredo,
    client: teredo_lab::scene::Client,
    scene: Scene,
}

impl Site {
    fn new(one_armed: bool, config: impl FnOnce(Config) -> Config) -> Result<Self> {
        let scene = Scene::new(Topology {
            one_armed,
            hosts: 2,
            ..Topology::default()
        })?;
        let [outside, inside] = scene.relay_interfaces();
        scene
            .relay
            .ip(&format!("route add default via 20.0.0.1 dev {outside}"))?;
        scene.relay.ip(&format!(
            "-6 route add default via 2001:db8:6::53 dev {inside}"
        ))?;
        let relay = scene.start_relay(&config(scene.relay_config()))?;
        let client = scene.start_client_of(Maker::Teredo, scene.site())?;
        let site = Self {
            relay,
            client,
            scene,
        };
        site.serves()?;
        Ok(site)
    }

    fn host(&self) -> &Namespace {
        &self.scene.relay
    }

    /// Checks that all is well soon, and that a native host and the client reach each other.
    fn serves(&self) -> Result<()> {
        wait_until("the prefix is routed", SOON, || self.announces())?;
        is_well(&self.relay)?;
        answers(&self.scene.host().namespace, self.client.address())
    }

    /// Whether the prefix is routed into the tunnel.
    fn announces(&self) -> Result<bool> {
        Ok(self
            .host()
            .ip("-6 route show 2001::/32")?
            .contains("dev teredo"))
    }

    /// Breaks the host with commands of the shell, and checks that it is repaired.
    fn survives(&self, commands: &str) -> Result<()> {
        shell(self.host(), commands)?;
        self.serves()
            .with_context(|| format!("{commands}: {}", self.relay.daemon.log()))
    }

    /// Breaks the host, which nobody but the operator can mend: that is said, and no packets are attracted
    /// meanwhile.
    fn says(&self, breaks: &str, kind: &str, mends: &str) -> Result<()> {
        shell(self.host(), breaks)?;
        is_said(&self.relay, kind).context(breaks.to_owned())?;
        wait_until("nothing is attracted", SOON, || Ok(!self.announces()?))?;
        shell(self.host(), mends)?;
        self.serves()
            .with_context(|| format!("{mends}: {}", self.relay.daemon.log()))
    }
}

#[test]
fn a_route_that_others_remove_comes_back() -> Result<()> {
    let site = Site::new(false, |config| config)?;
    for command in [
        "ip -6 route del 2001::/32 dev teredo",
        "ip -6 route flush dev teredo",
        "ip link set teredo down; ip link set teredo up",
        "ip link set teredo down",
    ] {
        site.survives(command)?;
    }
    site.host().ip("link set teredo mtu 1400")?;
    wait_until("the MTU is back", SOON, || {
        Ok(site.host().ip("link show teredo")?.contains("mtu 1280 "))
    })?;
    let told = site.relay.daemon.log();
    let line = "the route of 2001::/32 was removed by somebody else";
    ensure!(told.matches(line).count() == 1, "{told}");
    Ok(())
}

#[test]
fn a_tunnel_that_others_remove_comes_back() -> Result<()> {
    let site = Site::new(false, |config| config)?;
    site.survives("ip link del teredo")?;
    let other = Namespace::new("other")?;
    site.survives(&format!("ip link set teredo netns {}", other.name()))?;
    site.survives("echo 1 > /proc/sys/net/ipv6/conf/teredo/disable_ipv6")?;
    let key = "net.ipv6.conf.teredo.forwarding";
    site.host().sysctl(key, 0)?;
    wait_until("it forwards again", SOON, || {
        Ok(site.host().read_sysctl(key)? == "1")
    })?;
    site.serves()
}

#[test]
fn a_renamed_tunnel_serves_on() -> Result<()> {
    let site = Site::new(false, |config| config)?;
    shell(
        site.host(),
        "ip link set teredo down; ip link set teredo name other; ip link set other up",
    )?;
    wait_until("the route is back", SOON, || {
        Ok(site
            .host()
            .ip("-6 route show 2001::/32")?
            .contains("dev other"))
    })?;
    is_well(&site.relay)?;
    answers(&site.scene.host().namespace, site.client.address())
}

#[test]
fn a_host_that_forwards_no_more_attracts_nothing() -> Result<()> {
    let site = Site::new(false, |config| config)?;
    let set = |value| format!("echo {value} > /proc/sys/net/ipv6/conf/all/forwarding");
    // Default routes and addresses stay.
    site.says(&set(0), "setting", &set(1))
}

/// Nobody may send from an address that another host may have now.
#[test]
fn the_fast_path_stops_with_the_relays_address() -> Result<()> {
    let site = Site::new(false, |config| config)?;
    ensure!(has_program(site.host(), IPV4_INTERFACE)?);
    let address = format!("{}/16 dev {IPV4_INTERFACE}", RELAY.ip());
    shell(site.host(), &format!("ip addr del {address}"))?;
    is_said(&site.relay, "address-missing")?;
    wait_until("the fast path stops", SOON, || {
        Ok(
            !has_program(site.host(), IPV4_INTERFACE)?
                && !has_program(site.host(), IPV6_INTERFACE)?,
        )
    })?;
    wait_until("nothing is attracted", SOON, || Ok(!site.announces()?))?;
    shell(
        site.host(),
        &format!("ip addr add {address}; ip route replace default via 20.0.0.1"),
    )?;
    site.serves()?;
    wait_until("the fast path is back", SOON, || {
        has_program(site.host(), IPV4_INTERFACE)
    })
}

#[test]
fn an_address_of_the_default_route_is_followed() -> Result<()> {
    let site = Site::new(false, |config| config.set("relay.ipv4", "auto"))?;
    let old = RELAY.ip();
    let commands = format!(
        "ip addr del {old}/16 dev {IPV4_INTERFACE}; ip addr add 20.0.1.7/16 dev {IPV4_INTERFACE}
        ip route replace default via 20.0.0.1"
    );
    shell(site.host(), &commands)?;
    wait_until("it has the other address", SOON, || {
        let endpoints = site.relay.status()?.endpoints;
        Ok(format!("{endpoints:?}").contains("20.0.1.7:3545"))
    })?;
    // The client keeps the relay that it knows for the first host for half a minute.
    answers(&site.scene.hosts[1].namespace, site.client.address())?;
    shell(site.host(), "ip route del default")?;
    is_said(&site.relay, "address-missing")?;
    wait_until("nothing is attracted", SOON, || Ok(!site.announces()?))?;
    shell(site.host(), "ip route add default via 20.0.0.1")?;
    wait_until("the prefix is routed", SOON, || site.announces())?;
    is_well(&site.relay)?;
    answers(&site.scene.hosts[1].namespace, site.client.address())
}

/// Gives the interface that has come back the relay's addresses and routes, and a station that the
/// neighbours know.
fn configure(interface: &str, station: &str) -> String {
    format!(
        "ip link set {interface} address {station} up; ip addr add {}/16 dev {interface}
        ip addr add {RELAY_IPV6}/64 dev {interface} nodad
        ip route replace default via 20.0.0.1; ip -6 route replace default via 2001:db8:6::53",
        RELAY.ip()
    )
}

#[test]
fn an_interface_that_is_made_anew_gets_the_program_back() -> Result<()> {
    for is_named in [true, false] {
        let mut site = Site::new(true, |config| match is_named {
            true => config,
            false => config.set("relay.xdp.interfaces", Vec::<String>::new()),
        })?;
        let station = station(site.host(), ONE_ARM)?;
        shell(site.host(), &format!("ip link del {ONE_ARM}"))?;
        is_said(&site.relay, "address-missing")?;
        site.scene.ipv4.plug_xdp(&site.scene.relay, ONE_ARM)?;
        shell(site.host(), &configure(ONE_ARM, &station))?;
        site.serves().with_context(|| site.relay.daemon.log())?;
        wait_until("the program is back", SOON, || {
            has_program(site.host(), ONE_ARM)
        })?;
        let xdp = site.relay.status()?.xdp;
        ensure!(
            xdp.len() == 1 && xdp[0].interface == ONE_ARM && xdp[0].mode.name() == "native",
            "{xdp:?}"
        );
    }
    Ok(())
}

#[test]
fn an_interface_that_goes_to_another_namespace_and_returns_is_followed() -> Result<()> {
    let site = Site::new(true, |config| config)?;
    let other = Namespace::new("other")?;
    let station = station(site.host(), ONE_ARM)?;
    shell(
        site.host(),
        &format!("ip link set {ONE_ARM} netns {}", other.name()),
    )?;
    is_said(&site.relay, "address-missing")?;
    is_said(&site.relay, "interface-missing")?;
    other.ip(&format!("link set {ONE_ARM} netns {}", site.host().name()))?;
    shell(site.host(), &configure(ONE_ARM, &station))?;
    site.serves().with_context(|| site.relay.daemon.log())?;
    wait_until("the program is back", SOON, || {
        has_program(site.host(), ONE_ARM)
    })
}

#[test]
fn a_renamed_interface_is_missing_only_if_it_was_named() -> Result<()> {
    let rename = |from: &str, to: &str| {
        let settings = "ip route replace default via 20.0.0.1
            ip addr replace 2001:db8:6::1/64 dev TO nodad
            ip -6 route replace default via 2001:db8:6::53";
        let settings = settings.replace("TO", to);
        format!(
            "ip link set {from} down; ip link set {from} name {to}; ip link set {to} up\n{settings}"
        )
    };
    let site = Site::new(true, |config| config)?;
    shell(site.host(), &rename(ONE_ARM, "renamed"))?;
    is_said(&site.relay, "interface-missing")?;
    // Userspace does the work.
    answers(&site.scene.host().namespace, site.client.address())?;
    site.survives(&rename("renamed", ONE_ARM))?;

    let none = Vec::<String>::new();
    let site = Site::new(true, |config| config.set("relay.xdp.interfaces", none))?;
    site.survives(&rename(ONE_ARM, "renamed"))?;
    wait_until("the program is there", SOON, || {
        has_program(site.host(), "renamed")
    })?;
    wait_until("it has the new name", SOON, || {
        let xdp = site.relay.status()?.xdp;
        Ok(xdp.len() == 1 && xdp[0].interface == "renamed")
    })
}

#[test]
fn a_default_route_that_comes_later_brings_its_interface() -> Result<()> {
    let none = Vec::<String>::new();
    let site = Site::new(false, |config| config.set("relay.xdp.interfaces", none))?;
    let namespace = site.host();
    shell(namespace, "ip -6 route del default")?;
    wait_until("one interface is left", SOON, || {
        Ok(has_program(namespace, IPV4_INTERFACE)? && !has_program(namespace, IPV6_INTERFACE)?)
    })?;
    site.survives("ip -6 route add default via 2001:db8:6::53")?;
    wait_until("both have the program", SOON, || {
        Ok(has_program(namespace, IPV4_INTERFACE)? && has_program(namespace, IPV6_INTERFACE)?)
    })
}

/// More than the maps of the program hold at first.
#[test]
fn a_host_with_many_addresses_is_served() -> Result<()> {
    let site = Site::new(false, |config| config)?;
    let addresses = |verb: &str| -> Result<()> {
        let lines: Vec<_> = (0..400)
            .map(|number| {
                format!(
                    "addr {verb} 20.7.{}.{}/32 dev lo",
                    number / 200,
                    1 + number % 200
                )
            })
            .collect();
        site.host().ip_batch(&lines.join("\n"))
    };
    addresses("add")?;
    is_well(&site.relay)?;
    answers(&site.scene.host().namespace, site.client.address())?;
    addresses("del")?;
    site.serves()
}

/// A daemon that cannot open a file keeps what it knows.
#[test]
fn a_daemon_without_descriptors_serves_on() -> Result<()> {
    let site = Site::new(false, |config| config)?;
    let pid = site.relay.daemon.pid();
    let limit = |number: &str| {
        output(std::process::Command::new("prlimit").args([
            "--pid",
            &pid.to_string(),
            &format!("--nofile={number}"),
        ]))
    };
    limit("3:")?;
    // Every one of these makes the daemon look at its host.
    for _ in 0..10 {
        shell(
            site.host(),
            "ip addr add 20.7.7.7/32 dev lo; sleep 0.15; ip addr del 20.7.7.7/32 dev lo; sleep 0.15",
        )?;
        ensure!(site.announces()?, "{}", site.relay.daemon.log());
    }
    ensure!(
        has_program(site.host(), IPV4_INTERFACE)?,
        "{}",
        site.relay.daemon.log()
    );
    Ping::to(site.client.address()).all_from(&site.scene.host().namespace)?;
    let told = site.relay.daemon.log();
    ensure!(told.contains("condition=\"resources\""), "{told}");
    limit("1024:")?;
    site.survives("ip -6 route del 2001::/32 dev teredo")
}

/// A firewall of the relay's host, which drops what the XDP program passes to the daemon.
fn is_found(rule: &str, subject: &str) -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let relay = scene.start_relay(&scene.relay_config())?;
    let client = scene.start_client_of(Maker::Teredo, scene.site())?;
    scene
        .relay
        .nft(&format!("table inet lab {{ chain drops {{ {rule} }}; }}"))?;
    let native = &scene.host().namespace;
    let ping = Ping::to(client.address()).wait(Duration::from_millis(500));
    wait_until("the firewall is found", PATIENCE, || {
        ensure!(ping.from(native)?.received == 0, "the rule drops nothing");
        let (_, text) = health(&relay)?;
        Ok(text
            .lines()
            .any(|line| line.starts_with(&format!("firewall relay {subject}"))))
    })
    .with_context(|| relay.daemon.log())?;
    shell(&scene.relay, "nft delete table inet lab")?;
    wait_until("a ping is answered", PATIENCE, || {
        Ok(ping.from(native)?.received == 1)
    })?;
    wait_until("all is well", PATIENCE, || Ok(health(&relay)?.0 == 200))
}

#[test]
fn a_firewall_that_drops_datagrams_is_found_by_evidence() -> Result<()> {
    is_found(
        "type filter hook input priority 0; udp dport 3545 drop;",
        "input",
    )
}

#[test]
fn a_firewall_that_drops_packets_is_found_by_evidence() -> Result<()> {
    is_found(
        "type filter hook forward priority 0; policy drop;",
        "forward",
    )
}

#[test]
fn r26_a_relay_that_drains_serves_its_peers_alone() -> Result<()> {
    serves_while_it_drains("auto")
}

#[test]
fn r26_a_relay_without_xdp_that_drains_serves_its_peers() -> Result<()> {
    serves_while_it_drains("off")
}

fn serves_while_it_drains(mode: &str) -> Result<()> {
    let site = Site::new(false, |config| config.set("relay.xdp.mode", mode))?;
    site.relay.tell("drain")?;
    wait_until("the route is withdrawn", SOON, || Ok(!site.announces()?))?;
    // Others may have the route for some time.
    let native = &site.scene.host().namespace;
    Ping::to(site.client.address()).count(3).all_from(native)?;
    let status = site.relay.status()?;
    ensure!(
        status.draining == ["relay"] && status.peers.trusted == 1,
        "{status:?}"
    );
    let mut command = std::process::Command::new(binary()?);
    let human = output(command.args(["status", "--config"]).arg(site.relay.file()))?;
    ensure!(human.contains("1 peers remain"), "{human}");
    is_well(&site.relay)
}

fn drain(scene: &Scene, relay: &Teredo) -> Result<()> {
    relay.tell("drain")?;
    wait_until("the route is withdrawn", SOON, || {
        Ok(scene.relay.ip("-6 route show 2001::/32")?.is_empty())
    })
}

#[test]
fn r26_a_relay_that_drains_serves_new_peers_until_routers_have_followed() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let relay = scene.start_relay(&scene.relay_config().set("relay.grace", 60_000))?;
    let client = scene.start_client_of(Maker::Teredo, scene.site())?;
    drain(&scene, &relay)?;
    Ping::to(client.address()).all_from(&scene.host().namespace)
}

/// The look at the host that withdraws the route takes long there.
#[test]
fn a_relay_on_a_host_with_many_routes_serves_for_its_grace_after_its_own_has_gone() -> Result<()> {
    const ROUTES: u32 = 100_000;
    const GRACE: Duration = Duration::from_secs(5);
    /// The time until a test sees that the route has gone.
    const LATE: Duration = Duration::from_millis(200);
    let scene = Scene::new(Topology::default())?;
    let grace = GRACE.as_millis() as i64;
    let mut relay = scene.start_relay(&scene.relay_config().set("relay.grace", grace))?;
    let routes = (0..ROUTES).map(|number| {
        let (a, b) = (number >> 8, number & 0xff);
        format!("route add 2001:db9:{a:x}:{b:x}::/64 dev {IPV6_INTERFACE}\n")
    });
    scene.relay.ip_batch(&routes.collect::<String>())?;
    relay.daemon.signal(Signal::SIGTERM)?;
    wait_until("the route is withdrawn", PATIENCE, || {
        let routes = scene.relay.ip("-6 route show table main dev teredo")?;
        Ok(!routes.contains("2001::/32"))
    })?;
    let since = Instant::now();
    relay.daemon.wait(PATIENCE)?;
    let served = since.elapsed();
    ensure!(served > GRACE - LATE, "it served for {served:?}");
    Ok(())
}

#[test]
fn r26_a_relay_that_drains_refuses_new_peers_with_an_error() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let relay = scene.start_relay(&scene.relay_config().set("relay.grace", 0))?;
    drain(&scene, &relay)?;
    let stranger = "2001:0:1400:1::4141:ebff:f3fe".parse()?;
    let pong = Ping::to(stranger)
        .wait(PATIENCE)
        .from(&scene.host().namespace)?;
    let error = format!("From {RELAY_IPV6} icmp_seq=1 Destination unreachable");
    ensure!(pong.text.contains(&error), "{}", pong.text);
    Ok(())
}
