//! What a relay in userspace cannot do without: the system calls of ours, and nothing else.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsFd as _,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use teredo::datapath::{
    BATCH,
    tun::{PacketBatch, Tun},
    udp::{ReceiveBatch, Receiver, Sender, UdpSocket},
};
use teredo_bench::calls::{INTERFACE, MTU};
use teredo_common::address::embedded_mapping;

/// Moves packets between a TUN interface and a UDP port, and looks only at the address that says where to
#[derive(Debug, Parser)]
struct Arguments {
    /// Address and port of the datagrams
    local: SocketAddrV4,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let tun = Tun::open(INTERFACE)?;
    tun.end_with_process()?;
    let mut udp = UdpSocket::bind(arguments.local)?;
    let (mut datagrams, mut packets) = (ReceiveBatch::new(), PacketBatch::new(MTU));
    loop {
        let mut inputs = [
            PollFd::new(udp.receiver.as_fd(), PollFlags::POLLIN),
            PollFd::new(tun.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut inputs, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for packets"),
        }
        decapsulate(&udp.receiver, &mut datagrams, &tun);
        encapsulate(&tun, &mut packets, &mut udp.sender);
    }
}

fn decapsulate(receiver: &Receiver, datagrams: &mut ReceiveBatch, tun: &Tun) {
    // An error means that none waits.
    if receiver.receive(datagrams).is_err() {
        return;
    }
    let mut packets: [&[u8]; BATCH] = [&[]; BATCH];
    let mut count = 0;
    for datagram in datagrams.datagrams() {
        packets[count] = datagram.payload;
        count += 1;
        if count == BATCH {
            tun.write(&packets);
            count = 0;
        }
    }
    tun.write(&packets[..count]);
}

fn encapsulate(tun: &Tun, packets: &mut PacketBatch, sender: &mut Sender) {
    const NOWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    // An error means that none waits.
    if tun.read(packets).is_err() {
        return;
    }
    let mut datagrams: [(SocketAddrV4, &[u8]); BATCH] = [(NOWHERE, &[]); BATCH];
    let mut count = 0;
    for packet in packets.packets() {
        if let Some(destination) = packet.get(24..).and_then(|rest| rest.first_chunk()) {
            datagrams[count] = (embedded_mapping(destination).into(), packet);
            count += 1;
        }
    }
    sender.send(&datagrams[..count]);
}
