//! The host of our client.

use std::net::{Ipv6Addr, UdpSocket};

use anyhow::{Context as _, Result};

use super::{
    HOST_PORT, PEER_PORT, Rates, Shared, drain,
    pace::Pace,
    prepare, send,
    tally::{Class, Mark},
    wait,
};

/// Sends and receives until the load is over.
pub fn run(shared: &Shared, address: Ipv6Addr, host: Ipv6Addr, rates: Rates) -> Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PEER_PORT))
        .with_context(|| format!("bind at {address}"))?;
    prepare(&socket)?;
    socket.set_nonblocking(true)?;
    let mut buffer = vec![0; 4096];
    let mut pace = Pace::new(rates.client);
    while !shared.is_over() {
        wait([&socket])?;
        drain(&socket, &mut buffer, |octets, _| {
            if let Some(mark) = Mark::decode(octets) {
                shared.tally.receive(mark);
            }
            Ok(())
        })?;
        let due = pace.due();
        if !shared.sends() {
            continue;
        }
        for _ in 0..due {
            let to = (host, HOST_PORT);
            send(shared, &socket, Class::ClientUp, to, |mark| {
                Ok(mark.to_vec())
            })?;
        }
    }
    Ok(())
}
