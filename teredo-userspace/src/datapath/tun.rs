//! The TUN interface through which the daemon and the kernel's IPv6 routing exchange packets.

mod batch;
mod offloads;

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd as _, OwnedFd, RawFd},
    thread,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, poll},
    sys::{
        socket::{AddressFamily, SockFlag, SockType, socket},
        uio::writev,
    },
    unistd::read,
};
use thiserror::Error;

pub use batch::PacketBatch;

use super::{
    ethtool::Ethtool,
    napi,
    offload::{Coalescer, Header, Protocols},
};

const CONTROL_FILE: &str = "/dev/net/tun";
/// Octets of kernel memory that written packets may occupy until they are routed: more than one
/// batch, but few enough to be still in the CPU's cache then.
const QUEUE: i32 = 256 << 10;
/// The wait for the kernel to release an interface whose owner has just died.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// Packets that wait to be read, at most: as many as come in a third of a second at 100,000 a second, while
/// one process hands over to the next. Older kernels permit no more.
const QUEUE_LENGTH: u32 = 32_767;
/// `SIOCSIFTXQLEN` of the kernel.
const SET_QUEUE_LENGTH: libc::Ioctl = 0x8943;
/// Milliseconds to wait for room in a full queue: the kernel thread may wait for a busy CPU, while the socket
/// keeps what comes.
const FULL: u16 = 1_000;

/// An error of [`Tun::open`]. Each is a sentence for the user.
#[derive(Debug, Error)]
pub enum TunError {
    /// The kernel's TUN driver is missing.
    #[error(
        "there is no {CONTROL_FILE}: load the module with `modprobe tun`, or give the container \
         that device"
    )]
    NoDriver,
    /// The process is not root, or its container lacks the capability.
    #[error("no permission to make the TUN interface {0}: run as root, or grant CAP_NET_ADMIN")]
    Permission(String),
    /// Another process uses the interface.
    #[error(
        "the TUN interface {0} is in use by another process; is a second instance running? Give \
         this one another `tun` name"
    )]
    Busy(String),
    /// The name belongs to an interface of another kind.
    #[error("the interface {0} exists and is not a TUN interface; choose another `tun` name")]
    Foreign(String),
    /// The kernel does not accept the name.
    #[error("{0:?} is not a name for an interface: use 1 to 15 characters, no slash, no space")]
    Name(String),
    /// Anything else.
    #[error("cannot set up the TUN interface {name}")]
    Other {
        /// The name of the interface.
        name: String,
        /// The error of the kernel.
        source: io::Error,
    },
}

/// A TUN interface. Reading and writing do not block.
///
/// The interface outlives the process, and the next [`Tun::open`] takes it over, so that routes
/// through it survive a crash. [`super::route::Routes::remove_link`] removes it.
pub struct Tun {
    device: tun::Device,
    name: String,
    index: u32,
    threaded: bool,
    taken_over: bool,
    /// Of which protocols the kernel takes super-packets, if packets have a virtio-net header.
    offload: Option<Protocols>,
}

impl Tun {
    /// Makes the interface, or takes over the one that an earlier run left.
    ///
    /// # Errors
    ///
    /// A sentence for the user, see [`TunError`].
    pub fn open(name: &str) -> Result<Self, TunError> {
        Self::open_with(name, false)
    }

    /// Makes or takes over an interface as [`Self::open`] does, from which super-packets can be read with
    /// a [`PacketBatch::of_super_packets`], and to which [`Self::write_coalesced`] writes some.
    ///
    /// Whoever takes the interface over without offloads would read super-packets as if they were packets:
    /// let it [end with the process](Self::end_with_process).
    ///
    /// # Errors
    ///
    /// A sentence for the user, see [`TunError`].
    pub fn open_offloaded(name: &str) -> Result<Self, TunError> {
        Self::open_with(name, true)
    }

    fn open_with(name: &str, offload: bool) -> Result<Self, TunError> {
        if !is_name(name) {
            return Err(TunError::Name(name.to_owned()));
        }
        let taken_over = if_nametoindex(name).is_ok();
        let others = napi::threads(name);
        let device = attach(name, true, offload)?;
        let index = if_nametoindex(name).map_err(|error| other(name, error.into()))?;
        let (device, threaded) = match napi::use_thread(name, index) {
            Ok(()) => {
                napi::restrain(napi::threads(name).difference(&others));
                (device, true)
            }
            Err(error) => {
                tracing::debug!(%error, "no kernel thread for the TUN interface");
                drop(device);
                (attach(name, false, offload)?, false)
            }
        };
        // Without a kernel thread the interface may have been made again.
        let index = if_nametoindex(name).map_err(|error| other(name, error.into()))?;
        let offload = match offload {
            true => Some(offloads::enable(device.as_raw_fd()).map_err(|error| other(name, error))?),
            false => None,
        };
        let mut tun = Self {
            device,
            name: name.to_owned(),
            index,
            threaded,
            taken_over,
            offload,
        };
        tun.configure().map_err(|error| other(name, error))?;
        if !taken_over {
            // A shorter one loses more during a handover.
            if let Err(error) = tun.set_queue_length(QUEUE_LENGTH) {
                tracing::debug!("the queue of {name} keeps its length: {error}");
            }
        }
        Ok(tun)
    }

    /// Takes over the open interface of this name from another process, with offloads if that had them.
    ///
    /// # Errors
    ///
    /// A sentence for the user, see [`TunError`].
    pub fn inherited(name: &str, descriptor: OwnedFd, offload: bool) -> Result<Self, TunError> {
        let index = if_nametoindex(name).map_err(|error| other(name, error.into()))?;
        let flags = flags_of(&descriptor).map_err(|error| other(name, error))?;
        let has_header = flags & libc::IFF_VNET_HDR != 0;
        if has_header != offload {
            // The daemon would read headers as packets, or packets as headers.
            let source = io::Error::other("it was made for other packets");
            return Err(other(name, source));
        }
        let mut configuration = tun::Configuration::default();
        configuration
            .tun_name(name)
            .raw_fd(descriptor.into_raw_fd());
        let device = tun::Device::new(&configuration).map_err(|error| other(name, error.into()))?;
        let offload = match offload {
            true => Some(offloads::enable(device.as_raw_fd()).map_err(|error| other(name, error))?),
            false => None,
        };
        let mut tun = Self {
            device,
            name: name.to_owned(),
            index,
            threaded: flags & libc::IFF_NAPI != 0,
            taken_over: true,
            offload,
        };
        tun.configure().map_err(|error| other(name, error))?;
        Ok(tun)
    }

    /// Makes the interface disappear with the process, however that ends.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn end_with_process(&self) -> io::Result<()> {
        end_with_process(self)
    }

    fn configure(&mut self) -> io::Result<()> {
        self.device.persist()?;
        self.device.set_nonblock()?;
        fcntl(&*self, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        // SAFETY: the request reads an integer.
        unsafe { set_queue(self.as_raw_fd(), &QUEUE) }?;
        // With many peers, coalescing the packets of a flow costs more than it saves.
        Ethtool::open()?.set_receive_offload(&self.name, false)
    }

    /// Sets how many packets may wait to be read. While the kernel changes that it loses packets, so the
    /// interface must not be up.
    fn set_queue_length(&self, packets: u32) -> io::Result<()> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let control = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
        // SAFETY: zeroes are valid in every member.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (place, octet) in request.ifr_name.iter_mut().zip(self.name.bytes()) {
            *place = octet as libc::c_char;
        }
        // The member for the length is an integer, as this one.
        request.ifr_ifru.ifru_metric = packets as i32;
        // SAFETY: the request reads an `ifreq`.
        let result = unsafe { libc::ioctl(control.as_raw_fd(), SET_QUEUE_LENGTH, &request) };
        nix::Error::result(result)?;
        Ok(())
    }

    /// Lets the kernel coalesce the packets of a flow that are written together (generic receive
    /// offload). That pays off when they end on this host: TCP handles and acknowledges them as one.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn coalesce(&self) -> io::Result<()> {
        Ethtool::open()?.set_receive_offload(&self.name, true)
    }

    /// Returns the interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the interface's index.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Returns whether an earlier run left the interface.
    #[must_use]
    pub fn is_taken_over(&self) -> bool {
        self.taken_over
    }

    /// Returns whether a kernel thread routes the written packets.
    #[must_use]
    pub fn is_threaded(&self) -> bool {
        self.threaded
    }

    /// Explains why reading fails for good, for the user.
    #[must_use]
    pub fn read_failure(&self) -> String {
        format!(
            "the TUN interface {} was taken down or removed by somebody else",
            self.name
        )
    }

    /// Reads the packets that the kernel has routed into the interface, as many as the batch has room
    /// for, and returns how many.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if there are none: the file descriptor's readiness says when to
    /// call again. After any other error the interface is gone or down.
    pub fn read(&self, batch: &mut PacketBatch) -> io::Result<usize> {
        batch.clear();
        while let Some(memory) = batch.next() {
            match read(self, memory) {
                Ok(length) => batch.add(length),
                Err(nix::Error::EINTR) => {}
                Err(_) if batch.len() > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(batch.len())
    }

    /// Hands packets to the kernel, which routes them on, and returns how many it accepted. The
    /// others (not IPv6, interface down, no memory) are lost.
    pub fn write(&self, packets: &[&[u8]]) -> usize {
        let header = Header::default().build(0);
        packets
            .iter()
            .filter(|packet| match self.offload {
                Some(_) => self.write_one(&[IoSlice::new(&header), IoSlice::new(packet)]),
                None => self.write_one(&[IoSlice::new(packet)]),
            })
            .count()
    }

    /// Hands packets to the kernel as [`Self::write`] does, those that follow each other in their flow as
    /// one.
    pub fn write_coalesced(&self, packets: &[&[u8]], coalescer: &mut Coalescer) -> usize {
        let Some(protocols) = self.offload else {
            return self.write(packets);
        };
        let mut written = 0;
        coalescer.coalesce(packets, protocols);
        coalescer.each(packets, |parts, count| {
            if self.write_one(parts) {
                written += count;
            }
        });
        written
    }

    fn write_one(&self, parts: &[IoSlice<'_>]) -> bool {
        let mut waited = false;
        loop {
            match writev(self, parts) {
                Ok(_) => return true,
                Err(nix::Error::EINTR) => {}
                // The kernel thread is behind, perhaps because it needs this CPU: let it run.
                Err(nix::Error::EAGAIN) if !waited => {
                    waited = true;
                    let mut writable = [PollFd::new(self.as_fd(), PollFlags::POLLOUT)];
                    let _ = poll(&mut writable, FULL);
                }
                Err(_) => return false,
            }
        }
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.device.as_raw_fd()
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the device keeps its file descriptor open during its lifetime.
        unsafe { BorrowedFd::borrow_raw(self.as_raw_fd()) }
    }
}

impl std::fmt::Debug for Tun {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Tun")
            .field("name", &self.name)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// Opens the interface, new or left by an earlier run.
fn attach(name: &str, napi: bool, offload: bool) -> Result<tun::Device, TunError> {
    let mut configuration = tun::Configuration::default();
    configuration.tun_name(name).platform_config(|platform| {
        // Addresses, MTU and state are set through rtnetlink.
        platform
            .ensure_root_privileges(false)
            .napi(napi)
            .vnet_hdr(offload);
    });
    let start = Instant::now();
    loop {
        let error = match tun::Device::new(&configuration) {
            Ok(device) => return Ok(device),
            Err(error) => io::Error::from(error),
        };
        return Err(match error.raw_os_error() {
            // The kernel releases the interface some time after its owner has died.
            Some(libc::EBUSY) if start.elapsed() < RELEASE_TIMEOUT => {
                thread::sleep(Duration::from_millis(20));
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

/// Makes the interface of a descriptor disappear with the last process that has it open.
///
/// # Errors
///
/// When the kernel refuses.
pub fn end_with_process(descriptor: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: the request takes its argument by value.
    unsafe { set_persistence(descriptor.as_raw_fd(), 0) }?;
    Ok(())
}

/// Returns the name of the TUN interface of a descriptor; `None` if it has none any more.
#[must_use]
pub fn name_of(descriptor: &OwnedFd) -> Option<String> {
    let request = request_of(descriptor).ok()?;
    let name: Vec<u8> = (request.ifr_name.iter())
        .map(|&octet| octet as u8)
        .take_while(|&octet| octet != 0)
        .collect();
    String::from_utf8(name).ok()
}

fn flags_of(descriptor: &OwnedFd) -> io::Result<i32> {
    let request = request_of(descriptor)?;
    // SAFETY: the kernel has set the flags.
    Ok(i32::from(unsafe { request.ifr_ifru.ifru_flags }))
}

fn request_of(descriptor: &OwnedFd) -> io::Result<libc::ifreq> {
    // SAFETY: zeroes are valid in every member.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes an `ifreq`.
    unsafe {
        get_interface(
            descriptor.as_raw_fd(),
            std::ptr::from_mut(&mut request).cast(),
        )
    }?;
    Ok(request)
}

nix::ioctl_read!(
    /// `TUNGETIFF`: name and flags of the interface.
    get_interface,
    b'T',
    210,
    libc::c_uint
);

nix::ioctl_write_ptr!(
    /// `TUNSETSNDBUF`: octets that written packets may occupy.
    set_queue,
    b'T',
    212,
    libc::c_int
);

nix::ioctl_write_int!(
    /// `TUNSETPERSIST`: whether the interface outlives its owner.
    set_persistence,
    b'T',
    203
);

fn other(name: &str, source: io::Error) -> TunError {
    TunError::Other {
        name: name.to_owned(),
        source,
    }
}

/// Returns whether the kernel accepts the name of an interface. The patterns that the TUN driver
/// expands itself are excluded.
fn is_name(name: &str) -> bool {
    (1..libc::IFNAMSIZ).contains(&name.len())
        && name != "."
        && name != ".."
        && !name
            .bytes()
            .any(|octet| matches!(octet, b'/' | b':' | b'%' | 0) || octet.is_ascii_whitespace())
}
