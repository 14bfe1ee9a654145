//! The data path's environment in the kernel.

use aya_ebpf::{EbpfContext as _, helpers, maps::lpm_trie::Key, programs::XdpContext};
use teredo_common::{
    address::Endpoint,
    budget::Budget,
    generations::{BUCKETS, FIRST_BUCKET, Family, HEARTBEAT, SETS},
    maps::{Interface, STATION_MARKS, Settings, Tables},
    peers::Sets,
    respond::ServerConstants,
    time::Instant,
    verdict::Verdict,
    vlan::Trunk,
};
use teredo_datapath::{Environment, Fate, Way, Words as _, verifier::masked};

use crate::{constants, look_up, maps, words::MapWords};

/// The last bucket of both families.
const LAST_BUCKET: i32 = 2 * BUCKETS as i32 - 1;

/// The interface by which a frame came, as the program may take it.
pub trait Ingress {
    /// Whether it may be a VLAN interface.
    const IS_THOROUGH: bool;

    /// Returns its index.
    fn index(&self, context: &XdpContext) -> u32;
}

/// The interface that the program is attached to.
pub struct Port;

impl Ingress for Port {
    const IS_THOROUGH: bool = false;

    #[inline(always)]
    fn index(&self, context: &XdpContext) -> u32 {
        context.ingress_ifindex() as u32
    }
}

/// An interface of this index, which may be a VLAN interface.
pub struct Vlan(u32);

impl Ingress for Vlan {
    const IS_THOROUGH: bool = true;

    #[inline(always)]
    fn index(&self, _context: &XdpContext) -> u32 {
        self.0
    }
}

/// The run of the program for one frame.
pub struct Kernel<'a, I> {
    context: &'a XdpContext,
    ingress: I,
    /// The value of the map of generations. It is looked up once, as almost every packet needs several of its numbers.
    numbers: *mut u32,
}

impl<'a> Kernel<'a, Port> {
    /// Returns the environment of a run. The map of generations always has its value, which the verifier does not know.
    #[inline(always)]
    pub fn new(context: &'a XdpContext) -> Option<Self> {
        let numbers = maps::GENERATIONS.get_ptr_mut(0)?.cast();
        Some(Self {
            context,
            ingress: Port,
            numbers,
        })
    }
}

impl<I> Kernel<'_, I> {
    /// Returns a number in the map of generations. `index` is less than their count.
    #[inline(always)]
    fn number(&self, index: usize) -> u32 {
        // SAFETY: within the value of the map. Volatile, as the daemon writes it at any time.
        unsafe { self.numbers.add(index).read_volatile() }
    }
}

// SAFETY: the kernel gives the frame to this CPU alone, and the verifier refuses access beyond it.
unsafe impl<I: Ingress> Environment for Kernel<'_, I> {
    type Words = MapWords;
    type Thorough<'a>
        = Kernel<'a, Vlan>
    where
        Self: 'a;

    const IS_THOROUGH: bool = I::IS_THOROUGH;

    #[inline(always)]
    fn look_thoroughly(&self) -> Option<Fate> {
        // SAFETY: no value of this run has a destructor.
        unsafe { maps::THOROUGH.tail_call(self.context, 0) };
        None
    }

    #[inline(always)]
    fn thorough(&self, ingress: u32) -> Kernel<'_, Vlan> {
        Kernel {
            context: self.context,
            ingress: Vlan(ingress),
            numbers: self.numbers,
        }
    }

    #[inline(always)]
    fn start(&self) -> usize {
        // SAFETY: the context is the one that the kernel passed to the program. Volatile: each call is a load of its own, after
        // which the verifier knows nothing about the frame.
        unsafe { (&raw const (*self.context.ctx).data).read_volatile() as usize }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: as in `start`.
        unsafe { (&raw const (*self.context.ctx).data_end).read_volatile() as usize }
    }

    #[inline(always)]
    fn move_start(&self, delta: i32) -> bool {
        // SAFETY: the context is the one that the kernel passed to the program.
        unsafe { helpers::bpf_xdp_adjust_head(self.context.as_ptr().cast(), delta) == 0 }
    }

    #[inline(always)]
    fn cut_end(&self, octets: usize) -> bool {
        // SAFETY: as in `move_start`.
        unsafe { helpers::bpf_xdp_adjust_tail(self.context.as_ptr().cast(), -(octets as i32)) == 0 }
    }

    #[inline(always)]
    fn sum<const N: usize>(&self, start: *const u8) -> u32 {
        // SAFETY: the octets exist, as callers say and the verifier checks.
        unsafe {
            helpers::bpf_csum_diff(
                core::ptr::null_mut(),
                0,
                start.cast_mut().cast(),
                N as u32,
                0,
            ) as u32
        }
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.ingress.index(self.context)
    }

    #[inline(always)]
    fn settings(&self) -> &Settings {
        &constants::SETTINGS
    }

    #[inline(always)]
    fn tables(&self) -> &Tables {
        &constants::TABLES
    }

    #[inline(always)]
    fn server(&self) -> &ServerConstants {
        &constants::SERVER
    }

    #[inline(always)]
    fn sets(&self) -> Sets {
        // SAFETY: as in `number`; the daemon writes both halves at once, or no reader minds.
        Sets(unsafe { self.numbers.add(SETS).cast::<u64>().read_volatile() })
    }

    #[inline(always)]
    fn first_route(&self, family: Family) -> Option<MapWords> {
        // SAFETY: within the value of the map, and aligned.
        Some(unsafe { MapWords::at(self.numbers.add(family.first_route()).cast()) })
    }

    #[inline(always)]
    fn line(&self, index: u32) -> Option<MapWords> {
        maps::PEERS.get_ptr_mut(index).map(MapWords::of)
    }

    #[inline(always)]
    fn tallies(&self, index: u32) -> Option<MapWords> {
        self.line(index)
    }

    #[inline(always)]
    fn cpu(&self) -> u32 {
        // SAFETY: the helper has no arguments and no conditions.
        unsafe { helpers::bpf_get_smp_processor_id() }
    }

    #[inline(always)]
    fn other_peer(&self, address: [u32; 4]) -> Option<u32> {
        let number = maps::OTHER_PEERS.get_ptr(address)?;
        // SAFETY: a value of the map. Volatile, as the daemon replaces it at any time.
        Some(unsafe { number.read_volatile() })
    }

    #[inline(always)]
    fn route_set(&self, index: u32) -> Option<MapWords> {
        maps::ROUTES.get_ptr_mut(index).map(MapWords::of)
    }

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<MapWords> {
        maps::LIMITS.get_ptr_mut(index).map(MapWords::of)
    }

    #[inline(always)]
    fn budget(&self) -> &Budget {
        &constants::BUDGET
    }

    #[inline(always)]
    fn budgets(&self, index: u32) -> Option<MapWords> {
        maps::BUDGETS.get_ptr_mut(index).map(MapWords::of)
    }

    #[inline(always)]
    fn interface(&self, slot: u32) -> Option<Interface> {
        let interface = maps::INTERFACES.get_ptr(slot)?;
        // SAFETY: a value of the map.
        Some(unsafe { interface.read() })
    }

    #[inline(always)]
    fn vlan(&self, trunk: Trunk) -> Option<u32> {
        let index = maps::VLANS.get_ptr(trunk)?;
        // SAFETY: a value of the map.
        Some(unsafe { index.read() })
    }

    #[inline(always)]
    fn trunk(&self, index: u16) -> Option<Trunk> {
        let trunk = maps::TRUNKS.get_ptr(index.into())?;
        // SAFETY: a value of the map.
        Some(unsafe { trunk.read() })
    }

    #[inline(always)]
    fn count_vlan_frame(&self) {
        if let Some(count) = maps::VLAN_FRAMES.get_ptr_mut(0) {
            // SAFETY: a value of the map that belongs to this CPU.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn generation(&self, bucket: u32, after: u32) -> u32 {
        // SAFETY: the map of generations, as in `number`, which holds a word per two buckets.
        let numbers = unsafe { MapWords::at(self.numbers.cast()) }.after(after.into());
        // SAFETY: as in `number`; the words begin where the numbers do.
        unsafe {
            numbers
                .first()
                .cast::<u32>()
                .add(FIRST_BUCKET + masked::<LAST_BUCKET>(bucket as usize))
                .read_volatile()
        }
    }

    #[inline(always)]
    fn common_generation(&self, family: Family) -> u32 {
        self.number(family.common())
    }

    #[inline(always)]
    fn heartbeat(&self) -> u32 {
        self.number(HEARTBEAT)
    }

    #[inline(always)]
    fn mark_station(&self, mark: usize) {
        if let Some(stations) = maps::STATIONS.get_ptr_mut(0) {
            // SAFETY: within the value of the map. Volatile, as the daemon writes it, too.
            unsafe {
                let first = stations.cast::<u8>();
                first.add(mark % STATION_MARKS).write_volatile(1);
            }
        }
    }

    #[inline(always)]
    fn draining(&self) -> u64 {
        let end = maps::DRAINING.get_ptr(0);
        // SAFETY: as in `generation`.
        end.map_or(0, |end| unsafe { end.read_volatile() })
    }

    #[inline(always)]
    fn is_served(&self, address: [u8; 16]) -> bool {
        maps::SERVED.get(Key::new(128, address)).is_some()
    }

    #[inline(always)]
    fn own_filter(&self, index: u32) -> u32 {
        let word = maps::OWN_FILTER.get_ptr(index);
        // SAFETY: as in `generation`.
        word.map_or(0, |word| unsafe { word.read_volatile() })
    }

    #[inline(always)]
    fn is_own_ipv4(&self, address: [u8; 4]) -> bool {
        maps::OWN_IPV4.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn is_allowed(&self, address: [u8; 4]) -> bool {
        maps::ALLOWED.get(Key::new(32, address)).is_some()
    }

    #[inline(always)]
    fn identification(&self) -> u16 {
        let Some(next) = maps::IDENTIFICATION.get_ptr_mut(0) else {
            return 0;
        };
        // SAFETY: a value of the map that belongs to this CPU.
        unsafe {
            let identification = next.read();
            next.write(identification.wrapping_add(1));
            identification as u16
        }
    }

    #[inline(always)]
    fn reserve(&self) -> Option<u32> {
        let reserve = maps::RESERVE.get_ptr(0)?;
        // SAFETY: a value of the map that belongs to this CPU.
        Some(unsafe { reserve.read() })
    }

    #[inline(always)]
    fn set_reserve(&self, tokens: u32) {
        if let Some(reserve) = maps::RESERVE.get_ptr_mut(0) {
            // SAFETY: as in `reserve`.
            unsafe { reserve.write(tokens) };
        }
    }

    #[inline(always)]
    fn count(&self, verdict: Verdict, octets: u64) {
        crate::note(verdict);
        if let Some(counter) = maps::COUNTERS.get_ptr_mut(verdict as u32) {
            // SAFETY: a value of the map that belongs to this CPU.
            unsafe {
                (*counter).packets += 1;
                (*counter).bytes += octets;
            }
        }
    }

    #[inline(always)]
    fn now(&self) -> Instant {
        // The time is precise to a tick, which is enough for lifetimes of seconds and takes half the
        // time of the precise one.
        // SAFETY: the helper has no arguments and no conditions.
        Instant::from_nanos(unsafe { helpers::bpf_ktime_get_coarse_ns() })
    }

    #[inline(always)]
    fn look_up_ipv4(&self, from: u32, source: Endpoint, destination: Endpoint) -> Option<Way> {
        look_up::ipv4(self.context, from, source, destination)
    }

    #[inline(always)]
    fn look_up_ipv6(&self, from: u32, source: [u32; 4], destination: [u32; 4]) -> Option<Way> {
        look_up::ipv6(self.context, from, source, destination)
    }
}
