//! A filter for UDP sockets that moves short datagrams into a ring buffer. The daemon reads them
//! there without a system call, and the kernel keeps and frees no socket buffer for them.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "of the functions that the macro makes")]

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_hdr_start_off::BPF_HDR_START_NET,
    helpers::generated::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative},
    macros::{map, socket_filter},
    maps::{PerCpuArray, RingBuf},
    programs::SkBuffContext,
};
use teredo_common::{
    mailbox::{LONGEST, Letter, SIZE},
    wire::UDP_HEADER,
};

#[map]
static LETTERS: RingBuf = RingBuf::with_byte_size(SIZE, 0);
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The source address in an IPv4 header.
const SOURCE: u32 = 12;
/// Return value for a datagram that the socket keeps whole.
const KEEP: i64 = -1;
/// Return value for a datagram that the socket drops.
const DROP: i64 = 0;

/// Moves short datagrams, whose checksums the kernel has verified, to the ring buffer. A datagram
/// without room there is dropped, as by a full socket, which would cost more.
#[socket_filter]
pub fn mailbox(context: SkBuffContext) -> i64 {
    // From the UDP header on. In 64 bits, since the verifier loses the bounds of smaller numbers.
    let length = u64::from(context.len()).wrapping_sub(UDP_HEADER as u64);
    if length == 0 || length > LONGEST as u64 {
        return KEEP;
    }
    let Some(mut letter) = LETTERS.reserve::<Letter>(0) else {
        if let Some(lost) = LOST.get_ptr_mut(0) {
            // SAFETY: a value of the map that belongs to this CPU.
            unsafe { *lost += 1 };
        }
        return DROP;
    };
    let packet = context.as_ptr();
    // SAFETY: the letter has room for what is loaded into each of its fields.
    let is_whole = unsafe {
        let letter = letter.as_mut_ptr();
        (*letter).length = length as u16;
        let address = (&raw mut (*letter).source.address).cast();
        let port = (&raw mut (*letter).source.port).cast();
        let payload = (&raw mut (*letter).payload).cast();
        bpf_skb_load_bytes_relative(packet, SOURCE, address, 4, BPF_HDR_START_NET) == 0
            && bpf_skb_load_bytes(packet, 0, port, 2) == 0
            && bpf_skb_load_bytes(packet, UDP_HEADER as u32, payload, length as u32) == 0
    };
    if is_whole {
        letter.submit(0);
        DROP
    } else {
        letter.discard(0);
        KEEP
    }
}

/// The kernel gives the helpers that the program needs only to programs under a GPL-compatible
/// licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
