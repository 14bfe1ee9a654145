//! The Teredo IPv6 address (RFC 4380 section 4, RFC 5991 section 3.1) and the endpoint in it.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use bytemuck::{Pod, Zeroable};

use crate::wire::{ORIGIN_INDICATION, ORIGIN_INDICATION_LENGTH};

/// Bits of the flags field that RFC 5991 fills with random numbers.
pub const RANDOM_FLAGS: u16 = 0x3cff;
/// The cone flag of RFC 4380; deprecated for client addresses by RFC 5991.
pub const CONE_FLAG: u16 = 0x8000;

/// An IPv4 address and UDP port as octets in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Endpoint {
    /// IPv4 address, network byte order.
    pub address: [u8; 4],
    /// UDP port, network byte order.
    pub port: [u8; 2],
}

impl Endpoint {
    /// An endpoint from an address and a port in host byte order.
    pub const fn new(address: Ipv4Addr, port: u16) -> Self {
        Self {
            address: address.octets(),
            port: port.to_be_bytes(),
        }
    }

    /// The IPv4 address.
    pub const fn ip(self) -> Ipv4Addr {
        let [a, b, c, d] = self.address;
        Ipv4Addr::new(a, b, c, d)
    }

    /// The UDP port in host byte order.
    pub const fn port(self) -> u16 {
        u16::from_be_bytes(self.port)
    }

    /// The origin indication with this endpoint (RFC 4380 section 5.1.1).
    #[inline(always)]
    pub const fn origin_indication(self) -> [u8; ORIGIN_INDICATION_LENGTH] {
        let (port, address) = (self.port, self.address);
        [
            0,
            ORIGIN_INDICATION,
            !port[0],
            !port[1],
            !address[0],
            !address[1],
            !address[2],
            !address[3],
        ]
    }
}

impl From<SocketAddrV4> for Endpoint {
    fn from(address: SocketAddrV4) -> Self {
        Self::new(*address.ip(), address.port())
    }
}

impl From<Endpoint> for SocketAddrV4 {
    fn from(endpoint: Endpoint) -> Self {
        Self::new(endpoint.ip(), endpoint.port())
    }
}

impl core::fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        SocketAddrV4::from(*self).fmt(formatter)
    }
}

/// The first 32 bits of the addresses of one Teredo service.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct ServicePrefix(pub [u8; 4]);

impl ServicePrefix {
    /// 2001::/32 (RFC 4380 section 2.6).
    pub const STANDARD: Self = Self([0x20, 0x01, 0, 0]);
    /// 3ffe:831f::/32, of the 2002 draft and Windows XP before its update.
    pub const DRAFT: Self = Self([0x3f, 0xfe, 0x83, 0x1f]);

    /// Whether the IPv6 address, in network byte order, lies in the prefix.
    #[inline(always)]
    pub const fn contains(self, address: &[u8; 16]) -> bool {
        let Self([a, b, c, d]) = self;
        address[0] == a && address[1] == b && address[2] == c && address[3] == d
    }
}

impl Default for ServicePrefix {
    fn default() -> Self {
        Self::STANDARD
    }
}

impl core::fmt::Display for ServicePrefix {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self([a, b, c, d]) = *self;
        let network = Ipv6Addr::from([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        write!(formatter, "{network}/32")
    }
}

/// Returns the IPv4 address and port that a Teredo address carries for its client, without the
/// obfuscation. The prefix is not looked at.
#[inline(always)]
pub const fn embedded_mapping(address: &[u8; 16]) -> Endpoint {
    Endpoint {
        port: [!address[10], !address[11]],
        address: [!address[12], !address[13], !address[14], !address[15]],
    }
}

/// Returns the IPv4 address of the server in a Teredo address. The prefix is not looked at.
#[inline(always)]
pub const fn embedded_server(address: &[u8; 16]) -> [u8; 4] {
    [address[4], address[5], address[6], address[7]]
}

/// Whether an address with the layout of a Teredo address has the cone flag set. Says nothing about
/// the prefix: a server reads it from link-local addresses, too (RFC 4380 section 5.2.1).
#[inline(always)]
pub const fn has_cone_flag(address: &[u8; 16]) -> bool {
    u16::from_be_bytes([address[8], address[9]]) & CONE_FLAG != 0
}

/// The fields of a Teredo address.
///
/// Two addresses that differ in the flags alone are different peers: compare the 16 octets, never
/// the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TeredoAddress {
    /// The service that the address belongs to.
    pub prefix: ServicePrefix,
    /// Primary IPv4 address of the client's server.
    pub server: Ipv4Addr,
    /// The flags field as it is; mostly random (RFC 5991). Never a reason to refuse an address.
    pub flags: u16,
    /// The client's endpoint as the server sees it.
    pub mapped: Endpoint,
}

impl TeredoAddress {
    /// The fields of the address that a client of `server`, which sees it at `mapped`, has in the
    /// standard service, with no flag set.
    pub const fn new(server: Ipv4Addr, mapped: Endpoint) -> Self {
        Self {
            prefix: ServicePrefix::STANDARD,
            server,
            flags: 0,
            mapped,
        }
    }

    /// The fields of `address` if it lies in `prefix` and its port is not 0.
    pub fn decode(address: Ipv6Addr, prefix: ServicePrefix) -> Option<Self> {
        let octets = address.octets();
        let mapped = embedded_mapping(&octets);
        (prefix.contains(&octets) && mapped.port() != 0).then(|| Self {
            prefix,
            server: Ipv4Addr::from(embedded_server(&octets)),
            flags: u16::from_be_bytes([octets[8], octets[9]]),
            mapped,
        })
    }

    /// The IPv6 address with these fields.
    pub fn encode(self) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets[..4].copy_from_slice(&self.prefix.0);
        octets[4..8].copy_from_slice(&self.server.octets());
        octets[8..10].copy_from_slice(&self.flags.to_be_bytes());
        octets[10..12].copy_from_slice(&(!self.mapped.port()).to_be_bytes());
        octets[12..].copy_from_slice(&self.mapped.address.map(|octet| !octet));
        octets.into()
    }

    /// Whether the cone flag is set.
    pub const fn is_cone(self) -> bool {
        self.flags & CONE_FLAG != 0
    }
}

/// The link-local address from which a server advertises (RFC 4380 section 5.3.2).
pub fn server_link_local(server: Ipv4Addr, port: u16) -> Ipv6Addr {
    let fields = TeredoAddress {
        prefix: ServicePrefix([0xfe, 0x80, 0, 0]),
        server: Ipv4Addr::UNSPECIFIED,
        flags: CONE_FLAG,
        mapped: Endpoint::new(server, port),
    };
    fields.encode()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;

    fn decode(text: &str) -> Option<TeredoAddress> {
        let address = text.parse().unwrap();
        TeredoAddress::decode(address, ServicePrefix::STANDARD)
            .or_else(|| TeredoAddress::decode(address, ServicePrefix::DRAFT))
    }

    /// (vector, address, server, flags, mapped endpoint)
    const VECTORS: &[(&str, &str, &str, u16, &str)] = &[
        (
            "V-01",
            "2001:0:1117:34fa:1027:374b:e1fc:f635",
            "17.23.52.250",
            0x1027,
            "30.3.9.202:51380",
        ),
        (
            "V-02",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "65.54.227.120",
            0x8000,
            "192.0.2.45:40000",
        ),
        (
            "V-04",
            "3ffe:831f:102:304:0:efff:f6ff:fffe",
            "1.2.3.4",
            0,
            "9.0.0.1:4096",
        ),
        (
            "V-04",
            "2001:0:102:304:0:efff:f6ff:fffe",
            "1.2.3.4",
            0,
            "9.0.0.1:4096",
        ),
        (
            "V-05",
            "2001:0:102:304:8000:efff:f6ff:fffe",
            "1.2.3.4",
            0x8000,
            "9.0.0.1:4096",
        ),
        (
            "V-06",
            "2001:0:90a:b0c:0:fbff:f7ff:fffe",
            "9.10.11.12",
            0,
            "8.0.0.1:1024",
        ),
        (
            "V-09",
            "2001:0:cb00:7178:0:efff:3fff:fdfe",
            "203.0.113.120",
            0,
            "192.0.2.1:4096",
        ),
        (
            "V-09",
            "2001:0:c633:6476:0:dfff:3fff:fdf5",
            "198.51.100.118",
            0,
            "192.0.2.10:8192",
        ),
        (
            "V-09",
            "2001:0:cb00:7178:0:f000:39cc:9b89",
            "203.0.113.120",
            0,
            "198.51.100.118:4095",
        ),
        (
            "V-10",
            "2001:0:4137:9e50:8000:f12a:b9c8:2815",
            "65.55.158.80",
            0x8000,
            "70.55.215.234:3797",
        ),
    ];

    #[test]
    fn vectors_decode_and_encode() {
        for &(vector, text, server, flags, mapped) in VECTORS {
            let fields = decode(text).unwrap();
            assert_eq!(
                fields.server,
                server.parse::<Ipv4Addr>().unwrap(),
                "{vector}"
            );
            assert_eq!(fields.flags, flags, "{vector}");
            assert_eq!(format!("{}", fields.mapped), mapped, "{vector}");
            assert_eq!(
                fields.encode(),
                text.parse::<Ipv6Addr>().unwrap(),
                "{vector}"
            );
        }
        assert_eq!(
            0x1027 & !RANDOM_FLAGS,
            0,
            "V-01 has no flag but the random ones"
        );
    }

    #[test]
    fn v04_misprinted_address_has_port_zero_and_is_refused() {
        assert_eq!(decode("3ffe:831f:102:304:0:ffff:f6ff:fffe"), None);
    }

    #[test]
    fn another_prefix_is_refused() {
        assert_eq!(decode("2001:db8:102:304:0:efff:f6ff:fffe"), None);
        let standard = "2001:0:102:304:0:efff:f6ff:fffe".parse().unwrap();
        assert_eq!(TeredoAddress::decode(standard, ServicePrefix::DRAFT), None);
    }

    #[test]
    fn v08_server_link_local() {
        let address = |server: &str| server_link_local(server.parse().unwrap(), 3544);
        assert_eq!(
            format!("{}", address("1.2.3.4")),
            "fe80::8000:f227:fefd:fcfb"
        );
        assert_eq!(
            format!("{}", address("65.55.158.80")),
            "fe80::8000:f227:bec8:61af"
        );
    }

    proptest! {
        /// Any flags are accepted (W-10); port 0 alone is refused (W-11).
        #[test]
        fn every_address_in_the_prefix_survives_a_round_trip(tail: [u8; 12]) {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&ServicePrefix::STANDARD.0);
            octets[4..].copy_from_slice(&tail);
            let address = Ipv6Addr::from(octets);
            match TeredoAddress::decode(address, ServicePrefix::STANDARD) {
                Some(fields) => prop_assert_eq!(fields.encode(), address),
                None => prop_assert_eq!(&octets[10..12], &[0xff, 0xff]),
            }
        }
    }
}
