//! The TUN interface through which the daemon and the kernel's IPv6 routing exchange packets.

mod attach;
mod batch;
mod error;
mod offloads;
mod queue;
mod requests;
mod steering;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
};

use nix::{net::if_::if_nametoindex, unistd::Uid};

use attach::{Kind, attach, attach_alone, is_name};
pub use batch::PacketBatch;
pub use error::TunError;
use error::other;
pub use queue::Queue;
pub use requests::{end_with_process, name_of};
use requests::{flags_of, set_owner, set_persistence, set_queue_length};
pub use steering::{
    adopt as adopt_queue_program, prepare as prepare_queues, program as queue_program,
};

use super::{ethtool::Ethtool, napi, offload::Coalescer};

/// Packets that wait to be read, at most: as many as come in a third of a second at 100,000 a second, while
/// one process hands over to the next. Older kernels permit no more.
const QUEUE_LENGTH: u32 = 32_767;
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
            if let Err(error) = set_queue_length(name, QUEUE_LENGTH) {
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
