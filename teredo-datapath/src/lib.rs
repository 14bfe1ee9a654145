//! The data path of a Teredo relay and server: IPv4 frames from trusted peers are decapsulated, IPv6
//! frames to them encapsulated, solicitations and bubbles to the server answered, and all
//! other frames go to the kernel unchanged.
//!
//! [`run`] decides about one frame, and [`run_thoroughly`] about the rare ones that it does not. They reach the
//! frame, the maps and the kernel through an [`Environment`], so that the XDP programs and tests on the host run
//! the same code.
//!
//! Everything is inlined into the XDP programs. The first versions of the kernel that run it verify each
//! function with nothing known about its arguments.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(not(target_arch = "bpf"))]
extern crate std;

mod budget;
mod decap;
mod encap;
mod environment;
mod frame;
mod headers;
#[cfg(feature = "host")]
pub mod host;
mod maps;
mod moment;
mod native;
mod outcome;
mod peer;
mod respond;
mod route;
mod settings;
mod sum;
#[cfg(not(target_arch = "bpf"))]
pub mod table;
mod thorough;
pub mod verifier;
pub mod words;

use core::hint::cold_path;

use teredo_common::verdict::{Action, Verdict};

pub use crate::{
    environment::{Environment, Publish, Way, Words},
    headers::Addresses,
    thorough::run as run_thoroughly,
};
use crate::{
    frame::Frame,
    headers::Ethernet,
    outcome::{Outcome, Sent},
};

/// The fate of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The kernel gets the frame, which is unchanged.
    Pass,
    /// Nobody gets the frame.
    Drop,
    /// The frame leaves by its ingress interface.
    Return,
    /// The frame leaves by the interface with this index.
    Redirect(u32),
}

/// Translates or answers the frame, or leaves it as it is, and counts the verdict.
#[inline(always)]
pub fn run(environment: &impl Environment) -> Fate {
    let frame = Frame::of(environment);
    let length = frame.length();
    let (verdict, fate) = match translate(environment, frame) {
        Ok(Sent { verdict, interface }) => (verdict, leave(environment, interface)),
        Err(verdict) => {
            cold_path();
            if is_preliminary(verdict)
                && let Some(fate) = environment.look_thoroughly()
            {
                return fate;
            }
            left(environment, verdict, length)
        }
    };
    environment.count(verdict, length as u64);
    fate
}

/// Returns the verdict and the fate of a frame that is as it came, of so many octets, for this reason.
#[inline(always)]
fn left(environment: &impl Environment, verdict: Verdict, length: usize) -> (Verdict, Fate) {
    let is_for_daemon = verdict.is_for_daemon();
    let fate = match verdict.action() {
        Action::Drop => Fate::Drop,
        Action::Forward | Action::Pass => Fate::Pass,
    };
    let left = (outcome::forget(verdict, length), fate);
    match is_for_daemon {
        true => match budget::exceeded(environment) {
            Some(verdict) => (outcome::forget(verdict, length), Fate::Drop),
            None => left,
        },
        false => left,
    }
}

/// Whether another verdict is possible if the frame is looked at thoroughly.
#[inline(always)]
const fn is_preliminary(verdict: Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Tagged
            | Verdict::DecapExtensionHeader
            | Verdict::DecapChecksum
            | Verdict::EncapExtensionHeader
            | Verdict::EncapChecksum
    )
}

/// Returns the fate of a frame that leaves by an interface.
#[inline(always)]
fn leave(environment: &impl Environment, interface: u32) -> Fate {
    match interface == environment.ingress() {
        true => Fate::Return,
        false => Fate::Redirect(interface),
    }
}

/// Dispatches on the protocol of the frame.
#[inline(always)]
fn translate(environment: &impl Environment, frame: Frame) -> Outcome {
    let ethernet = Ethernet::of(frame).ok_or(Verdict::NotIp)?;
    let is_ipv4 = ethernet.is_ipv4();
    if !is_ipv4 && !ethernet.is_ipv6() {
        return Err(match ethernet.is_tagged() {
            true => Verdict::Tagged,
            false => Verdict::NotIp,
        });
    }
    // An interface in promiscuous mode sees frames that the switch floods. Such a frame is another
    // router's to forward, and forwarding it here too would send it twice. Testing the group bit
    // alone would not catch it. The array look-up takes 2 ns of some 40.
    if !maps::is_own_station(environment, ethernet) {
        return Err(Verdict::OtherStation);
    }
    if is_ipv4 {
        if respond::server::is_enabled(environment) {
            match respond::respond(environment, frame) {
                Err(Verdict::RespondNotOurs) if settings::has_relay(environment) => {}
                outcome => return outcome,
            }
        } else if !settings::has_relay(environment) {
            return Err(Verdict::RespondNotOurs);
        }
        decap::decapsulate(environment, frame)
    } else if settings::has_relay(environment) {
        encap::encapsulate(environment, frame)
    } else {
        Err(Verdict::NoRelay)
    }
}
