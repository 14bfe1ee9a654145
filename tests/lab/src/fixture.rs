//! The XDP program by itself: it is given a packet and returns a verdict, a packet and counters.
//!
//! No packet is sent. The program runs on frames that `BPF_PROG_TEST_RUN` feeds to it, in a
//! namespace whose routes and neighbours it looks up.

use std::{net::Ipv6Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions, XdpMode};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use teredo::datapath::xdp::{self, Interface, Parameters, Program, Vlan};
use teredo_common::{
    address::Endpoint,
    maps::Counter,
    peers::Peer,
    time::Instant,
    verdict::{Action, Verdict},
    vlan::{Tags, Trunk},
};

use teredo_differential::{FastPath, host::HostPath, site::OWN_IPV4};

use crate::{Namespace, wait_until};

pub use teredo_differential::{
    Outcome,
    site::{HOST, LAN, Port, ROUTER, ROUTER_V6, Setup, WAN, cases, relay},
};

/// Length of the shortest frame that `BPF_PROG_TEST_RUN` accepts.
pub const SHORTEST: usize = 14;

/// A frame that the program leaves unchanged: its name, the frame, the verdict.
pub type Refusal = (&'static str, Vec<u8>, Verdict);

/// A frame that the program translates: its name, the frame, and the frame that leaves.
pub type Passage = (&'static str, Vec<u8>, Vec<u8>);

/// The relay of the vectors, 5.6.7.8:3545, on a LAN with 2000::b.
pub struct Fixture {
    /// The namespace with the interfaces `wan`, `lan`, `other` and `tunnel`.
    pub namespace: Namespace,
    /// The loaded program.
    pub program: Program,
    ports: [Interface; 3],
    tunnel: u32,
}

/// Time on the clock of stamps.
///
/// # Panics
///
/// Panics when the system has no such clock.
#[must_use]
pub fn now() -> Instant {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .expect("Linux has this clock");
    Instant::from_nanos(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// Waits until the machine has been up for longer than a peer's default lifetime: the clock of
/// stamps starts at boot, and no peer can be stale before.
///
/// # Errors
///
/// Fails when the clock stands still.
pub fn wait_for_stale_stamps() -> Result<()> {
    let lifetime = Duration::from_nanos(Setup::default().peer_lifetime);
    wait_until("a clock older than a peer's lifetime", 2 * lifetime, || {
        Ok(now() > Instant::ZERO + lifetime + Duration::from_secs(1))
    })
}

impl Fixture {
    /// Loads a program with no peers.
    ///
    /// # Errors
    ///
    /// Fails without root, or when the kernel refuses a part of the set-up.
    pub fn new(setup: &Setup) -> Result<Self> {
        let namespace = Namespace::new("fixture")?;
        namespace.ip_batch(
            "link add wan address 02:00:00:00:00:0a type veth peer name wan-end
             link add lan address 02:00:00:00:00:0b type veth peer name lan-end
             link add other address 02:00:00:00:00:0c type veth peer name other-end
             tuntap add dev tunnel mode tun",
        )?;
        // The far ends send no packets of their own, which the program would count.
        for end in ["wan-end", "lan-end", "other-end"] {
            namespace.sysctl(&format!("net.ipv6.conf.{end}.disable_ipv6"), 1)?;
        }
        namespace.ip_batch(
            "link set wan-end up
             link set lan-end up
             link set other-end up
             link set wan up
             link set lan up
             link set other up
             link set tunnel up
             addr add 5.6.7.8/24 dev wan
             addr add 2000:3::1/64 dev wan nodad
             addr add 2000::1/64 dev lan nodad
             addr add 2000:99::1/64 dev other nodad
             neigh add 5.6.7.1 lladdr 02:00:00:00:04:01 dev wan nud permanent
             neigh add 2000::b lladdr 02:00:00:00:06:0b dev lan nud permanent
             neigh add 2000:3::b lladdr 02:00:00:00:06:01 dev wan nud permanent
             neigh add 2000:99::b lladdr 02:00:00:00:06:0b dev other nud permanent
             route add default via 5.6.7.1 dev wan
             route add 9.9.0.0/16 via 5.6.7.1 dev wan mtu lock 1000
             route add blackhole 9.8.0.0/16
             route add ::/0 via 2000::b dev lan
             route add 2000:1000::/32 via 2000::b dev lan mtu lock 1280
             route add unreachable 2000:8::/32",
        )?;
        namespace.sysctl("net.ipv4.conf.tunnel.forwarding", 1)?;
        // Route look-ups start here without a relay.
        namespace.sysctl("net.ipv4.conf.lo.forwarding", 1)?;
        namespace.sysctl("net.ipv6.conf.tunnel.forwarding", 1)?;
        let setup = setup.clone();
        let (program, ports, tunnel) = namespace.run(|| Self::load(&setup))??;
        Ok(Self {
            namespace,
            program,
            ports,
            tunnel,
        })
    }

    fn load(setup: &Setup) -> Result<(Program, [Interface; 3], u32)> {
        let wan = Interface::named("wan")?;
        let lan = Interface::named("lan")?;
        let other = Interface::named("other")?;
        let tunnel = nix::net::if_::if_nametoindex("tunnel")?;
        let server = setup.server.as_ref().map(|config| xdp::ServerParameters {
            constants: config.fast_path(setup.one_interface),
            allowed: config.allow.clone(),
        });
        let (mut interfaces, mut vlans) = (Vec::new(), Vec::new());
        for (interface, tags) in [&wan, &lan].into_iter().zip(setup.tags) {
            match tags {
                Tags::NONE => interfaces.push(interface.clone()),
                _ => vlans.push(Vlan {
                    index: interface.index,
                    station: interface.station,
                    trunk: Trunk {
                        interface: other.index,
                        tags,
                    },
                }),
            }
        }
        let mut program = Program::load(
            &Parameters {
                settings: setup.settings(tunnel),
                budget: setup.budget,
                server: server.as_ref(),
                max_peers: setup.max_peers,
                accounting: true,
                served: &setup.served,
                own_ipv4: &OWN_IPV4.map(Into::into),
                interfaces: &interfaces,
                vlans: &vlans,
                now: now(),
            },
            None,
        )?;
        // A frame in a test run can come from an interface with a native program only.
        for interface in [&wan, &lan, &other] {
            program
                .xdp()?
                .attach_to_if_index(interface.index, XdpMode::Driver)?;
        }
        Ok((program, [wan, lan, other], tunnel))
    }

    /// Returns the data path on this host for the same set-up, with the same interfaces and without peers.
    #[must_use]
    pub fn on_host(&self, setup: &Setup) -> HostPath {
        let interfaces = self.ports.each_ref().map(|port| port.index);
        HostPath::on(setup, interfaces, self.tunnel)
    }

    /// Returns the index of an interface in the namespace.
    #[must_use]
    pub fn interface(&self, port: Port) -> u32 {
        match port {
            Port::Wan => self.ports[0].index,
            Port::Lan => self.ports[1].index,
            Port::Other => self.ports[2].index,
        }
    }

    /// Inserts a trusted peer, last heard just now.
    ///
    /// # Errors
    ///
    /// Fails when the map refuses.
    pub fn trust(&mut self, address: Ipv6Addr, mapped: Endpoint) -> Result<()> {
        self.insert(
            address,
            Peer {
                mapped,
                last_received: now(),
                last_sent: now(),
            },
        )
    }

    /// Inserts a peer.
    ///
    /// # Errors
    ///
    /// Fails when the map refuses.
    pub fn insert(&mut self, address: Ipv6Addr, peer: Peer) -> Result<()> {
        Ok(self.program.insert(&address.octets(), &peer, now())?)
    }

    /// The entry of a peer.
    ///
    /// # Errors
    ///
    /// Fails when the table has no such peer.
    pub fn peer(&self, address: Ipv6Addr) -> Result<Peer> {
        self.program
            .peer(&address.octets(), now())
            .with_context(|| format!("no entry for {address}"))
    }

    /// Runs the program on a frame.
    ///
    /// # Errors
    ///
    /// Fails when the run fails, when not exactly one counter changed, or when the action does not
    /// match the verdict.
    pub fn run(&mut self, port: Port, frame: &[u8]) -> Result<Outcome> {
        let before = self.program.counters()?;
        let (action, out) = self.run_uncounted(port, frame, 1)?;
        let after = self.program.counters()?;
        let mut moved = before.iter().zip(&after).filter(|(old, new)| old != new);
        let (&(verdict, old), &(_, new)) = moved.next().context("no counter moved")?;
        ensure!(moved.next().is_none(), "more than one counter moved");
        let expected = Counter {
            packets: old.packets + 1,
            bytes: old.bytes + frame.len() as u64,
        };
        ensure!(
            new == expected,
            "{verdict:?} counts {new:?}, not {expected:?}"
        );
        let permitted: &[u32] = match verdict.action() {
            Action::Drop => &[XDP_DROP],
            Action::Pass => &[XDP_PASS],
            Action::Forward => &[XDP_TX, XDP_REDIRECT],
        };
        ensure!(
            permitted.contains(&action),
            "{verdict:?} gives action {action}"
        );
        Ok(Outcome {
            verdict,
            same_interface: action == XDP_TX,
            frame: out,
        })
    }

    /// Checks that the program leaves frames unchanged, with these verdicts.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::run`].
    ///
    /// # Panics
    ///
    /// Panics when a verdict is another, or a frame is changed.
    pub fn refuse(&mut self, port: Port, rows: Vec<Refusal>) -> Result<()> {
        for (name, frame, verdict) in rows {
            let outcome = self.run(port, &frame)?;
            assert_eq!(outcome.verdict, verdict, "{name}");
            assert_eq!(outcome.frame, frame, "{name}: changed");
        }
        Ok(())
    }

    /// Checks that the program translates a frame and sends it by the other interface.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::run`].
    ///
    /// # Panics
    ///
    /// Panics when the verdict is another, or another frame leaves.
    pub fn forward(&mut self, port: Port, verdict: Verdict, passage: Passage) -> Result<()> {
        let (name, frame, expected) = passage;
        let outcome = self.run(port, &frame)?;
        assert_eq!(outcome.verdict, verdict, "{name}");
        assert_eq!(outcome.frame, expected, "{name}");
        assert!(!outcome.same_interface, "{name}");
        Ok(())
    }

    /// Runs the program on a frame `repeat` times, each time on the result of the previous run, and
    /// returns the last action and frame.
    ///
    /// # Errors
    ///
    /// Fails when the run fails.
    pub fn run_uncounted(
        &mut self,
        port: Port,
        frame: &[u8],
        repeat: u32,
    ) -> Result<(u32, Vec<u8>)> {
        let index = self.interface(port);
        // The kernel's `xdp_md`: data, end, metadata, ingress interface, queue, egress interface.
        let context: Vec<u8> = [0, frame.len() as u32, 0, index, 0, 0]
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .collect();
        let mut out = vec![0; frame.len() + 96];
        let program = &mut self.program;
        // Always the same one, as the program remembers per CPU.
        let permitted = sched_getaffinity(Pid::from_raw(0))?;
        let first = (0..CpuSet::count()).find(|&cpu| permitted.is_set(cpu) == Ok(true));
        let mut cpu = CpuSet::new();
        cpu.set(first.context("some CPU is permitted")?)?;
        let result = self.namespace.run(|| {
            sched_setaffinity(Pid::from_raw(0), &cpu)?;
            anyhow::Ok(program.xdp()?.test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                repeat,
                ..TestRunOptions::default()
            })?)
        })??;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }
}

impl FastPath for Fixture {
    fn now(&self) -> Instant {
        now()
    }

    fn insert(&mut self, address: Ipv6Addr, peer: Peer) -> Result<()> {
        self.insert(address, peer)
    }

    fn remove(&mut self, address: Ipv6Addr) -> Result<()> {
        Ok(self.program.remove(&address.octets(), now())?)
    }

    fn set_draining(&mut self, end: Option<Instant>) -> Result<()> {
        Ok(self.program.set_draining(end)?)
    }

    fn run(&mut self, port: Port, frame: &[u8]) -> Result<Outcome> {
        self.run(port, frame)
    }
}

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;
