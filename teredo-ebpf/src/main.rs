//! The data path of a Teredo relay and server: IPv4 frames from trusted peers are decapsulated, IPv6
//! frames to them encapsulated, solicitations and bubbles to the server answered, and everything
//! else goes to the kernel as it came.
//!
//! Compiled for the host by lints only, which a panic handler of its own would make impossible.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![no_main]

mod atomic;
mod decap;
mod encap;
mod maps;
mod native;
mod outer;
mod packet;
mod peer;
mod respond;
mod route;
mod settings;
mod transport;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use aya_log_ebpf::debug;
use teredo_common::{
    verdict::{Action, Verdict},
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};

use crate::packet::Frame;

const IPV4: u16 = ETHERTYPE_IPV4.to_be();
const IPV6: u16 = ETHERTYPE_IPV6.to_be();

/// Translates or answers a frame or leaves it alone, and counts which.
#[xdp]
fn teredo(context: XdpContext) -> u32 {
    let frame = Frame::of(&context);
    let length = frame.length();
    let (verdict, action) = match translate(&context, frame) {
        Ok((verdict, interface)) => (verdict, route::send(&context, interface)),
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

/// The verdict on a frame that was translated or answered, with the interface to send it through, or the
/// reason why it was not.
#[inline(always)]
fn translate(context: &XdpContext, frame: Frame) -> Result<(Verdict, u32), Verdict> {
    let ethernet = frame.first::<14>().ok_or(Verdict::NotIp)?;
    let ethertype = ethernet.read::<u16, 12>();
    if ethertype != IPV4 && ethertype != IPV6 {
        return Err(Verdict::NotIp);
    }
    // An interface in promiscuous mode sees what the switch floods: such a frame is another
    // router's to forward, and forwarding it here too would send it twice. Testing the group bit
    // alone would not catch it. The array look-up takes 2 ns of some 40.
    if !maps::is_own_station(context.ingress_ifindex() as u32, ethernet) {
        return Err(Verdict::OtherStation);
    }
    if ethertype == IPV4 {
        if let Some(answer) = respond::respond(context, frame) {
            return answer;
        }
        if !settings::has_relay() {
            return Err(Verdict::RespondNotOurs);
        }
        decap::decapsulate(context, frame).map(|out| (Verdict::DecapForwarded, out))
    } else {
        if !settings::has_relay() {
            return Err(Verdict::NoRelay);
        }
        encap::encapsulate(context, frame).map(|out| (Verdict::EncapForwarded, out))
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
