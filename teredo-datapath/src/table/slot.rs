//! One slot.

use teredo_common::{
    peers::{Peer, SLOT, SLOTS, Slot, Stamps},
    time::Instant,
};

use crate::{
    Publish, Words,
    words::{SLOT_ADDRESS, SLOT_MAPPED, SLOT_STAMPS, join, split},
};

/// Returns the words of a slot in its line.
pub fn of<W: Words>(line: W, number: u32) -> W {
    line.from(number as usize % SLOTS * SLOT)
}

/// Returns the contents of a slot. Each word is read at once, but not all of them together.
pub fn read(slot: impl Words) -> Slot {
    let words: [u64; SLOT] = core::array::from_fn(|index| slot.load(index));
    bytemuck::cast(words)
}

/// Returns the peer in a slot.
pub fn peer(slot: &Slot, now: Instant) -> Peer {
    let (last_received, last_sent) = slot.stamps.times(now);
    Peer {
        mapped: slot.mapped,
        last_received,
        last_sent,
    }
}

/// Puts a peer into an empty slot.
pub fn fill(slot: impl Publish, address: &[u8; 16], peer: &Peer, Stamps(stamps): Stamps) {
    let [first, second] = bytemuck::cast(*address);
    slot.publish(SLOT_ADDRESS, first);
    slot.publish(SLOT_ADDRESS + 1, second);
    change_stamps(slot, |_| stamps & !Stamps::ELSEWHERE);
    set_mapped(slot, peer);
}

/// Empties a slot.
pub fn clear(slot: impl Publish) {
    set_mapped(slot, &Peer::default());
    slot.publish(SLOT_ADDRESS, 0);
    slot.publish(SLOT_ADDRESS + 1, 0);
}

/// Replaces the mapping of the peer in a slot, and advances its stamps.
pub fn replace(slot: impl Publish, peer: &Peer, stamps: Stamps, now: Instant) {
    if read(slot).mapped != peer.mapped {
        set_mapped(slot, peer);
    }
    advance(slot, stamps, now);
}

/// Advances the stamps of a peer.
pub fn advance(slot: impl Publish, stamps: Stamps, now: Instant) {
    change_stamps(slot, |old| Stamps(old).latest(stamps, now).0);
}

/// Replaces the mapping, and counts the change.
fn set_mapped(slot: impl Publish, peer: &Peer) {
    let old = read(slot);
    let new = Slot {
        mapped: peer.mapped,
        count: old.count.wrapping_add(1),
        ..old
    };
    let words: [u64; SLOT] = bytemuck::cast(new);
    slot.publish(SLOT_MAPPED, words[SLOT_MAPPED]);
}

/// Replaces the stamps, which the program may change meanwhile.
fn change_stamps(slot: impl Publish, change: impl Fn(u32) -> u32) {
    loop {
        let seen = slot.load(SLOT_STAMPS);
        let (reserved, stamps) = split(seen);
        let new = join(reserved, change(stamps));
        if new == seen || slot.compare_exchange(SLOT_STAMPS, seen, new) {
            return;
        }
    }
}
