//! The program in the kernel and its maps, not attached yet.

mod interfaces;
mod peers;

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use crate::datapath::{
    loader::loader,
    verifier::undisturbed,
    watch::{Depths, Hops},
};
use aya::{
    Ebpf, VerifierLogLevel,
    maps::{
        Array, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuValues, ProgramArray,
        lpm_trie::Key,
    },
    programs::Xdp,
    util::nr_cpus,
};
use bytemuck::Zeroable as _;
use ipnet::{Ipv4Net, Ipv6Net};
use teredo_common::{
    budget::{self, Budget},
    cookie::CookieKey,
    limiter::BUCKETS,
    maps::{
        self, ALLOWED, ALLOWED_MAX, BUDGETS, COUNTERS, Counter, DRAINING, GENERATIONS,
        IDENTIFICATION, INTERFACES, LIMITS, OTHER_PEERS, OWN_FILTER, OWN_IPV4, PEERS, ROUTES,
        SERVED, SERVED_MAX, STATIONS, Settings, THOROUGH, TRUNKS, VLAN_FRAMES, VLANS,
    },
    respond,
    time::Instant,
    verdict::{Action, Verdict},
};

use super::{
    abilities,
    buckets::SharedBuckets,
    capture::Shared,
    delivery::Totals,
    error::Error,
    hops::HopMaps,
    interface::Interface,
    interface_maps::{self, InterfaceMaps},
    own_ipv4::{self, OwnIpv4},
    table::{self, PeerMap},
    vlan::{self, Vlan, VlanMaps},
};

pub use peers::uncollected_traffic;

/// Name of the program in the object.
pub const PROGRAM: &str = "teredo";
/// Name of the program for rare frames.
const THOROUGH_PROGRAM: &str = "thorough";

/// The object file with the program, as the compiler made it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/teredo"));

/// The parameters that the program is loaded with.
#[derive(Clone, Debug)]
pub struct Parameters<'a> {
    /// The relay's constants. `interface_mask` and the flag `SERVES_SOME` are filled in from the
    /// other fields.
    pub settings: Settings,
    /// The allowances of what is left to the daemon, and the seed of its buckets.
    pub budget: Budget,
    /// Entries of the map of peers.
    pub max_peers: u32,
    /// Whether the program counts the traffic of each peer.
    pub accounting: bool,
    /// Native prefixes relayed to.
    pub served: &'a [Ipv6Net],
    /// This host's IPv4 addresses.
    pub own_ipv4: &'a [Ipv4Addr],
    /// The interfaces through which packets may arrive and leave.
    pub interfaces: &'a [Interface],
    /// The VLAN interfaces above them through which packets may arrive and leave.
    pub vlans: &'a [Vlan],
    /// The server's part of the program, if there is a server.
    pub server: Option<&'a ServerParameters>,
    /// The time.
    pub now: Instant,
}

/// The parameters of the answers that the program gives for the server.
#[derive(Clone, Debug)]
pub struct ServerParameters {
    /// The constants.
    pub constants: respond::ServerConstants,
    /// Networks that are served; empty: all.
    pub allowed: Vec<Ipv4Net>,
}

/// The loaded program with its maps filled, ready to be attached.
pub struct Program {
    ebpf: Ebpf,
    peers: PeerMap,
    peer_map: MapData,
    /// The map of the program before, as long as that may have counted something there.
    before: Option<MapData>,
    own_ipv4: OwnIpv4,
    /// Whether [`Self::own_ipv4`] holds all of this host's addresses.
    knows_own_ipv4: bool,
    interfaces: InterfaceMaps,
    vlan_frames: PerCpuArray<MapData, u64>,
    hops: HopMaps,
    counters: PerCpuArray<MapData, Counter>,
    shared: Shared,
    identification: PerCpuArray<MapData, u32>,
    limits: Option<MapData>,
    draining: Array<MapData, u64>,
    budgets: Array<MapData, u64>,
    /// The words of [`Self::budgets`] by which the program recognises cookies.
    cookies: [u64; 3],
}

impl Program {
    /// Loads the program and fills its maps, except for peers. The map of counters is opened at the
    /// pin `counters` if that exists, and pinned there otherwise.
    ///
    /// # Errors
    ///
    /// When the kernel refuses: a sentence with the reason and the remedy.
    pub fn load(parameters: &Parameters<'_>, counters: Option<&Path>) -> Result<Self, Error> {
        // aya asks for a log after any error, and a trace of the whole program would take many times as long.
        let reason = VerifierLogLevel::STATS;
        match Self::load_with(parameters, counters, reason) {
            // The trace leads to the defect.
            Err(Error::Refused(_)) => {
                Self::load_with(parameters, counters, reason | VerifierLogLevel::DEBUG)
            }
            result => result,
        }
    }

    fn load_with(
        parameters: &Parameters<'_>,
        counters: Option<&Path>,
        log: VerifierLogLevel,
    ) -> Result<Self, Error> {
        abilities::examine().map_err(|error| Error::examination(&error))?;
        let mut settings = parameters.settings;
        settings.interface_mask = interface_maps::mask(parameters.interfaces, parameters.vlans);
        if !parameters.served.contains(&Ipv6Net::default()) {
            settings.flags |= Settings::SERVES_SOME;
        }
        let tables = table::parameters(parameters.max_peers, parameters.accounting);
        let server = parameters.server;
        let (constants, buckets, allowed) = match server {
            Some(server) => (server.constants, BUCKETS, server.allowed.len() as u32),
            None => (respond::ServerConstants::zeroed(), 1, 0),
        };
        let budget = parameters.budget;
        let limits_something = budget.allowances != Budget::default().allowances;
        let vlans = vlan::room(parameters.vlans, parameters.interfaces);
        let mut loader = loader();
        loader
            .verifier_log_level(log)
            .override_global(maps::SETTINGS, &settings, true)
            .override_global(maps::TABLES, &tables, true)
            .override_global(maps::SERVER, &constants, true)
            .override_global(maps::BUDGET, &budget, true)
            .map_max_entries(PEERS, table::lines(parameters.max_peers, tables.tallies))
            .map_max_entries(OTHER_PEERS, parameters.max_peers.max(1))
            .map_max_entries(ROUTES, tables.route_sets)
            .map_max_entries(INTERFACES, settings.interface_mask + 1)
            .map_max_entries(VLANS, vlans)
            .map_max_entries(TRUNKS, vlans)
            .map_max_entries(OWN_IPV4, own_ipv4::room(parameters.own_ipv4.len()))
            .map_max_entries(SERVED, SERVED_MAX.max(parameters.served.len() as u32))
            .map_max_entries(LIMITS, buckets)
            .map_max_entries(BUDGETS, if limits_something { budget::WORDS } else { 1 })
            .map_max_entries(ALLOWED, ALLOWED_MAX.max(allowed));
        if let Some(path) = counters {
            loader.map_pin_path(COUNTERS, path);
        }
        let mut ebpf = loader.load(OBJECT).map_err(Error::load)?;
        for name in [PROGRAM, THOROUGH_PROGRAM] {
            let program = xdp(&mut ebpf, name)?;
            undisturbed(|| program.load()).map_err(Error::program)?;
        }
        connect(&mut ebpf)?;
        let globals = [
            (maps::SETTINGS, bytemuck::bytes_of(&settings)),
            (maps::TABLES, bytemuck::bytes_of(&tables)),
            (maps::SERVER, bytemuck::bytes_of(&constants)),
            (maps::BUDGET, bytemuck::bytes_of(&budget)),
        ];
        let shared = Shared::of(&ebpf, &globals).map_err(|error| Error::map(PEERS, error))?;

        let peer_map = array(&mut ebpf, PEERS)?;
        let limits = array(&mut ebpf, LIMITS)?;
        let generations = array(&mut ebpf, GENERATIONS)?;
        let stations = array(&mut ebpf, STATIONS)?;
        let hops = HopMaps::new(generations.fd(), stations.fd(), parameters.now);
        let hops = hops.map_err(|error| Error::map(GENERATIONS, error))?;
        let mut program = Self {
            peers: table::new(
                peer_map.fd(),
                take(&mut ebpf, OTHER_PEERS)?,
                hops.numbers().clone(),
                tables,
                settings.prefix,
                parameters.max_peers,
            )?,
            peer_map,
            before: None,
            own_ipv4: OwnIpv4::new(take(&mut ebpf, OWN_IPV4)?, take(&mut ebpf, OWN_FILTER)?),
            knows_own_ipv4: true,
            interfaces: InterfaceMaps::new(
                take(&mut ebpf, INTERFACES)?,
                settings.interface_mask,
                VlanMaps::new(take(&mut ebpf, VLANS)?, take(&mut ebpf, TRUNKS)?),
            ),
            vlan_frames: take(&mut ebpf, VLAN_FRAMES)?,
            hops,
            shared,
            counters: take(&mut ebpf, COUNTERS)?,
            identification: take(&mut ebpf, IDENTIFICATION)?,
            limits: server.is_some().then_some(limits),
            draining: take(&mut ebpf, DRAINING)?,
            budgets: take(&mut ebpf, BUDGETS)?,
            cookies: [0; 3],
            ebpf,
        };
        program.serve(parameters.served)?;
        if let Some(server) = server {
            program.allow(&server.allowed)?;
        }
        program.set_own_ipv4(parameters.own_ipv4)?;
        program.set_interfaces(parameters.interfaces, parameters.vlans)?;
        program.set_identification(rand::random)?;
        Ok(program)
    }

    /// Returns the program itself, to attach or test it.
    ///
    /// # Errors
    ///
    /// [`Error::Object`] if the object has no program.
    pub fn xdp(&mut self) -> Result<&mut Xdp, Error> {
        xdp(&mut self.ebpf, PROGRAM)
    }

    /// Returns a descriptor of the program.
    pub(super) fn descriptor(&mut self) -> Result<OwnedFd, Error> {
        let refused = |error: io::Error| Error::Unsupported {
            action: "another descriptor of the program".to_owned(),
            reason: error.to_string(),
        };
        let descriptor = self.xdp()?.fd().map_err(Error::program)?;
        descriptor.as_fd().try_clone_to_owned().map_err(refused)
    }

    /// Returns what a build of the program that captures has in common with this one.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] without other descriptors.
    pub fn shared(&self) -> Result<Shared, Error> {
        self.shared.try_clone().map_err(|error| Error::Unsupported {
            action: "other descriptors of the maps".to_owned(),
            reason: error.to_string(),
        })
    }

    /// Returns the program that goes on with rare frames. It is not attached.
    ///
    /// # Errors
    ///
    /// [`Error::Object`] if the object has no such program.
    pub fn thorough(&mut self) -> Result<&mut Xdp, Error> {
        xdp(&mut self.ebpf, THOROUGH_PROGRAM)
    }

    /// Returns the map with that program, which the kernel empties when nobody has it open and it is not pinned.
    pub(super) fn thorough_map(&self) -> Result<&MapData, Error> {
        match self.ebpf.map(THOROUGH) {
            Some(Map::ProgramArray(map)) => Ok(map),
            _ => Err(no_map(THOROUGH)),
        }
    }

    /// Returns the number of the program in the kernel.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        let program: &Xdp = self.ebpf.program(PROGRAM)?.try_into().ok()?;
        Some(program.info().ok()?.id())
    }

    /// Returns the frames by verdict since the map was made, summed over all CPUs.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn counters(&self) -> Result<Vec<(Verdict, Counter)>, Error> {
        Verdict::ALL
            .iter()
            .map(|&verdict| {
                let values = self
                    .counters
                    .get(&(verdict as u32), 0)
                    .map_err(|error| Error::map(COUNTERS, error))?;
                let sum = values
                    .iter()
                    .fold(Counter::default(), |sum, value| Counter {
                        packets: sum.packets + value.packets,
                        bytes: sum.bytes + value.bytes,
                    });
                Ok((verdict, sum))
            })
            .collect()
    }

    /// Returns the sums of the counters that tell whether native mode does its job.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub(super) fn totals(&self) -> Result<Totals, Error> {
        let mut totals = Totals::default();
        for (verdict, counter) in self.counters()? {
            match verdict {
                Verdict::EncapHeadroom | Verdict::RespondHeadroom => {
                    totals.without_headroom += counter.packets;
                }
                verdict if verdict.action() == Action::Forward => totals.sent += counter.packets,
                _ => {}
            }
        }
        Ok(totals)
    }

    /// Invalidates next hops that the program has cached.
    pub fn invalidate(&self, hops: &Hops) {
        self.hops.invalidate(hops);
    }

    /// Shows the program that the daemon lives, and will invalidate next hops. Next
    /// hops older than [`teredo_common::generations::LIFETIME`] become invalid, or all of them if this was not
    /// called for so long that the daemon counted as gone. Call it once a second; returns whether that was done.
    pub fn keep_next_hops(&mut self, now: Instant) -> bool {
        self.hops.keep(now)
    }

    /// Tells the program which native destinations share a next hop.
    pub fn share_next_hops(&self, depths: &Depths) {
        self.hops.share(depths);
    }

    /// Collects the stations that the program has sent to since the last call, and begins a new period if
    /// `is_over`.
    pub fn collect_stations(&mut self, is_over: bool) {
        self.hops.collect_stations();
        if is_over {
            self.hops.begin_period();
        }
    }

    /// Returns whether the program may have sent to a station in this period or the last, as far as that was
    /// collected. Stations share marks, so that it is not certain.
    #[must_use]
    pub fn sends_to(&self, station: [u8; 6]) -> bool {
        self.hops.has_used(station)
    }

    /// Sets the next IPv4 identification of every CPU.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn set_identification(&mut self, mut next: impl FnMut() -> u32) -> Result<(), Error> {
        let fail = |error| Error::map(IDENTIFICATION, error);
        let cpus = nr_cpus().map_err(|(_, error)| fail(error))?;
        let values: Vec<u32> = (0..cpus).map(|_| next()).collect();
        let values = PerCpuValues::try_from(values).map_err(fail)?;
        self.identification
            .set(0, values, 0)
            .map_err(|error| Error::map(IDENTIFICATION, error))
    }

    /// Maps the buckets of the server's rate limits, to share them with the userspace path. `None`
    /// without a server.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn limits(&self) -> Result<Option<SharedBuckets>, Error> {
        let limits = self.limits.as_ref();
        limits
            .map(|limits| SharedBuckets::new(limits.fd(), BUCKETS as usize))
            .transpose()
            .map_err(|error| Error::map(LIMITS, error))
    }

    /// Makes the program answer no more solicitations and, from `end` on, forward no more bubbles;
    /// `None` ends the draining.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn set_draining(&mut self, end: Option<Instant>) -> Result<(), Error> {
        let end = end.map_or(0, |end| end.as_nanos().max(1));
        self.draining
            .set(0, end, 0)
            .map_err(|error| Error::map(DRAINING, error))
    }

    /// Makes the program recognise the relay's cookies, which are older than the clock says by `skipped`.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn set_cookies(&mut self, key: CookieKey, skipped: Duration) -> Result<(), Error> {
        let skipped = u64::try_from(skipped.as_nanos()).unwrap_or(u64::MAX);
        let CookieKey([first, second]) = key;
        let words = [skipped, first, second];
        if words == self.cookies || self.budgets.len() < budget::WORDS {
            return Ok(());
        }
        for (index, word) in (budget::SKIPPED..).zip(words) {
            self.budgets
                .set(index, word, 0)
                .map_err(|error| Error::map(BUDGETS, error))?;
        }
        self.cookies = words;
        Ok(())
    }

    fn allow(&mut self, networks: &[Ipv4Net]) -> Result<(), Error> {
        let mut trie: LpmTrie<MapData, [u8; 4], u8> = take(&mut self.ebpf, ALLOWED)?;
        for network in networks {
            let key = Key::new(u32::from(network.prefix_len()), network.network().octets());
            trie.insert(&key, 1, 0)
                .map_err(|error| Error::map(ALLOWED, error))?;
        }
        Ok(())
    }

    fn serve(&mut self, prefixes: &[Ipv6Net]) -> Result<(), Error> {
        let mut trie: LpmTrie<MapData, [u8; 16], u8> = take(&mut self.ebpf, SERVED)?;
        for prefix in prefixes {
            let key = Key::new(u32::from(prefix.prefix_len()), prefix.network().octets());
            trie.insert(&key, 1, 0)
                .map_err(|error| Error::map(SERVED, error))?;
        }
        Ok(())
    }
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Error> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| Error::Object {
            reason: format!("it has no XDP program `{name}`"),
        })
}

/// Makes the program go on with that for rare frames.
fn connect(ebpf: &mut Ebpf) -> Result<(), Error> {
    let thorough = xdp(ebpf, THOROUGH_PROGRAM)?.fd().map_err(Error::program)?;
    let thorough = thorough
        .try_clone()
        .map_err(|error| Error::map(THOROUGH, error))?;
    let map = ebpf.map_mut(THOROUGH).ok_or_else(|| no_map(THOROUGH))?;
    let set = ProgramArray::try_from(map).and_then(|mut map| map.set(0, &thorough, 0));
    set.map_err(|error| Error::map(THOROUGH, error))
}

fn no_map(name: &str) -> Error {
    Error::Object {
        reason: format!("it has no map {name}"),
    }
}

/// Takes an array that can be mapped into memory.
fn array(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, Error> {
    match ebpf.take_map(name) {
        Some(Map::Array(map)) => Ok(map),
        _ => Err(Error::Object {
            reason: format!("it has no array {name}"),
        }),
    }
}

fn take<M: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, Error> {
    let map = ebpf.take_map(name).ok_or_else(|| no_map(name))?;
    M::try_from(map).map_err(|error| Error::map(name, error))
}
