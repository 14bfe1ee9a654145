//! The benchmark's XDP programs.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "of the functions that the macro makes")]

use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_STOLEN, xdp_action},
    helpers::generated::{bpf_ktime_get_ns, bpf_redirect, bpf_skb_vlan_push, bpf_xdp_adjust_head},
    macros::{classifier, map, xdp},
    maps::{Array, PerCpuArray, ProgramArray},
    programs::{TcContext, XdpContext},
};
use teredo_common::wire::{ENCAPSULATION, ETHERNET_HEADER, ETHERTYPE_VLAN, UDP};
use teredo_lab_ebpf::{
    Count, FORGED_PORTS, Flow, HEADERS, NATIVE_HEADERS, SIZES,
    flood::{FRAME, Flood, Progress},
    sift::{self, FATES, Fate},
    spray::{self, Spray},
};

/// The generator's parameters.
#[map]
static FLOW: Array<Flow> = Array::with_max_entries(1, 0);

/// The parameters of [`flood`].
#[map]
static FLOOD: Array<Flood> = Array::with_max_entries(1, 0);

/// The progress of the flood.
#[map]
static PROGRESS: Array<Progress> = Array::with_max_entries(1, 0);

/// The parameters of [`spray`].
#[map]
static SPRAY: Array<Spray> = Array::with_max_entries(1, 0);

/// The counters of [`sift`], by fate.
#[map]
static SIFTED: PerCpuArray<u64> = PerCpuArray::with_max_entries(FATES, 0);

/// The egress interface of [`forward`].
#[unsafe(no_mangle)]
static TARGET: u32 = 0;

/// The client of the next frame, and the native host.
#[map]
static TURN: Array<u32> = Array::with_max_entries(2, 0);

/// The counters of the sink.
#[map]
static COUNT: PerCpuArray<Count> = PerCpuArray::with_max_entries(1, 0);

/// The program that [`rewind`] measures.
#[map]
static MEASURED: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Turns the frame into the next client's and sends it.
#[xdp]
pub fn generate(context: XdpContext) -> u32 {
    match FLOW.get(0) {
        Some(flow) if write_next(flow, &context).is_some() => {
            // SAFETY: the helper takes any interface index.
            unsafe { bpf_redirect(flow.interface, 0) as u32 }
        }
        _ => xdp_action::XDP_ABORTED,
    }
}

/// Turns the frame into the flood's next and sends it when it is due.
#[xdp]
pub fn flood(context: XdpContext) -> u32 {
    let (Some(flood), Some(progress)) = (FLOOD.get(0), PROGRESS.get_ptr_mut(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the entry exists while the program does, and one generator runs at a time.
    let progress = unsafe { &mut *progress };
    if !is_due(progress, flood.interval, Progress::CATCH_UP) {
        return xdp_action::XDP_DROP;
    }
    let start = context.data();
    if start + FRAME > context.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the frame is as long as that, as just checked; the kernel's machines that run XDP
    // programs natively need no alignment.
    unsafe {
        flood.write(progress, start as *mut u8);
        bpf_redirect(flood.interface, 0) as u32
    }
}

/// Turns the frame into the spray's next and sends it when it is due.
#[xdp]
pub fn spray(context: XdpContext) -> u32 {
    let (Some(spray), Some(progress)) = (SPRAY.get(0), PROGRESS.get_ptr_mut(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the entry exists while the program does, and one generator runs at a time.
    let progress = unsafe { &mut *progress };
    if !is_due(progress, spray.interval, Spray::CATCH_UP) {
        return xdp_action::XDP_DROP;
    }
    let start = context.data();
    if start + spray::FRAME > context.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: as in `flood`.
    unsafe {
        let interface = spray.write(progress, start as *mut u8);
        bpf_redirect(interface, 0) as u32
    }
}

/// Whether the next frame is due; then the one after it is due later. A generator that was late by up
/// to `catch_up` nanoseconds makes up for it.
#[inline(always)]
fn is_due(progress: &mut Progress, interval: u32, catch_up: u64) -> bool {
    if interval == 0 {
        return true;
    }
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    if now < progress.due {
        return false;
    }
    let next = progress.due + u64::from(interval);
    progress.due = next.max(now.saturating_sub(catch_up));
    true
}

/// Counts frames by their fate, and drops all but those for the honest.
#[xdp]
pub fn sift(context: XdpContext) -> u32 {
    // SAFETY: the kernel's machines that run XDP programs natively need no alignment.
    let fate = unsafe { sift::fate(context.data(), context.data_end()) };
    if let Some(count) = SIFTED.get_ptr_mut(fate as u32) {
        // SAFETY: the pointer is to this CPU's entry, and a program is not preempted by another
        // run of itself on the same CPU.
        unsafe { *count += 1 };
    }
    match fate {
        Fate::Pass => xdp_action::XDP_PASS,
        _ => xdp_action::XDP_DROP,
    }
}

/// Turns the frame into the next client's, wherever the previous run has moved its start, and calls
/// the measured program.
#[xdp]
pub fn rewind(context: XdpContext) -> u32 {
    let Some(flow) = FLOW.get(0) else {
        return xdp_action::XDP_ABORTED;
    };
    let grown = match flow.direction {
        // An encapsulated frame is longer, a decapsulated one shorter than before.
        Flow::ENCAP if is_ipv4(context.data(), context.data_end()) => ENCAPSULATION as i32,
        Flow::DECAP if !is_ipv4(context.data(), context.data_end()) => -(ENCAPSULATION as i32),
        _ => 0,
    };
    // SAFETY: the helper checks the length; the context is valid.
    if grown != 0 && unsafe { bpf_xdp_adjust_head(context.ctx, grown) } != 0 {
        return xdp_action::XDP_ABORTED;
    }
    if write_next(flow, &context).is_some() {
        // SAFETY: no value here has a destructor.
        unsafe { MEASURED.tail_call(&context, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// Measures the cost of [`rewind`] itself.
#[xdp]
pub fn nothing(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The least work of a forwarder.
#[xdp]
pub fn forward(_context: XdpContext) -> u32 {
    // SAFETY: `TARGET` is initialised; the loader sets it in the object's read-only data, which the
    // compiler must not know.
    let target = unsafe { (&raw const TARGET).read_volatile() };
    // SAFETY: the helper takes any interface index.
    unsafe { bpf_redirect(target, 0) as u32 }
}

/// The least work of a program that answers: every frame goes back unchanged.
#[xdp]
pub fn reflect(_context: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// Counts and drops datagrams over IPv4 to and from a forged client.
#[xdp]
pub fn answers(context: XdpContext) -> u32 {
    if is_forged(context.data(), context.data_end()) {
        count();
        xdp_action::XDP_DROP
    } else {
        xdp_action::XDP_PASS
    }
}

/// Counts and drops datagrams as [`answers`] does, at the egress of a process's host.
#[classifier]
pub fn departures(context: TcContext) -> i32 {
    if is_forged(context.data(), context.data_end()) {
        count();
        TC_ACT_STOLEN
    } else {
        TC_ACT_OK
    }
}

/// Puts frames with a mark into the VLAN of this number, beside the frame as a bridge does it. The driver
/// writes the tag into the frame unless the interface has an offload for that.
#[classifier]
pub fn trunk(context: TcContext) -> i32 {
    // SAFETY: the context is the kernel's.
    let mark = unsafe { (*context.skb.skb).mark } as u16;
    if mark != 0 {
        // SAFETY: as above; the helper takes any tag.
        unsafe { bpf_skb_vlan_push(context.skb.skb, ETHERTYPE_VLAN.to_be(), mark) };
    }
    TC_ACT_OK
}

/// Whether a frame holds a datagram over IPv4 to or from a forged client.
#[inline(always)]
fn is_forged(start: usize, end: usize) -> bool {
    /// Octets of the Ethernet header, the IPv4 header and the ports.
    const HEADERS: usize = ETHERNET_HEADER + ENCAPSULATION - 4;
    if start + HEADERS > end || !is_ipv4(start, end) {
        return false;
    }
    // SAFETY: both ports lie within the frame, as just checked, at even addresses.
    let ports = [34, 36].map(|at| unsafe { u16::from_be(*((start + at) as *const u16)) });
    FORGED_PORTS.contains(&ports[0]) || FORGED_PORTS.contains(&ports[1])
}

/// Counts and drops frames with a datagram of a measured size. Connectivity tests may have it, too.
#[xdp]
pub fn sink(context: XdpContext) -> u32 {
    /// Offset of the next header in an IPv6 header.
    const NEXT_HEADER: usize = ETHERNET_HEADER + 6;
    let (start, end) = (context.data(), context.data_end());
    // This check comes first, so that the compiler does not derive it from the length, which the
    // verifier does not.
    if start + NEXT_HEADER + ENCAPSULATION + 1 > end {
        return xdp_action::XDP_PASS;
    }
    let length = end - start;
    let [small, large] = SIZES.map(|size| size as usize + ETHERNET_HEADER);
    let plain = length == small || length == large;
    let encapsulated = length == small + ENCAPSULATION || length == large + ENCAPSULATION;
    if !plain && !encapsulated {
        return xdp_action::XDP_PASS;
    }
    let at = match plain {
        true => NEXT_HEADER,
        false => NEXT_HEADER + ENCAPSULATION,
    };
    // SAFETY: both places lie within the frame, as just checked.
    if unsafe { *((start + at) as *const u8) } != UDP {
        return xdp_action::XDP_PASS;
    }
    count();
    xdp_action::XDP_DROP
}

/// Counts a packet.
#[inline(always)]
fn count() {
    let Some(count) = COUNT.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the pointer is to this CPU's entry, and a program is not preempted by another run of
    // itself on the same CPU.
    let count = unsafe { &mut *count };
    if count.packets.is_multiple_of(Count::INTERVAL) {
        // SAFETY: the helper takes nothing.
        let now = unsafe { bpf_ktime_get_ns() };
        if count.packets == 0 {
            count.first = now;
        }
        count.last = now;
        count.stamped = count.packets;
    }
    count.packets += 1;
}

#[inline(always)]
fn is_ipv4(start: usize, end: usize) -> bool {
    if start + ETHERNET_HEADER > end {
        return false;
    }
    // SAFETY: the Ethernet header lies within the frame, as just checked, at an even address.
    unsafe { *((start + 12) as *const u16) == teredo_common::wire::ETHERTYPE_IPV4.to_be() }
}

/// Writes the headers of the next client.
#[inline(always)]
fn write_next(flow: &Flow, context: &XdpContext) -> Option<()> {
    let turn = TURN.get_ptr_mut(0)?;
    let (start, end) = (context.data(), context.data_end());
    // SAFETY: the entry exists while the program does, and one generator runs at a time. The
    // headers lie within the frame, as is checked; frames start at an even address.
    unsafe {
        if flow.direction == Flow::DECAP {
            if start + HEADERS > end {
                return None;
            }
            flow.write::<{ Flow::DECAP }>(*turn, start as *mut u16);
            if flow.hosts > 1 {
                let host = TURN.get_ptr_mut(1)?;
                flow.write_host(*host, start as *mut u16);
                *host = flow.next_host(*host);
            }
        } else {
            if start + NATIVE_HEADERS > end {
                return None;
            }
            if flow.direction == Flow::FIXED {
                flow.restore(start as *mut u16);
                return Some(());
            }
            flow.write::<{ Flow::ENCAP }>(*turn, start as *mut u16);
        }
        *turn = flow.next(*turn);
    }
    Some(())
}

/// The kernel offers the helpers that the programs need only to programs under a GPL-compatible
/// licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
