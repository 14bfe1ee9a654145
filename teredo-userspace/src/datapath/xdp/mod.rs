//! The fast path: an XDP program that forwards the packets of trusted peers and gives the answers
//! of the server that need no state.
//!
//! The daemon controls the program through its maps: it writes [`Peer`](teredo_common::peers::Peer)s,
//! reads their timestamps and the counters, and announces changes of routes and neighbours. Packets
//! that the program does not handle arrive through the kernel as if the program were absent.

pub mod abilities;
mod attach;
mod bond;
mod buckets;
pub mod capture;
mod delivery;
pub mod error;
mod fallback;
mod features;
mod foreign;
mod hops;
pub mod interface;
mod interface_maps;
mod link;
mod mode;
mod own_ipv4;
mod pins;
mod policy;
pub mod program;
mod refusal;
mod remains;
mod sys;
mod table;
mod tags;
mod trust;
mod vlan;

use std::{
    net::Ipv4Addr,
    os::fd::{AsFd as _, BorrowedFd},
};

use ipnet::Ipv6Net;
use teredo_common::{
    budget::Budget,
    maps::{PEERS, Settings, THOROUGH},
    peers::Peer,
    time::Instant,
    vlan::Trunk,
};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use crate::datapath::watch::Hops;

pub use attach::detach_remedy;
pub use buckets::SharedBuckets;
use delivery::Delivery;
pub use delivery::{Obstacle, known_trouble, native_obstacle};
pub use error::Error;
use fallback::Look;
pub use features::{XdpFeatures, xdp_features};
pub use foreign::{program_name, remember as remember_programs};
pub use interface::Interface;
pub use link::Link;
pub use mode::Mode;
use pins::Pins;
pub use pins::{examine as examine_pins, mount_bpf, pinned_program, remove_leftovers};
pub use policy::AttachPolicy;
pub use program::{OBJECT, PROGRAM, Parameters, Program, ServerParameters, uncollected_traffic};
pub use refusal::Refusal;
pub use remains::Remains;
pub(super) use sys::program_number;
pub use table::{routes_size, size as peer_map_size, tallies_size};
pub use tags::TagKeeper;
pub use vlan::Vlan;

/// The options that the fast path is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// `node.name`, which names the pin directory.
    pub name: String,
    /// The relay's constants; see [`Parameters::settings`].
    pub settings: Settings,
    /// The allowances of what is left to the daemon. The seed is filled in.
    pub budget: Budget,
    /// `relay.serve`.
    pub served: Vec<Ipv6Net>,
    /// This host's IPv4 addresses.
    pub own_ipv4: Vec<Ipv4Addr>,
    /// The server's part of the program, if there is a server.
    pub server: Option<ServerParameters>,
    /// Names of the interfaces to attach to.
    pub interfaces: Vec<String>,
    /// Those of them whose frames without VLAN tags are not for the program.
    pub trunks: Vec<String>,
    /// The VLAN interfaces above them that are.
    pub vlans: Vec<VlanOptions>,
    /// `relay.xdp.mode`. With [`AttachPolicy::Off`] nothing is attached.
    pub mode: AttachPolicy,
    /// Entries of the map of peers.
    pub max_peers: u32,
    /// Whether the traffic of each peer is counted.
    pub accounting: bool,
    /// Whether maps and links are pinned, so that they outlive the daemon.
    pub pin: bool,
}

/// A VLAN interface whose frames are for the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanOptions {
    /// Its name.
    pub name: String,
    /// The interface below it, and the tags that its frames have there.
    pub trunk: Trunk,
}

/// The outcome of attaching to one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceStatus {
    /// Name of the interface.
    pub name: String,
    /// Index of the interface.
    pub index: u32,
    /// How the program is attached; `None` if it is not.
    pub mode: Option<Mode>,
    /// Why it is not attached, or not native.
    pub reason: Option<String>,
    /// Frames that the program sent natively and that the driver dropped since the program was first
    /// attached, as far as the driver counts them.
    pub dropped: u64,
}

/// The loaded program, attached to its interfaces. Dropping it without [`AttachedProgram::stop`]
/// leaves pinned maps and links behind, as a crash does.
pub struct AttachedProgram {
    /// The program and its maps.
    pub program: Program,
    interfaces: Vec<Interface>,
    vlans: Vec<Vlan>,
    attached: Vec<InterfaceStatus>,
    links: Vec<Link>,
    /// The parts of an earlier program that were not taken over yet.
    remains: Remains,
    pins: Option<Pins>,
    adopted: bool,
    /// The build that captures, while somebody does.
    capture: Option<capture::Attachment>,
    /// What is known about the drivers; `None` if they cannot be asked, or are being asked.
    delivery: Option<Delivery>,
    /// The look at the drivers that takes place.
    look: Option<oneshot::Receiver<Look>>,
    /// The last one, until [`AttachedProgram::conclude`].
    seen: Option<Look>,
}

impl VlanOptions {
    /// Returns the VLAN interface with this name.
    ///
    /// # Errors
    ///
    /// As [`Interface::named`].
    pub fn find(&self) -> Result<Vlan, Error> {
        let Interface { index, station, .. } = Interface::named(&self.name)?;
        Ok(Vlan {
            index,
            station,
            trunk: self.trunk,
        })
    }
}

impl AttachedProgram {
    /// Loads the program, fills its maps, and attaches it. Maps and links that an earlier daemon of
    /// the same name left pinned are taken over without losing a packet. It is `now`.
    ///
    /// # Errors
    ///
    /// A sentence with the reason and the remedy. Nothing new is left behind then; pins of an earlier
    /// daemon remain only if the kernel could not load the program.
    pub fn start(options: &Options, now: Instant) -> Result<Self, Error> {
        Self::resume(options, Remains::default(), std::iter::empty(), now)
    }

    /// Does the same as [`Self::start`], in place of the program whose remains these are, without a frame
    /// that misses both. The map has `peers` before the program is attached.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn resume(
        options: &Options,
        mut remains: Remains,
        mut peers: impl Iterator<Item = ([u8; 16], Peer)>,
        now: Instant,
    ) -> Result<Self, Error> {
        let mut interfaces = options
            .interfaces
            .iter()
            .map(|name| Interface::named(name))
            .collect::<Result<Vec<_>, _>>()?;
        interfaces.sort_by_key(|interface| interface.index);
        interfaces.dedup_by_key(|interface| interface.index);
        for interface in &mut interfaces {
            interface.is_served = !options.trunks.contains(&interface.name);
        }
        let lock = remains.lock.take();
        let pins = options
            .pin
            .then(|| Pins::open(&options.name, lock))
            .transpose()?;
        let mut new = Self::prepare(options, interfaces, pins, remains, now)?;
        let filled = peers.try_for_each(|(address, peer)| {
            match new.program.insert(&address, &peer, now) {
                // Userspace serves those without room.
                Err(Error::Full) => Ok(()),
                inserted => inserted,
            }
        });
        let attached = filled
            .and_then(|()| new.attach(options.mode))
            .and_then(|()| new.keep());
        match attached {
            Ok(()) => {
                // Those of interfaces that are not the program's any more.
                let mut remains = std::mem::take(&mut new.remains);
                if let Some(before) = remains.peers.take() {
                    new.program.succeed(before);
                }
                remains.detach();
                Ok(new)
            }
            Err(error) => {
                if let Err(error) = new.stop() {
                    warn!("{error}");
                }
                Err(error)
            }
        }
    }

    fn prepare(
        options: &Options,
        interfaces: Vec<Interface>,
        pins: Option<Pins>,
        mut remains: Remains,
        now: Instant,
    ) -> Result<Self, Error> {
        if let Some(pins) = &pins {
            remains.add_pinned(pins, &interfaces);
        }
        let vlans = options
            .vlans
            .iter()
            .map(VlanOptions::find)
            .collect::<Result<Vec<_>, _>>()?;
        let parameters = Parameters {
            settings: options.settings,
            budget: Budget {
                seed: rand::random(),
                ..options.budget
            },
            max_peers: options.max_peers,
            accounting: options.accounting,
            served: &options.served,
            own_ipv4: &options.own_ipv4,
            interfaces: &interfaces,
            vlans: &vlans,
            server: options.server.as_ref(),
            now,
        };
        let counters = pins.as_ref().map(Pins::counters);
        let adopted = remains.peers.is_some();
        let loaded = Program::load(&parameters, counters.as_deref()).and_then(|mut program| {
            if let Some(peers) = &remains.peers {
                program.adopt(peers, now)?;
            }
            Ok(program)
        });
        match loaded {
            Ok(program) => Ok(Self {
                program,
                interfaces,
                vlans,
                attached: Vec::new(),
                links: Vec::new(),
                remains,
                pins,
                adopted,
                capture: None,
                delivery: Delivery::open().ok(),
                look: None,
                seen: None,
            }),
            Err(error) => {
                if !adopted && let Some(Err(error)) = pins.map(Pins::remove) {
                    warn!("{error}");
                }
                Err(error)
            }
        }
    }

    /// Pins the maps that the program needs while no daemon runs.
    fn keep(&self) -> Result<(), Error> {
        match &self.pins {
            Some(pins) => {
                pins.keep(PEERS, self.program.peer_map())?;
                pins.keep(THOROUGH, self.program.thorough_map()?)
            }
            None => Ok(()),
        }
    }

    fn attach(&mut self, mode: AttachPolicy) -> Result<(), Error> {
        let indices: Vec<u32> = self
            .interfaces
            .iter()
            .map(|interface| interface.index)
            .collect();
        if let Some(pins) = &self.pins {
            pins.retain_links(&indices)?;
        }
        match mode {
            AttachPolicy::Native => self.attach_all(Mode::Native),
            AttachPolicy::Generic => self.attach_all(Mode::Generic),
            AttachPolicy::Auto => self.attach_best(),
            AttachPolicy::Off => Ok(()),
        }
    }

    /// Attaches to all interfaces in one mode, or to none.
    fn attach_all(&mut self, mode: Mode) -> Result<(), Error> {
        if mode == Mode::Native
            && let Some(delivery) = &self.delivery
        {
            delivery.check_ends(&self.interfaces)?;
        }
        let attached = (0..self.interfaces.len())
            .try_for_each(|index| self.attach_one(index, mode))
            .and_then(|()| self.begin_delivery(mode));
        if attached.is_err() {
            self.detach_all();
        }
        attached
    }

    /// Attaches in native mode if every interface supports it, else in generic mode to those that
    /// do. The modes are not mixed: a native program cannot send through an interface without one.
    fn attach_best(&mut self) -> Result<(), Error> {
        let was_generic = self.adopted
            && self.interfaces.iter().all(|interface| {
                interface
                    .program
                    .is_some_and(|program| program.mode == Mode::Generic)
            });
        let reason = if was_generic {
            "taken over in this mode from the last run".to_owned()
        } else {
            match self.attach_all(Mode::Native) {
                Ok(()) => return Ok(()),
                Err(error @ Error::Permission { .. }) => return Err(error),
                Err(Error::Undelivered(obstacle)) => obstacle.to_string(),
                Err(error) => error.to_string(),
            }
        };
        info!("the fast path is not in native mode: {reason}");
        self.attach_generic(&reason)
    }

    /// Attaches in generic mode to those interfaces that support it. `reason` is why not in native mode.
    fn attach_generic(&mut self, reason: &str) -> Result<(), Error> {
        for index in 0..self.interfaces.len() {
            let result = self.attach_one(index, Mode::Generic);
            let interface = &self.interfaces[index];
            match result {
                Ok(()) => {
                    if let Some(attached) = self.attached.last_mut() {
                        attached.reason = Some(reason.to_owned());
                    }
                }
                Err(error) => self.attached.push(InterfaceStatus {
                    name: interface.name.clone(),
                    index: interface.index,
                    mode: None,
                    reason: Some(error.to_string()),
                    dropped: 0,
                }),
            }
        }
        let attached: Vec<Interface> = self
            .interfaces
            .iter()
            .zip(&self.attached)
            .filter(|(_, attached)| attached.mode.is_some())
            .map(|(interface, _)| interface.clone())
            .collect();
        for left in self
            .interfaces
            .iter()
            .filter(|interface| !attached.contains(interface))
        {
            self.program.clear_interface(left)?;
        }
        self.interfaces = attached;
        let is_attached = |vlan: &Vlan| {
            let mut interfaces = self.interfaces.iter();
            interfaces.any(|interface| interface.index == vlan.trunk.interface)
        };
        if !self.vlans.iter().all(is_attached) {
            // The number of a trunk depends on those before it.
            self.program.clear_vlans(&self.vlans)?;
            self.vlans = self
                .vlans
                .iter()
                .filter(|vlan| is_attached(vlan))
                .cloned()
                .collect();
            self.program.set_interfaces(&self.interfaces, &self.vlans)?;
        }
        Ok(())
    }

    fn attach_one(&mut self, index: usize, mode: Mode) -> Result<(), Error> {
        let interface = self.interfaces[index].clone();
        let mut link = match self.adopt_link(&interface, mode) {
            Some(link) => link,
            None => self.new_link(&interface, mode)?,
        };
        self.pin(&mut link, &interface)?;
        self.links.push(link);
        info!(interface = interface.name, %mode, "fast path attached");
        self.attached.push(InterfaceStatus {
            name: interface.name,
            index: interface.index,
            mode: Some(mode),
            reason: None,
            dropped: 0,
        });
        Ok(())
    }

    /// Replaces the program of the link that an earlier program left, if its mode fits.
    fn adopt_link(&mut self, interface: &Interface, mode: Mode) -> Option<Link> {
        if let Some(link) = self.remains.take_link(interface.index) {
            let fits = interface
                .program
                .is_some_and(|attachment| attachment.mode == mode);
            let is_replaced = fits && self.replace(&link).is_ok() && {
                let there = interface.refreshed().program;
                there.map(|there| there.program) == self.program.number()
            };
            if is_replaced {
                return Some(link);
            }
            if let Err(error) = link.detach() {
                debug!("cannot detach a link: {error}");
            }
        }
        // The pin may be that of a link whose interface is gone.
        if let Some(pins) = &self.pins
            && let Err(error) = pins::remove_link(&pins.link(interface.index))
        {
            warn!("{error}");
        }
        None
    }

    fn replace(&mut self, link: &Link) -> Result<(), Error> {
        let program = self.program.descriptor()?;
        link.replace(program.as_fd())
            .map_err(|error| Error::Unsupported {
                action: "a change of the program".to_owned(),
                reason: error.to_string(),
            })
    }

    fn new_link(&mut self, interface: &Interface, mode: Mode) -> Result<Link, Error> {
        let program = self.program.descriptor()?;
        let link = Link::create(program.as_fd(), interface.index, mode);
        link.map_err(|error| attach::refusal(interface, mode, &error))
    }

    /// Pins a link, if links are pinned.
    fn pin(&self, link: &mut Link, interface: &Interface) -> Result<(), Error> {
        let Some(pins) = &self.pins else {
            return Ok(());
        };
        let path = pins.link(interface.index);
        link.pin(&path).map_err(|source| Error::Pin {
            action: "pin the link",
            path,
            source,
        })
    }

    fn detach_all(&mut self) {
        if let Some(pins) = &self.pins
            && let Err(error) = pins.retain_links(&[])
        {
            warn!("{error}");
        }
        for link in self.links.drain(..).filter(|link| !link.is_pinned()) {
            // A child process may hold a copy for a moment.
            if let Err(error) = link.detach() {
                debug!("cannot detach a link: {error}");
            }
        }
        self.attached.clear();
    }

    /// Returns whether the map holds the peers of an earlier daemon.
    #[must_use]
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Returns the number of the program in the kernel.
    #[must_use]
    pub fn program_number(&self) -> Option<u32> {
        self.program.number()
    }

    /// Returns the indices of the VLAN interfaces.
    pub fn vlans(&self) -> impl Iterator<Item = u32> {
        self.vlans.iter().map(|vlan| vlan.index)
    }

    /// Returns the outcome for each interface.
    #[must_use]
    pub fn interfaces(&self) -> &[InterfaceStatus] {
        &self.attached
    }

    /// Makes the program read the interfaces' Ethernet addresses again. To be called when a link
    /// changes, before [`Program::invalidate`].
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn refresh_interfaces(&mut self) -> Result<(), Error> {
        for interface in &mut self.interfaces {
            *interface = interface.refreshed();
        }
        for vlan in &mut self.vlans {
            *vlan = vlan.refreshed();
        }
        self.program.set_interfaces(&self.interfaces, &self.vlans)
    }

    /// Makes the program forget its next hops and read the interfaces' Ethernet addresses again.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn invalidate_routes(&mut self) -> Result<(), Error> {
        self.refresh_interfaces()?;
        self.program.invalidate(&Hops::All);
        Ok(())
    }

    /// Returns the parts that the next program takes over, and this one, which has to last until then.
    #[must_use]
    pub fn dismantle(mut self) -> (Remains, Program) {
        self.end_capture();
        let remains = Remains {
            links: self.links,
            peers: self.program.copy_of_peer_map(),
            lock: None,
            others: Vec::new(),
        };
        (remains, self.program)
    }

    /// Returns the descriptors that keep the program at work without this process, each with a name that
    /// identifies the object.
    #[must_use]
    pub fn descriptors(&self) -> Vec<(String, BorrowedFd<'_>)> {
        let mut all: Vec<_> = (self.links.iter())
            .filter_map(|link| {
                let info = link.info().ok()?;
                Some((remains::link_name(info), link.as_fd()))
            })
            .collect();
        let maps = [Ok(self.program.peer_map()), self.program.thorough_map()];
        if let Some(pins) = &self.pins {
            all.push((format!("{}.0", remains::LOCK), pins.lock()));
        }
        for (name, map) in [PEERS, THOROUGH].into_iter().zip(maps) {
            if let Ok(map) = map
                && let Ok(number) = sys::map_number(map.fd().as_fd())
            {
                all.push((remains::map_name(name, number), map.fd().as_fd()));
            }
        }
        all
    }

    /// Detaches the program and removes every pin.
    ///
    /// # Errors
    ///
    /// [`Error::Pin`].
    pub fn stop(mut self) -> Result<(), Error> {
        self.end_capture();
        self.detach_all();
        self.pins.take().map_or(Ok(()), Pins::remove)
    }
}
