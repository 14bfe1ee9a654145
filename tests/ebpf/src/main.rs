//! The benchmark's XDP programs.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "of the functions that the macro makes")]

use core::hint::black_box;

use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_STOLEN, xdp_action},
    helpers::generated::{bpf_ktime_get_ns, bpf_redirect, bpf_skb_vlan_push, bpf_xdp_adjust_head},
    macros::{classifier, map, xdp},
    maps::{Array, PerCpuArray, ProgramArray},
    programs::{TcContext, XdpContext},
};
use teredo_common::wire::{
    ENCAPSULATION, ETHERNET_HEADER, ETHERTYPE_VLAN, IPV6_HEADER, UDP, UDP_HEADER,
};
use teredo_lab_ebpf::{
    AGAIN, Count, FIRST_CLIENT, FORGED_PORTS, Flow, HEADERS, NATIVE_HEADERS, TAG, UNIT,
    bubble::{self, BUBBLE},
    flood::{FRAME, Flood, Progress},
    latency::{BUCKETS, ROOM, bucket},
    numbers::{self, Sequence},
    scatter,
    sift::{self, FATES, Fate},
    spray::{self, Spray},
};

/// The generator's parameters.
#[map]
static FLOW: Array<Flow> = Array::with_max_entries(1, 0);

/// The parameters of [`flood`].
#[map]
static FLOOD: Array<Flood> = Array::with_max_entries(1, 0);

/// The progress of the generator.
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

/// The rounds of [`calculate`] for each frame in [`translate`].
#[unsafe(no_mangle)]
static ROUNDS: u32 = 0;

/// The table of [`translate`]: an entry for each forged client, at [`scattered`](scatter::scattered) of its index.
#[map]
static TRANSLATIONS: Array<[u32; 4]> = Array::with_max_entries(1, 0);

/// The places of that table which are in use, a power of two, less one.
#[map]
static LAST_TRANSLATION: Array<u32> = Array::with_max_entries(1, 0);

/// The networks of [`LIMITS`], less one.
const LAST_NETWORK: u32 = 0x7fff;

/// The token buckets of [`advertise`]: a line of the processor's caches for each network of 24 bits.
#[map]
static LIMITS: Array<[u64; 8]> = Array::with_max_entries(LAST_NETWORK + 1, 0);

/// The client of the next frame, or its place in the list; the native host; the number of frames that
/// the client has sent of its train.
#[map]
static TURN: Array<u32> = Array::with_max_entries(3, 0);

/// The list of turns.
#[map]
static ORDER: Array<u32> = Array::with_max_entries(1, 0);

/// The least nanoseconds from one frame of the generator to the next; 0 is as fast as it can. Then the
/// number of frames that it sends at this pace.
#[map]
static PACE: Array<u64> = Array::with_max_entries(2, 0);

/// Whether the sink answers bubbles; [`Flow::TIMES`] or [`Flow::NUMBERS`], if it reads them.
#[map]
static DUTIES: Array<u32> = Array::with_max_entries(2, 0);

/// The histogram of latencies.
#[map]
static LATENCIES: PerCpuArray<u64> = PerCpuArray::with_max_entries(BUCKETS, 0);

/// A bit for each number that the sink has seen, in parts, of which the loader says how many there are.
#[map]
static SEEN: PerCpuArray<[u64; numbers::WORDS]> = PerCpuArray::with_max_entries(1, 0);

/// The order of the numbers.
#[map]
static SEQUENCE: PerCpuArray<Sequence> = PerCpuArray::with_max_entries(1, 0);

/// The counters of the sink.
#[map]
static COUNT: PerCpuArray<Count> = PerCpuArray::with_max_entries(1, 0);

/// The program that [`rewind`] measures.
#[map]
static MEASURED: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Turns the frame into the next client's and sends it.
#[xdp]
pub fn generate(context: XdpContext) -> u32 {
    let (Some(flow), Some(progress)) = (FLOW.get(0), PROGRESS.get_ptr_mut(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the entry exists while the program does, and one generator runs at a time.
    let progress = unsafe { &mut *progress };
    progress.runs += 1;
    match has_turn(progress) {
        false => xdp_action::XDP_DROP,
        true if write_next(flow, &context).is_some() => {
            // SAFETY: the helper takes any interface index.
            unsafe { bpf_redirect(flow.interface, 0) as u32 }
        }
        true => xdp_action::XDP_ABORTED,
    }
}

/// Whether the generator's next frame is due.
#[inline(always)]
fn has_turn(progress: &mut Progress) -> bool {
    let Some(&interval) = PACE.get(0) else {
        return false;
    };
    if interval == 0 {
        return true;
    }
    let Some(&most) = PACE.get(1) else {
        return false;
    };
    if progress.sent >= most || !is_due(progress, interval as u32, Progress::CATCH_UP) {
        return false;
    }
    progress.sent += 1;
    true
}

/// Turns the frame into the flood's next and sends it when it is due.
#[xdp]
pub fn flood(context: XdpContext) -> u32 {
    let (Some(flood), Some(progress)) = (FLOOD.get(0), PROGRESS.get_ptr_mut(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the entry exists while the program does, and one generator runs at a time.
    let progress = unsafe { &mut *progress };
    progress.runs += 1;
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
    progress.runs += 1;
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

/// The length of the frame of [`again`], in octets; then its first octets.
#[map]
static REPEATED: Array<[u64; 1 + AGAIN / 8]> = Array::with_max_entries(1, 0);

/// Restores the frame, whatever the previous run has made of its start, and calls the measured program.
#[xdp]
pub fn again(context: XdpContext) -> u32 {
    let Some(words) = REPEATED.get(0) else {
        return xdp_action::XDP_ABORTED;
    };
    // Hidden from the compiler, which would do arithmetic on pointers that the verifier refuses.
    let length = black_box(context.data_end() - context.data());
    let grown = length as i64 - words[0] as i64;
    // SAFETY: the helper checks the length; the context is valid.
    if grown != 0 && unsafe { bpf_xdp_adjust_head(context.ctx, grown as i32) } != 0 {
        return xdp_action::XDP_ABORTED;
    }
    let start = context.data();
    if start + AGAIN > context.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    for index in 0..AGAIN / 8 {
        // SAFETY: within the frame, as just checked; the machine loads and stores at any address.
        unsafe {
            (start as *mut u64)
                .add(index)
                .write_volatile(words[1 + index])
        };
    }
    // SAFETY: no value here has a destructor.
    unsafe { MEASURED.tail_call(&context, 0) };
    xdp_action::XDP_ABORTED
}

/// Measures the cost of [`rewind`] or [`again`] itself.
#[xdp]
pub fn nothing(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// A fixed work of some hundred nanoseconds, which times are compared with: steps that each need the
/// result of the one before.
#[xdp]
pub fn reference(context: XdpContext) -> u32 {
    const STEPS: u32 = 100;
    let mut state = (context.data_end() - context.data()) as u64;
    for _ in 0..STEPS {
        state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state ^= state >> 29;
    }
    // The action depends on all steps, so that none is left out.
    match state {
        0 => xdp_action::XDP_ABORTED,
        _ => xdp_action::XDP_REDIRECT,
    }
}

/// The least work of a forwarder.
#[xdp]
pub fn forward(_context: XdpContext) -> u32 {
    redirect()
}

/// Sends the frame out of the other interface.
#[inline(always)]
fn redirect() -> u32 {
    // SAFETY: `TARGET` is initialised; the loader sets it in the object's read-only data, which the
    // compiler must not know.
    let target = unsafe { (&raw const TARGET).read_volatile() };
    // SAFETY: the helper takes any interface index.
    unsafe { bpf_redirect(target, 0) as u32 }
}

/// Does arithmetic that nobody needs, of some 26 instructions in a round.
#[inline(always)]
fn calculate(seed: u32, rounds: u32) {
    let mut numbers = [0, 1, 2, 3].map(|number| u64::from(seed) + number);
    for _ in 0..rounds {
        for number in &mut numbers {
            *number ^= *number << 13;
            *number ^= *number >> 7;
        }
    }
    let [a, b, c, d] = numbers;
    black_box(a ^ b ^ c ^ d);
}

/// The least work of a relay: finds the client's entry, which is where no search is needed, takes the headers from it,
/// and sends. It checks nothing, and computes no checksum.
#[xdp]
pub fn translate(context: XdpContext) -> u32 {
    /// Offset of the client's mapped address in frames from a client.
    const MAPPED: usize = ETHERNET_HEADER + 12;
    /// Offset of the same with all bits inverted, in frames to a client.
    const OBFUSCATED: usize = ETHERNET_HEADER + IPV6_HEADER - 4;
    let (start, end) = (context.data(), context.data_end());
    if start + NATIVE_HEADERS > end {
        return xdp_action::XDP_ABORTED;
    }
    let is_from_client = is_ipv4(start, end);
    // SAFETY: both places lie within the frame, as just checked; the kernel's machines that run XDP programs natively
    // need no alignment.
    let mapped = unsafe {
        match is_from_client {
            true => u32::from_be(*((start + MAPPED) as *const u32)),
            false => !u32::from_be(*((start + OBFUSCATED) as *const u32)),
        }
    };
    let Some(&last) = LAST_TRANSLATION.get(0) else {
        return xdp_action::XDP_ABORTED;
    };
    let place = scatter::scattered(mapped.wrapping_sub(FIRST_CLIENT), last);
    let Some(entry) = TRANSLATIONS.get(place) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: a constant, which is volatile because the compiler must not use the initial value.
    calculate(mapped, unsafe { (&raw const ROUNDS).read_volatile() });
    let (grown, headers) = match is_from_client {
        true => (ENCAPSULATION as i32, ETHERNET_HEADER),
        false => (-(ENCAPSULATION as i32), ETHERNET_HEADER + ENCAPSULATION),
    };
    // SAFETY: the helper checks the length; the context is valid.
    if unsafe { bpf_xdp_adjust_head(context.ctx, grown) } != 0 {
        return xdp_action::XDP_ABORTED;
    }
    let start = context.data();
    if start + ETHERNET_HEADER + ENCAPSULATION > context.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    for word in 0..headers / 2 {
        // SAFETY: within the frame, as just checked; as above.
        unsafe { ((start as *mut u16).add(word)).write_volatile(entry[word % 4] as u16) };
    }
    redirect()
}

/// The least work of a program that answers: every frame goes back unchanged.
#[xdp]
pub fn reflect(_context: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// The least work of a server: finds the client's token bucket and takes one, makes the frame as long as a router
/// advertisement and writes all of it, with the client's addresses. It checks nothing, and computes no checksum.
#[xdp]
pub fn advertise(context: XdpContext) -> u32 {
    /// Octets of an advertisement with a nonce, an origin indication and the MTU.
    const ADVERTISEMENT: usize = FRAME + 56;
    /// The words of a solicitation up to the ports, which are repeated.
    const REPEATED: usize = 5;
    /// Offset of the client's mapped address.
    const MAPPED: usize = ETHERNET_HEADER + 12;
    let (start, end) = (context.data(), context.data_end());
    if start + FRAME > end {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: within the frame, as just checked; the kernel's machines that run XDP programs natively need no alignment.
    let mapped = unsafe { u32::from_be(((start + MAPPED) as *const u32).read_unaligned()) };
    // SAFETY: as above.
    let repeated: [u64; REPEATED] =
        core::array::from_fn(|word| unsafe { (start as *const u64).add(word).read_unaligned() });
    let network = scatter::scattered((mapped >> 8) & LAST_NETWORK, LAST_NETWORK);
    let Some(buckets) = LIMITS.get_ptr_mut(network) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: within the entry; one program writes there.
    unsafe { (*buckets)[mapped as usize % 8] += 1 };
    // SAFETY: the helper checks the length; the context is valid.
    if unsafe { bpf_xdp_adjust_head(context.ctx, FRAME as i32 - ADVERTISEMENT as i32) } != 0 {
        return xdp_action::XDP_ABORTED;
    }
    let start = context.data();
    if start + ADVERTISEMENT > context.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    for word in 0..ADVERTISEMENT.div_ceil(8) {
        let written = repeated.get(word).copied();
        let place = start + (word * 8).min(ADVERTISEMENT - 8);
        // SAFETY: within the frame, as just checked; as above.
        unsafe { (place as *mut u64).write_unaligned(written.unwrap_or(mapped.into())) };
    }
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
    if start + NEXT_HEADER + ENCAPSULATION + TAG + 1 > end {
        return xdp_action::XDP_PASS;
    }
    // SAFETY: the Ethernet header lies within the frame, as just checked, at an even address.
    let is_tagged = unsafe { *((start + 12) as *const u16) } == ETHERTYPE_VLAN.to_be();
    let tag = if is_tagged { TAG } else { 0 };
    let octets = end - start - ETHERNET_HEADER - tag;
    let extra = octets & (UNIT as usize - 1);
    let at = NEXT_HEADER + tag + extra;
    if extra != 0 && extra != ENCAPSULATION {
        return answer(&context);
    }
    // SAFETY: the place lies within the frame, as just checked.
    if unsafe { *((start + at) as *const u8) } != UDP {
        return xdp_action::XDP_PASS;
    }
    match DUTIES.get(1) {
        Some(&Flow::TIMES) => note_latency(start + at - 6, end),
        Some(&Flow::NUMBERS) => note_number(start + at - 6, end),
        _ => {}
    }
    count();
    xdp_action::XDP_DROP
}

/// Returns what the packet carries whose IPv6 header is at `start`.
#[inline(always)]
fn stamp(start: usize, end: usize) -> Option<u32> {
    let stamp = start + IPV6_HEADER + UDP_HEADER;
    // SAFETY: the stamp lies within the frame, as is checked; the kernel's machines that run XDP
    // programs natively need no alignment.
    (stamp + 4 <= end).then(|| unsafe { *(stamp as *const u32) })
}

/// Notes the number of the packet whose IPv6 header is at `start`.
#[inline(always)]
fn note_number(start: usize, end: usize) {
    let Some(number) = stamp(start, end) else {
        return;
    };
    let (part, word, bit) = numbers::place(number);
    if let (Some(part), Some(sequence)) = (SEEN.get_ptr_mut(part), SEQUENCE.get_ptr_mut(0)) {
        // SAFETY: the pointers are to this CPU's entries, and a program is not preempted by another
        // run of itself on the same CPU.
        unsafe {
            (*part)[word] |= bit;
            (*sequence).add(number);
        }
    }
}

/// Adds the latency of the packet whose IPv6 header is at `start` to the histogram.
#[inline(always)]
fn note_latency(start: usize, end: usize) {
    let Some(sent) = stamp(start, end) else {
        return;
    };
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() } as u32;
    if let Some(count) = LATENCIES.get_ptr_mut(bucket(now.wrapping_sub(sent))) {
        // SAFETY: the pointer is to this CPU's entry, and a program is not preempted by another
        // run of itself on the same CPU.
        unsafe { *count += 1 };
    }
}

/// Lets the client answer a bubble of the relay, if that is the sink's duty.
#[inline(always)]
fn answer(context: &XdpContext) -> u32 {
    let (start, end) = (context.data(), context.data_end());
    if start + BUBBLE > end || !matches!(DUTIES.get(0), Some(1)) {
        return xdp_action::XDP_PASS;
    }
    // SAFETY: the frame is as long as that, as just checked; the kernel's machines that run XDP
    // programs natively need no alignment. The helper takes any interface index.
    unsafe {
        match bubble::answer(start as *mut u8) {
            true => bpf_redirect((*context.ctx).ingress_ifindex, 0) as u32,
            false => xdp_action::XDP_PASS,
        }
    }
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
    let (start, end) = (context.data(), context.data_end());
    if flow.tagged == 0 {
        return write_at(flow, start, end);
    }
    if start + TAG > end {
        return None;
    }
    // SAFETY: the words lie within the frame, as just checked; frames start at an even address.
    unsafe { flow.write_front(start as *mut u16) };
    write_at(flow, start + TAG, end)
}

/// Writes the headers of the next client into the frame without its tag.
#[inline(always)]
fn write_at(flow: &Flow, start: usize, end: usize) -> Option<()> {
    let headers = match flow.direction {
        Flow::DECAP => HEADERS,
        _ => NATIVE_HEADERS,
    };
    // SAFETY: the entries exist while the program does, and one generator runs at a time. The
    // headers lie within the frame, as is checked; frames start at an even address.
    unsafe {
        if flow.direction == Flow::DECAP {
            if start + HEADERS > end {
                return None;
            }
            flow.write::<{ Flow::DECAP }>(take_turn(flow)?, start as *mut u16);
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
            flow.write::<{ Flow::ENCAP }>(take_turn(flow)?, start as *mut u16);
        }
    }
    if flow.stamped != 0 {
        let stamp = match flow.stamped {
            Flow::NUMBERS => {
                // SAFETY: the entry exists while the program does, and one generator runs at a time.
                let sent = unsafe { (*PROGRESS.get_ptr(0)?).sent };
                // It counts this one already.
                sent.wrapping_sub(1) as u32
            }
            // SAFETY: the helper takes nothing.
            _ => unsafe { bpf_ktime_get_ns() as u32 },
        };
        write_stamp(stamp, start + headers, end)?;
    }
    Some(())
}

/// Returns the client of the frame, and makes the next one the next frame's.
#[inline(always)]
fn take_turn(flow: &Flow) -> Option<u32> {
    let turn = TURN.get_ptr_mut(0)?;
    // SAFETY: the entries exist while the program does, and one generator runs at a time.
    unsafe {
        if flow.listed != 0 {
            let client = *ORDER.get(*turn)?;
            *turn = (*turn + 1) & (flow.listed - 1);
            return Some(client);
        }
        let client = flow.first + *turn;
        if flow.train > 1 {
            let sent = TURN.get_ptr_mut(2)?;
            *sent += 1;
            if *sent < flow.train {
                return Some(client);
            }
            *sent = 0;
        }
        *turn = flow.next(*turn);
        Some(client)
    }
}

/// Writes the time or the number into the payload at `start`.
#[inline(always)]
fn write_stamp(stamp: u32, start: usize, end: usize) -> Option<()> {
    if start + ROOM.len() > end {
        return None;
    }
    // SAFETY: the octets lie within the frame, as just checked.
    unsafe {
        *(start as *mut u32) = stamp;
        *((start + 4) as *mut u32) = !stamp;
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
