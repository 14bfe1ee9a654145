//! The peer: D1-12 to D1-14.

use super::*;

#[test]
fn d1_12_to_14_senders() -> Result<()> {
    wait_for_stale_stamps()?;
    let mut fixture = fixture(&Setup::default())?;
    let insert = |fixture: &mut Fixture, last: u16, peer: Peer| -> Result<Ipv6Addr> {
        let mut octets = address(CLIENT).octets();
        octets[8..10].copy_from_slice(&last.to_be_bytes());
        fixture.insert(octets.into(), peer)?;
        Ok(octets.into())
    };
    let trusted = Peer {
        mapped: client(),
        last_received: now(),
        ..Peer::default()
    };
    let second = std::time::Duration::from_secs(1);
    let stale = insert(
        &mut fixture,
        2,
        Peer {
            // The program's clock may be a tick behind.
            last_received: now() - 30 * second - second / 10,
            ..trusted
        },
    )?;
    let nearly = insert(
        &mut fixture,
        3,
        Peer {
            last_received: now() - 20 * second,
            ..trusted
        },
    )?;
    let elsewhere = insert(
        &mut fixture,
        4,
        Peer {
            mapped: endpoint("9.0.0.2:4096"),
            ..trusted
        },
    )?;
    let otherwise = insert(
        &mut fixture,
        5,
        Peer {
            mapped: endpoint("9.0.0.1:4097"),
            ..trusted
        },
    )?;
    let future = insert(
        &mut fixture,
        6,
        Peer {
            last_received: now() + second,
            ..trusted
        },
    )?;
    let never = insert(
        &mut fixture,
        7,
        Peer {
            last_received: teredo_common::time::Instant::ZERO,
            ..trusted
        },
    )?;

    let from = |source: Ipv6Addr| udp(source, address(HOST_ADDRESS), b"hello");
    let via = |mapped: Endpoint, packet: &[u8]| {
        ethernet(
            WAN,
            ROUTER,
            ETHERTYPE_IPV4,
            &datagram(mapped, relay(), 7, packet),
        )
    };
    fixture.refuse(
        Port::Wan,
        vec![
            (
                "native source",
                frame(&from(address("2000::c"))),
                DecapSource,
            ),
            (
                "nearly the prefix",
                frame(&from(address("2001:1:102:304:0:efff:f6ff:fffe"))),
                DecapSource,
            ),
            (
                "the old prefix",
                frame(&from(address("3ffe:831f:102:304:0:efff:f6ff:fffe"))),
                DecapSource,
            ),
            (
                "unknown",
                frame(&from(address("2001:0:102:304:9:efff:f6ff:fffe"))),
                DecapUnknownPeer,
            ),
            (
                "other server",
                frame(&from(address("2001:0:102:305:0:efff:f6ff:fffe"))),
                DecapUnknownPeer,
            ),
            ("stale", frame(&from(stale)), DecapStalePeer),
            ("never heard", frame(&from(never)), DecapStalePeer),
            (
                "another port",
                via(endpoint("9.0.0.1:4097"), &data()),
                DecapMapping,
            ),
            (
                "another address",
                via(endpoint("9.0.0.2:4096"), &data()),
                DecapMapping,
            ),
            (
                "the entry says another address",
                frame(&from(elsewhere)),
                DecapMapping,
            ),
            (
                "the entry says another port",
                frame(&from(otherwise)),
                DecapMapping,
            ),
        ],
    )?;
    let symmetric = insert(
        &mut fixture,
        8,
        Peer {
            mapped: endpoint("9.0.0.2:4099"),
            ..trusted
        },
    )?;
    fixture.refuse(
        Port::Wan,
        vec![
            (
                "symmetric, from the embedded endpoint",
                frame(&from(symmetric)),
                DecapMapping,
            ),
            (
                "symmetric, from another port",
                via(endpoint("9.0.0.2:4100"), &from(symmetric)),
                DecapMapping,
            ),
        ],
    )?;
    forward(
        &mut fixture,
        vec![
            ("getting stale", frame(&from(nearly)), from(nearly)),
            (
                "heard a moment ahead of the clock",
                frame(&from(future)),
                from(future),
            ),
            (
                "symmetric",
                via(endpoint("9.0.0.2:4099"), &from(symmetric)),
                from(symmetric),
            ),
        ],
    )
}
