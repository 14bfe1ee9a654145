//! Our server on a real kernel: Miredo's clients qualify with it and find their relays, and forged
//! clients receive the answers of the protocol from the right address.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, UdpSocket},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    process::Output,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use teredo_common::wire::SERVER_PORT;
use teredo_lab::{
    Capture, Namespace, Scene, Teredo, Topology,
    caller::Caller,
    capture::Frame,
    links::cable,
    packet::octets,
    peers::{bubble, is_bubble, teredo_address, udp_packet},
    programs::Attached,
    qualification::{
        CLIENT, CONE_CLIENT, advertisement_of, icmpv6, nonce_only, origin, solicitation,
    },
    scene::{
        Host, IPV6_INTERFACE, Maker, Place, RELAY, RELAY_IPV6, SECONDARY, SERVER, SERVER_IPV6,
    },
    teredo::{Config, Paths, binary},
    traffic::Ping,
    wait_until,
};
use teredo_proto::wire::authentication::{Algorithm, Key};

/// Time after which a step has failed.
const SOON: Duration = Duration::from_secs(10);
/// The address of a forged client in the scene.
const FORGED: Ipv4Addr = Ipv4Addr::new(20, 0, 2, 1);

fn scene(place: Place) -> Result<Scene> {
    Scene::new(Topology {
        place,
        server: None,
        ..Topology::default()
    })
}

/// Checks that the path of this mode answered all solicitations but those that are always `left` to
/// the daemon.
fn answered_by(server: &Teredo, mode: &str, left: u64) -> Result<()> {
    let status = server.status()?;
    let Paths { xdp, userspace } = server.advertised()?;
    let as_expected = match mode {
        "off" => xdp == 0 && userspace > 0,
        _ => xdp > 0 && userspace == left,
    };
    ensure!(
        as_expected,
        "{mode}: {xdp} in XDP, {userspace} in userspace; {:?}",
        status.passed
    );
    Ok(())
}

/// Starts our server with this `xdp.mode`, which must take effect.
fn start(namespace: &Namespace, config: &Config, mode: &str) -> Result<Teredo> {
    let server = Teredo::start(namespace, &config.clone().set("server.xdp.mode", mode))?;
    for attachment in server.status()?.xdp {
        ensure!(
            attachment.mode.name() == mode,
            "{attachment:?} instead of {mode}"
        );
    }
    Ok(server)
}

fn start_in(scene: &Scene, mode: &str) -> Result<Teredo> {
    start(scene.server_namespace(), &scene.server_config(), mode)
}

/// A forged client in the scene, which the server's host has resolved; its namespace is dropped
/// last.
fn forged(scene: &Scene, port: u16) -> Result<(Caller, Namespace)> {
    let namespace = scene.add_ipv4_host("forged", FORGED)?;
    for address in [SERVER, SECONDARY] {
        wait_until("the server's host answers", SOON, || {
            answers_ping(&namespace, FORGED, address)
        })?;
    }
    let caller = Caller::open(&namespace, SocketAddrV4::new(FORGED, port))?;
    Ok((caller, namespace))
}

fn answers_ping(from: &Namespace, source: Ipv4Addr, to: Ipv4Addr) -> Result<bool> {
    let mut ping = from.command("ping")?;
    ping.args(["-c1", "-W1", "-I", &source.to_string(), &to.to_string()]);
    Ok(ping.output()?.status.success())
}

/// A server's host and a client's host on one cable, with addresses that no scene uses.
struct Pair {
    server: Namespace,
    client: Namespace,
    _program: Attached,
}

impl Pair {
    /// Makes the hosts of a server at `primary` and the next address, and of a client at `client`.
    fn new(primary: Ipv4Addr, client: Ipv4Addr) -> Result<Self> {
        let [server, far] = [Namespace::new("server")?, Namespace::new("client")?];
        cable((&server, "v4"), (&far, "v4"))?;
        let program = Attached::nothing(&far, &["v4"])?;
        let gateway = Ipv4Addr::from_bits(primary.to_bits() ^ 0x10);
        server.ip_batch(&format!(
            "addr add {primary}/24 dev v4
            addr add {}/24 dev v4
            route add default via {gateway}",
            next(primary)
        ))?;
        far.ip_batch(&format!(
            "addr add {gateway}/24 dev v4
            addr add {client}/32 dev v4"
        ))?;
        let pair = Self {
            server,
            client: far,
            _program: program,
        };
        wait_until("both know each other", SOON, || {
            answers_ping(&pair.client, client, primary)
        })?;
        Ok(pair)
    }

    fn config(primary: Ipv4Addr) -> Config {
        let addresses = [primary, next(primary)].map(|address| address.to_string());
        Config::new().set("server.ipv4", addresses.to_vec())
    }
}

fn next(address: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() + 1)
}

/// The bubble that the server forwarded for a relay, with its origin indication (S-15).
fn is_forwarded_bubble(frame: &Frame, relay: SocketAddrV4) -> bool {
    frame.udp_payload().is_some_and(|payload| {
        payload.starts_with(&origin(relay)) && payload.get(8..).is_some_and(is_bubble)
    })
}

/// Miredo's client qualifies, and the first packet arrives from either side: from the host through
/// an indirect bubble, from the client through a connectivity test.
fn a_client_is_connected(mode: &str, relay: Maker) -> Result<()> {
    for client_is_first in [false, true] {
        let scene = scene(Place::Alone)?;
        let server = start_in(&scene, mode)?;
        let _relay = match relay {
            Maker::Teredo => (Some(scene.start_relay(&scene.relay_config())?), None),
            Maker::Miredo => (None, Some(scene.start_miredo_relay()?)),
        };
        let client = scene.start_miredo_client()?;
        let (site, host) = (scene.site(), scene.host());
        let inside = Capture::start(&site.client, "eth0")?;
        let outside = Capture::start(&host.namespace, IPV6_INTERFACE)?;
        if client_is_first {
            Ping::to(host.address).all_from(&site.client)?;
            // The client's own test comes through the server, its ping through the relay.
            outside.wait_for("a connectivity test", SOON, |frame| {
                is_echo_request(frame, client.address())
            })?;
        } else {
            Ping::to(client.address()).all_from(&host.namespace)?;
            inside.wait_for("a bubble with its origin", SOON, |frame| {
                is_forwarded_bubble(frame, RELAY)
            })?;
        }
        Ping::to(client.address())
            .count(5)
            .all_from(&host.namespace)?;
        Ping::to(host.address).count(5).all_from(&site.client)?;
        drop(server);
    }
    Ok(())
}

fn is_echo_request(frame: &Frame, source: Ipv6Addr) -> bool {
    frame.bytes.get(12..14) == Some(&[0x86, 0xdd])
        && frame.bytes.get(22..38) == Some(&source.octets())
        && frame.bytes.get(54) == Some(&128)
}

#[test]
fn a_client_is_connected_in_native_xdp() -> Result<()> {
    a_client_is_connected("native", Maker::Teredo)
}

#[test]
fn a_client_is_connected_in_generic_xdp() -> Result<()> {
    a_client_is_connected("generic", Maker::Teredo)
}

#[test]
fn a_client_is_connected_without_xdp() -> Result<()> {
    a_client_is_connected("off", Maker::Teredo)
}

#[test]
fn a_client_is_connected_by_miredos_relay() -> Result<()> {
    for mode in ["native", "off"] {
        a_client_is_connected(mode, Maker::Miredo)?;
    }
    Ok(())
}

/// The server gives the answers of a Microsoft server to a client of Windows XP, whose cone bit was
/// set (S-18, S-19, A-03).
#[test]
fn v11_v12_windows_xp_is_answered_as_by_microsoft() -> Result<()> {
    const PRIMARY: Ipv4Addr = Ipv4Addr::new(65, 55, 158, 80);
    let mapped = SocketAddrV4::new(Ipv4Addr::new(70, 55, 215, 234), 3797);
    let solicitation = octets(
        "00010000cd5669400b22df8800 6000000000183aff
        fe800000000000008000fffffffffffd ff020000000000000000000000000002
        8500a91d00000000 01020000000000008000f12ab9c82815",
    );
    let advertisement = octets(
        "00010000cd5669400b22df8800 0000f12ab9c82815 6000000000303aff
        fe800000000000008000f227bec861af fe800000000000008000fffffffffffd
        86001f57 00000000 00000000 000007d0 03044040ffffffffffffffff00000000
        2001000041379e500000000000000000",
    );
    let pair = Pair::new(PRIMARY, *mapped.ip())?;
    let client = Caller::open(&pair.client, mapped)?;
    for mode in ["native", "generic", "off"] {
        let config = Pair::config(PRIMARY).set("server.mtu", 0);
        let server = start(&pair.server, &config, mode)?;
        let (answer, from) = client.ask(PRIMARY, &solicitation)?;
        ensure!(answer == advertisement, "{mode}: {answer:02x?}");
        let expected = SocketAddrV4::new(next(PRIMARY), SERVER_PORT);
        ensure!(from == expected, "{mode}: from {from}");
        answered_by(&server, mode, 0)?;
    }
    Ok(())
}

/// A solicitation to either address is answered from the right address, with the prefix of the
/// primary one, even if the kernel would route the answer through the other's interface (S-01,
/// S-17, S-18).
#[test]
fn the_right_address_answers() -> Result<()> {
    // The program answers through the ingress interface.
    for (place, left) in [(Place::Alone, 0), (Place::TwoInterfaces, 2)] {
        let scene = scene(place)?;
        let (client, _namespace) = forged(&scene, 4096)?;
        for mode in ["native", "generic", "off"] {
            let server = start_in(&scene, mode)?;
            for (to, link_local, from) in [
                (SERVER, CLIENT, SERVER),
                (SECONDARY, CLIENT, SECONDARY),
                (SERVER, CONE_CLIENT, SECONDARY),
                (SECONDARY, CONE_CLIENT, SERVER),
            ] {
                client.qualify(SERVER, to, link_local, from)?;
            }
            answered_by(&server, mode, left).with_context(|| format!("{place:?}"))?;
        }
    }
    Ok(())
}

/// Bubbles reach their client with the origin indication and all trailers (S-09, S-14 to S-16).
#[test]
fn bubbles_are_forwarded_with_their_origin() -> Result<()> {
    let scene = scene(Place::Alone)?;
    let (client, namespace) = forged(&scene, 4096)?;
    let relay = Caller::open(&namespace, SocketAddrV4::new(FORGED, 4097))?;
    let plain = bubble(CLIENT, teredo_address(SERVER, client.mapped()));
    // A nonce (RFC 6081 section 4.2).
    let trailed = [&plain[..], &[1, 4, 0xde, 0xad, 0xbe, 0xef]].concat();
    for mode in ["native", "generic", "off"] {
        let server = start_in(&scene, mode)?;
        for bubble in [&plain, &plain, &trailed] {
            relay.say(SERVER, bubble)?;
            let (heard, from) = client.hear()?;
            let expected = [&origin(relay.mapped())[..], bubble].concat();
            ensure!(heard == expected, "{mode}: {heard:02x?}");
            ensure!(from == SocketAddrV4::new(SERVER, SERVER_PORT), "{from}");
        }
        let paths = server.served("bubble", "forwarded")?;
        let expected = match mode {
            "off" => Paths {
                xdp: 0,
                userspace: 3,
            },
            // The daemon judges trailers.
            _ => Paths {
                xdp: 2,
                userspace: 1,
            },
        };
        let passed = server.status()?.passed;
        ensure!(paths == expected, "{mode}: {paths:?}, {passed:?}");
    }
    Ok(())
}

/// Sends datagrams that must have no effect, whatever comes before and after them.
#[test]
fn unexpected_datagrams_are_dropped_silently() -> Result<()> {
    let scene = scene(Place::Alone)?;
    let (client, _namespace) = forged(&scene, 4096)?;
    let good = solicitation(CLIENT);
    let mut damaged = good.clone();
    damaged[42] ^= 1;
    let own = teredo_address(SERVER, client.mapped());
    let foreign = teredo_address(Ipv4Addr::new(20, 9, 9, 9), client.mapped());
    let host = scene.host().address;
    let bad = [
        // Datagrams that the server drops (S-04, S-21, L-03, S-10, S-12, S-13, DEC-8).
        good[..47].to_vec(),
        damaged,
        [&origin(client.mapped())[..], &good].concat(),
        [&nonce_only([1; 8])[..], &bubble(CLIENT, own)].concat(),
        bubble(own, host),
        bubble(own, Ipv6Addr::LOCALHOST),
        bubble(host, foreign),
        bubble(own, own),
        udp_packet((own, 1), (host, 2), 64, b"data")?,
    ];
    for mode in ["native", "generic", "off"] {
        let server = start_in(&scene, mode)?;
        client.qualify(SERVER, SERVER, CLIENT, SERVER)?;
        for datagram in &bad {
            client.say(SERVER, datagram)?;
        }
        // Malformed datagrams (S-22).
        client.say(SECONDARY, &bubble(CLIENT, own))?;
        client.qualify(SERVER, SERVER, CLIENT, SERVER)?;
        drop(server);
    }
    Ok(())
}

/// A connectivity test leaves once there is a way back (S-25).
#[test]
fn s25_connectivity_tests_need_a_route() -> Result<()> {
    let scene = scene(Place::Alone)?;
    let namespace = scene.server_namespace();
    namespace.ip("route del 2001::/32")?;
    let (client, _forged) = forged(&scene, 4096)?;
    let _server = start_in(&scene, "off")?;
    let host = scene.host();
    let source = teredo_address(SERVER, client.mapped());
    let mut message = vec![128, 0, 0, 0, 0xd3, 0x73, 0xb6, 0x9b];
    message.extend(*b"test");
    let test = icmpv6(source, host.address, &message);
    let capture = Capture::start(&host.namespace, IPV6_INTERFACE)?;
    client.say(SERVER, &test)?;
    // The server has handled the test before it answers this.
    client.qualify(SERVER, SERVER, CLIENT, SERVER)?;
    namespace.ip(&format!("route add 2001::/32 via {}", RELAY_IPV6))?;
    wait_until("a test arrives", SOON, || {
        client.say(SERVER, &test)?;
        let frames = capture.frames();
        Ok(frames.iter().any(|frame| is_echo_request(frame, source)))
    })?;
    // The hop limit is one less (S-13); nothing else is changed.
    let frames = capture.stop()?.0;
    let frame = frames.iter().find(|frame| is_echo_request(frame, source));
    let mut expected = test;
    expected[7] -= 1;
    ensure!(frame.is_some_and(|frame| frame.bytes[14..] == expected));
    Ok(())
}

/// A server that drains answers no solicitation, and forwards the bubbles that its clients need
/// (S-27).
#[test]
fn s27_a_drained_server_only_forwards() -> Result<()> {
    for mode in ["native", "off"] {
        let scene = scene(Place::Alone)?;
        let server = start_in(&scene, mode)?;
        let _relay = scene.start_relay(&scene.relay_config())?;
        let client = scene.start_miredo_client()?;
        let (late, _namespace) = forged(&scene, 4096)?;
        late.qualify(SERVER, SERVER, CLIENT, SERVER)?;

        let output = drain(&server)?;
        ensure!(output.status.success(), "{output:?}");
        late.say(SERVER, &solicitation(CLIENT))?;
        // The relay's indirect bubble is sent after the solicitation and arrives.
        Ping::to(client.address()).all_from(&scene.host().namespace)?;
        let own = teredo_address(SERVER, late.mapped());
        let bubble = bubble(CLIENT, own);
        let (answer, from) = late.ask(SERVER, &bubble)?;
        ensure!(
            answer == [&origin(late.mapped())[..], &bubble].concat(),
            "{mode}: {answer:02x?} from {from}"
        );
    }
    Ok(())
}

fn drain(server: &Teredo) -> Result<Output> {
    let mut command = std::process::Command::new(binary()?);
    Ok(command
        .args(["drain", "--config"])
        .arg(server.file())
        .output()?)
}

/// The fast path of a killed server keeps answering until the restart.
#[test]
fn a_crash_is_not_noticed_and_a_stop_is_clean() -> Result<()> {
    let scene = scene(Place::Alone)?;
    let (client, _namespace) = forged(&scene, 4096)?;
    let namespace = scene.server_namespace();
    let before = scene.state_of(namespace)?;
    for mode in ["native", "generic", "off"] {
        let mut server = start_in(&scene, mode)?;
        ensure!(
            mode == "off" || scene.state_of(namespace)? != before,
            "the state does not show the daemon"
        );
        client.qualify(SERVER, SERVER, CLIENT, SERVER)?;
        server.daemon.kill()?;
        if mode == "off" {
            let answer = client.ask(SERVER, &solicitation(CLIENT));
            ensure!(
                answer.is_err(),
                "the solicitation was answered without a server"
            );
        } else {
            client.qualify(SERVER, SERVER, CONE_CLIENT, SECONDARY)?;
        }
        server.start_again(namespace)?;
        client.qualify(SERVER, SERVER, CLIENT, SERVER)?;
        server.restart(namespace)?;
        client.qualify(SERVER, SERVER, CLIENT, SERVER)?;
        let status = server.daemon.terminate()?;
        ensure!(status.success(), "{mode}: it ended with {status}");
        assert_eq!(scene.state_of(namespace)?, before, "{mode}");
    }
    Ok(())
}

/// A client with a key; its files are removed with it.
struct Keys {
    directory: TempDir,
}

impl Keys {
    fn new() -> Result<Self> {
        Ok(Self {
            directory: tempfile::tempdir()?,
        })
    }

    /// Writes a file with a secret of 16 equal octets.
    fn file(&self, octet: u8) -> Result<PathBuf> {
        use std::io::Write as _;
        let path = self.directory.path().join(format!("{octet:02x}.key"));
        if !path.exists() {
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            writeln!(file, "{}", format!("{octet:02x}").repeat(16))?;
        }
        Ok(path)
    }

    /// The configuration with one client, which has this secret and had the `retired` one.
    fn configure(
        &self,
        config: Config,
        id: &str,
        algorithm: &str,
        secret: u8,
        retired: Option<u8>,
        prefix: &str,
    ) -> Result<Config> {
        let path = |octet| anyhow::Ok(self.file(octet)?.display().to_string());
        let mut client = toml::Table::new();
        client.insert("id".into(), id.into());
        client.insert("algorithm".into(), algorithm.into());
        client.insert("secret-file".into(), path(secret)?.into());
        if let Some(octet) = retired {
            client.insert("retired-secret-files".into(), vec![path(octet)?].into());
        }
        client.insert("prefix".into(), prefix.into());
        Ok(config.set("server.client", vec![toml::Value::Table(client)]))
    }
}

const V17_SOLICITATION_MD5: &str = "00010510616c69636501b150b8fda6c659d0a7ef7255aa64dd
    0123456789abcdef00 6000000000083aff fe800000000000000000ffffffffffff
    ff020000000000000000000000000002 85007d3700000000";
const V17_SOLICITATION_SHA1: &str = "00010514616c696365
    9e1de28d28c2fa40ea91900dc74531828aa5b54a
    0123456789abcdef00 6000000000083aff fe800000000000000000ffffffffffff
    ff020000000000000000000000000002 85007d3700000000";
/// Origin indication and router advertisement of vector V17.
const V17_ADVERTISED: &str = "0000effff6fffffe 6000000000383aff
    fe800000000000008000f227fefdfcfb fe800000000000000000ffffffffffff
    8600954c 00000000 00000000 000007d0 03044040ffffffffffffffff00000000
    20010000010203040000000000000000 0501000000000500";
const V17_PRIMARY: Ipv4Addr = Ipv4Addr::new(1, 2, 3, 4);
const V17_MAPPED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(9, 0, 0, 1), 4096);

/// The worked vector with right, retired and wrong keys, required and optional.
#[test]
fn v17_clients_with_keys_qualify_securely() -> Result<()> {
    let keys = Keys::new()?;
    let pair = Pair::new(V17_PRIMARY, *V17_MAPPED.ip())?;
    let client = Caller::open(&pair.client, V17_MAPPED)?;
    let advertised = octets(V17_ADVERTISED);
    let anonymous = [&nonce_only([7; 8])[..], &solicitation(CLIENT)].concat();
    let anonymously = [&nonce_only([7; 8])[..], &advertised].concat();
    let answer = |head: &str| [octets(head), advertised.clone()].concat();
    let cases = [
        // Key, retired key, algorithm; the solicitation and the expected answer.
        (
            (0x0b, None, "hmac-md5"),
            V17_SOLICITATION_MD5,
            Some("00010510 616c696365 7b514d16b2b622514be9d12a47c41048 0123456789abcdef 00"),
        ),
        (
            (0x0c, Some(0x0b), "hmac-md5"),
            V17_SOLICITATION_MD5,
            Some("00010510 616c696365 7d9f0ad0479b477601a0f0f4cdab8a34 0123456789abcdef 01"),
        ),
        (
            (0x0b, None, "hmac-sha1"),
            V17_SOLICITATION_SHA1,
            Some(
                "00010514 616c696365 e77aa0fe291f9e574905a3bb8ce7ea25d9cd8d77 0123456789abcdef 00",
            ),
        ),
        ((0x0c, None, "hmac-md5"), V17_SOLICITATION_MD5, None),
        ((0x0b, None, "hmac-sha1"), V17_SOLICITATION_MD5, None),
    ];
    for mode in ["native", "off"] {
        for is_required in [false, true] {
            for ((secret, retired, algorithm), request, expected) in cases {
                let config = Pair::config(V17_PRIMARY).set("server.require-auth", is_required);
                let config = keys.configure(config, "alice", algorithm, secret, retired, "")?;
                let server = start(&pair.server, &config, mode)?;
                let what = format!("{mode}, {is_required}, {secret}, {retired:?}, {algorithm}");
                client.say(V17_PRIMARY, &octets(request))?;
                if let Some(head) = expected {
                    let (heard, _) = client.hear()?;
                    ensure!(heard == answer(head), "{what}: {heard:02x?}");
                }
                client.say(V17_PRIMARY, &anonymous)?;
                if is_required {
                    // A solicitation without a key is ignored like one with a wrong key; the bubble
                    // is not.
                    let own = bubble(CLIENT, teredo_address(V17_PRIMARY, V17_MAPPED));
                    let (heard, _) = client.ask(V17_PRIMARY, &own)?;
                    ensure!(heard.get(8..) == Some(&own), "{what}: {heard:02x?}");
                } else {
                    let (heard, _) = client.hear()?;
                    ensure!(heard == anonymously, "{what}: {heard:02x?}");
                }
                drop(server);
            }
        }
    }
    Ok(())
}

/// A client with a key gets its own prefix, and is reached under it (T-01 to T-04).
#[test]
fn a_client_of_the_tunnel_service_has_its_own_prefix() -> Result<()> {
    const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 0);
    const INSIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 0x42);
    let keys = Keys::new()?;
    let scene = scene(Place::Alone)?;
    let (client, namespace) = forged(&scene, 4096)?;
    let host = scene.host();
    scene
        .server_namespace()
        .sysctl("net.ipv6.conf.all.forwarding", 1)?;
    host.namespace
        .ip(&format!("route add {PREFIX}/64 via {SERVER_IPV6}"))?;
    let key = Key::new(Algorithm::HmacMd5, &[0x0b; 16])?;
    let request = |nonce: [u8; 8]| authenticate(&key, nonce, &solicitation(CLIENT));
    for mode in ["native", "off"] {
        let prefix = format!("{PREFIX}/64");
        let config = scene.server_config();
        let config = keys.configure(config, "alice", "hmac-md5", 0x0b, None, &prefix)?;
        let server = start(scene.server_namespace(), &config, mode)?;

        let nonce = *b"tunnel 1";
        let (answer, from) = client.ask(SERVER, &request(nonce))?;
        let advertised = advertisement_of(SERVER, CLIENT, PREFIX, Some(1280));
        let covered = [&origin(client.mapped())[..], &advertised].concat();
        ensure!(
            answer == authenticate(&key, nonce, &covered),
            "{answer:02x?}"
        );
        ensure!(from == SocketAddrV4::new(SERVER, SERVER_PORT), "{from}");

        exchange(&client, host, INSIDE)?;

        // Another host at another port is not the client, but becomes it with the key.
        let other = Caller::open(&namespace, SocketAddrV4::new(FORGED, 4097))?;
        let stolen = udp_packet((INSIDE, 7), (host.address, 9), 64, b"stolen")?;
        let capture = Capture::start(&host.namespace, IPV6_INTERFACE)?;
        other.say(SERVER, &stolen)?;
        other.ask(SERVER, &request(*b"tunnel 2"))?;
        exchange(&other, host, INSIDE)?;
        let frames = capture.stop()?.0;
        let is_stolen = |frame: &Frame| frame.bytes.ends_with(b"stolen");
        ensure!(!frames.iter().any(is_stolen), "{mode}: a stolen packet");
        drop(server);
    }
    Ok(())
}

/// A datagram of the client and the host's answer, both as sent.
fn exchange(client: &Caller, host: &Host, inside: Ipv6Addr) -> Result<()> {
    let socket = host
        .namespace
        .run(|| UdpSocket::bind((host.address, 0)))??;
    socket.set_read_timeout(Some(SOON))?;
    let port = socket.local_addr()?.port();
    let packet = udp_packet((inside, 7), (host.address, port), 64, b"out of the tunnel")?;
    client.say(SERVER, &packet)?;
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer)?;
    ensure!(&buffer[..length] == b"out of the tunnel");
    ensure!(from.ip() == inside && from.port() == 7, "{from}");
    socket.send_to(b"into the tunnel", from)?;
    let (answer, from) = client.hear()?;
    ensure!(from == SocketAddrV4::new(SERVER, SERVER_PORT), "{from}");
    ensure!(
        answer.ends_with(b"into the tunnel") && answer[24..40] == inside.octets(),
        "{answer:02x?}"
    );
    Ok(())
}

/// The authentication header of `alice` with this key, over these octets.
fn authenticate(key: &Key, nonce: [u8; 8], covered: &[u8]) -> Vec<u8> {
    let mut value = [0; 16];
    key.sign(nonce, 0, covered, &mut value);
    [&[0, 1, 5, 16][..], b"alice", &value, &nonce, &[0], covered].concat()
}

/// Relay and server run in one process (S-30 to S-32).
fn both_roles_in_one_process(mode: &str, is_one_port: bool) -> Result<()> {
    for client_is_first in [false, true] {
        let scene = scene(Place::Relay)?;
        let (config, relay) = if is_one_port {
            let endpoint = SocketAddrV4::new(SERVER, SERVER_PORT);
            (scene.dual_config(endpoint), endpoint)
        } else {
            (scene.dual_config(RELAY), RELAY)
        };
        let config = config.set("relay.xdp.mode", mode);
        let node = start(&scene.relay, &config, mode)?;
        let mut roles = node.status()?.roles;
        roles.sort();
        ensure!(roles == ["relay", "server"], "{roles:?}");
        let client = scene.start_miredo_client()?;
        let (site, host) = (scene.site(), scene.host());
        let inside = Capture::start(&site.client, "eth0")?;
        if client_is_first {
            Ping::to(host.address).all_from(&site.client)?;
        } else {
            Ping::to(client.address()).all_from(&host.namespace)?;
            if !is_one_port {
                inside.wait_for("a bubble with its origin", SOON, |frame| {
                    is_forwarded_bubble(frame, relay)
                })?;
            }
        }
        Ping::to(client.address())
            .count(5)
            .all_from(&host.namespace)?;
        Ping::to(host.address).count(5).all_from(&site.client)?;
        let peer = node.peer(client.address())?;
        ensure!(
            peer.as_ref()
                .is_some_and(|peer| peer.xdp == (mode != "off")),
            "{peer:?}"
        );
    }
    Ok(())
}

#[test]
fn both_roles_on_two_ports_in_native_xdp() -> Result<()> {
    both_roles_in_one_process("native", false)
}

#[test]
fn both_roles_on_two_ports_without_xdp() -> Result<()> {
    both_roles_in_one_process("off", false)
}

#[test]
fn both_roles_on_one_port_in_native_xdp() -> Result<()> {
    both_roles_in_one_process("native", true)
}

#[test]
fn both_roles_on_one_port_without_xdp() -> Result<()> {
    both_roles_in_one_process("off", true)
}
