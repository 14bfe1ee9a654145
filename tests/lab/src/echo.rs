//! Echo requests whose replies are all awaited. The program `ping` waits for the last ones no longer than for the interval
//! between two requests, once others have come.

use std::{
    collections::BTreeSet,
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, recv, sendto,
            setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};

use super::wait::uninterrupted;

const REQUEST: u8 = 128;
const REPLY: u8 = 129;
/// Octets of the header of an echo message.
const HEADER: usize = 8;
/// Octets of the longest message that is received.
const MESSAGE: usize = 65_536;
/// The shortest wait for a reply; zero would be for ever.
const SHORTEST: Duration = Duration::from_millis(1);

/// A number of echo requests.
#[derive(Clone, Copy, Debug)]
pub struct Requests {
    /// Their destination.
    pub to: Ipv6Addr,
    /// Their number.
    pub count: u16,
    /// Octets behind the header of each.
    pub payload: u16,
    /// Their hop limit.
    pub hop_limit: u8,
    /// The time between two of them.
    pub interval: Duration,
    /// The time for which replies are awaited after the last one.
    pub wait: Duration,
}

impl Requests {
    /// Sends the requests from the namespace of the calling thread, and returns the numbers, from 1 on, of those that are
    /// not answered.
    ///
    /// # Errors
    ///
    /// Fails when the process may not send echo requests.
    pub fn send(self) -> Result<BTreeSet<u16>> {
        let socket = self.socket().context("send echo requests")?;
        let identifier = identifier();
        let mut missing: BTreeSet<u16> = (1..=self.count).collect();
        let (mut sent, mut due) = (0, Instant::now());
        loop {
            if sent < self.count && Instant::now() >= due {
                sent += 1;
                self.send_one(&socket, identifier, sent);
                due = Instant::now()
                    + match sent == self.count {
                        true => self.wait,
                        false => self.interval,
                    };
            }
            let left = due.saturating_duration_since(Instant::now());
            if missing.is_empty() || sent == self.count && left.is_zero() {
                return Ok(missing);
            }
            if let Some(number) = self.receive(&socket, identifier, left.max(SHORTEST))? {
                missing.remove(&number);
            }
        }
    }

    fn socket(&self) -> Result<OwnedFd> {
        let socket = socket(
            AddressFamily::Inet6,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::IcmpV6,
        )?;
        setsockopt(&socket, sockopt::Ipv6Ttl, &self.hop_limit.into())?;
        // As long as they are, or not at all.
        let mode = libc::IPV6_PMTUDISC_DO;
        // SAFETY: the option is an integer, which outlives the call.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_IPV6,
                libc::IPV6_MTU_DISCOVER,
                (&raw const mode).cast(),
                size_of_val(&mode) as libc::socklen_t,
            )
        };
        Errno::result(result)?;
        Ok(socket)
    }

    /// Sends a request. One that cannot be sent has no answer.
    fn send_one(&self, socket: &OwnedFd, identifier: u16, number: u16) {
        let mut message = vec![REQUEST, 0, 0, 0];
        message.extend(identifier.to_be_bytes());
        message.extend(number.to_be_bytes());
        message.extend(self.content());
        let to = SockaddrIn6::from(SocketAddrV6::new(self.to, 0, 0, 0));
        let _ = sendto(socket.as_raw_fd(), &message, &to, MsgFlags::empty());
    }

    /// Returns the number of the next reply, if one comes within this time.
    fn receive(&self, socket: &OwnedFd, identifier: u16, wait: Duration) -> Result<Option<u16>> {
        let timeout = TimeVal::new(wait.as_secs() as i64, wait.subsec_micros().into());
        setsockopt(socket, sockopt::ReceiveTimeout, &timeout)?;
        let mut message = [0; MESSAGE];
        // A router may have reported an error: that request has no answer.
        let socket = socket.as_raw_fd();
        let received = uninterrupted(wait, || Ok(recv(socket, &mut message, MsgFlags::empty())?));
        let Ok(length) = received else {
            return Ok(None);
        };
        let Some((&[kind, 0, _, _, a, b, c, d], content)) =
            message[..length].split_first_chunk::<HEADER>()
        else {
            return Ok(None);
        };
        let is_mine = kind == REPLY
            && u16::from_be_bytes([a, b]) == identifier
            && content.iter().copied().eq(self.content());
        Ok(is_mine.then_some(u16::from_be_bytes([c, d])))
    }

    fn content(&self) -> impl Iterator<Item = u8> {
        (0..self.payload).map(|number| number as u8)
    }
}

/// Returns an identifier that no other requests of this process have at the same time.
fn identifier() -> u16 {
    static LAST: AtomicU16 = AtomicU16::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}
