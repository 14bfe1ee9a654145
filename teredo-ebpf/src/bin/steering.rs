//! The choice of the queue of a TUN interface for packets to peers: all packets to one peer get the same.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "of the functions that the macro makes")]

use aya_ebpf::{
    EbpfContext as _, bindings::bpf_hdr_start_off::BPF_HDR_START_NET,
    helpers::generated::bpf_skb_load_bytes_relative, macros::socket_filter,
    programs::SkBuffContext,
};
use teredo_common::{address::embedded_mapping, steering::share};

/// The destination address in an IPv6 header.
const DESTINATION: u32 = 24;

/// Returns the share of the peer that a packet is for. The kernel takes it modulo the number of queues.
#[socket_filter]
pub fn steering(context: SkBuffContext) -> i64 {
    let mut destination = [0; 16];
    // SAFETY: the array has room for what is loaded.
    let loaded = unsafe {
        let room = (&raw mut destination).cast();
        bpf_skb_load_bytes_relative(context.as_ptr(), DESTINATION, room, 16, BPF_HDR_START_NET)
    };
    match loaded {
        0 => share(embedded_mapping(&destination)).into(),
        // No IPv6 packet.
        _ => 0,
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
