//! Frames with VLAN tags at an interface with the XDP program: they are not for it. A veth leaves tags beside
//! the frames by default, where no XDP program sees them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytemuck::Zeroable as _;
use teredo::datapath::{
    ethtool::Ethtool,
    xdp::{AttachPolicy, AttachedProgram, Interface, Options, ServerParameters, TagKeeper},
};
use teredo_common::{budget::Budget, maps::Settings, verdict::Verdict, wire::ALL_ROUTERS};
use teredo_lab::{
    Namespace, Scene, Topology,
    capture::Capture,
    fixture::now,
    packet::{address, datagram, endpoint, ethernet},
    programs::Attached,
    scene::{IPV4_INTERFACE, SERVER},
    trunk::Trunk,
    wait_until,
};
use teredo_proto::{server::Config, testing::transport};

/// How long a frame may take, or the daemon to act.
const SOON: Duration = Duration::from_secs(10);
/// Enough frames to be noticed.
const FRAMES: u64 = 20;
/// Ethernet address of a client, or of a router before it.
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 0xc];
const ICMPV6: u8 = 58;
const IPV4: u16 = 0x0800;

/// A solicitation of a client to a server.
fn solicitation(station: [u8; 6], server: &str) -> Vec<u8> {
    let source = address("fe80::ffff:ffff:ffff").octets();
    let message = [133, 0, 0, 0, 0, 0, 0, 0];
    let packet = transport(ICMPV6, 255, &source, &ALL_ROUTERS, &message);
    let packet = datagram(endpoint("20.0.9.9:4096"), endpoint(server), 7, &packet);
    ethernet(station, CLIENT, IPV4, &packet)
}

/// Captures the frames to the client that arrive at an interface.
fn answers(namespace: &Namespace, interface: &str) -> Result<Capture> {
    Capture::filtered(namespace, interface, |frame| frame.starts_with(&CLIENT))
}

/// A server's program at one end of a veth, whose other end is a trunk.
struct Wire {
    namespace: Namespace,
    program: AttachedProgram,
    wan: Interface,
    trunk: Trunk,
    _end: Attached,
}

impl Wire {
    fn new(mode: AttachPolicy) -> Result<Self> {
        let namespace = Namespace::new("tags")?;
        namespace.ip_batch(
            "link add wan type veth peer name wan-end
             link set wan-end up
             link set wan up",
        )?;
        let end = Attached::nothing(&namespace, &["wan-end"])?;
        let config = Config::new([1, 2, 3, 4].into(), [1, 2, 3, 5].into());
        let options = Options {
            name: "tags".to_owned(),
            settings: Settings::zeroed(),
            served: vec![ipnet::Ipv6Net::default()],
            own_ipv4: vec![[1, 2, 3, 4].into()],
            server: Some(ServerParameters {
                constants: config.fast_path(true),
                allowed: Vec::new(),
            }),
            budget: Budget::default(),
            interfaces: vec!["wan".to_owned()],
            trunks: Vec::new(),
            vlans: Vec::new(),
            mode,
            max_peers: 1024,
            accounting: true,
            pin: false,
        };
        let program = namespace.run(|| AttachedProgram::start(&options, now()))??;
        Ok(Self {
            wan: namespace.run(|| Interface::named("wan"))??,
            trunk: Trunk::new(&namespace, "wan-end")?,
            _end: end,
            program,
            namespace,
        })
    }

    fn count(&self, verdict: Verdict) -> Result<u64> {
        let counters = self.program.program.counters()?;
        let found = counters.iter().find(|(counted, _)| *counted == verdict);
        Ok(found.context("a counter")?.1.packets)
    }

    fn send(&self, vlan: u16) -> Result<()> {
        let frame = solicitation(self.wan.station, "1.2.3.4:3544");
        (0..FRAMES).try_for_each(|_| self.trunk.send(vlan, &frame))
    }

    fn wait_for(&self, verdict: Verdict, count: u64) -> Result<()> {
        wait_until("the frames are counted", SOON, || {
            Ok(self.count(verdict)? >= count)
        })
    }
}

fn frames_with_tags_in_them_pass(mode: AttachPolicy) -> Result<()> {
    let wire = Wire::new(mode)?;
    wire.namespace.offload("wan-end", "txvlan off")?;
    let answers = answers(&wire.namespace, "wan-end")?;
    for vlan in [10, 4095] {
        wire.send(vlan)?;
    }
    wire.wait_for(Verdict::Tagged, 2 * FRAMES)?;
    wire.send(0)?;
    wire.wait_for(Verdict::RespondAdvertised, FRAMES)?;
    wait_until("every answer has arrived", SOON, || {
        Ok(answers.frames().len() as u64 >= FRAMES)
    })?;
    ensure!(wire.count(Verdict::RespondAdvertised)? == FRAMES);
    ensure!(answers.frames().len() as u64 == FRAMES);
    Ok(())
}

#[test]
fn d1_01_frames_with_tags_pass_a_native_program() -> Result<()> {
    frames_with_tags_in_them_pass(AttachPolicy::Native)
}

#[test]
fn d1_01_frames_with_tags_pass_a_generic_program() -> Result<()> {
    frames_with_tags_in_them_pass(AttachPolicy::Generic)
}

/// Sends frames of a VLAN, and returns whether their tags were found to be hidden from the program.
fn are_found_hidden(mode: AttachPolicy, offload: &str, vlan: u16) -> Result<bool> {
    let wire = Wire::new(mode)?;
    wire.namespace.offload("wan-end", offload)?;
    let mut tags = TagKeeper::default();
    let interfaces = [wire.wan.clone()];
    wire.namespace.run(|| tags.keep(&interfaces))??;
    ensure!(tags.is_listening());
    tags.begin(wire.count(Verdict::Tagged)?);
    let all = || -> Result<u64> {
        let counters = wire.program.program.counters()?;
        Ok(counters.iter().map(|(_, counter)| counter.packets).sum())
    };
    let before = all()?;
    wire.send(vlan)?;
    wait_until("the program has seen the frames", SOON, || {
        Ok(all()? >= before + FRAMES)
    })?;
    // What the program answers never reaches the stack, so others follow.
    let other = ethernet(wire.wan.station, CLIENT, 0x88b5, &[0; 46]);
    for _ in 0..FRAMES {
        wire.trunk.send(vlan, &other)?;
    }
    wait_until("the program has seen the others", SOON, || {
        Ok(all()? >= before + 2 * FRAMES)
    })?;
    tags.count();
    Ok(tags.hidden(wire.count(Verdict::Tagged)?).is_some())
}

#[test]
fn hidden_tags_are_found_in_both_modes() -> Result<()> {
    for mode in [AttachPolicy::Native, AttachPolicy::Generic] {
        ensure!(are_found_hidden(mode, "txvlan on", 10)?, "{mode:?}");
    }
    Ok(())
}

#[test]
fn visible_tags_and_none_are_not_hidden() -> Result<()> {
    for mode in [AttachPolicy::Native, AttachPolicy::Generic] {
        ensure!(!are_found_hidden(mode, "txvlan off", 10)?, "{mode:?}");
        ensure!(!are_found_hidden(mode, "txvlan on", 0)?, "{mode:?}");
    }
    Ok(())
}

#[test]
fn a_driver_is_told_to_leave_tags_in_frames() -> Result<()> {
    let namespace = Namespace::new("tags")?;
    namespace.ip("link add wan type veth peer name wan-end")?;
    namespace.run(|| {
        let ethtool = Ethtool::open()?;
        ensure!(ethtool.removes_tags("wan")?, "the default of the kernel");
        for on in [false, true] {
            ethtool.set_tag_removal("wan", on)?;
            ensure!(ethtool.removes_tags("wan")? == on);
        }
        // The loopback interface has no such offload.
        ensure!(ethtool.set_tag_removal("lo", true).is_err() || !ethtool.removes_tags("lo")?);
        Ok(())
    })?
}

/// The name of the other end of a host's interface on the IPv4 internet.
fn port_of(scene: &Scene, host: &Namespace) -> Result<String> {
    let link = host.ip(&format!("-o link show {IPV4_INTERFACE}"))?;
    let index = link
        .split("@if")
        .nth(1)
        .and_then(|rest| rest.split(':').next());
    let index = format!("{}: ", index.context("the other end")?);
    let ports = scene.ipv4.namespace().ip("-o link show")?;
    let mut lines = ports.lines();
    let line = lines.find(|line| line.starts_with(&index));
    let name = line.and_then(|line| line[index.len()..].split('@').next());
    Ok(name.context("a port")?.to_owned())
}

#[test]
fn d1_01_a_server_leaves_an_interface_where_tags_are_hidden() -> Result<()> {
    let scene = Scene::new(Topology {
        clients: 0,
        hosts: 0,
        server: None,
        ..Topology::default()
    })?;
    let server = scene.start_server(&scene.server_config())?;
    let modes = || -> Result<Vec<&str>> {
        let attachments = server.status()?.xdp;
        Ok(attachments.iter().map(|one| one.mode.name()).collect())
    };
    wait_until("the program is attached", SOON, || {
        Ok(modes()?.iter().all(|&mode| mode == "native"))
    })?;

    let host = scene.server_namespace();
    let port = port_of(&scene, host)?;
    let internet = scene.ipv4.namespace();
    let trunk = Trunk::new(internet, &port)?;
    let station = host.run(|| Interface::named(IPV4_INTERFACE))??.station;
    // The traffic of the VLAN, whatever it is.
    let other = ethernet(station, CLIENT, 0x88b5, &[0; 46]);
    for _ in 0..FRAMES {
        trunk.send(10, &other)?;
    }
    wait_until("the program is detached", SOON, || {
        Ok(modes()?.iter().all(|&mode| mode == "off"))
    })?;
    let conditions = server.status()?.conditions;
    ensure!(
        conditions.iter().any(|one| one.text.contains("VLAN tags")),
        "{conditions:?}"
    );

    let answers = answers(internet, &port)?;
    let question = solicitation(station, &format!("{SERVER}:3544"));
    for _ in 0..FRAMES {
        trunk.send(10, &question)?;
    }
    // Of what has no tag, the daemon answers everything, after those frames.
    trunk.send(0, &question)?;
    wait_until("the daemon has answered", SOON, || {
        Ok(server.advertised()?.userspace > 0)
    })?;
    ensure!(
        server.advertised()?.userspace == 1,
        "and no frame of the VLAN"
    );
    ensure!(answers.frames().len() <= 1);
    Ok(())
}
