//! The IPv6 packets that hosts in the simulation exchange.

use std::net::Ipv6Addr;

use teredo_common::{
    checksum,
    wire::{ECHO_REPLY, ECHO_REQUEST, ICMPV6, IPV6_HEADER, UDP},
};
use teredo_proto::{
    testing,
    wire::{icmpv6::DESTINATION_UNREACHABLE, ipv6::Header},
};

const HOP_LIMIT: u8 = 64;
const UDP_HEADER: usize = 8;
const ICMPV6_HEADER: usize = 8;
/// UDP ports of requests: none that means anything.
const PORT: u16 = 7777;
/// Octets of a numbered request: with its headers, it pays for two bubbles (L-19).
const NUMBERED: usize = 28;

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Asks for a reply with the same number.
    Request(u64),
    /// Answers the request with the same number.
    Reply(u64),
    /// An echo request.
    Ping,
    /// An echo reply.
    Pong,
    /// Destination Unreachable, about the request with this number if it was one.
    Unreachable(Option<u64>),
    /// Something else.
    Other,
}

/// A request or a reply.
#[must_use]
pub fn numbered(source: Ipv6Addr, destination: Ipv6Addr, is_reply: bool, number: u64) -> Vec<u8> {
    let mut body = Vec::with_capacity(UDP_HEADER + NUMBERED);
    for field in [PORT, PORT, (UDP_HEADER + NUMBERED) as u16, 0] {
        body.extend(field.to_be_bytes());
    }
    body.push(is_reply.into());
    body.extend(number.to_be_bytes());
    body.resize(UDP_HEADER + NUMBERED, 0);
    transport(source, destination, UDP, &body)
}

/// An echo request with this number as its data.
#[must_use]
pub fn ping(source: Ipv6Addr, destination: Ipv6Addr, number: u64) -> Vec<u8> {
    let mut body = vec![ECHO_REQUEST, 0, 0, 0, 0, 1, 0, 1];
    body.extend(number.to_be_bytes());
    transport(source, destination, ICMPV6, &body)
}

/// The answer to an echo request, with the last octet of its data changed: a wrong one, unless
/// `change` is 0.
#[must_use]
pub fn pong(request: &[u8], change: u8) -> Option<Vec<u8>> {
    let header = Header::parse(request).ok()?;
    let mut body = request.get(IPV6_HEADER..header.packet_length())?.to_vec();
    if read(request) != Message::Ping {
        return None;
    }
    body[..4].copy_from_slice(&[ECHO_REPLY, 0, 0, 0]);
    *body.last_mut()? ^= change;
    let (from, to) = (header.destination().into(), header.source().into());
    Some(transport(from, to, ICMPV6, &body))
}

/// Destination Unreachable, administratively prohibited, about `packet`.
#[must_use]
pub fn prohibited(source: Ipv6Addr, packet: &[u8]) -> Option<Vec<u8>> {
    let header = Header::parse(packet).ok()?;
    let mut body = vec![DESTINATION_UNREACHABLE, 1, 0, 0, 0, 0, 0, 0];
    body.extend(packet);
    Some(transport(source, header.source().into(), ICMPV6, &body))
}

fn transport(source: Ipv6Addr, destination: Ipv6Addr, next_header: u8, body: &[u8]) -> Vec<u8> {
    testing::transport(
        next_header,
        HOP_LIMIT,
        &source.octets(),
        &destination.octets(),
        body,
    )
}

/// What a packet says. One with a wrong checksum says nothing that hosts understand.
#[must_use]
pub fn read(packet: &[u8]) -> Message {
    let Ok(header) = Header::parse(packet) else {
        return Message::Other;
    };
    let body = &packet[IPV6_HEADER..header.packet_length()];
    let (source, destination) = (header.source(), header.destination());
    let sum = || checksum::ipv6_transport(&source, &destination, header.next_header(), body);
    match (header.next_header(), body) {
        (UDP, _) if sum() == [0, 0] => read_numbered(body).unwrap_or(Message::Other),
        (ICMPV6, [kind, _, ..]) if body.len() >= ICMPV6_HEADER && sum() == [0, 0] => match *kind {
            ECHO_REQUEST => Message::Ping,
            ECHO_REPLY => Message::Pong,
            DESTINATION_UNREACHABLE => {
                let quoted = body.get(ICMPV6_HEADER + IPV6_HEADER..).unwrap_or_default();
                Message::Unreachable(match read_numbered(quoted) {
                    Some(Message::Request(number)) => Some(number),
                    _ => None,
                })
            }
            _ => Message::Other,
        },
        _ => Message::Other,
    }
}

fn read_numbered(body: &[u8]) -> Option<Message> {
    let (kind, number) = body.get(UDP_HEADER..)?.split_first_chunk::<1>()?;
    let number = u64::from_be_bytes(*number.first_chunk()?);
    let port = body.get(2..4) == Some(&PORT.to_be_bytes());
    port.then_some(match kind {
        [0] => Message::Request(number),
        _ => Message::Reply(number),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_packets_are_parsed() {
        let [a, b] = ["2001:db8::1", "2001:db8::2"].map(|one| one.parse().unwrap());
        let request = numbered(a, b, false, 7);
        assert_eq!(read(&request), Message::Request(7));
        assert_eq!(read(&numbered(a, b, true, 8)), Message::Reply(8));
        assert_eq!(read(&ping(a, b, 9)), Message::Ping);
        assert_eq!(read(&pong(&ping(a, b, 9), 1).unwrap()), Message::Pong);
        assert_eq!(pong(&request, 1), None);
        let error = prohibited(b, &request).unwrap();
        assert_eq!(read(&error), Message::Unreachable(Some(7)));
        let mut damaged = request;
        damaged[50] ^= 1;
        assert_eq!(read(&damaged), Message::Other);
        assert_eq!(read(&[0; 60]), Message::Other);
    }
}
