//! The XDP programs once more, for the time while somebody captures: the same data path, with a look at each frame
//! before and after it. The daemon loads them then, with the maps of the programs that they take the place of.
//!
//! Lints compile it for the host, which has a panic handler already.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![no_main]

#[path = "../constants.rs"]
mod constants;
#[path = "../kernel.rs"]
mod kernel;
#[path = "../look_up.rs"]
mod look_up;
#[path = "../maps.rs"]
mod maps;
#[path = "../words.rs"]
mod words;

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action,
    helpers::{
        self,
        generated::{bpf_ktime_get_ns, bpf_ringbuf_output, bpf_xdp_load_bytes},
    },
    macros::{map, xdp},
    maps::{Array, PerCpuArray, RingBuf},
    programs::XdpContext,
};
use teredo_common::{
    capture::{
        Filter, Head, LOOK, RECORDER, SIZE, SNAPLEN_MAX, State, TEREDO,
        point::{DROPPED, FORWARDED, PASSED, RECEIVED},
    },
    verdict::Verdict,
};
use teredo_datapath::{Fate, verifier::masked};

use crate::kernel::Kernel;

#[map]
static FILTER: Array<Filter> = Array::with_max_entries(1, 0);
#[map]
static STATES: PerCpuArray<State> = PerCpuArray::with_max_entries(1, 0);
#[map]
static TURN: Array<u64> = Array::with_max_entries(1, 0);
#[map]
static RECORDS: RingBuf = RingBuf::with_byte_size(SIZE, 0);

/// Looks at a frame, and goes on with `teredo`. The verifier knows less about the parts of what a frame passes than about
/// the whole, which takes it less time: Linux 7.3 refuses some programs that have two of them.
#[xdp]
#[inline(always)]
fn entrance(context: XdpContext) -> u32 {
    look(&context);
    // SAFETY: no value of this run has a destructor.
    unsafe { maps::THOROUGH.tail_call(&context, TEREDO) };
    xdp_action::XDP_PASS
}

/// Does what the program `teredo` does, and goes on with `recorder`.
#[xdp]
#[inline(always)]
fn teredo(context: XdpContext) -> u32 {
    match Kernel::new(&context) {
        Some(kernel) => finish(&context, teredo_datapath::run(&kernel)),
        None => xdp_action::XDP_PASS,
    }
}

/// Does what the program `thorough` does, and goes on with `recorder`.
#[xdp]
#[inline(always)]
fn thorough(context: XdpContext) -> u32 {
    match Kernel::new(&context) {
        Some(kernel) => finish(&context, teredo_datapath::run_thoroughly(&kernel)),
        None => xdp_action::XDP_PASS,
    }
}

/// Records a frame of which the fate is known.
#[xdp]
#[inline(always)]
fn recorder(context: XdpContext) -> u32 {
    match state() {
        Some(state) => {
            record(&context, state);
            state.record.head.action.into()
        }
        None => xdp_action::XDP_ABORTED,
    }
}

/// Notes the verdict on the frame.
#[inline(always)]
fn note(verdict: Verdict) {
    if let Some(state) = state() {
        state.record.head.verdict = verdict as u16;
    }
}

/// Decides whether a frame is of interest, and copies it then as it came.
#[inline(always)]
fn look(context: &XdpContext) {
    let (Some(filter), Some(state)) = (filter(), state()) else {
        return;
    };
    state.is_wanted = 0;
    state.skipped = state.skipped.wrapping_add(1);
    if state.skipped < filter.sample {
        return;
    }
    state.skipped = 0;
    // SAFETY: the helper has no conditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if is_early(filter, now) {
        state.limited += 1;
        return;
    }
    let is_taken =
        filter.takes_all_addresses() || copy(context, state, LOOK) && takes(filter, state);
    if !is_taken {
        return;
    }
    if !copy(context, state, filter.snaplen) {
        return;
    }
    state.number += 1;
    state.is_wanted = 1;
    // SAFETY: the helper has no conditions.
    let processor = unsafe { helpers::bpf_get_smp_processor_id() };
    let head = &mut state.record.head;
    head.time = now;
    head.number = ((processor as u64) << 48) | state.number;
    head.interface = context.ingress_ifindex() as u32;
}

/// Returns what the kernel is to do with a frame of this fate, or leaves that to `recorder` if the frame is of interest.
#[inline(always)]
fn finish(context: &XdpContext, fate: Fate) -> u32 {
    let (point, action) = match fate {
        Fate::Pass => (PASSED, xdp_action::XDP_PASS),
        Fate::Drop => (DROPPED, xdp_action::XDP_DROP),
        Fate::Return => (FORWARDED, xdp_action::XDP_TX),
        // SAFETY: numbers only.
        Fate::Redirect(interface) => unsafe {
            (FORWARDED, helpers::bpf_redirect(interface, 0) as u32)
        },
    };
    if let Some(state) = state()
        && state.is_wanted != 0
    {
        state.is_wanted = 0;
        state.record.head.point = point as u8;
        state.record.head.action = action as u8;
        // SAFETY: no value of this run has a destructor.
        unsafe { maps::THOROUGH.tail_call(context, RECORDER) };
    }
    action
}

/// Records a frame of interest, at the points that are.
#[inline(always)]
fn record(context: &XdpContext, state: &mut State) {
    let Some(filter) = filter() else {
        return;
    };
    let point = state.record.head.point as u32;
    let verdict = state.record.head.verdict as u32;
    if filter.points & (RECEIVED | point) == 0 || !filter.takes_verdict(verdict) {
        return;
    }
    take_turn(filter, state.record.head.time);
    if filter.points & RECEIVED != 0 {
        emit(state, RECEIVED);
    }
    if filter.points & point != 0 && (point != FORWARDED || copy(context, state, filter.snaplen)) {
        emit(state, point);
    }
}

#[inline(always)]
fn filter() -> Option<&'static Filter> {
    // SAFETY: a value of the map, which the daemon writes before the programs are attached.
    Some(unsafe { &*FILTER.get_ptr(0)? })
}

#[inline(always)]
fn state() -> Option<&'static mut State> {
    // SAFETY: a value of the map that belongs to this CPU.
    Some(unsafe { &mut *STATES.get_ptr_mut(0)? })
}

/// Whether the rate permits no frame yet.
#[inline(always)]
fn is_early(filter: &Filter, now: u64) -> bool {
    let Some(turn) = TURN.get_ptr(0) else {
        return true;
    };
    // SAFETY: a value of the map. Volatile, as other CPUs write it.
    let turn = unsafe { turn.read_volatile() };
    turn > now + filter.tolerance
}

/// Takes the place of a frame in the rate. When two CPUs do so at once, both have the same place.
#[inline(always)]
fn take_turn(filter: &Filter, now: u64) {
    if let Some(place) = TURN.get_ptr_mut(0) {
        // SAFETY: as in `is_early`.
        unsafe {
            let turn = place.read_volatile();
            let turn = if turn > now { turn } else { now };
            place.write_volatile(turn + filter.interval);
        }
    }
}

/// Whether the frame, of which the beginning was copied, has the wanted addresses.
#[inline(always)]
fn takes(filter: &Filter, state: &State) -> bool {
    let octets = &state.record.octets;
    let length = state.record.head.captured as usize;
    filter.takes_addresses(true, |at| {
        // Linux 6.12 loses the bound of a number that was compared and then lay in the stack.
        let place = masked::<{ LOOK as i32 - 1 }>(at);
        let octet = octets.get(place).filter(|_| at < length);
        octet.copied().unwrap_or(0)
    })
}

/// Copies at most `most` octets of the frame into the record.
#[inline(always)]
fn copy(context: &XdpContext, state: &mut State, most: u32) -> bool {
    let length = context.data_end() - context.data();
    let captured = if length < most as usize {
        length
    } else {
        most as usize
    };
    // The helper takes no length of zero, and verifiers before Linux 6.8 do not learn from a comparison with that. For an
    // empty frame the helper fails.
    let captured = masked::<{ SNAPLEN_MAX as i32 }>(captured.max(1) - 1) + 1;
    let record = &mut state.record;
    record.head.length = length as u32;
    record.head.captured = captured as u32;
    let octets = record.octets.as_mut_ptr().cast();
    // SAFETY: there is room for so many octets.
    unsafe { bpf_xdp_load_bytes(context.as_ptr().cast(), 0, octets, captured as u32) == 0 }
}

/// Gives the record to the daemon.
#[inline(always)]
fn emit(state: &mut State, point: u32) {
    state.record.head.point = point as u8;
    let octets = masked::<{ SNAPLEN_MAX as i32 }>(state.record.head.captured as usize);
    // SAFETY: the record has so many octets.
    let result = unsafe {
        bpf_ringbuf_output(
            (&raw const RECORDS).cast_mut().cast(),
            (&raw mut state.record).cast(),
            (size_of::<Head>() + octets) as u64,
            0,
        )
    };
    if result != 0 {
        state.lost += 1;
    }
}

/// The kernel gives the helpers that the programs need only to programs under a GPL-compatible
/// licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
