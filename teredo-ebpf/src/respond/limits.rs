//! The rate limits of the server's answers (requirement S-23): token buckets that the daemon's server
//! uses, too.
//!
//! A bucket is written with a plain store. Two CPUs that answer the same source or network at the
//! same moment may both find the token that only one should have; it happens seldom, as the
//! receive queue of a NIC is chosen by the source.

use teredo_common::{
    limiter::{TOTAL_SLOT, take},
    respond::CHUNK,
    time::Instant,
    verdict::Verdict,
};

use super::server;
use crate::{atomic::compare_exchange, maps};

/// Takes a token from the buckets of the source, of its network, and of everything, or from none of
/// them if one is empty.
#[inline(always)]
pub fn take_token(source: u32, now: Instant) -> Result<(), Verdict> {
    let limits = server::limits();
    let address = source.to_ne_bytes();
    let of_source = maps::bucket(limits.source_slot(address)).ok_or(Verdict::RespondSourceLimit)?;
    let of_network =
        maps::bucket(limits.network_slot(address)).ok_or(Verdict::RespondNetworkLimit)?;
    // SAFETY: values of the map. Volatile, as other CPUs and the daemon write them.
    let (seen, seen_network) = unsafe { (of_source.read_volatile(), of_network.read_volatile()) };
    let left = take(seen, limits.source, now).ok_or(Verdict::RespondSourceLimit)?;
    let network_left =
        take(seen_network, limits.network, now).ok_or(Verdict::RespondNetworkLimit)?;
    take_from_total(now)?;
    // SAFETY: as above.
    unsafe {
        of_source.write_volatile(left);
        of_network.write_volatile(network_left);
    }
    Ok(())
}

/// Takes a token from this CPU's reserve, or from the bucket for everything.
#[inline(always)]
fn take_from_total(now: Instant) -> Result<(), Verdict> {
    let reserve = maps::reserve().ok_or(Verdict::RespondTotalLimit)?;
    // SAFETY: a value of the map that belongs to this CPU.
    let left = unsafe { reserve.read() };
    if left > 0 {
        // SAFETY: as above.
        unsafe { reserve.write(left - 1) };
        return Ok(());
    }
    let bucket = maps::bucket(TOTAL_SLOT).ok_or(Verdict::RespondTotalLimit)?;
    // SAFETY: a value of the map. Volatile, as other CPUs and the daemon write it.
    let seen = unsafe { bucket.read_volatile() };
    let (new, spare) = match take(seen, server::chunk(), now) {
        Some(new) => (new, CHUNK - 1),
        None => (
            take(seen, server::limits().total, now).ok_or(Verdict::RespondTotalLimit)?,
            0,
        ),
    };
    // SAFETY: the bucket is in a value of the map, aligned to eight octets.
    if !unsafe { compare_exchange(bucket, seen, new) } {
        // Another CPU was faster. That happens once in a chunk; one packet more does no harm, and
        // trying again might.
        return Ok(());
    }
    // SAFETY: as above.
    unsafe { reserve.write(spare) };
    Ok(())
}
