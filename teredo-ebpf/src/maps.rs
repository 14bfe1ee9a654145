//! The maps. Layouts: [`teredo_common::maps`].

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, ProgramArray},
};
use teredo_common::{
    budget::WORDS,
    generations::NUMBERS,
    limiter::BUCKETS,
    maps::{
        ALLOWED_MAX, COUNTERS_MAX, Counter, INTERFACES_MAX, Interface, Line, OWN_FILTER_WORDS,
        OWN_IPV4_MAX, RouteSet, SERVED_MAX, STATION_MARKS, VLANS_MAX,
    },
    vlan::Trunk,
};

#[map]
pub static PEERS: Array<Line> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static OTHER_PEERS: HashMap<[u32; 4], u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
pub static SERVED: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(SERVED_MAX, 0);
#[map]
pub static OWN_IPV4: HashMap<[u8; 4], u8> =
    HashMap::with_max_entries(OWN_IPV4_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static OWN_FILTER: Array<u32> = Array::with_max_entries(OWN_FILTER_WORDS, 0);
#[map]
pub static INTERFACES: Array<Interface> = Array::with_max_entries(INTERFACES_MAX, 0);
#[map]
pub static VLANS: HashMap<Trunk, u32> = HashMap::with_max_entries(VLANS_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static TRUNKS: Array<Trunk> = Array::with_max_entries(VLANS_MAX, 0);
#[map]
pub static THOROUGH: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
pub static VLAN_FRAMES: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static GENERATIONS: Array<[u32; NUMBERS]> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static STATIONS: Array<[u8; STATION_MARKS]> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(COUNTERS_MAX, 0);
#[map]
pub static ROUTES: Array<RouteSet> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static IDENTIFICATION: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static LIMITS: Array<u64> = Array::with_max_entries(BUCKETS, BPF_F_MMAPABLE);
#[map]
pub static RESERVE: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static ALLOWED: LpmTrie<[u8; 4], u8> = LpmTrie::with_max_entries(ALLOWED_MAX, 0);
#[map]
pub static DRAINING: Array<u64> = Array::with_max_entries(1, 0);
#[map]
pub static BUDGETS: Array<u64> = Array::with_max_entries(WORDS, BPF_F_MMAPABLE);
