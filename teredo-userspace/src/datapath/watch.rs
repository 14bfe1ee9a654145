//! Notifications of changes in the kernel's routing.

mod depths;
mod hops;
mod neighbours;
mod pace;

use std::{
    future::pending,
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Instant as Clock,
};

use ipnet::{IpNet, Ipv6Net};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use rtnetlink::{
    packet_core::{
        NLM_F_DUMP, NLM_F_MULTIPART, NLM_F_REQUEST, NLMSG_DONE, NetlinkBuffer, NetlinkHeader,
        NetlinkMessage, NetlinkPayload,
    },
    packet_route::{RouteNetlinkMessage, neighbour::NeighbourMessage, route::RouteMessage},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep_until},
};

pub use depths::Depths;
pub use hops::{Gateways, Hops};
use neighbours::{Neighbours, neighbour};
use pace::Pace;

/// The groups of rtnetlink whose messages may imply another next hop.
const GROUPS: u32 = (1 << (libc::RTNLGRP_LINK - 1))
    | (1 << (libc::RTNLGRP_NEIGH - 1))
    | (1 << (libc::RTNLGRP_IPV4_IFADDR - 1))
    | (1 << (libc::RTNLGRP_IPV4_ROUTE - 1))
    | (1 << (libc::RTNLGRP_IPV4_RULE - 1))
    | (1 << (libc::RTNLGRP_IPV6_IFADDR - 1))
    | (1 << (libc::RTNLGRP_IPV6_ROUTE - 1))
    | (1 << (libc::RTNLGRP_IPV6_RULE - 1))
    | (1 << (libc::RTNLGRP_NEXTHOP - 1));

/// The types of messages about nexthop objects.
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;

/// Octets of the buffer for one datagram of messages, the size that the kernel itself uses.
const BUFFER: usize = 32 << 10;

/// A neighbour whose reachability the kernel has not confirmed lately, though it still uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StaleNeighbour {
    /// Index of its interface.
    pub interface: u32,
    /// Its address.
    pub address: IpAddr,
}

/// Changes of the kernel's routing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Whether interfaces or their addresses changed.
    pub addresses: bool,
    /// Whether rules changed, or routes that matter: default routes and those that overlap with the prefixes
    /// of [`Watch::set_prefixes`].
    pub routes: bool,
    /// The destinations whose next hops may have changed: all with interfaces, addresses, rules, and
    /// gateways that the kernel sent to; those of routes, and of other neighbours.
    pub hops: Hops,
    /// Whether [`Watch::depths`] has changed.
    pub depths: bool,
}

/// A subscription to changes of links, addresses, routes, rules and neighbours. Needs a tokio
/// runtime.
#[derive(Debug)]
pub struct Watch {
    socket: AsyncFd<OwnedFd>,
    buffer: Box<[u8]>,
    seen: Seen,
}

/// The changes seen so far, and what is needed to recognise further ones.
#[derive(Debug, Default)]
struct Seen {
    pace: Pace,
    neighbours: Neighbours,
    /// Whether [`Seen::neighbours`] is complete. Until then any neighbour may be a next hop.
    knows_neighbours: bool,
    /// The gateways of all routes; `None` until they are known. Until then any neighbour may be one.
    gateways: Option<Gateways>,
    /// Gateways of routes that were reported since.
    new_gateways: Gateways,
    /// How many bits of a destination determine its route.
    depths: Depths,
    /// Routes that were reported since the last call of [`Watch::set_routes`], and between the two before.
    reported: [Depths; 2],
    /// The last snapshot. A list of routes that change meanwhile may lack some, but hardly the same twice.
    listed: Depths,
    /// When changes were lost, or not understood.
    doubt: Option<Clock>,
    prefixes: Vec<Ipv6Net>,
}

impl Watch {
    /// Subscribes to every later change.
    ///
    /// # Errors
    ///
    /// When the kernel provides no netlink socket.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        // Lost messages do no harm, since loss is reported; fewer losses save work.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &(1 << 20));
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        ask_for_neighbours(&socket);
        // SAFETY: the descriptor is owned, so it stays open and the same as long as it is registered.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }
            .map_err(io::Error::from)?;
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER].into(),
            seen: Seen {
                depths: Depths::unknown(),
                ..Seen::default()
            },
        })
    }

    /// Sets the prefixes of IPv6 whose routes matter.
    pub fn set_prefixes(&mut self, prefixes: Vec<Ipv6Net>) {
        self.seen.prefixes = prefixes;
    }

    /// Sets what is known about all routes, from a list that was begun then.
    pub fn set_routes(&mut self, gateways: Gateways, depths: &Depths, began: Clock) {
        self.seen.set_routes(gateways, depths, began);
    }

    /// Returns how many bits of a destination determine its route.
    pub fn depths(&self) -> &Depths {
        &self.seen.depths
    }

    /// Notes that changes may be lost: nothing is known until a list of all routes that begins from now on.
    pub fn doubt(&mut self) {
        self.seen.doubt();
    }

    /// Iterates over the neighbours that the kernel sends to and has not confirmed lately, with their
    /// Ethernet addresses.
    pub fn stale(&self) -> impl Iterator<Item = (StaleNeighbour, [u8; 6])> {
        self.seen.neighbours.stale()
    }

    /// Waits for changes and returns all that are pending, at most ten times a second. Cancelling loses
    /// nothing.
    ///
    /// # Errors
    ///
    /// Errors of the socket itself.
    pub async fn changed(&mut self) -> io::Result<Changes> {
        loop {
            if let Some(changes) = self.seen.pace.report(Instant::now()) {
                return Ok(changes);
            }
            let due = self.seen.pace.due();
            let time_to_report = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                guard = self.socket.readable() => {
                    let mut guard = guard?;
                    if read(guard.get_inner(), &mut self.buffer, &mut self.seen)? {
                        guard.clear_ready();
                    }
                }
                () = time_to_report => {}
            }
        }
    }
}

/// Reads everything that waits in the socket, which is then empty.
fn read(socket: &OwnedFd, buffer: &mut [u8], seen: &mut Seen) -> io::Result<bool> {
    loop {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) => seen.add(&buffer[..length]),
            Err(nix::Error::ENOBUFS) => {
                seen.overrun();
                ask_for_neighbours(socket);
            }
            Err(nix::Error::EINTR) => {}
            Err(nix::Error::EAGAIN) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Asks the kernel for all neighbours. If it does not answer, every change of a neighbour counts.
fn ask_for_neighbours(socket: &OwnedFd) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let question = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(question));
    message.finalize();
    let mut octets = vec![0; message.buffer_len()];
    message.serialize(&mut octets);
    if let Err(error) = send(socket.as_raw_fd(), &octets, MsgFlags::empty()) {
        tracing::debug!("the kernel does not list its neighbours: {error}");
    }
}

impl Seen {
    /// See [`Watch::set_routes`].
    fn set_routes(&mut self, gateways: Gateways, depths: &Depths, began: Clock) {
        if self.doubt.is_some_and(|doubt| doubt >= began) {
            return;
        }
        self.doubt = None;
        self.gateways = Some(gateways);
        let mut known = depths.clone();
        known.extend(&self.listed);
        for reported in &self.reported {
            known.extend(reported);
        }
        self.depths = known;
        self.listed = depths.clone();
        self.reported.rotate_right(1);
        self.reported[0] = Depths::default();
    }

    /// See [`Watch::doubt`].
    fn doubt(&mut self) {
        self.doubt = Some(Clock::now());
        self.gateways = None;
        self.depths = Depths::unknown();
        self.listed = Depths::default();
        let changes = self.pace.waiting();
        changes.routes = true;
        changes.hops = Hops::All;
        changes.depths = true;
    }

    /// Notes that the queue overflowed, so that anything may have changed.
    fn overrun(&mut self) {
        self.doubt();
        let changes = self.pace.waiting();
        changes.addresses = true;
        self.neighbours.clear();
        self.knows_neighbours = false;
    }

    /// Adds what a datagram of messages reports.
    fn add(&mut self, mut messages: &[u8]) {
        while let Ok(header) = NetlinkBuffer::new_checked(&messages) {
            let length = header.length() as usize;
            match header.message_type() {
                NLMSG_DONE => self.knows_neighbours = true,
                libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => {
                    if let Ok(message) = NetlinkMessage::deserialize(&messages[..length]) {
                        let is_answer = header.flags() & NLM_F_MULTIPART != 0;
                        self.add_neighbour(message.payload, is_answer);
                    }
                }
                libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
                    match NetlinkMessage::deserialize(&messages[..length]) {
                        Ok(message) => self.add_route(message.payload),
                        Err(_) => self.doubt(),
                    }
                }
                kind => self.add_kind(kind),
            }
            messages = messages
                .get(length.next_multiple_of(4)..)
                .unwrap_or_default();
        }
    }

    /// Adds a message that matters by its kind alone.
    fn add_kind(&mut self, kind: u16) {
        let changes = self.pace.waiting();
        match kind {
            libc::RTM_NEWLINK | libc::RTM_DELLINK | libc::RTM_NEWADDR | libc::RTM_DELADDR => {
                changes.addresses = true;
            }
            // The next hop of any route may be another.
            RTM_NEWNEXTHOP | RTM_DELNEXTHOP => changes.routes = true,
            libc::RTM_NEWRULE | libc::RTM_DELRULE => return self.doubt(),
            _ => return,
        }
        changes.hops = Hops::All;
    }

    /// Adds a route that came, changed or went.
    fn add_route(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>) {
        let (message, is_new): (RouteMessage, bool) = match payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(message)) => (message, true),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(message)) => {
                (message, false)
            }
            _ => return,
        };
        self.new_gateways.add(&message);
        let changes = self.pace.waiting();
        if is_new && self.reported[0].add(&message) {
            changes.depths |= self.depths.add(&message);
        }
        let Some((prefix, _)) = hops::route(&message) else {
            changes.routes = true;
            changes.hops = Hops::All;
            return;
        };
        changes.hops.add(prefix);
        changes.routes |= prefix.prefix_len() == 0
            || match prefix {
                IpNet::V4(_) => false,
                IpNet::V6(prefix) => self
                    .prefixes
                    .iter()
                    .any(|other| prefix.contains(other) || other.contains(&prefix)),
            };
    }

    /// Whether a neighbour may be the gateway of a route.
    fn may_be_gateway(&self, address: &IpAddr) -> bool {
        let known = self.gateways.as_ref();
        known.is_none_or(|known| known.may_be(address)) || self.new_gateways.may_be(address)
    }

    /// Adds a neighbour, from a report of a change or from the answer to the question for all of them.
    fn add_neighbour(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>, is_answer: bool) {
        let NetlinkPayload::InnerMessage(message) = payload else {
            return;
        };
        let (entry, is_changed) = match &message {
            RouteNetlinkMessage::NewNeighbour(entry) => (entry, self.neighbours.set(entry)),
            RouteNetlinkMessage::DelNeighbour(entry) => (entry, self.neighbours.remove(entry)),
            _ => return,
        };
        if !is_changed && (self.knows_neighbours || is_answer) {
            return;
        }
        let Some((_, address)) = neighbour(entry) else {
            return;
        };
        let is_gateway = self.may_be_gateway(&address);
        let hops = &mut self.pace.waiting().hops;
        match is_gateway {
            true => *hops = Hops::All,
            false => hops.add(address.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::{
        AddressFamily,
        neighbour::NeighbourState,
        route::{RouteAddress, RouteAttribute},
    };

    use teredo_common::generations::Family;

    use super::{neighbours::tests::message, *};

    fn datagram(message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut octets = vec![0; message.buffer_len()];
        message.serialize(&mut octets);
        octets
    }

    fn new(number: u16, state: NeighbourState, station: Option<u8>, flags: u16) -> Vec<u8> {
        let message = RouteNetlinkMessage::NewNeighbour(message(number, state, station));
        datagram(message, flags)
    }

    fn route(prefix: &str, gateway: &str) -> Vec<u8> {
        let prefix: Ipv6Net = prefix.parse().unwrap();
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.destination_prefix_length = prefix.prefix_len();
        message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet6(
            gateway.parse().unwrap(),
        ))];
        if prefix.prefix_len() > 0 {
            let address = RouteAddress::Inet6(prefix.network());
            message
                .attributes
                .push(RouteAttribute::Destination(address));
        }
        datagram(RouteNetlinkMessage::NewRoute(message), 0)
    }

    fn hops(prefixes: &[&str]) -> Hops {
        let mut hops = Hops::default();
        for prefix in prefixes {
            hops.add(prefix.parse().unwrap());
        }
        hops
    }

    /// Returns what has been seen of a host with the neighbour 1, which is no gateway.
    fn seen() -> Seen {
        let mut seen = Seen {
            depths: Depths::unknown(),
            gateways: Some(Gateways::default()),
            prefixes: vec!["2001::/32".parse().unwrap()],
            ..Seen::default()
        };
        seen.add(&new(1, NeighbourState::Stale, Some(1), NLM_F_MULTIPART));
        let mut done = NetlinkHeader::default();
        (done.length, done.message_type) = (16, NLMSG_DONE);
        let mut octets = [0; 16];
        octets[..4].copy_from_slice(&done.length.to_ne_bytes());
        octets[4..6].copy_from_slice(&done.message_type.to_ne_bytes());
        seen.add(&octets);
        assert!(seen.knows_neighbours);
        assert_eq!(*seen.pace.waiting(), Changes::default());
        seen
    }

    #[test]
    fn a_scan_changes_nothing() {
        let mut seen = seen();
        for number in 2..2000 {
            seen.add(&new(number, NeighbourState::Failed, None, 0));
        }
        assert_eq!(*seen.pace.waiting(), Changes::default());
    }

    #[test]
    fn a_known_neighbour_at_another_station_changes_its_own_hop() {
        for (state, station) in [
            (NeighbourState::Reachable, Some(2)),
            (NeighbourState::Failed, None),
        ] {
            let mut seen = seen();
            seen.add(&new(1, state, station, 0));
            let changes = seen.pace.waiting();
            assert_eq!(changes.hops, hops(&["2001:db8::1/128"]));
            assert!(!changes.routes && !changes.addresses);
        }
        let mut seen = seen();
        let message = message(1, NeighbourState::Stale, Some(1));
        seen.add(&datagram(RouteNetlinkMessage::DelNeighbour(message), 0));
        assert!(!seen.pace.waiting().hops.is_empty());
    }

    #[test]
    fn a_gateway_changes_all_hops() {
        let moved = new(1, NeighbourState::Reachable, Some(2), 0);
        let mut unknown = seen();
        unknown.gateways = None;
        unknown.add(&moved);
        assert_eq!(unknown.pace.waiting().hops, Hops::All);
        // A route that came since the gateways were listed.
        let mut seen = seen();
        seen.add(&route("2400::/32", "2001:db8::1"));
        *seen.pace.waiting() = Changes::default();
        seen.add(&moved);
        assert_eq!(seen.pace.waiting().hops, Hops::All);
    }

    #[test]
    fn a_stale_neighbour_is_known_and_changes_no_hop() {
        let mut seen = seen();
        seen.add(&new(1, NeighbourState::Reachable, Some(1), 0));
        assert_eq!(seen.neighbours.stale().count(), 0);
        seen.add(&new(1, NeighbourState::Stale, Some(1), 0));
        let stale: Vec<_> = seen.neighbours.stale().collect();
        assert_eq!(stale.len(), 1);
        assert_eq!(stale[0].1, [2, 0, 0, 0, 0, 1]);
        assert!(seen.pace.waiting().hops.is_empty());
    }

    #[test]
    fn every_change_counts_while_the_neighbours_are_unknown() {
        let mut seen = seen();
        seen.overrun();
        *seen.pace.waiting() = Changes::default();
        seen.add(&new(1, NeighbourState::Reachable, Some(1), 0));
        assert!(!seen.pace.waiting().hops.is_empty());
    }

    #[test]
    fn a_route_changes_the_hops_of_its_destinations() {
        let mut seen = seen();
        seen.add(&route("2400:1::/48", "fe80::1"));
        let changes = std::mem::take(seen.pace.waiting());
        assert_eq!(changes.hops, hops(&["2400:1::/48"]));
        assert!(!changes.routes, "it does not matter to the plan");
        for matters in ["::/0", "2000::/3", "2001::/32", "2001:0:1::/48"] {
            seen.add(&route(matters, "fe80::1"));
            assert!(std::mem::take(seen.pace.waiting()).routes, "{matters}");
        }
    }

    /// Returns the bits that decide about 2400:1::1, as the map has them.
    fn bits(depths: &Depths) -> u8 {
        let bucket = Family::Ipv6.bucket(0x2400_0001_u32.to_be());
        let (least, mut buckets) = depths.shared_bits(Family::Ipv6);
        let found = buckets.find(|(number, _)| *number == bucket);
        found.map_or(least, |(_, bits)| bits)
    }

    fn listed(prefixes: &[&str]) -> Depths {
        let mut depths = Depths::default();
        for prefix in prefixes {
            depths.add_prefix(prefix.parse().unwrap());
        }
        depths
    }

    #[test]
    fn a_list_that_began_before_changes_were_lost_is_not_believed() {
        let mut seen = seen();
        let list = listed(&["2400:1::/48"]);
        seen.set_routes(Gateways::default(), &list, Clock::now());
        assert_eq!(bits(&seen.depths), 48);
        for lose in [Seen::overrun, Seen::doubt, |seen: &mut Seen| {
            seen.add_kind(libc::RTM_NEWRULE);
        }] {
            let before = Clock::now();
            lose(&mut seen);
            assert!(std::mem::take(seen.pace.waiting()).depths);
            assert_eq!(bits(&seen.depths), 0);
            seen.set_routes(Gateways::default(), &list, before);
            assert_eq!(bits(&seen.depths), 0);
            assert!(seen.gateways.is_none());
            seen.set_routes(Gateways::default(), &list, Clock::now());
            assert_eq!(bits(&seen.depths), 48);
            assert!(seen.gateways.is_some());
        }
    }

    #[test]
    fn a_route_that_one_list_lacks_is_still_known() {
        let mut seen = seen();
        let mut list = |prefixes: &[&str]| {
            seen.set_routes(Gateways::default(), &listed(prefixes), Clock::now());
            bits(&seen.depths)
        };
        assert_eq!(list(&["2400:1::/48"]), 48);
        assert_eq!(list(&[]), 48);
        assert_eq!(list(&[]), 1);
    }

    #[test]
    fn a_reported_route_outlives_the_list_that_was_begun_before() {
        let mut seen = seen();
        seen.set_routes(Gateways::default(), &listed(&[]), Clock::now());
        seen.add(&route("2400:1::/44", "fe80::1"));
        assert!(std::mem::take(seen.pace.waiting()).depths);
        assert_eq!(bits(&seen.depths), 44);
        seen.add(&route("2400:1::/44", "fe80::2"));
        assert!(!std::mem::take(seen.pace.waiting()).depths);
        for known in [44, 44, 1] {
            seen.set_routes(Gateways::default(), &listed(&[]), Clock::now());
            assert_eq!(bits(&seen.depths), known);
        }
    }

    #[test]
    fn a_nexthop_object_changes_all_hops() {
        for kind in [RTM_NEWNEXTHOP, RTM_DELNEXTHOP] {
            let mut seen = seen();
            seen.add_kind(kind);
            let changes = seen.pace.waiting();
            assert!(changes.hops == Hops::All && changes.routes);
        }
    }

    #[test]
    fn rules_links_and_addresses_change_all_hops() {
        for kind in [
            libc::RTM_NEWLINK,
            libc::RTM_DELLINK,
            libc::RTM_NEWADDR,
            libc::RTM_DELADDR,
            libc::RTM_NEWRULE,
            libc::RTM_DELRULE,
        ] {
            let mut seen = seen();
            seen.add_kind(kind);
            assert_eq!(seen.pace.waiting().hops, Hops::All, "{kind}");
        }
    }
}
