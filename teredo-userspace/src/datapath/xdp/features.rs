//! What the driver of an interface can do with XDP, asked without attaching anything: a trial
//! would take the link of many network cards down for seconds.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

/// The family that knows the others (`GENL_ID_CTRL`), its command and its attributes.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// The family `netdev`, Linux 6.3 and newer; its command and its attributes.
const NETDEV: &[u8] = b"netdev\0";
const GET_DEVICE: u8 = 1;
const DEVICE_INDEX: u16 = 1;
const DEVICE_XDP_FEATURES: u16 = 3;

/// Octets of `struct nlmsghdr`, `struct genlmsghdr` and `struct nlattr`.
const MESSAGE_HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;
/// `nlmsg_type` of an error and `nlmsg_flags` of a question.
const ERROR: u16 = 2;
const REQUEST: u16 = 1;

/// What a driver can do (`enum netdev_xdp_act`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures(u64);

impl XdpFeatures {
    /// It runs programs natively, and they can pass, drop and answer frames.
    const BASIC: u64 = 1;
    /// They can redirect frames to other interfaces.
    const REDIRECT: u64 = 2;
    /// It sends frames that programs of other interfaces redirect to it.
    const NDO_XMIT: u64 = 4;

    /// Whether the relay's program can run in the driver.
    #[must_use]
    pub const fn is_native(self) -> bool {
        let needed = Self::BASIC | Self::REDIRECT;
        self.0 & needed == needed
    }

    /// Whether frames that are redirected to the interface leave by it. The kernel drops them otherwise.
    /// Many drivers are able to once they run a program themselves.
    #[must_use]
    pub const fn takes_redirected(self) -> bool {
        self.0 & Self::NDO_XMIT != 0
    }
}

/// The features of the interface with this number.
///
/// # Errors
///
/// `ErrorKind::NotFound` from a kernel that cannot tell (before 6.3), and what the kernel says
/// otherwise.
pub fn xdp_features(interface: u32) -> io::Result<XdpFeatures> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let ask = |family, command, kind, value: &[u8], wanted| -> io::Result<Vec<u8>> {
        socket.send(&question(family, command, kind, value), 0)?;
        let (answer, _) = socket.recv_from_full()?;
        attribute(&answer, wanted)
    };
    let family = ask(CONTROLLER, GET_FAMILY, FAMILY_NAME, NETDEV, FAMILY_ID)?;
    let family = u16::from_ne_bytes(fixed(&family)?);
    let index = interface.to_ne_bytes();
    let features = ask(
        family,
        GET_DEVICE,
        DEVICE_INDEX,
        &index,
        DEVICE_XDP_FEATURES,
    )?;
    Ok(XdpFeatures(u64::from_ne_bytes(fixed(&features)?)))
}

/// A message with one attribute.
fn question(family: u16, command: u8, kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute = ATTRIBUTE_HEADER + value.len();
    let length = MESSAGE_HEADER + GENERIC_HEADER + attribute.next_multiple_of(4);
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence number and port, which nobody looks at with one question at a time.
    message.extend([0; 8]);
    // Command, version, reserved.
    message.extend([command, 1, 0, 0]);
    message.extend((attribute as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(length, 0);
    message
}

/// The value of an attribute in an answer.
fn attribute(answer: &[u8], wanted: u16) -> io::Result<Vec<u8>> {
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let kind = u16::from_ne_bytes(fixed(answer.get(4..6).ok_or_else(broken)?)?);
    if kind == ERROR {
        let code = fixed(answer.get(MESSAGE_HEADER..).ok_or_else(broken)?)?;
        return Err(io::Error::from_raw_os_error(-i32::from_ne_bytes(code)));
    }
    let mut rest = answer
        .get(MESSAGE_HEADER + GENERIC_HEADER..)
        .ok_or_else(broken)?;
    while rest.len() >= ATTRIBUTE_HEADER {
        let length = usize::from(u16::from_ne_bytes(fixed(rest)?));
        let kind = u16::from_ne_bytes(fixed(&rest[2..])?);
        let value = rest.get(ATTRIBUTE_HEADER..length).ok_or_else(broken)?;
        if kind == wanted {
            return Ok(value.to_vec());
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Err(io::ErrorKind::NotFound.into())
}

/// The first octets.
fn fixed<const N: usize>(octets: &[u8]) -> io::Result<[u8; N]> {
    octets
        .first_chunk()
        .copied()
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_no_native_xdp() {
        // Number 1 in every network namespace.
        match xdp_features(1) {
            Ok(features) => assert!(!features.is_native()),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound, "an old kernel"),
        }
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        assert!(xdp_features(u32::MAX >> 1).is_err());
    }

    #[test]
    fn attributes_are_found_and_broken_answers_refused() {
        let mut message = question(20, 1, 7, &[1, 2, 3]);
        message.extend([8, 0, 9, 0, 4, 5, 6, 7]);
        assert_eq!(attribute(&message, 7).unwrap(), [1, 2, 3]);
        assert_eq!(attribute(&message, 9).unwrap(), [4, 5, 6, 7]);
        assert_eq!(
            attribute(&message, 8).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        for length in 0..message.len() {
            // No answer that is cut short makes it panic.
            let _ = attribute(&message[..length], 9);
        }
        let zero_length = [&question(20, 1, 7, &[])[..20], &[0; 4]].concat();
        assert!(attribute(&zero_length, 1).is_err());
    }
}
