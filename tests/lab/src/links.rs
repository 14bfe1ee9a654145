//! Cables between namespaces, and the internet.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::namespace::Namespace;
use crate::programs::Attached;

/// An interface.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// Index of the interface.
    pub index: u32,
    /// Ethernet address of the interface.
    pub station: [u8; 6],
}

impl Interface {
    /// Looks up the interface of this name.
    ///
    /// # Errors
    ///
    /// Fails when there is no such interface.
    pub fn named(namespace: &Namespace, name: &str) -> Result<Self> {
        let text = namespace.ip(&format!("-json link show dev {name}"))?;
        let links: Value = serde_json::from_str(&text)?;
        let link = &links[0];
        let octets = link["address"]
            .as_str()
            .into_iter()
            .flat_map(|text| text.split(':'))
            .map(|octet| u8::from_str_radix(octet, 16))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            index: u32::try_from(link["ifindex"].as_u64().context("a link has an index")?)?,
            station: octets
                .try_into()
                .ok()
                .context("an Ethernet address has six octets")?,
        })
    }
}

/// Lays a cable between two namespaces and sets both ends up. Checksums are complete on it (no
/// offload), because XDP forwards an unfinished checksum as it is.
///
/// # Errors
///
/// Fails when an interface of that name exists.
pub fn cable(a: (&Namespace, &str), b: (&Namespace, &str)) -> Result<()> {
    cable_with_queues(a, b, 1)
}

/// Lays a cable as [`cable`] does, with this number of queues in each direction.
///
/// # Errors
///
/// As [`cable`].
pub fn cable_with_queues(
    a: (&Namespace, &str),
    b: (&Namespace, &str),
    queues: usize,
) -> Result<()> {
    a.0.ip(&format!(
        "link add {} numrxqueues {queues} numtxqueues {queues} type veth \
         peer name {} numrxqueues {queues} numtxqueues {queues} netns {}",
        a.1,
        b.1,
        b.0.name()
    ))
    .context("lay a cable")?;
    for (namespace, interface) in [a, b] {
        namespace.offload(interface, "tx off")?;
        namespace.ip(&format!("link set {interface} up"))?;
    }
    Ok(())
}

/// Makes a bridge that forwards every frame at once, past the namespace's firewall.
///
/// # Errors
///
/// Fails when an interface of that name exists.
pub fn bridge(namespace: &Namespace, name: &str) -> Result<()> {
    namespace.ip(&format!(
        "link add {name} type bridge forward_delay 0 mcast_snooping 0"
    ))?;
    namespace.ip(&format!("link set {name} up"))?;
    for table in ["iptables", "ip6tables", "arptables"] {
        let key = format!("net.bridge.bridge-nf-call-{table}");
        // The setting exists only while the module br_netfilter is loaded.
        if namespace.read_sysctl(&key).is_ok() {
            namespace.sysctl(&key, 0)?;
        }
    }
    Ok(())
}

/// An internet that is one Ethernet segment: a bridge in a namespace of its own.
#[derive(Debug)]
pub struct Internet {
    /// Programs on the bridge's ports.
    programs: Vec<Attached>,
    namespace: Namespace,
}

/// The bridge's name.
const BRIDGE: &str = "bridge";

impl Internet {
    /// Makes an internet without hosts.
    ///
    /// # Errors
    ///
    /// Fails when the bridge cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let namespace = Namespace::new(name)?;
        bridge(&namespace, BRIDGE)?;
        Ok(Self {
            programs: Vec::new(),
            namespace,
        })
    }

    /// Connects `host` with an interface of the given name.
    ///
    /// # Errors
    ///
    /// Fails when the interface exists.
    pub fn plug(&self, host: &Namespace, interface: &str) -> Result<()> {
        self.connect(host, interface).map(drop)
    }

    /// Connects `host` as [`Self::plug`] does, for a host whose XDP program sends frames out of the
    /// interface. They arrive only if the other end has an XDP program as well, so the bridge's
    /// port gets one that passes every frame. (With generic receive offload alone, redirected
    /// frames arrive too, but those of `XDP_TX` wait for the next other frame.)
    ///
    /// # Errors
    ///
    /// Fails when the interface exists or the program cannot be attached.
    pub fn plug_xdp(&mut self, host: &Namespace, interface: &str) -> Result<()> {
        let port = self.connect(host, interface)?;
        let program = Attached::nothing(&self.namespace, &[&port])?;
        self.programs.push(program);
        Ok(())
    }

    /// Takes the programs of the bridge's ports. Once they are dropped, hosts are connected as containers
    /// are: frames of native programs no longer arrive.
    pub fn take_programs(&mut self) -> Vec<Attached> {
        std::mem::take(&mut self.programs)
    }

    /// Returns the bridge's port.
    fn connect(&self, host: &Namespace, interface: &str) -> Result<String> {
        // Only unique among this bridge's ports, and no longer than an interface name may be. The
        // ports of interfaces that were deleted have gone.
        let ports = self.ports()?.concat();
        let mut names = (0..).map(|number| format!("port{number}"));
        let is_free = |name: &String| !ports.contains(&format!(" {name}@"));
        let port = names.find(is_free).context("no free name")?;
        cable((host, interface), (&self.namespace, &port))?;
        self.namespace
            .ip(&format!("link set {port} master {BRIDGE}"))?;
        Ok(port)
    }

    fn ports(&self) -> Result<Vec<String>> {
        let text = self
            .namespace
            .ip(&format!("-o link show master {BRIDGE}"))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The namespace of the bridge, to capture on.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The bridge's interface, on which a capture sees everything that is flooded to all.
    #[must_use]
    pub fn interface(&self) -> &'static str {
        BRIDGE
    }
}
