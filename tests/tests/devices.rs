//! The relay on bonds and VLAN interfaces and in VRFs.
//!
//! Not every kernel has these devices, so `cargo test` leaves this file out. `cargo xtask vm
//! --kernels` runs it on kernels that have them; the command to run it by hand is `cargo test
//! --package teredo-tests --test devices`.

use std::{fs, net::Ipv6Addr, path::PathBuf, process::Output, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use teredo_lab::{
    Namespace, Scene, Topology,
    scene::{IPV4_INTERFACE, IPV6_INTERFACE, Maker, RELAY, RELAY_IPV6, SERVER_IPV6},
    teredo::binary,
    traffic::Ping,
    wait_until,
};

/// How long the bond may take to change to another port.
const SOON: Duration = Duration::from_secs(30);
/// Second port of the bond.
const SECOND: &str = "v4second";

/// Puts two of the relay's interfaces on the IPv4 internet into a bond and gives it the address.
fn bond(scene: &mut Scene, mode: &str) -> Result<()> {
    scene.ipv4.plug_xdp(&scene.relay, SECOND)?;
    let relay = &scene.relay;
    relay
        .ip(&format!("link add bond0 type bond mode {mode} miimon 100"))
        .context("this kernel has no bonds")?;
    for port in [IPV4_INTERFACE, SECOND] {
        relay.ip_batch(&format!(
            "link set {port} down
            addr flush dev {port}
            link set {port} master bond0"
        ))?;
    }
    relay.ip_batch(&format!(
        "link set bond0 up
        addr add {}/16 dev bond0",
        RELAY.ip()
    ))
}

fn bonded(mode: &str) -> Result<()> {
    let mut scene = Scene::new(Topology::default())?;
    bond(&mut scene, mode)?;
    let config = scene
        .relay_config()
        .set("relay.xdp.interfaces", vec!["bond0", IPV6_INTERFACE])
        .set("relay.xdp.mode", "native");
    let relay = scene.start_relay(&config)?;
    let site = scene.site();
    let client = scene.start_client_in(Maker::Teredo, &site.client, site.port)?;
    scene.check_fast_path(&relay, &client)?;

    // A port that joins the bond later is served, too: packets can arrive by no other.
    let third = "v4third";
    scene.ipv4.plug_xdp(&scene.relay, third)?;
    scene.relay.ip_batch(&format!(
        "link set {third} down
        link set {third} master bond0
        link set {IPV4_INTERFACE} nomaster
        link set {SECOND} nomaster"
    ))?;
    // The bond looks for a working port ten times a second.
    let host = &scene.host().namespace;
    wait_until("the bond has another port in use", SOON, || {
        Ok(Ping::to(client.address()).from(host)?.received > 0)
    })?;
    scene.check_fast_path(&relay, &client)
}

#[test]
fn both_directions_of_an_active_backup_bond_are_fast() -> Result<()> {
    bonded("active-backup")
}

#[test]
fn both_directions_of_a_balancing_bond_are_fast() -> Result<()> {
    bonded("balance-xor")
}

/// A relay's namespace with a configuration of its own.
struct Bench {
    scene: Scene,
    directory: TempDir,
}

impl Bench {
    fn new() -> Result<Self> {
        Ok(Self {
            scene: Scene::new(Topology {
                clients: 0,
                hosts: 0,
                server: None,
                ..Topology::default()
            })?,
            directory: tempfile::tempdir()?,
        })
    }

    fn configure(&self, relay: &str) -> Result<PathBuf> {
        let file = self.directory.path().join("teredo.toml");
        let socket = self.directory.path().join("api.sock");
        let name = self.scene.relay.name();
        let text = format!(
            "[node]\nname = \"{name}\"\napi = \"unix:{}\"\n[relay]\nipv4 = \"{}\"\n{relay}\n",
            socket.display(),
            RELAY.ip()
        );
        fs::write(&file, text)?;
        Ok(file)
    }

    /// Runs `teredo check`, or another command, after the words of `prefix`.
    fn run(&self, prefix: &[&str], command: &str, relay: &str) -> Result<Output> {
        let file = self.configure(relay)?;
        let binary = binary()?;
        let mut words = prefix.iter().map(|&word| word.into()).collect::<Vec<_>>();
        words.extend([binary.into_os_string(), command.into(), "--config".into()]);
        let mut line = self.scene.relay.command(&words[0])?;
        Ok(line.args(&words[1..]).arg(file).output()?)
    }

    /// Asserts that both commands refuse with a sentence that has these words.
    fn refuse(&self, prefix: &[&str], relay: &str, part: &str) -> Result<()> {
        for command in ["check", "run"] {
            let output = self.run(prefix, command, relay)?;
            let text = String::from_utf8(output.stderr)?;
            ensure!(output.status.code() == Some(1), "{command}: {text}");
            ensure!(text.contains(part), "{command}: no {part:?} in {text}");
        }
        Ok(())
    }
}

/// A port of a bond that is named instead of the bond.
#[test]
fn check_names_the_bond_of_a_port() -> Result<()> {
    let mut bench = Bench::new()?;
    bond(&mut bench.scene, "active-backup")?;
    let interfaces = format!("xdp.interfaces = [\"{IPV4_INTERFACE}\", \"{IPV6_INTERFACE}\"]");
    let output = bench.run(&[], "check", &interfaces)?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{text}");
    ensure!(text.contains("is a port of the bond bond0"), "{text}");
    Ok(())
}

#[test]
fn a_vlan_interface_is_generic_and_the_reason_is_named() -> Result<()> {
    let bench = Bench::new()?;
    bench
        .scene
        .relay
        .ip(&format!(
            "link add link {IPV6_INTERFACE} name v6.10 type vlan id 10"
        ))
        .context("this kernel has no VLAN interfaces")?;
    bench.scene.relay.ip("link set v6.10 up")?;
    let interfaces = format!("xdp.interfaces = [\"{IPV4_INTERFACE}\", \"v6.10\"]");
    let output = bench.run(&[], "check", &interfaces)?;
    let text = String::from_utf8(output.stdout)?;
    let reason = "generic, since v6.10 is a VLAN interface";
    ensure!(output.status.success(), "{text}");
    ensure!(text.matches(reason).count() == 2, "{text}");
    let native = format!("{interfaces}\nxdp.mode = \"native\"");
    bench.refuse(&[], &native, "v6.10 is a VLAN interface")
}

/// On a veth that carries a VLAN interface, frames with tags would look like others to the program.
#[test]
fn an_interface_below_a_vlan_interface_takes_no_program_where_tags_may_be_hidden() -> Result<()> {
    let bench = Bench::new()?;
    bench
        .scene
        .relay
        .ip(&format!(
            "link add link {IPV4_INTERFACE} name v4.10 type vlan id 10"
        ))
        .context("this kernel has no VLAN interfaces")?;
    let interfaces = format!("xdp.interfaces = [\"{IPV4_INTERFACE}\", \"{IPV6_INTERFACE}\"]");
    let output = bench.run(&[], "check", &interfaces)?;
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(text.contains("carries the VLAN interface v4.10"), "{text}");
    Ok(())
}

/// Where tags may be beside frames, the program is on the VLAN interface, whose frames have lost them.
#[test]
fn both_directions_of_a_vlan_interface_are_fast() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let vlan = put_into_vlans(&scene, &[("802.1q", 10)])?;
    let config = scene
        .relay_config()
        .set("relay.xdp.interfaces", vec![IPV4_INTERFACE, &vlan]);
    let relay = scene.start_relay(&config)?;
    let modes = relay.status()?.xdp;
    ensure!(modes.iter().all(|one| one.mode.name() == "generic"));
    let site = scene.site();
    let client = scene.start_client_in(Maker::Teredo, &site.client, site.port)?;
    scene.check_fast_path(&relay, &client)
}

/// Where tags are in the frames, the program is on the interface below, in its driver.
fn native_vlan(vlans: &[(&str, u16)]) -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let vlan = put_into_vlans(&scene, vlans)?;
    leave_tags(&scene)?;
    let config = scene
        .relay_config()
        .set("relay.xdp.interfaces", vec![IPV4_INTERFACE, &vlan])
        .set("relay.xdp.mode", "native");
    let relay = scene.start_relay(&config)?;
    let attachments = relay.status()?.xdp;
    let names: Vec<_> = attachments.iter().map(|one| &*one.interface).collect();
    ensure!(names.contains(&IPV6_INTERFACE), "{names:?}");
    let site = scene.site();
    let client = scene.start_client_in(Maker::Teredo, &site.client, site.port)?;
    scene.check_fast_path(&relay, &client)?;

    // The interface is made anew, with another number and, of those within, the same.
    let (protocol, number) = vlans[0];
    if vlans.len() == 1 {
        for (namespace, address) in ends(&scene) {
            namespace.ip(&format!("link del {vlan}"))?;
            add_vlan(namespace, IPV6_INTERFACE, &vlan, protocol, number + 1)?;
            give_address(namespace, &vlan, address)?;
        }
        let host = &scene.host().namespace;
        wait_until("the host reaches the client again", SOON, || {
            Ok(Ping::to(client.address()).from(host)?.received > 0)
        })?;
        wait_until("the fast path has the new interface", SOON, || {
            Ok(scene.check_fast_path(&relay, &client).is_ok())
        })?;
    }
    Ok(())
}

#[test]
fn both_directions_of_a_vlan_are_native() -> Result<()> {
    native_vlan(&[("802.1q", 10)])
}

#[test]
fn both_directions_of_a_vlan_within_another_are_native() -> Result<()> {
    native_vlan(&[("802.1ad", 100), ("802.1q", 10)])
}

/// The relay, the native host and the server, whose tests of native hosts leave by the VLAN, too.
fn ends(scene: &Scene) -> [(&Namespace, Ipv6Addr); 3] {
    let host = scene.host();
    [
        (&scene.relay, RELAY_IPV6),
        (&host.namespace, host.address),
        (scene.server_namespace(), SERVER_IPV6),
    ]
}

fn add_vlan(
    namespace: &Namespace,
    lower: &str,
    name: &str,
    protocol: &str,
    number: u16,
) -> Result<()> {
    namespace
        .ip(&format!(
            "link add link {lower} name {name} type vlan proto {protocol} id {number}"
        ))
        .context("this kernel has no VLAN interfaces")?;
    namespace.ip(&format!("link set {name} up")).map(drop)
}

fn give_address(namespace: &Namespace, interface: &str, address: Ipv6Addr) -> Result<()> {
    namespace.ip(&format!("addr add {address}/64 dev {interface} nodad"))?;
    if address != RELAY_IPV6 {
        namespace.ip(&format!("-6 route replace 2001::/32 via {RELAY_IPV6}"))?;
    }
    Ok(())
}

/// Puts the native IPv6 internet into VLANs, one within another, and returns the name of their interface.
fn put_into_vlans(scene: &Scene, vlans: &[(&str, u16)]) -> Result<String> {
    let mut name = IPV6_INTERFACE.to_owned();
    for (namespace, address) in ends(scene) {
        name = IPV6_INTERFACE.to_owned();
        namespace.ip(&format!("addr del {address}/64 dev {name}"))?;
        for &(protocol, number) in vlans {
            let lower = std::mem::replace(&mut name, format!("v{number}"));
            add_vlan(namespace, &lower, &name, protocol, number)?;
        }
        give_address(namespace, &name, address)?;
    }
    Ping::to(RELAY_IPV6).all_from(&scene.host().namespace)?;
    Ok(name)
}

/// Makes the other end of the relay's veth leave tags in the frames, and says so at this end.
fn leave_tags(scene: &Scene) -> Result<()> {
    let internet = scene.ipv6().namespace();
    let ports = internet.ip("-o link show type veth")?;
    for line in ports.lines() {
        let name = line
            .split(": ")
            .nth(1)
            .and_then(|name| name.split('@').next());
        let features = "txvlan off tx-vlan-stag-hw-insert off";
        internet.offload(name.context("a port")?, features)?;
    }
    let features = "rxvlan off rx-vlan-stag-hw-parse off";
    scene.relay.offload(IPV6_INTERFACE, features)
}

#[test]
fn a_vrf_is_refused_outside_and_reported_inside() -> Result<()> {
    let bench = Bench::new()?;
    let relay = &bench.scene.relay;
    relay
        .ip("link add red type vrf table 10")
        .context("this kernel has no VRFs")?;
    relay.ip_batch(&format!(
        "link set red up
        link set {IPV4_INTERFACE} master red
        link set {IPV6_INTERFACE} master red
        addr replace {RELAY_IPV6}/64 dev {IPV6_INTERFACE} nodad"
    ))?;
    let interfaces = format!("xdp.interfaces = [\"{IPV4_INTERFACE}\", \"{IPV6_INTERFACE}\"]");
    bench.refuse(&[], &interfaces, "ip vrf exec red teredo run")?;
    let inside = ["ip", "vrf", "exec", "red"];
    bench.refuse(&inside, &interfaces, "relay.route = false")?;
    let output = bench.run(&inside, "check", &format!("{interfaces}\nroute = false"))?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(text.contains("ip link set teredo master red"), "{text}");

    // The IPv6 side alone in the VRF: the relay would start and receive none of its packets.
    relay.ip(&format!("link set {IPV4_INTERFACE} nomaster"))?;
    let output = bench.run(&[], "check", &interfaces)?;
    let text = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{text}");
    let part = format!("{IPV6_INTERFACE} is in the VRF red, where the relay is not");
    ensure!(text.contains(&part), "{text}");
    Ok(())
}
