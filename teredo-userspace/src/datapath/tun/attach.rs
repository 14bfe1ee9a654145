//! Opening an interface and its queues.

use std::{
    fs::OpenOptions,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use nix::net::if_::if_nametoindex;

use super::{
    error::{TunError, other},
    requests::request_for,
};
use crate::datapath::{ethtool::Ethtool, sysfs};

/// The device that interfaces are made with.
pub(super) const CONTROL_FILE: &str = "/dev/net/tun";
/// The name of the driver.
const DRIVER: &str = "tun";
/// The wait for the kernel to release an interface whose owner has just died.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause between two looks whether it has.
const RELEASE_PAUSE: Duration = Duration::from_millis(20);
/// The directory in sysfs that exists while two queues are open.
const SECOND_QUEUE: &str = "queues/tx-1";
/// `TUNSETIFF` of the kernel.
const SET_INTERFACE: libc::Ioctl = 0x4004_54ca;

/// The properties of an interface that are the same for all its queues.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// Whether there may be more than one queue.
    pub(super) is_divisible: bool,
    /// Whether packets have a virtio-net header.
    pub(super) is_offloaded: bool,
    /// Whether a kernel thread routes the written packets.
    pub(super) is_threaded: bool,
}

impl Default for Kind {
    fn default() -> Self {
        Self {
            is_divisible: false,
            is_offloaded: false,
            is_threaded: true,
        }
    }
}

/// Opens the interface as [`attach_any`] does, if no other process has a queue of it: the kernel would give each some of the
/// packets.
pub(super) fn attach_alone(
    name: &str,
    wanted: Kind,
    is_there: bool,
) -> Result<(OwnedFd, Kind), TunError> {
    let start = Instant::now();
    loop {
        if !(is_there && is_open(name).unwrap_or(false)) {
            let (descriptor, kind) = attach_any(name, wanted, is_there)?;
            let index = if_nametoindex(name).map_err(|error| other(name, error.into()))?;
            if !(kind.is_divisible && sysfs::has(name, index, SECOND_QUEUE)) {
                return Ok((descriptor, kind));
            }
        }
        if start.elapsed() >= RELEASE_TIMEOUT {
            return Err(TunError::Busy(name.to_owned()));
        }
        thread::sleep(RELEASE_PAUSE);
    }
}

/// Returns whether a process has the interface of the TUN driver open: one that is up has a link then.
fn is_open(name: &str) -> io::Result<bool> {
    let ethtool = Ethtool::open()?;
    Ok(ethtool.driver(name)? == DRIVER && ethtool.has_link(name)?)
}

/// Opens the interface, new, or left by an earlier run with one queue or several.
fn attach_any(name: &str, wanted: Kind, is_there: bool) -> Result<(OwnedFd, Kind), TunError> {
    match attach(name, wanted) {
        Err(TunError::Foreign(_)) if is_there => {
            let left = Kind {
                is_divisible: !wanted.is_divisible,
                ..wanted
            };
            attach(name, left).map(|descriptor| (descriptor, left))
        }
        attached => attached.map(|descriptor| (descriptor, wanted)),
    }
}

/// Opens the interface, new or left by an earlier run, or another queue of it.
pub(super) fn attach(name: &str, kind: Kind) -> Result<OwnedFd, TunError> {
    let start = Instant::now();
    loop {
        let opened = match kind.is_divisible {
            true => open_queue(name, kind),
            false => open_whole(name, kind),
        };
        let error = match opened {
            Ok(descriptor) => return Ok(descriptor),
            Err(error) => error,
        };
        return Err(match error.raw_os_error() {
            // The kernel releases the interface some time after its owner has died.
            Some(libc::EBUSY) if start.elapsed() < RELEASE_TIMEOUT => {
                thread::sleep(RELEASE_PAUSE);
                continue;
            }
            Some(libc::EBUSY) => TunError::Busy(name.to_owned()),
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoDriver,
            Some(libc::EPERM | libc::EACCES) => TunError::Permission(name.to_owned()),
            Some(libc::EINVAL) if if_nametoindex(name).is_ok() => {
                TunError::Foreign(name.to_owned())
            }
            _ => other(name, error),
        });
    }
}

/// Opens an interface with one queue.
fn open_whole(name: &str, kind: Kind) -> io::Result<OwnedFd> {
    let mut configuration = tun::Configuration::default();
    configuration.tun_name(name).platform_config(|platform| {
        // Addresses, MTU and state are set through rtnetlink.
        platform
            .ensure_root_privileges(false)
            .napi(kind.is_threaded)
            .vnet_hdr(kind.is_offloaded);
    });
    let device = tun::Device::new(&configuration).map_err(|error| match error {
        // The crate keeps no reason why it got no control socket.
        tun::Error::InvalidDescriptor => io::Error::last_os_error(),
        error => error.into(),
    })?;
    // SAFETY: the device gives up its descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) })
}

/// Opens a queue of an interface with several, which the crate does not.
fn open_queue(name: &str, kind: Kind) -> io::Result<OwnedFd> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open(CONTROL_FILE)?;
    let mut request = request_for(name);
    let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
    let flags = libc::IFF_TUN
        | libc::IFF_NO_PI
        | libc::IFF_MULTI_QUEUE
        | flag(kind.is_threaded, libc::IFF_NAPI)
        | flag(kind.is_offloaded, libc::IFF_VNET_HDR);
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the request reads and writes an `ifreq`.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), SET_INTERFACE, &mut request) };
    nix::Error::result(result)?;
    Ok(control.into())
}

/// Returns whether the kernel accepts the name of an interface. The patterns that the TUN driver
/// expands itself are excluded.
pub(super) fn is_name(name: &str) -> bool {
    (1..libc::IFNAMSIZ).contains(&name.len())
        && name != "."
        && name != ".."
        && !name
            .bytes()
            .any(|octet| matches!(octet, b'/' | b':' | b'%' | 0) || octet.is_ascii_whitespace())
}
