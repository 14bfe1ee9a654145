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
use crate::environment::{Environment, Words as _};

/// Takes a token from the buckets of the source, of its network, and of everything, or from none of
/// them if one is empty.
#[inline(always)]
pub fn take_token(
    environment: &impl Environment,
    source: u32,
    now: Instant,
) -> Result<(), Verdict> {
    let limits = server::limits(environment);
    let address = source.to_ne_bytes();
    let of_source = environment
        .bucket(limits.source_slot(address))
        .ok_or(Verdict::RespondSourceLimit)?;
    let of_network = environment
        .bucket(limits.network_slot(address))
        .ok_or(Verdict::RespondNetworkLimit)?;
    let left = take(of_source.load(0), limits.source, now).ok_or(Verdict::RespondSourceLimit)?;
    let network_left =
        take(of_network.load(0), limits.network, now).ok_or(Verdict::RespondNetworkLimit)?;
    take_from_total(environment, now)?;
    of_source.store(0, left);
    of_network.store(0, network_left);
    Ok(())
}

/// Takes a token from this CPU's reserve, or from the bucket for everything.
#[inline(always)]
fn take_from_total(environment: &impl Environment, now: Instant) -> Result<(), Verdict> {
    let left = environment.reserve().ok_or(Verdict::RespondTotalLimit)?;
    if left > 0 {
        environment.set_reserve(left - 1);
        return Ok(());
    }
    let bucket = environment
        .bucket(TOTAL_SLOT)
        .ok_or(Verdict::RespondTotalLimit)?;
    let seen = bucket.load(0);
    let (new, spare) = match take(seen, server::chunk(environment), now) {
        Some(new) => (new, CHUNK - 1),
        None => (
            take(seen, server::limits(environment).total, now).ok_or(Verdict::RespondTotalLimit)?,
            0,
        ),
    };
    if !bucket.compare_exchange(0, seen, new) {
        // Another CPU was faster. That happens once in a chunk; one packet more does no harm, and
        // trying again might.
        return Ok(());
    }
    environment.set_reserve(spare);
    Ok(())
}
