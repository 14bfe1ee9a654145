//! From a super-packet to packets.

use teredo_common::{checksum::Sum, wire::UDP_HEADER};
use thiserror::Error;

use super::{
    CWR, FIN, FLAGS, Header, IPV6_HEADER, PSH, Protocol, SEQUENCE, TCP_HEADER, pseudo_header,
    set_payload_length,
};

/// A packet contradicts its [`Header`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the packet contradicts its virtio-net header")]
pub struct Malformed;

/// Completes the checksum of a packet that is no super-packet, if it is partial.
///
/// # Errors
///
/// The packet is too short for what its header tells.
pub fn complete(header: &Header, packet: &mut [u8]) -> Result<(), Malformed> {
    let Some((start, offset)) = header.partial else {
        return Ok(());
    };
    let transport = packet.get_mut(usize::from(start)..).ok_or(Malformed)?;
    // Like the kernel, without a zero, whatever the transport is.
    let checksum = Sum::ZERO.add_octets(transport).udp_checksum();
    let field = transport.get_mut(usize::from(offset)..).ok_or(Malformed)?;
    *field.first_chunk_mut().ok_or(Malformed)? = checksum;
    Ok(())
}

/// A super-packet to be split.
#[derive(Clone, Copy, Debug)]
pub struct Split<'p> {
    protocol: Protocol,
    /// Everything before the data.
    headers: &'p [u8],
    data: &'p [u8],
    /// Octets before the transport.
    transport: usize,
    /// Octets of data in each segment but the last.
    segment: usize,
    /// The sum of the pseudo-header without the length.
    pseudo_header: Sum,
}

impl<'p> Split<'p> {
    /// Examines a packet; `None` if it is no super-packet.
    ///
    /// # Errors
    ///
    /// The packet contradicts its header.
    pub fn new(header: &Header, packet: &'p [u8]) -> Result<Option<Self>, Malformed> {
        let Some((protocol, segment)) = header.segments else {
            return Ok(None);
        };
        let ipv6: &[u8; IPV6_HEADER] = packet.first_chunk().ok_or(Malformed)?;
        let end = IPV6_HEADER + usize::from(u16::from_be_bytes([ipv6[4], ipv6[5]]));
        let packet = packet.get(..end).ok_or(Malformed)?;
        let transport = match header.partial {
            Some((start, offset)) if usize::from(offset) == protocol.checksum() => start.into(),
            // Packets whose checksum the network card has verified have none that is partial.
            None if ipv6[6] == protocol.number() => IPV6_HEADER,
            _ => return Err(Malformed),
        };
        let message = packet.get(transport..).ok_or(Malformed)?;
        if segment == 0 || transport < IPV6_HEADER || message.len() < protocol.least() {
            return Err(Malformed);
        }
        let length = message.len() as u16;
        let pseudo_header = match header.partial {
            Some(_) => {
                let [a, b] = [0, 1].map(|octet| message[protocol.checksum() + octet]);
                Sum::ZERO.add_2([a, b]).subtract(length)
            }
            None => pseudo_header(ipv6, 0, protocol),
        };
        let header_length = match protocol {
            Protocol::Tcp => usize::from(message[12] >> 4) * 4,
            Protocol::Udp => UDP_HEADER,
        };
        if header_length < protocol.least() {
            return Err(Malformed);
        }
        let headers = transport + header_length;
        let (headers, data) = packet.split_at_checked(headers).ok_or(Malformed)?;
        Ok(Some(Self {
            protocol,
            headers,
            data,
            transport,
            segment: segment.into(),
            pseudo_header,
        }))
    }

    /// Returns the number of packets, at least 1.
    #[must_use]
    pub fn count(&self) -> usize {
        self.data.len().div_ceil(self.segment).max(1)
    }

    /// Returns the octets of the largest packet.
    #[must_use]
    pub fn largest(&self) -> usize {
        self.headers.len() + self.segment.min(self.data.len())
    }

    /// Returns the octets of all packets.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.count() * self.headers.len() + self.data.len()
    }

    /// Returns the octets of memory that [`Self::packets`] needs.
    #[must_use]
    pub fn room(&self) -> usize {
        self.count() * self.headers.len()
    }

    /// Iterates over the packets, each in two parts: the headers, for which `room` has the memory, and the
    /// data. There are fewer packets if the room ends.
    pub fn packets<'h>(
        &self,
        room: &'h mut [u8],
    ) -> impl Iterator<Item = [&'h [u8]; 2]> + use<'h, 'p>
    where
        'p: 'h,
    {
        let split = *self;
        let last = self.count() - 1;
        let rooms = room.chunks_exact_mut(self.headers.len());
        rooms
            .take(last + 1)
            .enumerate()
            .map(move |(number, headers)| {
                let start = number * split.segment;
                let end = split.data.len().min(start + split.segment);
                let data = &split.data[start..end];
                split.write(headers, data, start, [number == 0, number == last]);
                [&*headers, data]
            })
    }

    /// Writes the headers of the packet whose data starts at `start`. The sides tell whether it is the
    /// first and the last.
    fn write(&self, headers: &mut [u8], data: &[u8], start: usize, [first, last]: [bool; 2]) {
        headers.copy_from_slice(self.headers);
        set_payload_length(headers, headers.len() + data.len());
        let transport = &mut headers[self.transport..];
        let length = (transport.len() + data.len()) as u16;
        match self.protocol {
            Protocol::Tcp => {
                let number = &mut transport[SEQUENCE..SEQUENCE + 4];
                let mut octets = [0; 4];
                octets.copy_from_slice(number);
                let sequence = u32::from_be_bytes(octets).wrapping_add(start as u32);
                number.copy_from_slice(&sequence.to_be_bytes());
                // Congestion is acknowledged once, and the end of the data comes last.
                if !first {
                    transport[FLAGS] &= !CWR;
                }
                if !last {
                    transport[FLAGS] &= !(FIN | PSH);
                }
            }
            Protocol::Udp => transport[4..6].copy_from_slice(&length.to_be_bytes()),
        }
        let field = self.protocol.checksum();
        transport[field..field + 2].fill(0);
        // Headers have an even length.
        let sum = self
            .pseudo_header
            .add(length)
            .add_octets(transport)
            .add_octets(data);
        let checksum = match self.protocol {
            Protocol::Tcp => sum.checksum(),
            Protocol::Udp => sum.udp_checksum(),
        };
        transport[field..field + 2].copy_from_slice(&checksum);
    }
}

const _: () = assert!(TCP_HEADER.is_multiple_of(2) && UDP_HEADER.is_multiple_of(2));
