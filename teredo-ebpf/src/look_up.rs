//! Look-ups in the kernel's routes and neighbours.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup},
    helpers,
    programs::XdpContext,
};
use teredo_common::{address::Endpoint, wire::UDP};
use teredo_datapath::{Addresses, Way, verifier::opaque};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// See [`teredo_datapath::Environment::look_up_ipv6`].
#[inline(always)]
pub fn ipv6(
    context: &XdpContext,
    from: u32,
    source: [u32; 4],
    destination: [u32; 4],
) -> Option<Way> {
    let mut query = Query::UNINIT;
    let query = query.zeroed();
    query.family = AF_INET6;
    query.__bindgen_anon_3.ipv6_src = source;
    query.__bindgen_anon_4.ipv6_dst = destination;
    let way = ask(context, from, query)?;
    // SAFETY: the kernel has replaced the destination by a gateway's address, if there is one.
    let next = unsafe { query.__bindgen_anon_4.ipv6_dst };
    let parts = next.iter().zip(destination);
    let differs = parts.fold(0, |all, (next, part)| all | (next ^ part));
    Some(Way {
        has_gateway: opaque(differs.into()) != 0,
        ..way
    })
}

/// See [`teredo_datapath::Environment::look_up_ipv4`].
#[inline(always)]
pub fn ipv4(
    context: &XdpContext,
    from: u32,
    source: Endpoint,
    destination: Endpoint,
) -> Option<Way> {
    let mut query = Query::UNINIT;
    let query = query.zeroed();
    query.family = AF_INET;
    query.l4_protocol = UDP;
    query.sport = u16::from_ne_bytes(source.port);
    query.dport = u16::from_ne_bytes(destination.port);
    query.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(source.address);
    let destination = u32::from_ne_bytes(destination.address);
    query.__bindgen_anon_4.ipv4_dst = destination;
    let way = ask(context, from, query)?;
    // SAFETY: as above. The gateway may have an address of IPv6.
    let next = unsafe { query.__bindgen_anon_4.ipv4_dst };
    Some(Way {
        has_gateway: next != destination || query.family != AF_INET,
        ..way
    })
}

/// Words of a query.
const WORDS: usize = size_of::<bpf_fib_lookup>() / 8;

/// A query, aligned so that it can be zeroed word by word. The compiler's own way is a call that writes
/// octet by octet.
#[repr(C, align(8))]
struct Query(MaybeUninit<bpf_fib_lookup>);

impl Query {
    const UNINIT: Self = Self(MaybeUninit::uninit());

    /// Zeroes the query where it lies: as a result of a function, it would be copied.
    #[inline(always)]
    fn zeroed(&mut self) -> &mut bpf_fib_lookup {
        const { assert!(size_of::<bpf_fib_lookup>().is_multiple_of(8)) }
        let first = self.0.as_mut_ptr().cast::<u64>();
        for word in 0..WORDS {
            // SAFETY: within the query. Volatile, so that it stays a store.
            unsafe { first.add(word).write_volatile(0) };
        }
        // SAFETY: a structure of numbers, for which zero is a value.
        unsafe { self.0.assume_init_mut() }
    }
}

#[inline(always)]
fn ask(context: &XdpContext, from: u32, query: &mut bpf_fib_lookup) -> Option<Way> {
    query.ifindex = from;
    // Any length makes the kernel report the MTU of the route.
    query.__bindgen_anon_1.tot_len = 1;
    // SAFETY: the context is the kernel's, the query as large as said.
    let result = unsafe {
        helpers::bpf_fib_lookup(
            context.as_ptr(),
            &raw mut *query,
            size_of::<bpf_fib_lookup>() as i32,
            0,
        )
    };
    if result != i64::from(BPF_FIB_LKUP_RET_SUCCESS) {
        return None;
    }
    Some(Way {
        interface: query.ifindex,
        // SAFETY: both members of the union are the same number.
        mtu: unsafe { query.__bindgen_anon_1.mtu_result },
        addresses: Addresses::new(query.dmac, query.smac),
        has_gateway: false,
    })
}
