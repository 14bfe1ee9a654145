//! VLAN tags, which the program has to see in the frames: a frame with one is not for this host's own
//! network, or for another of its interfaces.
//!
//! Drivers take tags out of frames and hand them over beside these, where no XDP program sees them: it
//! would take a frame of a VLAN for one without, and send the answer without. So the daemon switches
//! this off in the drivers of network cards.
//!
//! On other interfaces that is not possible: the tags in frames of a veth depend on its other end, and
//! frames of bridges, bonds and the like have lost theirs in the kernel. There the daemon listens: if the
//! kernel's stack gets more frames with tags than the program has seen, tags are hidden from the program,
//! which is then not for this interface.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tracing::{debug, info};

use super::{Error, Interface, Mode, delivery::ports};
use crate::datapath::ethtool::Ethtool;

/// The name of the offload in the kernel.
const FEATURE: &str = "rx-vlan-hw-parse";
/// Drivers of interfaces whose frames may have lost their tags elsewhere.
const ELSEWHERE: [&str; 8] = [
    "veth", "bridge", "bonding", "bond", "team", "macvlan", "macvtap", "ipvlan",
];
/// Frames that may have been on their way when the program was attached.
const ON_THEIR_WAY: u64 = 8;

/// The place of the VLAN tags of frames that arrive at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tags {
    /// In the frames.
    Inside,
    /// The driver takes them out, and need not.
    Removed,
    /// Nobody can tell.
    Unknown,
}

/// The tags on the interfaces of the fast path.
#[derive(Debug, Default)]
pub struct TagKeeper {
    /// Interfaces whose drivers took tags out of frames before.
    changed: BTreeSet<String>,
    listeners: Vec<Listener>,
    /// Frames with tags that the program had seen when it was attached.
    seen_before: u64,
}

impl TagKeeper {
    /// Makes the drivers leave tags in frames, as far as possible. To be called before the program is
    /// attached.
    ///
    /// # Errors
    ///
    /// [`Error::Attach`] if a driver does not obey.
    pub fn keep(&mut self, interfaces: &[Interface]) -> Result<(), Error> {
        // Later the process may lack the capability for new ones.
        let mut listeners = std::mem::take(&mut self.listeners);
        let ethtool = Ethtool::open().map_err(|source| Error::Netlink {
            name: "ethtool".to_owned(),
            source,
        })?;
        for interface in interfaces {
            let mut all = ports(interface);
            if !interface.ports.is_empty() {
                all.push((interface.index, interface.name.clone()));
            }
            for (index, name) in all {
                match Tags::at(&ethtool, &name) {
                    Tags::Inside => {}
                    Tags::Removed => self.insist(&ethtool, &name)?,
                    Tags::Unknown => self.listen(index, name, &mut listeners),
                }
            }
        }
        Ok(())
    }

    /// Begins to compare, with the number of frames with tags that the program has seen so far. To be
    /// called once the program is attached.
    pub fn begin(&mut self, seen: u64) {
        self.seen_before = seen;
        for listener in &mut self.listeners {
            listener.count();
            listener.heard = 0;
        }
    }

    /// Returns whether there is something to compare.
    pub fn is_listening(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// Counts the frames with tags that the kernel's stack got.
    pub fn count(&mut self) {
        self.listeners.iter_mut().for_each(Listener::count);
    }

    /// Returns index and name of an interface whose tags the program does not see. `seen` is the number of
    /// frames with tags that it has seen, read after [`Self::count`].
    pub fn hidden(&self, seen: u64) -> Option<(u32, &str)> {
        let heard: u64 = self.listeners.iter().map(|listener| listener.heard).sum();
        let seen = seen.saturating_sub(self.seen_before);
        if heard <= seen.saturating_add(ON_THEIR_WAY) {
            return None;
        }
        let most = self
            .listeners
            .iter()
            .max_by_key(|listener| listener.heard)?;
        Some((most.index, &most.name))
    }

    /// Gives the drivers back the offload that they had.
    pub fn restore(&mut self) {
        self.listeners.clear();
        let Ok(ethtool) = Ethtool::open() else {
            return;
        };
        for name in std::mem::take(&mut self.changed) {
            if let Err(error) = ethtool.set_tag_removal(&name, true) {
                debug!("cannot restore rxvlan of {name}: {error}");
            }
        }
    }

    fn insist(&mut self, ethtool: &Ethtool, name: &str) -> Result<(), Error> {
        let refused = |reason: String| Error::Attach {
            interface: name.to_owned(),
            mode: Mode::Native,
            reason: format!(
                "its driver takes VLAN tags out of frames, and cannot be told not to ({reason}): `ethtool -K \
                 {name} rxvlan off`"
            ),
        };
        ethtool
            .set_tag_removal(name, false)
            .map_err(|error| refused(error.to_string()))?;
        if Tags::at(ethtool, name) == Tags::Removed {
            return Err(refused("it stays on".to_owned()));
        }
        info!("VLAN tags stay in the frames of {name} (rxvlan off)");
        self.changed.insert(name.to_owned());
        Ok(())
    }

    /// Listens at an interface, with one of the listeners from before if there is one for it.
    fn listen(&mut self, index: u32, name: String, before: &mut Vec<Listener>) {
        if let Some(found) = before.iter().position(|listener| listener.index == index) {
            self.listeners.push(before.swap_remove(found));
            return;
        }
        match Listener::new(index, name) {
            Ok(listener) => self.listeners.push(listener),
            Err(error) => debug!("cannot listen for VLAN tags: {error}"),
        }
    }
}

impl Tags {
    fn at(ethtool: &Ethtool, name: &str) -> Self {
        let driver = ethtool.driver(name).unwrap_or_default();
        if ELSEWHERE.contains(&&*driver) {
            return Self::Unknown;
        }
        match ethtool.removes_tags(name) {
            Ok(true) if ethtool.is_available(name, FEATURE).unwrap_or(false) => Self::Removed,
            Ok(true) => Self::Unknown,
            _ => Self::Inside,
        }
    }
}

/// A socket that gets the frames of an interface with a VLAN tag, but does not read them.
#[derive(Debug)]
struct Listener {
    index: u32,
    name: String,
    socket: OwnedFd,
    heard: u64,
}

impl Listener {
    fn new(index: u32, name: String) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        set(
            &socket,
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            &1_i32,
        )?;
        let filter = filter();
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_ptr().cast_mut(),
        };
        set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        // The smallest that the kernel permits; frames beyond it are counted all the same.
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &0_i32)?;
        // SAFETY: a structure of numbers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as i32;
        // SAFETY: the address is as long as said.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        nix::Error::result(bound)?;
        Ok(Self {
            index,
            name,
            socket,
            heard: 0,
        })
    }

    /// Adds the frames since the last count.
    fn count(&mut self) {
        // `struct tpacket_stats`: packets, with those that were dropped, and drops. Reading resets them.
        let mut statistics = [0_u32; 2];
        let mut length = size_of_val(&statistics) as libc::socklen_t;
        // SAFETY: the kernel writes as many octets as said.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                statistics.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == 0 {
            self.heard += u64::from(statistics[0]);
        }
    }
}

/// Accepts the first octet of frames with a tag. The kernel treats those of VLAN 0, which have a priority
/// alone, as frames without.
fn filter() -> [libc::sock_filter; 5] {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // `SKF_AD_OFF` and places behind it.
    const TAG: u32 = (-0x1000_i32 + 44) as u32;
    const VLAN: u32 = 0xfff;
    let line = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    [
        // Zero without a tag.
        line(LOAD, 0, TAG),
        line(AND, 0, VLAN),
        line(IF_EQUAL, 1, 0),
        line(RETURN, 0, 1),
        line(RETURN, 0, 0),
    ]
}

fn set<T>(socket: &OwnedFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads as many octets as the value has, and what that points to lives as long.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    nix::Error::result(result).map(drop).map_err(Into::into)
}
