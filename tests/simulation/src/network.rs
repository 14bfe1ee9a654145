//! IPv4 networks and the NATs between them: the path of a datagram and its translations.

use std::{collections::HashMap, net::Ipv4Addr};

use teredo_common::{address::Endpoint, time::Instant};

use super::{nat::Nat, world::NodeId};

/// A network in which all machines reach each other: the internet, or one link behind a NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Realm(pub(super) usize);

impl Realm {
    /// The IPv4 internet.
    pub const INTERNET: Self = Self(0);
}

/// A NAT or firewall between two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId(usize);

#[derive(Clone, Copy, Debug)]
enum Owner {
    Node(NodeId),
    Gateway(GatewayId),
}

#[derive(Debug)]
struct Gateway {
    nat: Nat,
    inside: Realm,
    outside: Realm,
}

/// A datagram under way to a machine in `realm`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transit {
    pub realm: Realm,
    pub from: Endpoint,
    pub to: Endpoint,
}

/// All networks.
#[derive(Debug)]
pub(super) struct Network {
    /// The gateway out of each realm.
    realms: Vec<Option<GatewayId>>,
    gateways: Vec<Gateway>,
    owners: HashMap<(Realm, Ipv4Addr), Owner>,
    public: u32,
    private: HashMap<Realm, u32>,
}

impl Network {
    pub fn new() -> Self {
        Self {
            realms: vec![None],
            gateways: Vec::new(),
            owners: HashMap::new(),
            public: u32::from_be_bytes([9, 0, 0, 0]),
            private: HashMap::new(),
        }
    }

    /// Makes a network behind a NAT whose `addresses` are those of `outside`.
    pub fn add_realm(&mut self, outside: Realm, nat: Nat) -> (Realm, GatewayId) {
        let (inside, gateway) = (Realm(self.realms.len()), GatewayId(self.gateways.len()));
        self.realms.push(Some(gateway));
        self.gateways.push(Gateway {
            nat,
            inside,
            outside,
        });
        self.claim(gateway);
        (inside, gateway)
    }

    /// Registers the owner of the NAT's addresses outside.
    fn claim(&mut self, gateway: GatewayId) {
        let Gateway { nat, outside, .. } = &self.gateways[gateway.0];
        for &address in nat.addresses() {
            let owner = Owner::Gateway(gateway);
            self.owners.insert((*outside, address), owner);
        }
    }

    /// An address that no machine has: public in the internet and behind firewalls.
    pub fn free_address(&mut self, realm: Realm) -> Ipv4Addr {
        let is_public = self.realms[realm.0]
            .is_none_or(|gateway| self.gateways[gateway.0].nat.behaviour.firewall);
        if is_public {
            // The addresses are not adjacent, and none is private.
            self.public += 0x0001_0003;
            if Ipv4Addr::from(self.public).is_private() {
                self.public += 0x0100_0000;
            }
            return self.public.into();
        }
        let host = self.private.entry(realm).or_insert(9);
        *host += 1;
        Ipv4Addr::new(192, 168, realm.0 as u8, *host as u8)
    }

    /// Gives a node an address.
    pub fn attach(&mut self, realm: Realm, address: Ipv4Addr, node: NodeId) {
        self.owners.insert((realm, address), Owner::Node(node));
        let Some(gateway) = self.realms[realm.0] else {
            return;
        };
        if self.gateways[gateway.0].nat.behaviour.firewall {
            let outside = self.gateways[gateway.0].outside;
            self.owners
                .insert((outside, address), Owner::Gateway(gateway));
        }
    }

    /// Takes an address away from its owner.
    pub fn detach(&mut self, realm: Realm, address: Ipv4Addr) {
        self.owners.remove(&(realm, address));
    }

    /// The NAT of a network.
    pub fn nat(&mut self, gateway: GatewayId) -> &mut Nat {
        &mut self.gateways[gateway.0].nat
    }

    /// Gives a NAT other external addresses; all mappings are lost.
    pub fn renumber(&mut self, gateway: GatewayId) {
        let (outside, old) = {
            let one = &self.gateways[gateway.0];
            (one.outside, one.nat.addresses().to_vec())
        };
        for &address in &old {
            self.detach(outside, address);
        }
        let new = old.iter().map(|_| self.free_address(outside)).collect();
        self.nat(gateway).renumber(new);
        self.claim(gateway);
    }

    /// The gateway out of a network.
    pub fn gateway(&self, realm: Realm) -> Option<GatewayId> {
        self.realms[realm.0]
    }

    /// Takes a datagram up through NATs to the network in which its destination has an owner.
    pub fn leave(&mut self, now: Instant, mut transit: Transit) -> Option<Transit> {
        loop {
            let Transit { realm, from, to } = transit;
            if self.owners.contains_key(&(realm, to.ip())) {
                return Some(transit);
            }
            let gateway = self.realms[realm.0]?;
            let Gateway { nat, outside, .. } = &mut self.gateways[gateway.0];
            let mapped = nat.outbound(now, from, to);
            if nat.addresses().contains(&to.ip()) {
                let inner = nat.inbound(now, mapped, to);
                let inner = inner.filter(|_| nat.behaviour.hairpinning)?;
                return Some(Transit {
                    realm,
                    from: mapped,
                    to: inner,
                });
            }
            transit = Transit {
                realm: *outside,
                from: mapped,
                to,
            };
        }
    }

    /// Takes a datagram down through NATs to the node that receives it.
    pub fn arrive(&mut self, now: Instant, mut transit: Transit) -> Option<(NodeId, Transit)> {
        loop {
            let Transit { realm, from, to } = transit;
            match *self.owners.get(&(realm, to.ip()))? {
                Owner::Node(node) => return Some((node, transit)),
                Owner::Gateway(gateway) => {
                    let Gateway { nat, inside, .. } = &mut self.gateways[gateway.0];
                    transit = Transit {
                        realm: *inside,
                        from,
                        to: nat.inbound(now, from, to)?,
                    };
                }
            }
        }
    }
}
