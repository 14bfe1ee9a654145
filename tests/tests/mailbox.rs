//! Short datagrams that arrive through memory shared with the kernel.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket as Socket},
    os::fd::AsFd as _,
};

use anyhow::{Result, ensure};
use nix::poll::{PollFd, PollFlags, poll};
use teredo::datapath::udp::{Mailbox, ReceiveBatch, UdpSocket};
use teredo_common::mailbox::{LONGEST, Letter, SIZE};

const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
/// Octets that the kernel keeps before each letter.
const HEADER: usize = 8;

/// The content of the mailbox once it reports a datagram.
fn wait(mailbox: &Mailbox, batch: &mut ReceiveBatch) -> Result<Vec<(SocketAddrV4, Vec<u8>)>> {
    let mut readable = [PollFd::new(mailbox.as_fd(), PollFlags::POLLIN)];
    ensure!(poll(&mut readable, 5000_u16)? == 1, "nothing has come");
    let received = mailbox.receive(batch)?;
    let datagrams = batch
        .datagrams()
        .map(|datagram| (datagram.source, datagram.payload.to_vec()))
        .collect::<Vec<_>>();
    ensure!(datagrams.len() == received);
    Ok(datagrams)
}

fn is_empty(result: std::io::Result<usize>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn short_datagrams_arrive_in_the_mailbox_and_others_at_the_socket() -> Result<()> {
    let udp = UdpSocket::bind(LOCAL)?;
    let mailbox = udp.mailbox()?;
    let mut batch = ReceiveBatch::new();
    let sender = Socket::bind(LOCAL)?;
    let mut sent = Vec::new();
    ensure!(is_empty(mailbox.receive(&mut batch)));
    // Twice, because an emptied mailbox must report the next datagram again.
    for round in 0..2 {
        for length in [1, 61, LONGEST] {
            let payload = (0..length)
                .map(|at| (at + length + round) as u8)
                .collect::<Vec<_>>();
            sender.send_to(&payload, udp.local)?;
            let std::net::SocketAddr::V4(source) = sender.local_addr()? else {
                anyhow::bail!("it is bound to IPv4");
            };
            sent.push((source, payload));
        }
        let mut received = Vec::new();
        while received.len() < sent.len() {
            received.extend(wait(&mailbox, &mut batch)?);
        }
        ensure!(received == sent, "{received:?}");
        sent.clear();
        ensure!(is_empty(mailbox.receive(&mut batch)));
        ensure!(is_empty(udp.receiver.receive(&mut batch)));
    }

    for length in [0, LONGEST + 1] {
        sender.send_to(&vec![7; length], udp.local)?;
        let mut readable = [PollFd::new(udp.receiver.as_fd(), PollFlags::POLLIN)];
        ensure!(poll(&mut readable, 5000_u16)? == 1, "nothing has come");
        ensure!(udp.receiver.receive(&mut batch)? == 1);
        ensure!(
            batch
                .datagrams()
                .all(|datagram| datagram.payload == vec![7; length])
        );
        ensure!(is_empty(mailbox.receive(&mut batch)));
    }
    Ok(())
}

#[test]
fn datagrams_sent_together_arrive_one_by_one() -> Result<()> {
    let (udp, mut other) = (UdpSocket::bind(LOCAL)?, UdpSocket::bind(LOCAL)?);
    let mailbox = udp.mailbox()?;
    let payloads = [[1; 48], [2; 48], [3; 48]];
    let together = payloads.each_ref().map(|payload| (udp.local, &payload[..]));
    ensure!(other.sender.send(&together) == together.len());
    let (mut batch, mut received) = (ReceiveBatch::new(), Vec::new());
    while received.len() < payloads.len() {
        received.extend(wait(&mailbox, &mut batch)?);
    }
    let expected = payloads.map(|payload| (other.local, payload.to_vec()));
    ensure!(received == expected, "{received:?}");
    Ok(())
}

#[test]
fn a_full_mailbox_drops_datagrams_until_it_is_emptied() -> Result<()> {
    let udp = UdpSocket::bind(LOCAL)?;
    let mailbox = udp.mailbox()?;
    let sender = Socket::bind(LOCAL)?;
    let room = SIZE as usize / (size_of::<Letter>() + HEADER);
    for number in 0..2 * room {
        sender.send_to(&number.to_be_bytes(), udp.local)?;
    }
    let (mut batch, mut received) = (ReceiveBatch::new(), 0_usize);
    while !is_empty(mailbox.receive(&mut batch)) {
        for datagram in batch.datagrams() {
            ensure!(datagram.payload == received.to_be_bytes(), "{received}");
            received += 1;
        }
    }
    ensure!(
        (room - 1..=room).contains(&received),
        "{received} of {room}"
    );
    ensure!(mailbox.lost() == (2 * room - received) as u64);
    ensure!(is_empty(udp.receiver.receive(&mut batch)));
    sender.send_to(b"again", udp.local)?;
    ensure!(wait(&mailbox, &mut batch)?[0].1 == b"again");
    Ok(())
}
