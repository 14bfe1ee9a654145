//! The TUN interface of a role, which others may take away.

use std::{
    future::pending,
    io, iter,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use tokio::io::{Interest, unix::AsyncFd};

use super::port::register;
use crate::{
    datapath::{
        offload::Coalescer,
        tun::{PacketBatch, Queue, Tun, TunError},
    },
    handover::descriptors::{self, Named},
    host::Snapshot,
    metrics::Role,
};

/// The properties of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The role whose packets it carries.
    pub role: Role,
    /// The name.
    pub name: String,
    /// The time for which it exists.
    pub lifetime: Lifetime,
    /// Whether packets end on this host, so that it pays off to coalesce them.
    pub ends_here: bool,
    /// Whether it takes super-packets: see [`Tun::open_offloaded`].
    pub is_offloaded: bool,
    /// The number of threads that carry its packets, each with a queue if the kernel permits.
    pub threads: usize,
}

/// The time for which the interface exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// The interface outlives the process, so that routes through it survive a crash.
    Persistent,
    /// The interface ends with the process, however that ends, unless another has it open, too.
    Process,
}

/// A TUN interface that is opened again if somebody removes it.
#[derive(Debug)]
pub struct Tunnel {
    tun: AsyncFd<Tun>,
    /// The queues of other threads.
    further: Vec<Arc<Queue>>,
    options: Options,
    /// Whether the kernel gives no packets through this descriptor any more.
    is_lost: bool,
    dropped: Dropped,
}

/// The packets that came faster than they were read, longer than the kernel kept them.
#[derive(Debug, Default)]
struct Dropped {
    /// The interface that was looked at last; there is none of index 0.
    index: u32,
    /// Its number then.
    last: u64,
    total: u64,
}

impl Tunnel {
    /// Opens the interface, or goes on with that of an earlier process: the descriptors of its queues, its own first. Needs
    /// a tokio runtime.
    pub fn open(options: Options, mut inherited: Vec<OwnedFd>) -> Result<Self, TunError> {
        let further = inherited.split_off(inherited.len().min(1));
        let taken = inherited.pop().and_then(|descriptor| {
            let tun = Tun::inherited(&options.name, descriptor, options.is_offloaded);
            tun.inspect_err(|error| tracing::debug!("{error}")).ok()
        });
        let (tun, further) = match taken {
            Some(tun) => set_up(tun, &options, further)?,
            None => {
                // It would be in use.
                drop(further);
                open(&options)?
            }
        };
        Ok(Self {
            tun,
            further,
            options,
            is_lost: false,
            dropped: Dropped::default(),
        })
    }

    /// Returns the descriptors with their names; none if the interface is lost.
    pub fn descriptors(&self) -> impl Iterator<Item = Named<'_>> {
        let (role, name) = (self.options.role, &self.options.name);
        let own = iter::once(self.tun.get_ref().queue());
        let queues = own.chain(&self.further).enumerate();
        let index = self.index();
        queues.filter_map(move |(number, queue)| {
            let name = descriptors::queue(role, name, index?, number);
            Some((name, queue.as_fd()))
        })
    }

    /// Returns the interface's own queue.
    pub fn queue(&self) -> &Arc<Queue> {
        self.tun.get_ref().queue()
    }

    /// Returns whether there may be queues of other threads.
    pub fn is_divisible(&self) -> bool {
        self.tun.get_ref().is_divisible()
    }

    /// Returns the queues of other threads.
    pub fn further(&self) -> &[Arc<Queue>] {
        &self.further
    }

    /// Returns the interface's index; `None` if it is lost.
    pub fn index(&self) -> Option<u32> {
        (!self.is_lost).then(|| self.tun.get_ref().index())
    }

    /// Returns the interface's index and whether an earlier run left it.
    pub fn origin(&self) -> (u32, bool) {
        let tun = self.tun.get_ref();
        (tun.index(), tun.is_taken_over())
    }

    /// Notes the packets that the interface has dropped so far.
    pub fn note_dropped(&mut self, snapshot: &Snapshot) {
        let tun = self.tun.get_ref();
        let mut links = snapshot.links.iter();
        let Some(link) = links.find(|link| link.index == tun.index()) else {
            return;
        };
        let dropped = &mut self.dropped;
        if dropped.index != link.index {
            dropped.index = link.index;
            // Those of earlier runs do not count.
            dropped.last = if tun.is_taken_over() { link.dropped } else { 0 };
        }
        dropped.total += link.dropped.saturating_sub(dropped.last);
        dropped.last = link.dropped;
    }

    /// Returns how many packets were lost because they came faster than they were read, up to the last
    /// look at the host.
    pub fn dropped(&self) -> u64 {
        self.dropped.total
    }

    /// Replaces the interface, which is lost or was moved away.
    ///
    /// # Errors
    ///
    /// When no new one can be opened. Then everything stays as it is.
    pub fn reopen(&mut self) -> Result<(), TunError> {
        let (new, further) = open(&self.options)?;
        // What is out of sight, for example in another namespace, shall not outlive this.
        if let Err(error) = self.tun.get_ref().end_with_process() {
            tracing::debug!("the old tunnel interface stays: {error}");
        }
        (self.tun, self.further) = (new, further);
        self.is_lost = false;
        Ok(())
    }

    /// Waits for packets and returns how many there are. Cancelling loses nothing. If the interface is
    /// removed, it returns an empty batch once, and waits until it is opened again.
    pub async fn read(&mut self, packets: &mut PacketBatch) -> usize {
        if self.is_lost {
            return pending().await;
        }
        let read = self
            .tun
            .async_io(Interest::READABLE, |tun| tun.read(packets))
            .await;
        read.unwrap_or_else(|error| {
            tracing::debug!(
                "the tunnel interface {} is lost: {error}",
                self.options.name
            );
            self.is_lost = true;
            0
        })
    }

    /// Hands packets to the kernel and returns how many it accepted.
    pub fn write(&self, packets: &[&[u8]]) -> usize {
        self.tun.get_ref().write(packets)
    }

    /// Hands packets to the kernel, those that follow each other in their flow as one, and returns how
    /// many it accepted.
    pub fn write_coalesced(&self, packets: &[&[u8]], coalescer: &mut Coalescer) -> usize {
        self.tun.get_ref().write_coalesced(packets, coalescer)
    }
}

fn open(options: &Options) -> Result<Opened, TunError> {
    let tun = match (options.is_offloaded, options.threads) {
        (true, _) => Tun::open_offloaded(&options.name)?,
        (false, 0..=1) => Tun::open(&options.name)?,
        (false, _) => Tun::open_divisible(&options.name)?,
    };
    set_up(tun, options, Vec::new())
}

/// An interface and its further queues.
type Opened = (AsyncFd<Tun>, Vec<Arc<Queue>>);

fn set_up(tun: Tun, options: &Options, further: Vec<OwnedFd>) -> Result<Opened, TunError> {
    let other = |source: io::Error| TunError::Other {
        name: options.name.clone(),
        source,
    };
    if options.lifetime == Lifetime::Process {
        tun.end_with_process().map_err(other)?;
    }
    if options.ends_here {
        tun.coalesce().map_err(other)?;
    }
    let further = tun.add_queues(options.threads, further)?;
    let further = further.into_iter().map(Arc::new).collect();
    Ok((register(tun).map_err(other)?, further))
}
