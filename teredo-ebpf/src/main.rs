//! The data path of a Teredo relay and server: IPv4 frames from trusted peers are decapsulated, IPv6
//! frames to them encapsulated, solicitations and bubbles to the server answered, and all
//! other frames go to the kernel unchanged.
//!
//! Lints compile it for the host, which has a panic handler already.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![no_main]

mod atomic;
mod decap;
mod encap;
mod frame;
mod headers;
mod maps;
mod native;
mod outcome;
mod peer;
mod respond;
mod route;
mod settings;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use aya_log_ebpf::debug;
use teredo_common::verdict::{Action, Verdict};

use crate::{
    frame::Frame,
    headers::Ethernet,
    outcome::{Outcome, Sent},
};

/// Translates or answers a frame, or leaves it as it is, and counts the verdict.
#[xdp]
fn teredo(context: XdpContext) -> u32 {
    let frame = Frame::of(&context);
    let length = frame.length();
    let (verdict, action) = match translate(&context, frame) {
        Ok(Sent { verdict, interface }) => (verdict, route::send(&context, interface)),
        Err(verdict) => {
            debug!(
                &context,
                "verdict {} on {} octets", verdict as u32, length as u64
            );
            let action = match verdict.action() {
                Action::Drop => xdp_action::XDP_DROP,
                Action::Forward | Action::Pass => xdp_action::XDP_PASS,
            };
            (verdict, action)
        }
    };
    maps::count(verdict, length);
    action
}

/// Dispatches on the protocol of the frame.
#[inline(always)]
fn translate(context: &XdpContext, frame: Frame) -> Outcome {
    let ethernet = Ethernet::of(frame).ok_or(Verdict::NotIp)?;
    let is_ipv4 = ethernet.is_ipv4();
    if !is_ipv4 && !ethernet.is_ipv6() {
        return Err(Verdict::NotIp);
    }
    // An interface in promiscuous mode sees frames that the switch floods. Such a frame is another
    // router's to forward, and forwarding it here too would send it twice. Testing the group bit
    // alone would not catch it. The array look-up takes 2 ns of some 40.
    if !maps::is_own_station(context.ingress_ifindex() as u32, ethernet) {
        return Err(Verdict::OtherStation);
    }
    if is_ipv4 {
        match respond::respond(context, frame) {
            Err(Verdict::RespondNotOurs) if settings::has_relay() => {
                decap::decapsulate(context, frame)
            }
            outcome => outcome,
        }
    } else if settings::has_relay() {
        encap::encapsulate(context, frame)
    } else {
        Err(Verdict::NoRelay)
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
