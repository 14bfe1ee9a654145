//! The names of descriptors. A name has parts that are separated by dots: the kind of the object, and what
//! tells it from all others, so that two names are equal only if the objects are.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
};

use nix::sys::stat::fstat;

use crate::{
    config::ApiAddress,
    datapath::udp::{Receiver, Sender},
    metrics::Role,
};

/// The kind of the three sockets of a UDP port, in this order.
pub const UDP: [&str; 3] = ["udp-sender", "udp-receiver", "udp-marked"];
/// The kind of the sockets of a UDP port that have shares of its datagrams.
pub const UDP_FURTHER: &str = "udp-further";
/// The kind of TUN interfaces.
pub const TUN: &str = "tun";
/// The kind of their queues, except for the first.
pub const TUN_FURTHER: &str = "tun-further";
/// The kind of programs that divide packets among those queues.
pub const QUEUE_PROGRAM: &str = "queue-program";
/// The kind of journals of peers.
pub const JOURNAL: &str = "journal";
/// The kind of files with the state.
pub const STATE: &str = "state";

/// A descriptor with its name.
pub type Named<'a> = (String, BorrowedFd<'a>);

/// Returns the kind of the listening socket of the API at an address.
#[must_use]
pub fn listener_kind(address: &ApiAddress) -> String {
    // Colons separate the names that the service manager passes.
    format!("api {address}").replace(':', "=")
}

/// Returns the file of the unix socket of the API that has this name. One with a colon in its path is not found.
#[must_use]
pub fn socket_of(name: &str) -> Option<PathBuf> {
    let (path, _) = name.strip_prefix("api unix=")?.rsplit_once('.')?;
    Some(path.into())
}

/// Names a descriptor for its kind and its number in the file system.
pub fn named<'a>(kind: &str, descriptor: &'a impl AsFd) -> Option<Named<'a>> {
    let descriptor = descriptor.as_fd();
    let inode = fstat(descriptor).ok()?.st_ino;
    Some((format!("{kind}.{inode}"), descriptor))
}

/// Names the TUN interface of a role.
#[must_use]
pub fn tun(role: Role, name: &str, index: u32) -> String {
    // No interface has a slash in its name.
    format!("{TUN}.{}/{name}.{index}", role.name())
}

/// Names a queue of the TUN interface of a role; the first has the interface's own name.
#[must_use]
pub fn queue(role: Role, name: &str, index: u32, number: usize) -> String {
    match number {
        0 => tun(role, name, index),
        number => format!("{TUN_FURTHER}.{}/{name}.{index}.{number}", role.name()),
    }
}

/// Returns whether a name is that of something that is of no use without others, which are stored before it.
#[must_use]
pub fn is_further(name: &str) -> bool {
    is(name, UDP_FURTHER) || is(name, TUN_FURTHER)
}

/// Returns the number at the end of a name.
#[must_use]
pub fn number(name: &str) -> Option<u64> {
    name.rsplit_once('.')?.1.parse().ok()
}

/// Returns whether a name is that of a queue of the TUN interface of a role.
#[must_use]
pub fn is_tun_of(name: &str, role: Role) -> bool {
    [TUN, TUN_FURTHER].into_iter().any(|kind| {
        let rest = name.strip_prefix(kind);
        let rest = rest.and_then(|rest| rest.strip_prefix('.'));
        let rest = rest.and_then(|rest| rest.strip_prefix(role.name()));
        rest.is_some_and(|rest| rest.starts_with('/'))
    })
}

/// Names the sockets that have shares of the datagrams of a UDP port, in their order.
pub fn further<'a>(sockets: impl Iterator<Item = &'a Receiver>) -> impl Iterator<Item = Named<'a>> {
    let named = sockets.map(|socket| named(UDP_FURTHER, socket));
    named.enumerate().filter_map(|(position, named)| {
        let (name, socket) = named?;
        Some((format!("{name}.{position}"), socket))
    })
}

/// Names the sockets of a UDP port: sender, receiver, and that for marked datagrams.
pub fn udp<'a>(
    sender: &'a Sender,
    receivers: [&'a Receiver; 2],
) -> impl Iterator<Item = Named<'a>> {
    let [of_sender, of_receiver, of_marked] = UDP;
    let [receiver, marked] = receivers;
    let all = [
        named(of_sender, sender),
        named(of_receiver, receiver),
        named(of_marked, marked),
    ];
    all.into_iter().flatten()
}

/// Returns whether a name is one of this kind.
#[must_use]
pub fn is(name: &str, kind: &str) -> bool {
    let rest = name.strip_prefix(kind);
    // What tells the object from others may have parts of its own.
    rest.is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_socket_is_in_its_name() {
        let address = ApiAddress::Unix("/run/a.b/c.sock".into());
        let name = format!("{}.77", listener_kind(&address));
        assert_eq!(socket_of(&name), Some("/run/a.b/c.sock".into()));
        let address = ApiAddress::Tcp(([127, 0, 0, 1], 80).into());
        assert_eq!(socket_of(&format!("{}.77", listener_kind(&address))), None);
    }

    #[test]
    fn the_tunnel_of_a_role_is_told_from_others() {
        let name = tun(Role::Relay, "teredo", 7);
        assert!(is(&name, TUN) && is_tun_of(&name, Role::Relay));
        assert!(!is_tun_of(&name, Role::Client));
        // A queue of it, and as earlier releases name it.
        let further = queue(Role::Relay, "teredo", 7, 12);
        assert!(is(&further, TUN_FURTHER) && !is(&further, TUN) && number(&further) == Some(12));
        assert!(is_tun_of(&further, Role::Relay) && !is_tun_of(&further, Role::Server));
        assert_eq!(queue(Role::Relay, "teredo", 7, 0), name);
        assert!(!is_tun_of("tun.relay.7", Role::Relay));
    }
}
