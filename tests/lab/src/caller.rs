//! A Teredo client that is only a socket, and says to a server what its test wants said.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use teredo_common::wire::SERVER_PORT;

use super::{
    namespace::Namespace,
    qualification::{MTU, advertisement, nonce_only, origin, solicitation},
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(4);

/// The socket.
#[derive(Debug)]
pub struct Caller {
    socket: UdpSocket,
    mapped: SocketAddrV4,
}

impl Caller {
    /// Opens it on an address of the namespace.
    ///
    /// # Errors
    ///
    /// When the endpoint is in use or not there.
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

    /// Its endpoint, which is its mapped one, too.
    #[must_use]
    pub fn mapped(&self) -> SocketAddrV4 {
        self.mapped
    }

    /// Sends a datagram to the server's port of an address.
    ///
    /// # Errors
    ///
    /// When the socket refuses.
    pub fn say(&self, to: Ipv4Addr, payload: &[u8]) -> Result<()> {
        self.socket.send_to(payload, (to, SERVER_PORT))?;
        Ok(())
    }

    /// The next datagram, and whom it is from.
    ///
    /// # Errors
    ///
    /// When none comes in time, or the server's host says that nobody listens.
    pub fn hear(&self) -> Result<(Vec<u8>, SocketAddrV4)> {
        let mut buffer = vec![0; 2048];
        let (length, from) = self
            .socket
            .recv_from(&mut buffer)
            .with_context(|| format!("{} hears nothing", self.mapped))?;
        buffer.truncate(length);
        match from {
            SocketAddr::V4(from) => Ok((buffer, from)),
            SocketAddr::V6(from) => bail!("{from} is no IPv4 endpoint"),
        }
    }

    /// Asks and hears the answer.
    ///
    /// # Errors
    ///
    /// As [`Self::hear`].
    pub fn ask(&self, to: Ipv4Addr, payload: &[u8]) -> Result<(Vec<u8>, SocketAddrV4)> {
        self.say(to, payload)?;
        self.hear()
    }

    /// Solicits an advertisement from one address of the server with this primary address; it has
    /// to be right and to come from `expected`. Nothing else may have come before, so that whatever
    /// was said before and has no answer until then has none.
    ///
    /// # Errors
    ///
    /// When it does not come, or is another.
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
