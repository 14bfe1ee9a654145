//! Changes of a server's host.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use teredo_lab::{
    Namespace, Scene, Teredo, Topology,
    scene::{IPV4_INTERFACE, Place, SECONDARY, SERVER, Server},
    teredo::binary,
    wait_until,
};

use super::{SOON, has_program, is_said, is_well, shell, station};

/// A server, and a host that asks it.
struct Site {
    scene: Scene,
    asking: Namespace,
}

impl Site {
    fn new(place: Place) -> Result<Self> {
        let scene = Scene::new(Topology {
            place,
            clients: 0,
            hosts: 0,
            ..Topology::default()
        })?;
        let asking = scene.add_ipv4_host("asking", [20, 0, 9, 9].into())?;
        if place == Place::Relay {
            scene.relay.ip("-6 route add default via 2001:db8:6::53")?;
        }
        let site = Self { scene, asking };
        site.serves()?;
        Ok(site)
    }

    fn server(&self) -> Result<&Teredo> {
        let server = self.scene.server.as_ref().and_then(Server::teredo);
        server.context("the scene has our server")
    }

    fn host(&self) -> &Namespace {
        self.scene.server_namespace()
    }

    /// Checks that all is well soon, and that the server answers.
    fn serves(&self) -> Result<()> {
        is_well(self.server()?)?;
        wait_until("it answers", SOON, || self.answers())
    }

    /// Whether both addresses answer.
    fn answers(&self) -> Result<bool> {
        let mut probe = self.asking.command(binary()?)?;
        let told = probe
            .args(["probe", "--json", &SERVER.to_string()])
            .output()?;
        let told: Value = serde_json::from_slice(&told.stdout)?;
        Ok(["primary", "secondary"]
            .iter()
            .all(|address| told["server"][address]["answers"] == true))
    }
}

/// Nobody may answer from an address that another host may have now.
#[test]
fn a_server_that_has_lost_an_address_stops() -> Result<()> {
    let site = Site::new(Place::Alone)?;
    ensure!(has_program(site.host(), IPV4_INTERFACE)?);
    for address in [SECONDARY, SERVER] {
        let address = format!("{address}/16 dev {IPV4_INTERFACE}");
        shell(
            site.host(),
            &format!(
                "echo 1 > /proc/sys/net/ipv4/conf/all/promote_secondaries; ip addr del {address}"
            ),
        )?;
        is_said(site.server()?, "address-missing")?;
        wait_until("the fast path stops", SOON, || {
            Ok(!has_program(site.host(), IPV4_INTERFACE)?)
        })?;
        ensure!(!site.answers()?);
        shell(site.host(), &format!("ip addr add {address}"))?;
        site.serves().with_context(|| {
            site.server()
                .map(|server| server.daemon.log())
                .unwrap_or_default()
        })?;
        wait_until("the fast path is back", SOON, || {
            has_program(site.host(), IPV4_INTERFACE)
        })?;
    }
    Ok(())
}

#[test]
fn an_interface_of_a_server_that_is_made_anew_gets_the_program_back() -> Result<()> {
    let mut site = Site::new(Place::Relay)?;
    let station = station(site.host(), IPV4_INTERFACE)?;
    site.host().ip(&format!("link del {IPV4_INTERFACE}"))?;
    is_said(site.server()?, "address-missing")?;
    site.scene
        .ipv4
        .plug_xdp(&site.scene.relay, IPV4_INTERFACE)?;
    shell(
        site.host(),
        &format!(
            "ip link set {IPV4_INTERFACE} address {station} up
            ip addr add {SERVER}/16 dev {IPV4_INTERFACE}; ip addr add {SECONDARY}/16 dev {IPV4_INTERFACE}
            ip -6 route replace default via 2001:db8:6::53"
        ),
    )?;
    site.serves()?;
    wait_until("the program is back", SOON, || {
        has_program(site.host(), IPV4_INTERFACE)
    })
}

#[test]
fn a_way_to_native_hosts_that_goes_is_told() -> Result<()> {
    let site = Site::new(Place::Alone)?;
    shell(site.host(), "ip -6 route del 2001::/32")?;
    is_said(site.server()?, "no-native-route")?;
    shell(site.host(), "ip -6 route add 2001::/32 via 2001:db8:6::1")?;
    site.serves()
}
