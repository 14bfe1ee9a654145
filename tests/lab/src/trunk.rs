//! Frames with VLAN tags.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{
        SchedClassifier, TcAttachType,
        tc::{self, NlOptions, TcAttachOptions},
    },
};
use nix::{
    net::if_::if_nametoindex,
    sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt},
};
use teredo::datapath::verifier::undisturbed;

use super::{namespace::Namespace, programs::OBJECT};

/// An interface whose frames may be of VLANs.
#[derive(Debug)]
pub struct Trunk {
    socket: OwnedFd,
    index: u32,
    #[expect(dead_code, reason = "held for its drop")]
    object: Ebpf,
}

impl Trunk {
    /// Makes an interface of `namespace` a trunk. Tags are beside the frames, where a veth leaves them; with
    /// its offload `txvlan` off, they are in the frames.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn new(namespace: &Namespace, interface: &str) -> Result<Self> {
        namespace.run(|| {
            let mut object = Ebpf::load(OBJECT)?;
            let program = object.program_mut("trunk");
            let program: &mut SchedClassifier =
                program.context("the object has no trunk")?.try_into()?;
            undisturbed(|| program.load())?;
            tc::qdisc_add_clsact(interface)?;
            let options = TcAttachOptions::Netlink(NlOptions::default());
            program.attach_with_options(interface, TcAttachType::Egress, options)?;
            let flags = SockFlag::SOCK_CLOEXEC;
            Ok(Self {
                socket: socket(AddressFamily::Packet, SockType::Raw, flags, None)?,
                index: if_nametoindex(interface)?,
                object,
            })
        })?
    }

    /// Sends an Ethernet frame in a VLAN; 0 sends it without a tag.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn send(&self, vlan: u16, frame: &[u8]) -> Result<()> {
        setsockopt(&self.socket, sockopt::Mark, &vlan.into())?;
        // SAFETY: a structure of numbers, for which zero is a value.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = self.index as i32;
        // SAFETY: frame and address are as long as said.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error().into());
        }
        Ok(())
    }
}
