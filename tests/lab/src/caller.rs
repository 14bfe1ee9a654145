//! A Teredo client that is only a socket and sends a server exactly the datagrams of its test.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use teredo_common::wire::SERVER_PORT;

use super::{
    namespace::Namespace,
    qualification::{MTU, advertisement, nonce_only, origin, solicitation},
    wait::uninterrupted,
};

/// Longest time to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// The socket.
#[derive(Debug)]
pub struct Caller {
    socket: UdpSocket,
    mapped: SocketAddrV4,
}

impl Caller {
    /// Opens a socket on an address of the namespace.
    ///
    /// # Errors
    ///
    /// Fails when the endpoint is in use or does not exist.
    pub fn open(namespace: &Namespace, mapped: SocketAddrV4) -> Result<Self> {
        let socket = namespace
            .run(|| UdpSocket::bind(mapped))?
            .with_context(|| format!("bind {mapped}"))?;
        let SocketAddr::V4(mapped) = socket.local_addr()? else {
            bail!("{mapped} became IPv6");
        };
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, mapped })
    }

    /// The socket's endpoint, which is also its mapped endpoint.
    #[must_use]
    pub fn mapped(&self) -> SocketAddrV4 {
        self.mapped
    }

    /// Sends a datagram to the server's port of an address.
    ///
    /// # Errors
    ///
    /// Fails when the socket refuses.
    pub fn say(&self, to: Ipv4Addr, payload: &[u8]) -> Result<()> {
        self.socket.send_to(payload, (to, SERVER_PORT))?;
        Ok(())
    }

    /// Receives the next datagram and its source.
    ///
    /// # Errors
    ///
    /// Fails when no datagram comes in time, or when the server's host reports a closed port.
    pub fn hear(&self) -> Result<(Vec<u8>, SocketAddrV4)> {
        let mut buffer = vec![0; 2048];
        let (length, from) = uninterrupted(PATIENCE, || self.socket.recv_from(&mut buffer))
            .with_context(|| format!("{} hears nothing", self.mapped))?;
        buffer.truncate(length);
        match from {
            SocketAddr::V4(from) => Ok((buffer, from)),
            SocketAddr::V6(from) => bail!("{from} is no IPv4 endpoint"),
        }
    }

    /// Sends a request and receives the answer.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::hear`].
    pub fn ask(&self, to: Ipv4Addr, payload: &[u8]) -> Result<(Vec<u8>, SocketAddrV4)> {
        self.say(to, payload)?;
        self.hear()
    }

    /// Solicits an advertisement from one address of the server with this primary address. The
    /// answer must be correct and come from `expected`. No other datagram may have arrived before,
    /// which proves that earlier requests without an answer have none.
    ///
    /// # Errors
    ///
    /// Fails when no advertisement comes, or a different one.
    pub fn qualify(
        &self,
        primary: Ipv4Addr,
        to: Ipv4Addr,
        link_local: Ipv6Addr,
        expected: Ipv4Addr,
    ) -> Result<()> {
        let nonce = nonce_only(*b"qualify!");
        let (answer, from) = self.ask(to, &[&nonce[..], &solicitation(link_local)].concat())?;
        let advertised = advertisement(primary, link_local, Some(MTU));
        let whole = [&nonce[..], &origin(self.mapped), &advertised].concat();
        ensure!(answer == whole, "{answer:02x?} instead of {whole:02x?}");
        let expected = SocketAddrV4::new(expected, SERVER_PORT);
        ensure!(from == expected, "it came from {from}, not {expected}");
        Ok(())
    }
}
