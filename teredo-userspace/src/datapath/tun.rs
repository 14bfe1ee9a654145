//! The TUN interface through which the daemon and the kernel's IPv6 routing exchange packets.

mod batch;
mod offloads;
mod queue;
mod steering;

use std::{
    fs::OpenOptions,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    net::if_::if_nametoindex,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
    unistd::Uid,
};
use thiserror::Error;

pub use batch::PacketBatch;
pub use queue::Queue;
pub use steering::{
    adopt as adopt_queue_program, prepare as prepare_queues, program as queue_program,
};

use super::{ethtool::Ethtool, napi, offload::Coalescer, sysfs};

const CONTROL_FILE: &str = "/dev/net/tun";
/// The name of the driver.
const DRIVER: &str = "tun";
/// The wait for the kernel to release an interface whose owner has just died.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause between two looks whether it has.
const RELEASE_PAUSE: Duration = Duration::from_millis(20);
/// The directory in sysfs that exists while two queues are open.
const SECOND_QUEUE: &str = "queues/tx-1";
/// Packets that wait to be read, at most: as many as come in a third of a second at 100,000 a second, while
/// one process hands over to the next. Older kernels permit no more.
const QUEUE_LENGTH: u32 = 32_767;
/// `SIOCSIFTXQLEN` of the kernel.
const SET_QUEUE_LENGTH: libc::Ioctl = 0x8943;
/// `TUNSETIFF` of the kernel.
const SET_INTERFACE: libc::Ioctl = 0x4004_54ca;

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
    queue: Arc<Queue>,
    name: String,
    index: u32,
    threaded: bool,
    taken_over: bool,
    /// Whether there may be more than one queue.
    is_divisible: bool,
}

impl Tun {
    /// Makes the interface, or takes over the one that an earlier run left.
    ///
    /// # Errors
    ///
    /// A sentence for the user, see [`TunError`].
    pub fn open(name: &str) -> Result<Self, TunError> {
        Self::open_with(name, Kind::default())
    }

    /// Makes the interface as [`Self::open`] does, so that it can have [further queues](Self::add_queues). One that an
    /// earlier run left is taken over as it is.
    ///
    /// # Errors
    ///
    /// A sentence for the user, see [`TunError`].
    pub fn open_divisible(name: &str) -> Result<Self, TunError> {
        let kind = Kind {
            is_divisible: true,
            ..Kind::default()
        };
        Self::open_with(name, kind)
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
        let kind = Kind {
            is_offloaded: true,
            ..Kind::default()
        };
        Self::open_with(name, kind)
    }

    fn open_with(name: &str, wanted: Kind) -> Result<Self, TunError> {
        if !is_name(name) {
            return Err(TunError::Name(name.to_owned()));
        }
        let taken_over = if_nametoindex(name).is_ok();
        let others = napi::threads(name);
        let (descriptor, kind) = attach_alone(name, wanted, taken_over)?;
        let index = if_nametoindex(name).map_err(|error| other(name, error.into()))?;
        let (descriptor, threaded) = match napi::use_thread(name, index) {
            Ok(()) => {
                napi::restrain(napi::threads(name).difference(&others));
                (descriptor, true)
            }
            Err(error) => {
                tracing::debug!(%error, "no kernel thread for the TUN interface");
                drop(descriptor);
                let kind = Kind {
                    is_threaded: false,
                    ..kind
                };
                (attach(name, kind)?, false)
            }
        };
        // Without a kernel thread the interface may have been made again.
        let index = if_nametoindex(name).map_err(|error| other(name, error.into()))?;
        let queue =
            Queue::new(descriptor, kind.is_offloaded).map_err(|error| other(name, error))?;
        let tun = Self {
            queue: Arc::new(queue),
            name: name.to_owned(),
            index,
            threaded,
            taken_over,
            is_divisible: kind.is_divisible,
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
        let queue = Queue::new(descriptor, offload).map_err(|error| other(name, error))?;
        let tun = Self {
            queue: Arc::new(queue),
            name: name.to_owned(),
            index,
            threaded: flags & libc::IFF_NAPI != 0,
            taken_over: true,
            is_divisible: flags & libc::IFF_MULTI_QUEUE != 0,
        };
        tun.configure().map_err(|error| other(name, error))?;
        Ok(tun)
    }

    /// Opens queues until there are `count`, counting the interface's own and the `inherited` ones of an earlier process,
    /// and returns all but its own. All packets to a peer go to one queue.
    ///
    /// An interface that was not [made for that](Self::open_divisible) gets none, nor does one whose queues the daemon may
    /// not choose; and fewer if there is no room for more.
    ///
    /// # Errors
    ///
    /// A sentence for the user, see [`TunError`].
    pub fn add_queues(
        &self,
        count: usize,
        inherited: Vec<OwnedFd>,
    ) -> Result<Vec<Queue>, TunError> {
        let failed = |error| other(&self.name, error);
        let is_offloaded = self.queue.is_offloaded();
        let inherited = inherited.into_iter();
        let mut queues = inherited
            .map(|descriptor| Queue::new(descriptor, is_offloaded))
            .collect::<io::Result<Vec<_>>>()
            .map_err(failed)?;
        if !self.is_divisible {
            if count > 1 {
                tracing::warn!(
                    "{} was made for one thread, which has all packets to clients until a stop and a start",
                    self.name
                );
            }
            return Ok(queues);
        }
        if count < 2 && queues.is_empty() {
            return Ok(queues);
        }
        if let Err(error) = steering::attach(self) {
            if queues.len() + 1 < count {
                tracing::warn!(
                    "{} gets no more queues for threads, for which the daemon needs CAP_BPF at its start: {error}",
                    self.name
                );
            }
            return Ok(queues);
        }
        let others = napi::threads(&self.name);
        let kind = Kind {
            is_divisible: true,
            is_offloaded,
            is_threaded: self.threaded,
        };
        while queues.len() + 1 < count {
            let added = attach(&self.name, kind)
                .and_then(|descriptor| Queue::new(descriptor, is_offloaded).map_err(failed));
            match added {
                Ok(queue) => queues.push(queue),
                Err(error) => {
                    tracing::warn!("no queues for more threads: {error}");
                    break;
                }
            }
        }
        if self.threaded {
            napi::restrain(napi::threads(&self.name).difference(&others));
        }
        Ok(queues)
    }

    /// Makes the interface disappear with the process, however that ends.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn end_with_process(&self) -> io::Result<()> {
        end_with_process(self)
    }

    fn configure(&self) -> io::Result<()> {
        // SAFETY: the requests take their arguments by value.
        unsafe {
            // Otherwise every user could open a queue of it.
            set_owner(self.as_raw_fd(), Uid::effective().as_raw().into())?;
            set_persistence(self.as_raw_fd(), 1)?;
        }
        // With many peers, coalescing the packets of a flow costs more than it saves.
        Ethtool::open()?.set_receive_offload(&self.name, false)
    }

    /// Sets how many packets may wait to be read. While the kernel changes that it loses packets, so the
    /// interface must not be up.
    fn set_queue_length(&self, packets: u32) -> io::Result<()> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let control = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
        let mut request = request_for(&self.name);
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

    /// Returns whether there may be more than one queue.
    #[must_use]
    pub fn is_divisible(&self) -> bool {
        self.is_divisible
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

    /// Returns the interface's own queue.
    #[must_use]
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Reads packets as [`Queue::read`] does.
    ///
    /// # Errors
    ///
    /// As [`Queue::read`].
    pub fn read(&self, batch: &mut PacketBatch) -> io::Result<usize> {
        self.queue.read(batch)
    }

    /// Writes packets as [`Queue::write`] does.
    pub fn write(&self, packets: &[&[u8]]) -> usize {
        self.queue.write(packets)
    }

    /// Hands packets to the kernel as [`Self::write`] does, those that follow each other in their flow as
    /// one.
    pub fn write_coalesced(&self, packets: &[&[u8]], coalescer: &mut Coalescer) -> usize {
        self.queue.write_coalesced(packets, coalescer)
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.queue.as_fd().as_raw_fd()
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
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

/// The properties of an interface that are the same for all its queues.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// Whether there may be more than one queue.
    is_divisible: bool,
    /// Whether packets have a virtio-net header.
    is_offloaded: bool,
    /// Whether a kernel thread routes the written packets.
    is_threaded: bool,
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
fn attach_alone(name: &str, wanted: Kind, is_there: bool) -> Result<(OwnedFd, Kind), TunError> {
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
fn attach(name: &str, kind: Kind) -> Result<OwnedFd, TunError> {
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
    let device = tun::Device::new(&configuration)?;
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

/// Returns a request about the interface of this name.
fn request_for(name: &str) -> libc::ifreq {
    // SAFETY: zeroes are valid in every member.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, octet) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = octet as libc::c_char;
    }
    request
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

nix::ioctl_write_int!(
    /// `TUNSETOWNER`: the user who may open the interface without `CAP_NET_ADMIN`.
    set_owner,
    b'T',
    204
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
