//! Attachment, pinning and recovery after a crash, and the errors when something is in the way.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::{
    maps::HashMap,
    programs::links::{FdLink, PinnedLink},
};
use teredo::datapath::xdp::{
    AttachPolicy, AttachedProgram, Error, Interface, Mode, Obstacle, Options, remove_leftovers,
};
use teredo_common::{
    address::ServicePrefix,
    generations::SECOND,
    maps::{ABI_VERSION, Settings},
    peers::Peer,
    prefixes::TeredoPrefixes,
};
use teredo_lab::{
    Namespace,
    fixture::{now, relay},
    packet::endpoint,
    programs::Attached,
    wait_until,
};

/// A namespace with the veth interfaces `wan` and `lan`, and a name for a daemon. The other ends have
/// programs, without which there is no native mode.
struct Host {
    ends: Vec<Attached>,
    namespace: Namespace,
    name: String,
}

impl Host {
    fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let namespace = Namespace::new("attach")?;
        namespace.ip_batch(
            "link add wan type veth peer name wan-end
             link add lan type veth peer name lan-end
             link set wan-end up
             link set lan-end up
             link set wan up
             link set lan up",
        )?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{}-{number}", std::process::id());
        let end = |name| Attached::nothing(&namespace, &[name]);
        Ok(Self {
            ends: vec![end("wan-end")?, end("lan-end")?],
            namespace,
            name,
        })
    }

    /// Looks whether frames arrive, and returns the obstacle because of which native mode has ended.
    fn obstacle(&self, path: &mut AttachedProgram) -> Result<Option<Obstacle>> {
        self.namespace.run(|| {
            path.begin_look()?;
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            runtime.block_on(path.look_over());
            Ok(path.conclude()?)
        })?
    }

    /// Removes the programs of the last of the other ends, and waits for their end: they end with their last
    /// descriptor, of which a child of another test may still have a copy.
    fn bare(&mut self, ends: &[&str]) -> Result<()> {
        self.ends.truncate(self.ends.len() - ends.len());
        wait_until("the other ends are bare", Duration::from_secs(10), || {
            let mut programs = ends.iter().map(|end| self.interface(end));
            programs.try_fold(true, |bare, end| Ok(bare && end?.program.is_none()))
        })
    }

    /// Attaches a program to the other end of `lan`, which was made anew.
    fn attach_end(&mut self) -> Result<()> {
        self.ends
            .push(Attached::nothing(&self.namespace, &["lan-end"])?);
        Ok(())
    }

    fn options(&self, mode: AttachPolicy) -> Options {
        Options {
            budget: teredo_common::budget::Budget::default(),
            name: self.name.clone(),
            settings: Settings {
                peer_lifetime: 30_000_000_000,
                relay: relay(),
                mtu: 1280,
                prefix: ServicePrefix::STANDARD,
                tunnel: 1,
                flags: 0,
                interface_mask: 0,
                teredo: TeredoPrefixes::STANDARD,
            },
            served: vec![ipnet::Ipv6Net::default()],
            own_ipv4: vec![relay().ip()],
            server: None,
            interfaces: vec!["wan".to_owned(), "lan".to_owned()],
            trunks: Vec::new(),
            vlans: Vec::new(),
            mode,
            max_peers: 1024,
            accounting: true,
            pin: true,
        }
    }

    fn start(&self, options: &Options) -> Result<Result<AttachedProgram, Error>> {
        self.namespace
            .run(|| AttachedProgram::start(options, now()))
    }

    /// The error with which a start is refused.
    fn refusal(&self, options: &Options) -> Result<String> {
        match self.start(options)? {
            Ok(_) => anyhow::bail!("it started"),
            Err(error) => Ok(error.to_string()),
        }
    }

    fn interface(&self, name: &str) -> Result<Interface> {
        Ok(self.namespace.run(|| Interface::named(name))??)
    }

    /// The mode in which each interface is attached.
    fn modes(&self) -> Result<[Option<Mode>; 2]> {
        let mode = |name| {
            anyhow::Ok(
                self.interface(name)?
                    .program
                    .map(|attachment| attachment.mode),
            )
        };
        Ok([mode("wan")?, mode("lan")?])
    }

    fn instance(&self) -> PathBuf {
        PathBuf::from("/sys/fs/bpf/teredo").join(&self.name)
    }

    fn directory(&self) -> PathBuf {
        self.instance().join(format!("v{ABI_VERSION}"))
    }

    /// Returns the kernel's id of the pinned link to an interface.
    fn link(&self, name: &str) -> Result<u32> {
        let path = self
            .directory()
            .join(format!("link-{}", self.interface(name)?.index));
        Ok(FdLink::from(PinnedLink::from_pin(path)?).info()?.id())
    }

    fn assert_nothing_left(&self) -> Result<()> {
        assert_eq!(self.modes()?, [None, None]);
        assert!(!self.instance().exists());
        Ok(())
    }

    /// Waits for the end of links that are not pinned: they end with their last descriptor, of
    /// which a child of another test may still have a copy until it runs its program.
    fn assert_ends(&self) -> Result<()> {
        wait_until("the program is detached", Duration::from_secs(10), || {
            Ok(self.modes()? == [None, None])
        })?;
        self.assert_nothing_left()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = remove_leftovers(&self.name, None) {
            eprintln!("pins of {} stay: {error}", self.name);
        }
    }
}

const NATIVE: [Option<Mode>; 2] = [Some(Mode::Native); 2];
const GENERIC: [Option<Mode>; 2] = [Some(Mode::Generic); 2];
/// A peer whose mapping is in its address; with another last octet, it is not.
const PEER: [u8; 16] = [
    0x20, 1, 0, 0, 1, 2, 3, 4, 0, 0, 0xef, 0xff, 0xf6, 0xff, 0xff, 0xfe,
];

fn peer() -> Peer {
    Peer {
        mapped: endpoint("9.0.0.1:4096"),
        last_received: now(),
        last_sent: now(),
    }
}

#[test]
fn every_mode_attaches_and_cleans_up() -> Result<()> {
    for pin in [true, false] {
        for (mode, modes) in [
            (AttachPolicy::Native, NATIVE),
            (AttachPolicy::Generic, GENERIC),
            (AttachPolicy::Auto, NATIVE),
        ] {
            let host = Host::new()?;
            let options = Options {
                pin,
                ..host.options(mode)
            };
            let path = host.start(&options)??;
            assert_eq!(host.modes()?, modes);
            assert_eq!(host.instance().exists(), pin);
            for (attached, mode) in path.interfaces().iter().zip(modes) {
                assert_eq!(attached.mode, mode);
                assert_eq!(attached.reason, None);
                assert_eq!(attached.index, host.interface(&attached.name)?.index);
            }
            assert!(!path.adopted());
            path.stop()?;
            if pin {
                host.assert_nothing_left()?;
            } else {
                host.assert_ends()?;
            }
        }
    }
    Ok(())
}

#[test]
fn without_pins_attachments_end_with_the_daemon() -> Result<()> {
    let host = Host::new()?;
    let options = Options {
        pin: false,
        ..host.options(AttachPolicy::Native)
    };
    drop(host.start(&options)??);
    host.assert_ends()
}

#[test]
fn a_restart_after_a_crash_takes_links_and_peers_over() -> Result<()> {
    for mode in [
        AttachPolicy::Native,
        AttachPolicy::Generic,
        AttachPolicy::Auto,
    ] {
        let host = Host::new()?;
        let mut path = host.start(&host.options(mode))??;
        let elsewhere = [&PEER[..15], &[7]].concat().try_into().expect("16");
        let inserted = now();
        for address in [PEER, elsewhere] {
            path.program.insert(&address, &peer(), now())?;
        }
        let modes = host.modes()?;
        let (wan, lan) = (host.link("wan")?, host.link("lan")?);
        let program = host.interface("wan")?.program;
        drop(path);
        assert_eq!(host.modes()?, modes, "a crash does not detach");

        let path = host.start(&host.options(mode))??;
        assert!(path.adopted());
        assert_eq!((host.link("wan")?, host.link("lan")?), (wan, lan));
        assert_eq!(host.modes()?, modes);
        assert_ne!(host.interface("wan")?.program, program, "a new program");
        let mut peers = Vec::new();
        path.program.for_each_peer(now(), |address, known| {
            assert_eq!(known.mapped, peer().mapped);
            // Stamps are rounded to a second.
            assert!(known.last_received + SECOND * 2 > inserted);
            peers.push(*address);
        });
        assert_eq!(peers, [PEER, elsewhere]);
        path.stop()?;
        host.assert_nothing_left()?;
    }
    Ok(())
}

#[test]
fn peers_move_to_a_table_of_another_size() -> Result<()> {
    let host = Host::new()?;
    let mut path = host.start(&host.options(AttachPolicy::Native))??;
    for number in 0..100 {
        path.program.insert(
            &[PEER[..15].to_vec(), vec![number]]
                .concat()
                .try_into()
                .expect("16"),
            &peer(),
            now(),
        )?;
    }
    drop(path);
    for (max_peers, expected) in [(2048, 100), (40, 40), (1024, 40)] {
        let options = Options {
            max_peers,
            ..host.options(AttachPolicy::Native)
        };
        let path = host.start(&options)??;
        assert!(path.adopted());
        assert_eq!(host.modes()?, NATIVE);
        let mut peers = 0;
        path.program.for_each_peer(now(), |_, _| peers += 1);
        assert_eq!(peers, expected, "in a table for {max_peers}");
    }
    remove_leftovers(&host.name, None)?;
    host.assert_nothing_left()
}

#[test]
fn maps_of_another_shape_are_replaced() -> Result<()> {
    let host = Host::new()?;
    host.start(&host.options(AttachPolicy::Native))??.stop()?;
    std::fs::create_dir_all(host.directory())?;
    for name in ["PEERS", "COUNTERS", "PEERS-new"] {
        HashMap::<_, u32, u32>::create(1, 0)?.pin(host.directory().join(name))?;
    }
    let mut path = host.start(&host.options(AttachPolicy::Native))??;
    assert!(!path.adopted());
    path.program.insert(&PEER, &peer(), now())?;
    path.program.counters()?;
    path.stop()?;
    host.assert_nothing_left()
}

#[test]
fn an_interface_that_is_no_longer_configured_is_detached() -> Result<()> {
    let host = Host::new()?;
    drop(host.start(&host.options(AttachPolicy::Native))??);
    let options = Options {
        interfaces: vec!["wan".to_owned()],
        ..host.options(AttachPolicy::Native)
    };
    let path = host.start(&options)??;
    assert_eq!(host.modes()?, [Some(Mode::Native), None]);
    drop(path);
    let path = host.start(&host.options(AttachPolicy::Native))??;
    assert_eq!(host.modes()?, NATIVE);
    path.stop()?;
    host.assert_nothing_left()
}

#[test]
fn a_restart_may_change_the_mode() -> Result<()> {
    let host = Host::new()?;
    drop(host.start(&host.options(AttachPolicy::Native))??);
    drop(host.start(&host.options(AttachPolicy::Generic))??);
    assert_eq!(host.modes()?, GENERIC);
    let path = host.start(&host.options(AttachPolicy::Native))??;
    assert_eq!(host.modes()?, NATIVE);
    path.stop()?;
    host.assert_nothing_left()
}

#[test]
fn a_recreated_interface_is_attached_again() -> Result<()> {
    let mut host = Host::new()?;
    drop(host.start(&host.options(AttachPolicy::Native))??);
    let index = host.interface("lan")?.index;
    host.namespace.ip("link del lan")?;
    host.namespace.ip(&format!(
        "link add lan index {index} type veth peer name lan-end"
    ))?;
    host.namespace.ip("link set lan up")?;
    host.attach_end()?;
    let path = host.start(&host.options(AttachPolicy::Native))??;
    assert_eq!(host.modes()?, NATIVE);
    path.stop()?;
    host.assert_nothing_left()
}

#[test]
fn leftovers_of_other_versions_are_removed() -> Result<()> {
    let host = Host::new()?;
    host.start(&host.options(AttachPolicy::Native))??.stop()?;
    let old = host.instance().join("v0");
    std::fs::create_dir_all(&old)?;
    let map = HashMap::<_, u32, u32>::create(1, 0)?;
    map.pin(old.join("PEERS"))?;
    let path = host.start(&host.options(AttachPolicy::Native))??;
    assert!(!path.adopted());
    assert!(!old.exists());
    path.stop()?;
    host.assert_nothing_left()
}

#[test]
fn leftovers_can_be_removed_alone() -> Result<()> {
    let host = Host::new()?;
    drop(host.start(&host.options(AttachPolicy::Native))??);
    remove_leftovers(&host.name, None)?;
    host.assert_nothing_left()
}

#[test]
fn a_second_daemon_of_the_same_name_is_refused() -> Result<()> {
    let host = Host::new()?;
    let path = host.start(&host.options(AttachPolicy::Native))??;
    let text = host.refusal(&host.options(AttachPolicy::Native))?;
    assert!(text.contains("another teredo daemon"), "{text}");
    assert!(text.contains("node.name"), "{text}");
    assert!(matches!(
        remove_leftovers(&host.name, None),
        Err(Error::Running { .. })
    ));
    assert_eq!(host.modes()?, NATIVE, "the first goes on");
    path.stop()?;
    host.assert_nothing_left()
}

#[test]
fn another_program_is_named_with_its_owner() -> Result<()> {
    let host = Host::new()?;
    let holder = Options {
        pin: false,
        interfaces: vec!["lan".to_owned()],
        ..host.options(AttachPolicy::Native)
    };
    let path = host.start(&holder)??;
    let id = host.interface("lan")?.program.context("attached")?.program;
    for mode in [AttachPolicy::Native, AttachPolicy::Generic] {
        let text = host.refusal(&host.options(mode))?;
        assert!(text.contains("`lan`"), "{text}");
        assert!(text.contains(&format!("program {id} `teredo`")), "{text}");
        assert!(
            text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
        // A link attaches it, which `ip` cannot detach.
        assert!(text.contains("bpftool link detach id"), "{text}");
        assert!(!text.contains("xdp off"), "{text}");
        assert_eq!(host.modes()?, [None, Some(Mode::Native)], "undone");
        assert!(!host.instance().exists());
    }
    // Mode auto works without that interface, and reports why.
    let auto = host.start(&host.options(AttachPolicy::Auto))??;
    let [wan, lan] = auto.interfaces() else {
        anyhow::bail!("{:?}", auto.interfaces());
    };
    assert_eq!(wan.mode, Some(Mode::Generic));
    assert_eq!(lan.mode, None);
    let reason = lan.reason.as_deref().unwrap_or_default();
    assert!(reason.contains("already"), "{reason}");
    auto.stop()?;
    path.stop()?;
    host.assert_ends()
}

#[test]
fn a_large_mtu_is_named() -> Result<()> {
    let host = Host::new()?;
    host.namespace.ip("link set lan-end mtu 9000")?;
    let text = host.refusal(&host.options(AttachPolicy::Native))?;
    assert!(text.contains("`lan`") && text.contains("MTU"), "{text}");
    host.assert_nothing_left()?;
    let path = host.start(&host.options(AttachPolicy::Auto))??;
    assert_eq!(host.modes()?, GENERIC);
    for attached in path.interfaces() {
        let reason = attached.reason.as_deref().unwrap_or_default();
        assert!(reason.contains("MTU"), "{reason}");
    }
    path.stop()?;
    host.assert_nothing_left()
}

#[test]
fn too_few_queues_are_named() -> Result<()> {
    let mut host = Host::new()?;
    host.namespace.ip("link del lan")?;
    host.namespace
        .ip("link add lan numrxqueues 1 type veth peer name lan-end numtxqueues 4 numrxqueues 4")?;
    host.namespace.ip("link set lan up")?;
    let mut queues = host.namespace.command("ethtool")?;
    queues.args(["-L", "lan-end", "tx", "4"]);
    assert!(queues.status()?.success());
    host.attach_end()?;
    let text = host.refusal(&host.options(AttachPolicy::Native))?;
    assert!(
        text.contains("queues") && text.contains("ethtool -L"),
        "{text}"
    );
    host.assert_nothing_left()
}

#[test]
fn interfaces_that_cannot_be_attached_to_are_named() -> Result<()> {
    let host = Host::new()?;
    host.namespace.ip("tuntap add dev tunnel mode tun")?;
    for (name, part) in [
        ("nothing", "no interface `nothing`"),
        ("a-name-that-is-much-too-long-for-one", "no interface"),
        ("", "no interface"),
        ("lo", "`lo` is not an Ethernet interface"),
        ("tunnel", "`tunnel` is not an Ethernet interface"),
    ] {
        let options = Options {
            interfaces: vec!["wan".to_owned(), name.to_owned()],
            ..host.options(AttachPolicy::Auto)
        };
        let text = host.refusal(&options)?;
        assert!(text.contains(part), "{text}");
        assert!(text.contains("xdp."), "{text}");
        host.assert_nothing_left()?;
    }
    Ok(())
}

#[test]
fn missing_capabilities_are_named() -> Result<()> {
    let host = Host::new()?;
    for pin in [true, false] {
        let options = Options {
            pin,
            ..host.options(AttachPolicy::Auto)
        };
        let result = host.namespace.run(|| {
            // The system call drops them for this thread alone; the library's function would change
            // the whole process. SAFETY: numbers only.
            let result = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
            assert_eq!(result, 0);
            AttachedProgram::start(&options, now())
        })?;
        let Err(error) = result else {
            anyhow::bail!("it started");
        };
        let text = error.to_string();
        assert!(matches!(error, Error::Permission { .. }), "{text}");
        assert!(
            text.contains("CAP_BPF") && text.contains("CAP_NET_ADMIN"),
            "{text}"
        );
        host.assert_nothing_left()?;
    }
    Ok(())
}

#[test]
fn a_map_too_large_for_the_kernel_is_named() -> Result<()> {
    let host = Host::new()?;
    let options = Options {
        max_peers: u32::MAX,
        ..host.options(AttachPolicy::Native)
    };
    let text = host.refusal(&options)?;
    assert!(text.contains("relay.max-peers"), "{text}");
    host.assert_nothing_left()
}

/// What containers have by default: nothing at the other end, or only generic receive offload, which
/// delivers redirected frames but not those that leave by the interface that they came by.
#[test]
fn a_veth_with_a_bare_end_gets_no_native_program() -> Result<()> {
    for offload in ["gro off", "gro on"] {
        let mut host = Host::new()?;
        host.bare(&["wan-end", "lan-end"])?;
        host.namespace.offload("wan-end", offload)?;
        host.namespace.offload("lan-end", offload)?;
        let text = host.refusal(&host.options(AttachPolicy::Native))?;
        assert!(text.contains("`wan`"), "{text}");
        assert!(text.contains("other end has no native program"), "{text}");
        assert!(text.contains("\"generic\""), "{text}");
        host.assert_nothing_left()?;
        let path = host.start(&host.options(AttachPolicy::Auto))??;
        assert_eq!(host.modes()?, GENERIC, "{offload}");
        for attached in path.interfaces() {
            let reason = attached.reason.as_deref().unwrap_or_default();
            assert!(
                reason.contains("other end has no native program"),
                "{reason}"
            );
        }
        path.stop()?;
        host.assert_nothing_left()?;
    }
    Ok(())
}

#[test]
fn one_bare_end_is_enough_to_attach_all_in_generic_mode() -> Result<()> {
    let mut host = Host::new()?;
    host.bare(&["lan-end"])?;
    let path = host.start(&host.options(AttachPolicy::Auto))??;
    assert_eq!(host.modes()?, GENERIC);
    for attached in path.interfaces() {
        let reason = attached.reason.as_deref().unwrap_or_default();
        assert!(reason.contains("`lan`"), "{reason}");
    }
    path.stop()?;
    host.assert_nothing_left()
}

#[test]
fn native_mode_ends_with_the_program_at_the_other_end() -> Result<()> {
    for pin in [true, false] {
        let mut host = Host::new()?;
        let options = Options {
            pin,
            ..host.options(AttachPolicy::Auto)
        };
        let mut path = host.start(&options)??;
        path.program.insert(&PEER, &peer(), now())?;
        assert_eq!(host.obstacle(&mut path)?, None);
        assert_eq!(host.modes()?, NATIVE);
        host.bare(&["wan-end", "lan-end"])?;
        let obstacle = host.obstacle(&mut path)?;
        assert!(
            matches!(obstacle, Some(Obstacle::BareEnd { .. })),
            "{obstacle:?}"
        );
        assert_eq!(host.modes()?, GENERIC);
        for attached in path.interfaces() {
            assert_eq!(attached.mode, Some(Mode::Generic));
            assert!(attached.reason.is_some());
        }
        assert!(path.program.has_peer(&PEER), "peers stay");
        // A program that comes back changes nothing.
        host.attach_end()?;
        assert!(path.begin_look().is_ok() && path.conclude()?.is_none());

        if pin {
            drop(path);
            assert_eq!(host.modes()?, GENERIC, "a crash does not detach");
            path = host.start(&options)??;
            assert!(path.adopted());
        }
        path.stop()?;
        host.assert_ends()?;
    }
    Ok(())
}

#[test]
fn a_host_may_have_any_number_of_addresses() -> Result<()> {
    let host = Host::new()?;
    let addresses: Vec<Ipv4Addr> = (0..100_000_u32)
        .map(|number| Ipv4Addr::from_bits(0x1400_0001 + number))
        .collect();
    let mut path = host.start(&Options {
        own_ipv4: addresses[..300].to_vec(),
        ..host.options(AttachPolicy::Native)
    })??;
    assert!(path.program.knows_own_ipv4());
    let stations = path.program.stations()?;
    assert_eq!(stations.len(), 2);
    // More of them, all others, and few again.
    for part in [
        &addresses[..1000],
        &addresses[40_000..90_000],
        &addresses[..3],
    ] {
        path.program.set_own_ipv4(part)?;
        assert!(path.program.knows_own_ipv4());
        assert_eq!(path.program.stations()?, stations);
    }
    // Without room for all of them the program leaves every frame to the kernel.
    path.program.set_own_ipv4(&addresses)?;
    assert!(!path.program.knows_own_ipv4());
    assert_eq!(path.program.stations()?, []);
    host.namespace.run(|| path.invalidate_routes())??;
    assert_eq!(path.program.stations()?, [], "not before there is room");
    path.program.set_own_ipv4(&addresses[..300])?;
    assert!(path.program.knows_own_ipv4());
    assert_eq!(path.program.stations()?, stations);
    path.stop()?;

    let path = host.start(&Options {
        own_ipv4: addresses,
        ..host.options(AttachPolicy::Native)
    })??;
    assert!(path.program.knows_own_ipv4(), "the map has the host's size");
    path.stop()?;
    host.assert_nothing_left()
}

#[test]
fn a_changed_ethernet_address_is_noticed() -> Result<()> {
    let host = Host::new()?;
    let mut path = host.start(&host.options(AttachPolicy::Native))??;
    host.namespace
        .ip("link set lan address 02:00:00:00:77:77")?;
    host.namespace.run(|| path.invalidate_routes())??;
    let stations = path.program.stations()?;
    let lan = host.interface("lan")?;
    assert_eq!(lan.station, [2, 0, 0, 0, 0x77, 0x77]);
    assert!(stations.contains(&(lan.index, lan.station)));
    path.stop()?;
    host.assert_nothing_left()
}
