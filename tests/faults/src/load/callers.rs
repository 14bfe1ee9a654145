//! Clients of the server that exist only as sockets.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::Result;
use teredo_common::wire::SERVER_PORT;
use teredo_lab::{
    peers::bubble,
    qualification::{CLIENT, nonce_only, solicitation},
    scene::SERVER,
};

use super::{
    Rates, Shared, drain,
    pace::Pace,
    prepare, send,
    tally::{Class, Mark},
    wait,
};

/// The address of all of them.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(20, 0, 42, 1);

/// The nonce that identifies a solicitation, and the mark that it stands for.
fn nonce(mark: Mark) -> [u8; 8] {
    let mut nonce = [0; 8];
    nonce[..4].copy_from_slice(&mark.phase.to_be_bytes());
    nonce[4..].copy_from_slice(&(mark.number as u32).to_be_bytes());
    nonce
}

fn mark(answer: &[u8]) -> Option<Mark> {
    let [0, 1, 0, 0, nonce @ ..] = answer else {
        return None;
    };
    let (phase, rest) = nonce.split_first_chunk()?;
    let number = u32::from_be_bytes(*rest.first_chunk()?);
    Some(Mark {
        class: Class::Solicitation,
        phase: u32::from_be_bytes(*phase),
        number: number.into(),
    })
}

/// Sends and receives until the load is over.
pub fn run(shared: &Shared, rates: Rates) -> Result<()> {
    let socket = UdpSocket::bind((ADDRESS, 0))?;
    prepare(&socket)?;
    socket.set_nonblocking(true)?;
    let server = (SERVER, SERVER_PORT);
    let mut buffer = vec![0; 4096];
    let mut paces = [rates.solicitations, rates.refused].map(Pace::new);
    let native = "2001:db8::1".parse()?;
    while !shared.is_over() {
        wait([&socket])?;
        drain(&socket, &mut buffer, |octets, _| {
            if let Some(mark) = mark(octets) {
                shared.tally.receive(mark);
            }
            Ok(())
        })?;
        let due = paces.each_mut().map(Pace::due);
        if !shared.sends() {
            continue;
        }
        for _ in 0..due[0] {
            let mark = shared.tally.send(Class::Solicitation);
            let octets = [&nonce_only(nonce(mark))[..], &solicitation(CLIENT)].concat();
            if socket.send_to(&octets, server).is_err() {
                shared.tally.take_back(mark);
            }
        }
        for _ in 0..due[1] {
            for octets in [vec![0x5a; 48], bubble(native, native), vec![0, 0]] {
                send(shared, &socket, Class::ServerGarbage, server, |_| {
                    Ok(octets)
                })?;
            }
        }
    }
    Ok(())
}
