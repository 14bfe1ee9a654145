//! Clients with keys: secure qualification and the tunnel service.

use teredo_lab::uninterrupted;

use super::*;

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
    let (length, from) = uninterrupted(SOON, || socket.recv_from(&mut buffer))?;
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
