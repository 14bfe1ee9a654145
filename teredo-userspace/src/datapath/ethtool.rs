//! Questions to drivers, and settings of them, through the ethtool interface of the kernel.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

// Commands and sets of strings of the kernel's `linux/ethtool.h`.
const GET_DRIVER: u32 = 0x03;
const GET_LINK: u32 = 0x0a;
const GET_RINGS: u32 = 0x10;
const GET_STRINGS: u32 = 0x1b;
const GET_STATISTICS: u32 = 0x1d;
const GET_FLAGS: u32 = 0x25;
const SET_FLAGS: u32 = 0x26;
const GET_FLOW_HASH: u32 = 0x29;
const SET_RECEIVE_OFFLOAD: u32 = 0x2c;
const GET_SET_SIZES: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const STATISTICS: u32 = 1;
const FEATURES: u32 = 4;

/// `UDP_V4_FLOW`.
const UDP_IPV4: u32 = 2;

/// `ETH_FLAG_RXVLAN`.
const TAG_REMOVAL: u32 = 1 << 8;

/// Octets of each string.
const STRING: usize = 32;
/// Words of `struct ethtool_drvinfo`.
const DRIVER_WORDS: usize = 49;
/// Words of `struct ethtool_ringparam`, and the places of maximum and number of receive descriptors.
const RING_WORDS: usize = 9;
const RECEIVE_MAX: usize = 1;
const RECEIVE: usize = 5;
/// Words of the beginning of `struct ethtool_rxnfc`, of which the kernel answers this much.
const FLOW_WORDS: usize = 48;
/// Words of `struct ethtool_gstrings`, `ethtool_stats` and `ethtool_gfeatures` before their arrays.
const STRINGS_HEADER: usize = 3;
const HEADER: usize = 2;
/// Words of `struct ethtool_get_features_block`: available, requested, active, never changed.
const BLOCK: usize = 4;
/// Blocks of 32 features, more than any kernel has.
const BLOCKS: usize = 8;
/// Words of room for what a driver adds between the question for the number and that for the values.
const SPARE: usize = 1 << 16;

/// A way to ask drivers, in the network namespace that it was opened in.
#[derive(Debug)]
pub struct Ethtool(OwnedFd);

impl Ethtool {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// When the process has too many open files.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
        Ok(Self(socket))
    }

    /// Returns the name of the interface's driver.
    ///
    /// # Errors
    ///
    /// The error of the kernel, for example if there is no such interface.
    pub fn driver(&self, interface: &str) -> io::Result<String> {
        let mut information = [0; DRIVER_WORDS];
        information[0] = GET_DRIVER;
        self.ask(interface, &mut information)?;
        Ok(string(bytemuck::cast_slice(&information[1..])))
    }

    /// Returns whether the interface has a link to its other end.
    ///
    /// # Errors
    ///
    /// As [`Self::driver`].
    pub fn has_link(&self, interface: &str) -> io::Result<bool> {
        let mut link = [GET_LINK, 0];
        self.ask(interface, &mut link)?;
        Ok(link[1] != 0)
    }

    /// Returns whether the interface can have the feature, such as `tx-tcp-segmentation`, switched on or
    /// off. `ethtool -k` shows one that it cannot as fixed.
    ///
    /// # Errors
    ///
    /// As [`Self::driver`]; `NotFound` if the kernel does not know the feature.
    pub fn is_available(&self, interface: &str, feature: &str) -> io::Result<bool> {
        let names = self.strings(interface, FEATURES)?;
        let bit = names.iter().position(|name| name == feature);
        let bit = bit.ok_or(io::ErrorKind::NotFound)?;
        let mut features = [0; HEADER + BLOCKS * BLOCK];
        features[..HEADER].copy_from_slice(&[GET_FEATURES, BLOCKS as u32]);
        self.ask(interface, &mut features)?;
        let available = features.get(HEADER + bit / 32 * BLOCK);
        Ok(available.is_some_and(|available| available >> (bit % 32) & 1 != 0))
    }

    /// Returns the offloads that are on, as `ETH_FLAG_*` of the kernel.
    ///
    /// # Errors
    ///
    /// As [`Self::driver`].
    pub fn flags(&self, interface: &str) -> io::Result<u32> {
        let mut flags = [GET_FLAGS, 0];
        self.ask(interface, &mut flags)?;
        Ok(flags[1])
    }

    /// Returns whether the driver takes VLAN tags out of the frames that arrive.
    ///
    /// # Errors
    ///
    /// As [`Self::driver`].
    pub fn removes_tags(&self, interface: &str) -> io::Result<bool> {
        Ok(self.flags(interface)? & TAG_REMOVAL != 0)
    }

    /// Sets whether the driver takes VLAN tags out of the frames that arrive.
    ///
    /// # Errors
    ///
    /// As [`Self::driver`], without permission, and if the driver cannot.
    pub fn set_tag_removal(&self, interface: &str, on: bool) -> io::Result<()> {
        let flags = self.flags(interface)?;
        let flags = match on {
            true => flags | TAG_REMOVAL,
            false => flags & !TAG_REMOVAL,
        };
        self.ask(interface, &mut [SET_FLAGS, flags])
    }

    /// Returns the number of receive descriptors of each queue, and its maximum.
    ///
    /// # Errors
    ///
    /// As [`Self::driver`]; also if the driver has no rings.
    pub fn receive_ring(&self, interface: &str) -> io::Result<(u32, u32)> {
        let mut rings = [0; RING_WORDS];
        rings[0] = GET_RINGS;
        self.ask(interface, &mut rings)?;
        Ok((rings[RECEIVE], rings[RECEIVE_MAX]))
    }

    /// Returns the fields of datagrams over IPv4 that choose the receive queue, as `RXH_*` of the kernel.
    ///
    /// # Errors
    ///
    /// As [`Self::driver`]; also if the driver does not report them.
    pub fn hashed_fields(&self, interface: &str) -> io::Result<u64> {
        let mut flow = [0; FLOW_WORDS];
        flow[..2].copy_from_slice(&[GET_FLOW_HASH, UDP_IPV4]);
        self.ask(interface, &mut flow)?;
        Ok(bytemuck::cast([flow[2], flow[3]]))
    }

    /// Sets generic receive offload: whether the kernel coalesces the packets of a flow.
    ///
    /// # Errors
    ///
    /// As [`Self::driver`], and without permission.
    pub fn set_receive_offload(&self, interface: &str, on: bool) -> io::Result<()> {
        self.ask(interface, &mut [SET_RECEIVE_OFFLOAD, on.into()])
    }

    /// Returns the names of the driver's own counters, as `ethtool -S` shows them.
    ///
    /// # Errors
    ///
    /// As [`Self::driver`].
    pub fn counter_names(&self, interface: &str) -> io::Result<Vec<String>> {
        self.strings(interface, STATISTICS)
    }

    /// Returns the driver's own counters, of which there should be `count`.
    ///
    /// # Errors
    ///
    /// As [`Self::driver`].
    pub fn counters(&self, interface: &str, count: usize) -> io::Result<Vec<u64>> {
        let mut counters = vec![0; HEADER + 2 * count + SPARE];
        counters[0] = GET_STATISTICS;
        self.ask(interface, &mut counters)?;
        let found = (counters[1] as usize).min((counters.len() - HEADER) / 2);
        let values = counters[HEADER..HEADER + 2 * found].chunks_exact(2);
        Ok(values
            .map(|pair| bytemuck::cast([pair[0], pair[1]]))
            .collect())
    }

    fn strings(&self, interface: &str, set: u32) -> io::Result<Vec<String>> {
        // `struct ethtool_sset_info`: command, reserved, a mask of 64 bits, and one size.
        let mask: [u32; 2] = bytemuck::cast(1_u64 << set);
        let mut sizes = [GET_SET_SIZES, 0, mask[0], mask[1], 0];
        self.ask(interface, &mut sizes)?;
        let [_, _, low, high, size] = sizes;
        if [low, high] != mask {
            return Ok(Vec::new());
        }
        let mut strings = vec![0; STRINGS_HEADER + size as usize * STRING / 4 + SPARE];
        strings[..2].copy_from_slice(&[GET_STRINGS, set]);
        self.ask(interface, &mut strings)?;
        let octets: &[u8] = bytemuck::cast_slice(&strings[STRINGS_HEADER..]);
        let found = octets.chunks_exact(STRING).take(strings[2] as usize);
        Ok(found.map(string).collect())
    }

    /// Runs the command that `request` begins with. The kernel writes its answer there.
    fn ask(&self, interface: &str, request: &mut [u32]) -> io::Result<()> {
        // SAFETY: a structure of numbers and pointers, for which zero is a value.
        let mut parameters: libc::ifreq = unsafe { std::mem::zeroed() };
        if interface.len() >= parameters.ifr_name.len() {
            return Err(io::ErrorKind::NotFound.into());
        }
        for (to, from) in parameters.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = from as libc::c_char;
        }
        parameters.ifr_ifru.ifru_data = request.as_mut_ptr().cast();
        // SAFETY: the parameters are as the call expects them. `request` is as long as the answer: of fixed
        // size, of the size that it names itself, or longer by `SPARE` than the kernel has just said.
        let result = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SIOCETHTOOL as _,
                &raw mut parameters,
            )
        };
        nix::Error::result(result).map(drop).map_err(Into::into)
    }
}

/// Returns the text before the first zero.
fn string(octets: &[u8]) -> String {
    let text = octets.iter().take(STRING).take_while(|&&octet| octet != 0);
    text.map(|&octet| char::from(octet)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_answers_without_a_driver_of_its_own() {
        let ethtool = Ethtool::open().unwrap();
        // The loopback interface has features, and no counters.
        assert!(ethtool.has_link("lo").is_ok());
        assert!(ethtool.is_available("lo", "tx-tcp-segmentation").is_ok());
        let error = ethtool.is_available("lo", "no-such-feature").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(
            ethtool
                .counter_names("lo")
                .is_ok_and(|names| names.is_empty())
        );
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        let ethtool = Ethtool::open().unwrap();
        for name in ["no-such", "", "a-name-longer-than-any-interface-has"] {
            assert!(ethtool.driver(name).is_err(), "{name}");
        }
    }

    #[test]
    fn strings_end_with_the_first_zero() {
        assert_eq!(string(b"veth\0junk"), "veth");
        assert_eq!(string(b""), "");
        assert_eq!(string(&[b'a'; 40]).len(), STRING);
    }
}
