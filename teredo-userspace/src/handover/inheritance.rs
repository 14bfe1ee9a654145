//! What a process got from the one before.

use std::{
    net::SocketAddrV4,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::PathBuf,
};

use nix::sys::socket::{SockaddrIn, getsockname};

use super::{
    descriptors::{self, JOURNAL, QUEUE_PROGRAM, STATE, TUN, TUN_FURTHER, UDP, UDP_FURTHER},
    memory::Memory,
    state::State,
};
use crate::{
    config::ApiAddress,
    datapath::{
        tun,
        udp::UdpSocket,
        xdp::{Link, Remains},
    },
};

/// Descriptors and state of an earlier process, of which each is taken once. Those that nobody takes are
/// closed with it.
#[derive(Debug, Default)]
pub struct Inheritance {
    descriptors: Vec<(String, OwnedFd)>,
    all_names: Vec<String>,
    /// The sequence of the state.
    pub sequence: u64,
    /// The state of the roles.
    pub state: State,
}

impl Inheritance {
    /// Returns the descriptors that the service manager has kept.
    ///
    /// To be called once, before there is a second thread.
    #[must_use]
    pub fn of_service() -> Self {
        let listed = match sd_notify::listen_fds_with_names() {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!("the descriptors of the service manager cannot be used: {error}");
                return Self::default();
            }
        };
        let descriptors = listed.map(|(descriptor, name)| {
            // SAFETY: the service manager has opened this descriptor for this process, and nothing else
            // owns it.
            (name, unsafe { OwnedFd::from_raw_fd(descriptor) })
        });
        Self::of(descriptors.collect())
    }

    /// Sorts the descriptors, and reads the state among them.
    #[must_use]
    pub fn of(mut descriptors: Vec<(String, OwnedFd)>) -> Self {
        let all_names = descriptors.iter().map(|(name, _)| name.clone()).collect();
        let states = descriptors.extract_if(.., |(name, _)| descriptors::is(name, STATE));
        let states = states.filter_map(|(_, descriptor)| Memory::from(descriptor).read());
        let newest = states.max_by_key(|(sequence, _)| *sequence);
        let (sequence, octets) = newest.unwrap_or_default();
        let state = match octets.is_empty() {
            true => State::default(),
            false => State::decode(&octets),
        };
        Self {
            descriptors,
            all_names,
            sequence,
            state,
        }
    }

    /// Returns whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all_names.is_empty()
    }

    /// Closes the descriptors that nobody has taken.
    pub fn close(&mut self) {
        for (name, descriptor) in self.descriptors.drain(..) {
            tracing::debug!("{name} of the process before is of no use any more");
            if descriptors::is(&name, TUN)
                && let Err(error) = tun::end_with_process(&descriptor)
            {
                tracing::debug!("the tunnel interface stays: {error}");
            }
        }
    }

    /// Returns whether nobody has taken the descriptor of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.descriptors.iter().any(|(there, _)| there == name)
    }

    /// Returns the names of all descriptors, also those that were taken.
    pub fn all_names(&self) -> impl Iterator<Item = &str> {
        self.all_names.iter().map(|name| &**name)
    }

    /// Takes the listening socket of the API at this address.
    pub fn take_listener(&mut self, address: &ApiAddress) -> Option<OwnedFd> {
        let kind = descriptors::listener_kind(address);
        self.take(|name, _| descriptors::is(name, &kind))
    }

    /// Returns the files of the unix sockets of the API that nobody has taken.
    pub fn left_sockets(&self) -> impl Iterator<Item = PathBuf> {
        let names = self.descriptors.iter().map(|(name, _)| name);
        names.filter_map(|name| descriptors::socket_of(name))
    }

    /// Takes the sockets of a UDP port: sender, receiver, and that for marked datagrams.
    pub fn take_udp(&mut self, local: SocketAddrV4) -> Option<[OwnedFd; 3]> {
        let [sender, receiver, marked] = UDP.map(|kind| {
            self.take(|name, descriptor| {
                let bound = || getsockname::<SockaddrIn>(descriptor.as_raw_fd());
                descriptors::is(name, kind) && bound().is_ok_and(|bound| bound == local.into())
            })
        });
        Some([sender?, receiver?, marked?])
    }

    /// Takes the sockets that have shares of the datagrams of a UDP port, in their order.
    pub fn take_further_udp(&mut self, local: SocketAddrV4) -> Vec<OwnedFd> {
        self.take_all(|name, descriptor| {
            descriptors::is(name, UDP_FURTHER)
                && getsockname::<SockaddrIn>(descriptor.as_raw_fd())
                    .is_ok_and(|bound| bound == local.into())
        })
    }

    /// Takes the program that divides packets among the queues of an interface, and its number in the kernel.
    pub fn take_queue_program(&mut self) -> Option<(OwnedFd, u32)> {
        let mut names = self.descriptors.iter().map(|(name, _)| name);
        let place = names.position(|name| descriptors::is(name, QUEUE_PROGRAM))?;
        let (name, program) = self.descriptors.swap_remove(place);
        let number = descriptors::number(&name)?.try_into().ok()?;
        Some((program, number))
    }

    /// Takes the journal of peers.
    pub fn take_journal(&mut self) -> Option<OwnedFd> {
        self.take(|name, _| descriptors::is(name, JOURNAL))
    }

    /// Takes the UDP ports that are bound to every address.
    pub fn take_ports(&mut self) -> Vec<UdpSocket> {
        let locals: Vec<_> = (self.descriptors.iter())
            .filter(|(name, _)| descriptors::is(name, UDP[0]))
            .filter_map(|(_, descriptor)| {
                let bound: SockaddrIn = getsockname(descriptor.as_raw_fd()).ok()?;
                Some(SocketAddrV4::from(bound))
            })
            .filter(|local| local.ip().is_unspecified())
            .collect();
        locals
            .into_iter()
            .filter_map(|local| {
                Some(UdpSocket::inherited(
                    local,
                    self.take_udp(local)?,
                    Vec::new(),
                ))
            })
            .collect()
    }

    /// Takes the queues of the TUN interface of this name, its own first.
    pub fn take_tun(&mut self, name: &str) -> Vec<OwnedFd> {
        let is_of = |descriptor: &OwnedFd| tun::name_of(descriptor).as_deref() == Some(name);
        let own = self.take(|kind, descriptor| descriptors::is(kind, TUN) && is_of(descriptor));
        let further = self
            .take_all(|kind, descriptor| descriptors::is(kind, TUN_FURTHER) && is_of(descriptor));
        match own {
            Some(own) => [own].into_iter().chain(further).collect(),
            None => Vec::new(),
        }
    }

    /// Returns the number of the XDP program that is left.
    #[must_use]
    pub fn program(&self) -> Option<u32> {
        let links = self
            .descriptors
            .iter()
            .filter(|(name, _)| Remains::includes(name));
        links
            .filter_map(|(_, descriptor)| Link::inherited(descriptor.try_clone().ok()?).info().ok())
            .map(|info| info.program)
            .next()
    }

    /// Takes what is left of the XDP program.
    pub fn take_program(&mut self) -> Remains {
        let descriptors = &mut self.descriptors;
        Remains::of(
            descriptors
                .extract_if(.., |(name, _)| Remains::includes(name))
                .collect(),
        )
    }

    /// Takes the descriptors of one kind, in the order of the numbers at the ends of their names.
    fn take_all(&mut self, are_they: impl Fn(&str, &OwnedFd) -> bool) -> Vec<OwnedFd> {
        let all = &mut self.descriptors;
        let taken = all.extract_if(.., |(name, descriptor)| are_they(name, descriptor));
        let mut taken: Vec<_> = taken.collect();
        taken.sort_by_key(|(name, _)| descriptors::number(name));
        taken
            .into_iter()
            .map(|(_, descriptor)| descriptor)
            .collect()
    }

    fn take(&mut self, is_it: impl Fn(&str, &OwnedFd) -> bool) -> Option<OwnedFd> {
        let mut descriptors = self.descriptors.iter();
        let place = descriptors.position(|(name, descriptor)| is_it(name, descriptor))?;
        Some(self.descriptors.swap_remove(place).1)
    }
}
