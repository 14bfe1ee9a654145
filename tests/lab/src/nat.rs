//! NATs of all kinds, with nftables.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    process::Command,
    time::Duration,
};

use anyhow::Result;

use super::{
    links::{Internet, bridge, cable},
    namespace::Namespace,
};

/// The mapping and filtering behaviour of a NAT.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NatKind {
    /// One mapping for all destinations, which keeps the port if that is free. Packets come in only
    /// from endpoints that were sent to.
    PortRestricted,
    /// The same by `masquerade` alone, as many Linux routers have it: without an input filter, a
    /// packet that comes unasked leaves a connection, and the mapping towards its sender gets
    /// another port.
    Unfiltered,
    /// A new random port for every destination.
    Symmetric,
    /// One mapping, through which packets come in from every endpoint.
    FullCone,
    /// One mapping, through which packets come in from addresses that were sent to in the last 30
    /// seconds, from any port.
    AddressRestricted,
}

/// A NAT between the IPv4 internet (interface `wan`) and a private network (interface `lan`).
#[derive(Debug)]
pub struct Nat {
    namespace: Namespace,
    wan: Ipv4Addr,
    lan: Ipv4Addr,
    inside: SocketAddrV4,
}

impl Nat {
    /// Makes a NAT with `wan` (prefix length 16) on the internet and `lan` (prefix length 24)
    /// inside. `inside` is the host behind it, with its service port: the two cone kinds map only
    /// that port.
    ///
    /// # Errors
    ///
    /// Fails when an interface or a rule cannot be made.
    pub fn new(
        name: &str,
        internet: &Internet,
        wan: Ipv4Addr,
        lan: Ipv4Addr,
        inside: SocketAddrV4,
        kind: NatKind,
    ) -> Result<Self> {
        let namespace = Namespace::new(name)?;
        internet.plug(&namespace, "wan")?;
        namespace.ip(&format!("addr add {wan}/16 dev wan"))?;
        bridge(&namespace, "lan")?;
        namespace.ip(&format!("addr add {lan}/24 dev lan"))?;
        namespace.sysctl("net.ipv4.ip_forward", 1)?;
        let nat = Self {
            namespace,
            wan,
            lan,
            inside,
        };
        nat.set_kind(kind)?;
        // Teredo refreshes its mapping every 30 seconds, which must not race the NAT's own.
        nat.set_udp_timeout(Duration::from_secs(180))?;
        Ok(nat)
    }

    /// Connects a host inside: interface `eth0`, an address of the private network, the NAT as its
    /// default route. All hosts are on one link.
    ///
    /// # Errors
    ///
    /// Fails when the host has an `eth0` already.
    pub fn connect(&self, host: &Namespace, address: Ipv4Addr) -> Result<()> {
        let port = format!("lan{}", address.octets()[3]);
        cable((&self.namespace, &port), (host, "eth0"))?;
        self.namespace.ip(&format!("link set {port} master lan"))?;
        host.ip(&format!("addr add {address}/24 dev eth0"))?;
        host.ip(&format!("route add default via {}", self.lan))?;
        Ok(())
    }

    /// The namespace of the NAT.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The NAT's address on the internet.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.wan
    }

    /// Changes the kind of the NAT; all mappings are lost.
    ///
    /// # Errors
    ///
    /// Fails when nftables refuses the rules.
    pub fn set_kind(&self, kind: NatKind) -> Result<()> {
        self.load(kind, self.inside.port())
    }

    /// Restarts as a port-restricted NAT that maps the service port of the host inside to `port`;
    /// all mappings are lost.
    ///
    /// # Errors
    ///
    /// Fails when nftables refuses the rules.
    pub fn reboot(&self, port: u16) -> Result<()> {
        self.load(NatKind::PortRestricted, port)
    }

    /// Maps the service port to `mapped` if this kind has one mapping.
    fn load(&self, kind: NatKind, mapped: u16) -> Result<()> {
        let (port, inside) = (self.inside.port(), self.inside);
        let prerouting = match kind {
            NatKind::PortRestricted | NatKind::Unfiltered | NatKind::Symmetric => String::new(),
            NatKind::FullCone => format!("iifname wan udp dport {port} dnat to {inside};"),
            NatKind::AddressRestricted => {
                format!("iifname wan udp dport {port} ip saddr @seen dnat to {inside};")
            }
        };
        let postrouting = match kind {
            NatKind::Symmetric => "masquerade fully-random".to_owned(),
            NatKind::Unfiltered => "masquerade".to_owned(),
            _ => format!("udp sport {port} masquerade to :{mapped}; oifname wan masquerade"),
        };
        // Unsolicited packets are dropped, unless a test needs them: an accepted one leaves
        // a connection that collides with the later hole punch, which is then given another port.
        let unsolicited = match kind {
            NatKind::Unfiltered => "accept",
            _ => "drop",
        };
        self.namespace.nft(&format!(
            "flush ruleset
            table ip nat {{
              set seen {{ type ipv4_addr; flags dynamic,timeout; timeout 30s; }}
              chain prerouting {{ type nat hook prerouting priority dstnat; {prerouting} }}
              chain postrouting {{
                type nat hook postrouting priority srcnat; oifname wan {postrouting};
              }}
              chain remember {{
                type filter hook postrouting priority mangle;
                oifname wan ip protocol udp update @seen {{ ip daddr }};
              }}
              chain input {{
                type filter hook input priority filter; policy {unsolicited};
                iifname lo accept; iifname lan accept; ct state established,related accept;
              }}
            }}"
        ))?;
        self.flush()
    }

    /// Drops one in `n` of the forwarded packets, in both directions, at random; 0 drops none.
    ///
    /// # Errors
    ///
    /// Fails when nftables refuses the rule.
    pub fn lose_one_in(&self, n: u32) -> Result<()> {
        let rule = match n {
            0 => String::new(),
            n => format!("numgen random mod {n} 0 drop;"),
        };
        self.namespace.nft(&format!(
            "table ip loss {{ }}
            delete table ip loss
            table ip loss {{
                chain forward {{
                    type filter hook forward priority 0;
                    {rule}
                }}
            }}"
        ))
    }

    /// Removes all mappings.
    ///
    /// # Errors
    ///
    /// Fails when `conntrack` fails.
    pub fn flush(&self) -> Result<()> {
        let mut command = Command::new("conntrack");
        self.namespace.output(command.arg("-F")).map(drop)
    }

    /// Removes the mappings towards `remote`, which closes a hole that was punched for it.
    ///
    /// # Errors
    ///
    /// Fails when `conntrack` fails for another reason than that there is no mapping.
    pub fn forget(&self, remote: Ipv4Addr) -> Result<()> {
        let remote = remote.to_string();
        for side in ["--orig-dst", "--orig-src"] {
            let mut command = Command::new("conntrack");
            command.args(["-D", "-p", "udp", side, &remote]);
            let result = self.namespace.output(&mut command);
            // The exit status is 1 when there was no mapping to delete.
            if let Err(error) = result
                && !error.to_string().contains("0 flow entries")
            {
                return Err(error);
            }
        }
        self.namespace.nft("flush set ip nat seen")
    }

    /// Lifetime of an unused UDP mapping.
    ///
    /// # Errors
    ///
    /// Fails when the kernel has no connection tracking.
    pub fn set_udp_timeout(&self, timeout: Duration) -> Result<()> {
        for key in ["udp_timeout", "udp_timeout_stream"] {
            let key = format!("net.netfilter.nf_conntrack_{key}");
            self.namespace.sysctl(&key, timeout.as_secs())?;
        }
        Ok(())
    }
}
