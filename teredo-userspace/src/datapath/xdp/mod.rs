//! The fast path: an XDP program that forwards the packets of trusted peers, and answers for the
//! server what needs no state.
//!
//! The program's maps are the daemon's side of the contract: it writes [`Peer`]s, reads their
//! stamps and the counters, and announces changes of routes and neighbours. Everything the program
//! does not forward arrives through the kernel as if it were not there.

mod bond;
mod buckets;
pub mod error;
pub mod interface;
mod pins;
pub mod program;
mod refusal;
mod sys;
mod table;

use std::net::Ipv4Addr;

use aya::programs::{
    self,
    links::{FdLink, PinnedLink},
    xdp::XdpLink,
};
use ipnet::Ipv6Net;
use teredo_common::{
    maps::{Counter, Peer, Settings},
    time::Instant,
    verdict::Verdict,
};
use tracing::{info, warn};

use crate::config::XdpMode;
pub use buckets::SharedBuckets;
pub use error::Error;
pub use interface::{Interface, Mode};
use pins::Pins;
pub use pins::remove_leftovers;
pub use program::{Parameters, Program, Server};
pub use refusal::Refusal;
pub use table::size as peer_map_size;

/// What the fast path is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// `node.name`, which names the pin directory.
    pub name: String,
    /// The relay's constants; see [`Parameters::settings`].
    pub settings: Settings,
    /// `relay.serve`.
    pub served: Vec<Ipv6Net>,
    /// This host's IPv4 addresses.
    pub own_ipv4: Vec<Ipv4Addr>,
    /// What the server answers by itself, if there is one.
    pub server: Option<Server>,
    /// Names of the interfaces to attach to.
    pub interfaces: Vec<String>,
    /// `relay.xdp.mode`; not [`XdpMode::Off`], which is to not start at all.
    pub mode: XdpMode,
    /// Entries of the map of peers.
    pub max_peers: u32,
    /// Whether maps and links outlive the daemon.
    pub pin: bool,
    /// Whether the program logs its decisions; see [`Program::flush_log`].
    pub log: bool,
}

/// What became of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Name of the interface.
    pub name: String,
    /// Index of the interface.
    pub index: u32,
    /// How the program is attached; `None` if it is not.
    pub mode: Option<Mode>,
    /// Why it is not attached, or not native.
    pub reason: Option<String>,
}

/// The attached program. Dropped without [`FastPath::stop`], it leaves what is pinned behind, as a
/// crash does.
pub struct FastPath {
    program: Program,
    interfaces: Vec<Interface>,
    attached: Vec<Attached>,
    links: Vec<Held>,
    pins: Option<Pins>,
    adopted: bool,
}

/// A link that keeps the program attached as long as it, or its pin, exists.
enum Held {
    /// Gone with this process.
    #[expect(dead_code, reason = "held for its drop")]
    Loose(XdpLink),
    /// In the pin directory too.
    #[expect(dead_code, reason = "held for its drop")]
    Pinned(FdLink),
}

impl FastPath {
    /// Loads, fills the maps, and attaches; takes over what an earlier daemon of the same name left
    /// pinned, without losing a packet.
    ///
    /// # Errors
    ///
    /// With the reason and the mend. Nothing new is left behind then, and what an earlier daemon
    /// left only if the kernel could not load the program.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let mut interfaces = options
            .interfaces
            .iter()
            .map(|name| Interface::named(name))
            .collect::<Result<Vec<_>, _>>()?;
        interfaces.sort_by_key(|interface| interface.index);
        interfaces.dedup_by_key(|interface| interface.index);
        let pins = options.pin.then(|| Pins::open(&options.name)).transpose()?;
        let mut new = Self::prepare(options, interfaces, pins)?;
        match new.attach(options.mode).and_then(|()| new.keep_peers()) {
            Ok(()) => Ok(new),
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
    ) -> Result<Self, Error> {
        let parameters = Parameters {
            settings: options.settings,
            max_peers: options.max_peers,
            served: &options.served,
            own_ipv4: &options.own_ipv4,
            interfaces: &interfaces,
            server: options.server.as_ref(),
            log: options.log,
        };
        let counters = pins.as_ref().map(Pins::counters);
        let left = pins.as_ref().and_then(Pins::peers);
        let loaded = Program::load(&parameters, counters.as_deref()).and_then(|mut program| {
            if let Some(peers) = &left {
                program.adopt(peers)?;
            }
            Ok(program)
        });
        match loaded {
            Ok(program) => Ok(Self {
                program,
                interfaces,
                attached: Vec::new(),
                links: Vec::new(),
                pins,
                adopted: left.is_some(),
            }),
            Err(error) => {
                if left.is_none()
                    && let Some(Err(error)) = pins.map(Pins::remove)
                {
                    warn!("{error}");
                }
                Err(error)
            }
        }
    }

    fn keep_peers(&self) -> Result<(), Error> {
        match &self.pins {
            Some(pins) => pins.keep_peers(self.program.peer_map()),
            None => Ok(()),
        }
    }

    fn attach(&mut self, mode: XdpMode) -> Result<(), Error> {
        let indices: Vec<u32> = self.interfaces.iter().map(|each| each.index).collect();
        if let Some(pins) = &self.pins {
            pins.retain_links(&indices)?;
        }
        match mode {
            XdpMode::Native => self.attach_all(Mode::Native),
            XdpMode::Generic => self.attach_all(Mode::Generic),
            XdpMode::Auto => self.attach_best(),
            XdpMode::Off => Ok(()),
        }
    }

    /// Attaches to all interfaces in one mode, or to none.
    fn attach_all(&mut self, mode: Mode) -> Result<(), Error> {
        for index in 0..self.interfaces.len() {
            if let Err(error) = self.attach_one(index, mode) {
                self.detach_all();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Attaches natively if every interface can, else to those that can in generic mode. The modes
    /// are not mixed: a native program cannot send through an interface that has none.
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
                Err(error) => error.to_string(),
            }
        };
        for index in 0..self.interfaces.len() {
            let result = self.attach_one(index, Mode::Generic);
            let interface = &self.interfaces[index];
            match result {
                Ok(()) => {
                    if let Some(attached) = self.attached.last_mut() {
                        attached.reason = Some(reason.clone());
                    }
                }
                Err(error) => self.attached.push(Attached {
                    name: interface.name.clone(),
                    index: interface.index,
                    mode: None,
                    reason: Some(error.to_string()),
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
        for left in self.interfaces.iter().filter(|one| !attached.contains(one)) {
            self.program.clear_interface(left)?;
        }
        self.interfaces = attached;
        Ok(())
    }

    fn attach_one(&mut self, index: usize, mode: Mode) -> Result<(), Error> {
        let interface = self.interfaces[index].clone();
        let held = match self.adopt_link(&interface, mode) {
            Some(held) => held,
            None => self.new_link(&interface, mode)?,
        };
        self.links.push(held);
        info!(interface = interface.name, %mode, "fast path attached");
        self.attached.push(Attached {
            name: interface.name,
            index: interface.index,
            mode: Some(mode),
            reason: None,
        });
        Ok(())
    }

    /// Puts the program into the link that an earlier daemon left, if there is one that fits.
    fn adopt_link(&mut self, interface: &Interface, mode: Mode) -> Option<Held> {
        let path = self.pins.as_ref()?.link(interface.index);
        let fits = interface
            .program
            .is_some_and(|attachment| attachment.mode == mode);
        let link = PinnedLink::from_pin(&path).ok()?;
        let adopted = fits
            .then(|| {
                let link = XdpLink::try_from(FdLink::from(link)).ok()?;
                let xdp = self.program.xdp().ok()?;
                let id = xdp.attach_to_link(link).ok()?;
                let link = FdLink::try_from(xdp.take_link(id).ok()?).ok()?;
                let program = xdp.info().ok()?.id();
                let there = interface.refreshed().program?;
                (there.program == program).then_some(Held::Pinned(link))
            })
            .flatten();
        if adopted.is_none()
            && let Err(error) = pins::remove_link(&path)
        {
            warn!("{error}");
        }
        adopted
    }

    fn new_link(&mut self, interface: &Interface, mode: Mode) -> Result<Held, Error> {
        let flags = match mode {
            Mode::Native => programs::XdpMode::Driver,
            Mode::Generic => programs::XdpMode::Skb,
        };
        let xdp = self.program.xdp()?;
        let refused = |error| Error::attach(interface, mode, &error);
        let id = xdp
            .attach_to_if_index(interface.index, flags)
            .map_err(refused)?;
        let link = xdp.take_link(id).map_err(refused)?;
        let Some(pins) = &self.pins else {
            return Ok(Held::Loose(link));
        };
        let path = pins.link(interface.index);
        let link = FdLink::try_from(link).map_err(|error| Error::Unsupported {
            action: format!("a link to `{}`", interface.name),
            reason: error.to_string(),
        })?;
        match link.pin(&path) {
            Ok(link) => Ok(Held::Pinned(link.into())),
            Err(error) => Err(Error::Pin {
                action: "pin the link",
                path,
                source: std::io::Error::other(error),
            }),
        }
    }

    fn detach_all(&mut self) {
        if let Some(pins) = &self.pins
            && let Err(error) = pins.retain_links(&[])
        {
            warn!("{error}");
        }
        self.links.clear();
        self.attached.clear();
    }

    /// Whether the peers of an earlier daemon are in the map.
    #[must_use]
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// What became of each interface.
    #[must_use]
    pub fn interfaces(&self) -> &[Attached] {
        &self.attached
    }

    /// The loaded program.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// As [`Program::insert`].
    ///
    /// # Errors
    ///
    /// As [`Program::insert`].
    pub fn insert(&mut self, address: &[u8; 16], peer: &Peer) -> Result<(), Error> {
        self.program.insert(address, peer)
    }

    /// As [`Program::remove`].
    ///
    /// # Errors
    ///
    /// As [`Program::remove`].
    pub fn remove(&mut self, address: &[u8; 16]) -> Result<(), Error> {
        self.program.remove(address)
    }

    /// As [`Program::sweep`]; what the program logged since the last one is logged too.
    ///
    /// # Errors
    ///
    /// As [`Program::sweep`].
    pub fn sweep(&mut self, visit: impl FnMut(&[u8; 16], &Peer)) -> Result<(), Error> {
        self.program.flush_log();
        self.program.sweep(visit)
    }

    /// As [`Program::counters`].
    ///
    /// # Errors
    ///
    /// As [`Program::counters`].
    pub fn counters(&self) -> Result<Vec<(Verdict, Counter)>, Error> {
        self.program.counters()
    }

    /// As [`Program::limits`].
    ///
    /// # Errors
    ///
    /// As [`Program::limits`].
    pub fn limits(&self) -> Result<Option<SharedBuckets>, Error> {
        self.program.limits()
    }

    /// As [`Program::set_draining`].
    ///
    /// # Errors
    ///
    /// As [`Program::set_draining`].
    pub fn set_draining(&mut self, end: Option<Instant>) -> Result<(), Error> {
        self.program.set_draining(end)
    }

    /// To be called when a route, neighbour, link or address changes: the program asks the kernel
    /// again, and knows the interfaces' new Ethernet addresses.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn bump_generation(&mut self) -> Result<(), Error> {
        for interface in &mut self.interfaces {
            *interface = interface.refreshed();
        }
        self.program.set_interfaces(&self.interfaces)?;
        self.program.bump_generation()
    }

    /// As [`Program::set_own_ipv4`].
    ///
    /// # Errors
    ///
    /// As [`Program::set_own_ipv4`].
    pub fn set_own_ipv4(&mut self, addresses: &[Ipv4Addr]) -> Result<(), Error> {
        self.program.set_own_ipv4(addresses)
    }

    /// Detaches and removes every pin.
    ///
    /// # Errors
    ///
    /// [`Error::Pin`].
    pub fn stop(mut self) -> Result<(), Error> {
        self.detach_all();
        self.pins.take().map_or(Ok(()), Pins::remove)
    }
}
