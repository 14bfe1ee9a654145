//! A server beside a relay.

use super::*;

/// The relay's address and port are the server's: 5.6.7.8:3545.
fn shared() -> Result<Fixture> {
    let mut config = Config::new([5, 6, 7, 8].into(), [5, 6, 7, 9].into());
    config.port = 3545;
    config.relay = Some(relay());
    Fixture::new(&Setup {
        server: Some(config),
        ..Setup::default()
    })
}

#[test]
fn s30_a_relay_on_the_same_port() -> Result<()> {
    let mut fixture = shared()?;
    let client = "2001:0:506:708:0:efff:f6ff:fffe";
    let data = udp(address(client), address("2000::b"), b"hello");
    let (primary, secondary) = ("5.6.7.8:3545", "5.6.7.9:3545");
    let verdict = |fixture: &mut Fixture, to: &str, packet: &[u8]| {
        anyhow::Ok(show(fixture, to, packet)?.verdict)
    };
    assert_eq!(verdict(&mut fixture, primary, &data)?, DecapUnknownPeer);
    fixture.trust(address(client), endpoint(CLIENT))?;
    assert_eq!(verdict(&mut fixture, primary, &data)?, DecapForwarded);
    assert_eq!(verdict(&mut fixture, secondary, &data)?, RespondSecondary);
    let echo = echo(address(client), address("2000::b"), b"hello");
    assert_eq!(verdict(&mut fixture, primary, &echo)?, DecapForwarded);
    for to in [primary, secondary] {
        assert_eq!(verdict(&mut fixture, to, &plain())?, RespondAdvertised);
    }
    let to_other = bubble(client, "2001:0:506:708:0:fbff:f7ff:fffe");
    assert_eq!(verdict(&mut fixture, primary, &to_other)?, RespondForwarded);
    // The bubble may bring back a cookie of the relay.
    let to_relay = bubble(client, "fe80::1234");
    assert_eq!(verdict(&mut fixture, primary, &to_relay)?, RespondDaemon);
    let from_relay = frame("5.6.7.8:3545", primary, &plain());
    fixture.refuse(Port::Wan, vec![("relay", from_relay, RespondOwnSource)])
}

#[test]
fn a_relay_on_another_port_is_unaffected() -> Result<()> {
    let mut fixture = Fixture::new(&Setup {
        server: Some(config()),
        ..Setup::default()
    })?;
    fixture.trust(address(CLIENT_ADDRESS), endpoint(CLIENT))?;
    let data = udp(address(CLIENT_ADDRESS), address("2000::b"), b"hello");
    let mut verdict = |to: &str, packet: &[u8]| anyhow::Ok(show(&mut fixture, to, packet)?.verdict);
    assert_eq!(verdict("5.6.7.8:3545", &data)?, DecapForwarded);
    assert_eq!(verdict(PRIMARY, &data)?, RespondNotService);
    assert_eq!(verdict("5.6.7.8:3545", &plain())?, DecapSource);
    assert_eq!(verdict(PRIMARY, &plain())?, RespondAdvertised);
    assert_eq!(verdict("5.6.7.8:3544", &plain())?, DecapNotOurs);
    Ok(())
}
