//! A thorough look at a frame that the usual look leaves to the kernel, but for something rare: VLAN tags on the way
//! in or out, extension headers, a checksum that takes a walk over the packet.
//!
//! The tags of a frame that came for a VLAN interface of this host are taken out of it. Then the same code decides
//! that decides about other frames, as if the frame had come by the VLAN interface; and the tags are put back if
//! the kernel is to have it. The kernel's routes lead to VLAN interfaces, which XDP cannot send to. So a frame
//! that is to leave by one gets its tags, and leaves by the interface below.
//!
//! The code of the usual look is here once more, with what it leaves out, in a program of its own, so that other
//! frames do not pay for it.

use teredo_common::{
    verdict::{Direction, Verdict},
    vlan::{TAG, TAGS_MAX, Tags, Trunk},
};

use crate::{
    Fate,
    environment::Environment,
    frame::Frame,
    headers::{ADDRESSES, Addresses, is_tag},
    leave, left, maps,
    outcome::Sent,
    translate,
    verifier::forget_number,
};

/// Octets of room in front of a translated frame.
const ROOM: usize = TAGS_MAX * TAG;

/// Translates or answers a frame that [`crate::run`] has left as it came, or leaves it so, too, and counts the
/// verdict.
#[inline(always)]
pub fn run(environment: &impl Environment) -> Fate {
    // A type of its own, so that the compiler inlines what is called once in each program.
    let environment = &environment.thorough(environment.ingress());
    let length = Frame::of(environment).length();
    let (result, tags) = look(environment);
    let (verdict, fate) = match result {
        Ok(sent) => sent,
        Err(verdict) => {
            let Tags(tags) = tags;
            let tags = Tags(tags.map(|tag| forget_number(tag, length)));
            let (verdict, fate) = left(environment, verdict, length);
            match tags == Tags::NONE || insert(environment, tags) {
                true => (verdict, fate),
                false => (verdict, Fate::Drop),
            }
        }
    };
    environment.count(verdict, length as u64);
    fate
}

/// Returns a frame's verdict and its fate, or the reason why it is as it came, but for the tags that were taken
/// out of it.
#[inline(always)]
fn look<E: Environment>(environment: &E) -> (Result<(Verdict, Fate), Verdict>, Tags) {
    let as_it_came = (Err(Verdict::Tagged), Tags::NONE);
    let tags = tags_of(Frame::of(environment));
    let mut ingress = environment.ingress();
    if tags != Tags::NONE {
        let trunk = Trunk {
            interface: ingress,
            tags: tags.without_priority(),
        };
        let Some(vlan) = environment.vlan(trunk) else {
            return as_it_came;
        };
        environment.count_vlan_frame();
        if !remove(environment, tags) {
            return as_it_came;
        }
        ingress = vlan;
    }
    let unknown = Frame::of(environment).length();
    let Tags(tags) = tags;
    let tags = Tags(tags.map(|tag| forget_number(tag, unknown)));
    let vlan = environment.thorough(forget_number(ingress, unknown));
    match translate(&vlan, Frame::of(&vlan)) {
        Ok(sent) => (send(environment, sent), Tags::NONE),
        Err(verdict) => (Err(verdict), tags),
    }
}

/// Puts tags into a frame: those that were taken out of it, or those that it leaves with. Returns whether there
/// was room, as there is.
#[inline(always)]
fn insert(environment: &impl Environment, tags: Tags) -> bool {
    let Tags([outer, inner]) = tags;
    (inner == 0 || insert_one(environment, inner)) && insert_one(environment, outer)
}

/// Moves the start of a frame that is about to be written, with room in front of it for the tags that it may leave
/// with. Otherwise as [`Environment::move_start`].
#[inline(always)]
pub fn move_start<E: Environment>(environment: &E, delta: i32) -> bool {
    match E::IS_THOROUGH {
        true => environment.move_start(delta - ROOM as i32) && environment.move_start(ROOM as i32),
        false => environment.move_start(delta),
    }
}

/// Returns the tags of a frame. There may be more than that after the second.
#[inline(always)]
fn tags_of(frame: Frame) -> Tags {
    let Some(start) = frame.first::<{ ADDRESSES + 2 * TAG }>() else {
        return Tags::NONE;
    };
    if !is_tag(start.read::<u16, ADDRESSES>()) {
        return Tags::NONE;
    }
    let inner = match is_tag(start.read::<u16, { ADDRESSES + TAG }>()) {
        true => start.read::<u32, { ADDRESSES + TAG }>(),
        false => 0,
    };
    Tags([start.read::<u32, ADDRESSES>(), inner])
}

/// Takes the tags of a frame out of it.
#[inline(always)]
fn remove(environment: &impl Environment, Tags([_, inner]): Tags) -> bool {
    let Some(start) = Frame::of(environment).first::<ADDRESSES>() else {
        return false;
    };
    let addresses = Addresses::read(start);
    let octets = if inner == 0 { TAG } else { 2 * TAG };
    if !environment.move_start(octets as i32) {
        return false;
    }
    match Frame::of(environment).first::<ADDRESSES>() {
        Some(start) => {
            addresses.write(start);
            true
        }
        None => false,
    }
}

/// Puts a tag into a frame, in front of others.
#[inline(always)]
fn insert_one(environment: &impl Environment, tag: u32) -> bool {
    let Some(start) = Frame::of(environment).first::<ADDRESSES>() else {
        return false;
    };
    let addresses = Addresses::read(start);
    if !environment.move_start(-(TAG as i32)) {
        return false;
    }
    let Some(start) = Frame::of(environment).first::<{ ADDRESSES + TAG }>() else {
        return false;
    };
    addresses.write(start.part::<0, ADDRESSES>());
    start.write::<u32, ADDRESSES>(tag);
    true
}

/// Gives a frame to the interface that it leaves by, with the tags that it needs there.
#[inline(always)]
fn send<E: Environment>(environment: &E, sent: Sent) -> Result<(Verdict, Fate), Verdict> {
    let interface = match maps::trunk(environment, sent.interface) {
        Some(trunk) if insert(environment, trunk.tags) => trunk.interface,
        Some(_) => {
            return Err(match sent.verdict.direction() {
                Some(Direction::Decap) => Verdict::DecapAborted,
                Some(Direction::Encap) => Verdict::EncapAborted,
                _ => Verdict::RespondAborted,
            });
        }
        None => sent.interface,
    };
    Ok((sent.verdict, leave(environment, interface)))
}
