//! The XDP programs of a Teredo relay and server: the data path of [`teredo_datapath`] with the kernel's
//! frames, maps and helpers. The kernel runs `teredo` on every frame, and that `thorough` on rare ones.
//!
//! Lints compile it for the host, which has a panic handler already.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![no_main]

mod constants;
mod kernel;
mod look_up;
mod maps;
mod words;

use aya_ebpf::{bindings::xdp_action, helpers, macros::xdp, programs::XdpContext};
use teredo_common::verdict::Verdict;
use teredo_datapath::Fate;

use crate::kernel::Kernel;

/// Translates or answers a frame, or leaves it as it is, and counts the verdict.
#[xdp]
#[inline(always)]
fn teredo(context: XdpContext) -> u32 {
    match Kernel::new(&context) {
        Some(kernel) => action(teredo_datapath::run(&kernel)),
        None => xdp_action::XDP_PASS,
    }
}

/// Does the same for a frame that the program above has left to it.
#[xdp]
#[inline(always)]
fn thorough(context: XdpContext) -> u32 {
    match Kernel::new(&context) {
        Some(kernel) => action(teredo_datapath::run_thoroughly(&kernel)),
        None => xdp_action::XDP_PASS,
    }
}

/// Takes notice of a verdict, which only the build that captures has a use for.
#[inline(always)]
const fn note(_verdict: Verdict) {}

/// Returns what the kernel is to do with a frame.
#[inline(always)]
fn action(fate: Fate) -> u32 {
    match fate {
        Fate::Pass => xdp_action::XDP_PASS,
        Fate::Drop => xdp_action::XDP_DROP,
        Fate::Return => xdp_action::XDP_TX,
        // SAFETY: numbers only.
        Fate::Redirect(interface) => unsafe { helpers::bpf_redirect(interface, 0) as u32 },
    }
}

/// The kernel gives the helpers that the program needs only to programs under a GPL-compatible
/// licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
