//! A running capture: it turns packets into the blocks of a file.

use std::{
    collections::HashMap,
    future::pending,
    io,
    num::NonZeroU64,
    os::fd::AsFd as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::body::Bytes;
use futures_util::{Stream, stream};
use nix::{
    net::if_::if_indextoname,
    time::{ClockId, clock_gettime},
};
use teredo_common::{
    capture::{
        Filter, Head,
        point::{DROPPED, FORWARDED, PASSED, RECEIVED},
    },
    verdict::Verdict,
};
use thiserror::Error;
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    pcapng::{self, Packet},
    reason::Reason,
    selection::{Query, Selection, SelectionError},
    tap::{Captured, Place},
};
use crate::{
    api::{Gate, Handle},
    datapath::xdp::capture::{Capture, Missing},
    metrics::Role,
};

/// Packets of the daemon that may wait to be written.
const WAITING: usize = 1024;
/// Parts of the file that may wait to be read.
const PARTS: usize = 16;
/// Records that are written together.
const BATCH: usize = 256;
/// The interval between statistics.
const PERIOD: Duration = Duration::from_secs(1);

/// The reason why a capture does not begin. Each is a sentence for the user.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The request is not valid.
    #[error(transparent)]
    Invalid(#[from] SelectionError),
    /// There is a capture already.
    #[error("somebody captures already; one capture runs at a time")]
    Busy,
    /// The daemon does not have the role.
    #[error("this daemon is no {}: its roles are {}", .wanted.name(), names(.roles))]
    Role {
        /// The role that is wanted.
        wanted: Role,
        /// The roles of the daemon.
        roles: Vec<Role>,
    },
    /// The XDP program cannot be captured at.
    #[error("{0}")]
    Xdp(String),
    /// The daemon is stopping.
    #[error(transparent)]
    Stopped(#[from] crate::api::Stopped),
}

/// The capture at the XDP program.
struct AtXdp {
    capture: AsyncFd<Capture>,
    /// Its drop ends the capture.
    _over: oneshot::Sender<()>,
    /// Is over when the program was replaced.
    ended: oneshot::Receiver<()>,
}

/// The file, as far as it is not sent.
struct File {
    octets: Vec<u8>,
    interfaces: Vec<Interface>,
    names: HashMap<u32, String>,
    snaplen: u32,
    /// Nanoseconds from `CLOCK_MONOTONIC` to the time since 1970.
    offset: u64,
    /// Packets until the end.
    left: u64,
}

/// A point at an interface or a role.
struct Interface {
    key: Key,
    captured: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    /// Of the XDP program: interface and point.
    Xdp(u32, u8),
    /// Of the daemon: role and point.
    Daemon(Role, u32),
}

/// Begins a capture, and returns its file, part by part as it is read. It ends when that is dropped.
///
/// # Errors
///
/// When the request is not valid, or the capture is not possible.
pub async fn start(
    handle: Handle,
    query: &Query,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, Refusal> {
    let selection = query.selection()?;
    if let Some(wanted) = selection.role {
        let roles: Vec<_> = handle.snapshot().await?.roles.into_keys().collect();
        if !roles.contains(&wanted) {
            return Err(Refusal::Role { wanted, roles });
        }
    }
    let (packets, of_daemon) = mpsc::channel(WAITING);
    let place = handle.taps().begin(&selection, packets);
    let place = place.ok_or(Refusal::Busy)?;
    let at_xdp = match selection.xdp {
        0 => None,
        _ => AtXdp::begin(&handle, &selection.filter).await?,
    };
    if at_xdp.is_none() && selection.daemon == 0 {
        let why =
            "no XDP program is attached, so that no packet passes there; `teredo status` says why";
        return Err(Refusal::Xdp(why.to_owned()));
    }
    let (parts, receiver) = mpsc::channel(PARTS);
    let running = Running {
        file: File::new(&selection),
        handle,
        selection,
        place,
        at_xdp,
        before: Missing::default(),
    };
    tokio::spawn(running.run(of_daemon, parts));
    Ok(stream::unfold(receiver, |mut receiver| async {
        let part: Bytes = receiver.recv().await?;
        Some((Ok(part), receiver))
    }))
}

impl AtXdp {
    /// Begins to capture; `None` without a program.
    async fn begin(handle: &Handle, filter: &Filter) -> Result<Option<Self>, Refusal> {
        let Some(shared) = handle.capture_parts().await? else {
            return Ok(None);
        };
        let shared = shared.map_err(Refusal::Xdp)?;
        let filter = *filter;
        // The kernel examines the program for some tenths of a second.
        let loaded = tokio::task::spawn_blocking(move || Capture::load(&shared, &filter));
        let loaded = loaded
            .await
            .map_err(|error| Refusal::Xdp(error.to_string()))?;
        let capture = loaded.map_err(|error| Refusal::Xdp(error.to_string()))?;
        let failed = |error: io::Error| Refusal::Xdp(format!("no capture is possible: {error}"));
        let program = capture
            .program()
            .as_fd()
            .try_clone_to_owned()
            .map_err(failed)?;
        // SAFETY: the descriptor is that of the ring buffer, which the capture owns and does not change.
        let capture =
            unsafe { AsyncFd::register(capture) }.map_err(|error| failed(error.into()))?;
        let (over, is_over) = oneshot::channel();
        let ended = handle.begin_capture(program, is_over).await?;
        Ok(Some(Self {
            capture,
            _over: over,
            ended: ended.map_err(Refusal::Xdp)?,
        }))
    }
}

/// What a capture has.
struct Running {
    handle: Handle,
    selection: Selection,
    place: Place,
    at_xdp: Option<AtXdp>,
    /// Frames that are missing from captures at earlier programs.
    before: Missing,
    file: File,
}

/// What a capture does next.
enum Step {
    Records,
    Packet(Captured),
    ProgramEnded,
    Statistics,
    End,
}

impl Running {
    async fn run(mut self, mut of_daemon: mpsc::Receiver<Captured>, parts: mpsc::Sender<Bytes>) {
        let mut gate = self.handle.gate();
        let mut tick = interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let duration = self.selection.duration;
        let mut end = std::pin::pin!(async move {
            match duration {
                Some(duration) => sleep(duration).await,
                None => pending().await,
            }
        });
        loop {
            let step = tokio::select! {
                step = at_xdp(self.at_xdp.as_mut(), &mut self.file) => step,
                Some(packet) = of_daemon.recv() => Step::Packet(packet),
                _ = tick.tick() => Step::Statistics,
                () = &mut end => Step::End,
                // Another process takes over.
                _ = gate.wait_for(|gate| *gate != Gate::Open) => Step::End,
                () = parts.closed() => return,
            };
            match step {
                Step::Records => {}
                Step::Packet(packet) => self.file.add_packet(&packet),
                Step::ProgramEnded => {
                    self.before = self.missing_at_xdp();
                    self.at_xdp = None;
                }
                Step::Statistics => {
                    self.add_waiting(&mut of_daemon);
                    self.add_statistics();
                    if self.at_xdp.is_none() && self.selection.xdp != 0 {
                        // Its sentence is in the log of the program, if that cannot be loaded.
                        let begun = AtXdp::begin(&self.handle, &self.selection.filter).await;
                        self.at_xdp = begun.ok().flatten();
                    }
                }
                Step::End => break,
            }
            let part = std::mem::take(&mut self.file.octets);
            if !part.is_empty() && parts.send(part.into()).await.is_err() {
                return;
            }
            if self.file.left == 0 {
                break;
            }
        }
        self.add_waiting(&mut of_daemon);
        self.add_statistics();
        // Nobody may read it any more.
        let _ = parts.send(self.file.octets.into()).await;
    }

    /// Writes the packets that have come.
    fn add_waiting(&mut self, of_daemon: &mut mpsc::Receiver<Captured>) {
        while self.file.left > 0
            && let Ok(packet) = of_daemon.try_recv()
        {
            self.file.add_packet(&packet);
        }
        if let Some(at_xdp) = &mut self.at_xdp {
            let capture = at_xdp.capture.get_mut();
            while self.file.left > 0
                && capture.next(|head, octets| self.file.add_frame(head, octets))
            {}
        }
    }

    fn missing_at_xdp(&self) -> Missing {
        let capture = self.at_xdp.as_ref();
        let now = capture.map(|at_xdp| at_xdp.capture.get_ref().missing());
        let now = now.unwrap_or_default();
        Missing {
            lost: self.before.lost + now.lost,
            limited: self.before.limited + now.limited,
        }
    }

    fn add_statistics(&mut self) {
        let missing = [self.missing_at_xdp(), self.place.missing()];
        self.file.add_statistics(missing);
    }
}

/// Writes the records of the XDP program that are there, when there are some, or waits until that was replaced; forever
/// without a capture.
async fn at_xdp(at_xdp: Option<&mut AtXdp>, file: &mut File) -> Step {
    let Some(AtXdp { capture, ended, .. }) = at_xdp else {
        return pending().await;
    };
    loop {
        let ready = tokio::select! {
            ready = capture.readable_mut() => ready,
            _ = &mut *ended => return Step::ProgramEnded,
        };
        let Ok(mut ready) = ready else {
            return pending().await;
        };
        let mut written = 0;
        while written < BATCH && file.left > 0 {
            let capture = ready.get_inner_mut();
            if !capture.next(|head, octets| file.add_frame(head, octets)) {
                ready.clear_ready();
                break;
            }
            written += 1;
        }
        if written > 0 {
            return Step::Records;
        }
    }
}

impl File {
    fn new(selection: &Selection) -> Self {
        let mut octets = Vec::new();
        let application = concat!("teredo ", env!("CARGO_PKG_VERSION"));
        let comment =
            "the reason for a packet's fate is its comment; docs/statistics.md explains it";
        pcapng::section(&mut octets, application, comment);
        let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
        let monotonic = monotonic.unwrap_or_default().as_nanos() as u64;
        Self {
            octets,
            interfaces: Vec::new(),
            names: HashMap::new(),
            snaplen: selection.filter.snaplen,
            offset: since_1970(SystemTime::now()).wrapping_sub(monotonic),
            left: selection.count.map_or(u64::MAX, NonZeroU64::get),
        }
    }

    /// Adds a frame of the XDP program.
    fn add_frame(&mut self, head: Head, octets: &[u8]) {
        let point = u32::from(head.point);
        let interface = self.interface(Key::Xdp(head.interface, head.point));
        let verdict = Verdict::ALL.get(usize::from(head.verdict));
        let reason = verdict.map_or("unknown", |&verdict| Reason::from(verdict).name());
        let fate = match head.action {
            2 => "passed to the kernel",
            1 => "dropped",
            _ => "forwarded",
        };
        let packet = Packet {
            interface,
            time: head.time.wrapping_add(self.offset),
            length: head.length,
            octets: octets.get(..head.captured as usize).unwrap_or(octets),
            comment: &format!("{reason}: {fate}"),
            is_inbound: point != FORWARDED,
            number: Some(head.number),
            action: Some(head.action),
        };
        pcapng::packet(&mut self.octets, &packet);
        self.left = self.left.saturating_sub(1);
    }

    /// Adds a packet of the daemon.
    fn add_packet(&mut self, captured: &Captured) {
        let interface = self.interface(Key::Daemon(captured.role, captured.point));
        let packet = Packet {
            interface,
            time: since_1970(captured.time),
            length: captured.length as u32,
            octets: &captured.octets,
            comment: captured.reason.name(),
            is_inbound: captured.point & (RECEIVED | DROPPED) != 0,
            number: Some(captured.number),
            action: None,
        };
        pcapng::packet(&mut self.octets, &packet);
        self.left = self.left.saturating_sub(1);
    }

    /// Returns the number of an interface, which is written when it is new, and counts a packet of it.
    fn interface(&mut self, key: Key) -> u32 {
        let known = self.interfaces.iter().position(|one| one.key == key);
        let number = known.unwrap_or_else(|| {
            let (link, name, description) = match key {
                Key::Xdp(index, point) => {
                    let name = self.names.entry(index).or_insert_with(|| name(index));
                    let name = format!("{name}:{}", point_name(point.into()));
                    (pcapng::ETHERNET, name, "XDP program; the interface is that by which the frame came")
                }
                Key::Daemon(role, point) => {
                    let name = format!("{}:{}", role.name(), point_name(point));
                    let description = "daemon; the headers of IPv4 and UDP are made again from what the socket says";
                    (pcapng::RAW, name, description)
                }
            };
            pcapng::interface(&mut self.octets, link, self.snaplen, &name, description);
            self.interfaces.push(Interface { key, captured: 0 });
            self.interfaces.len() - 1
        });
        self.interfaces[number].captured += 1;
        number as u32
    }

    /// Adds the statistics of all interfaces. Packets that are missing count for the first of the program, and of the
    /// daemon.
    fn add_statistics(&mut self, missing: [Missing; 2]) {
        let time = since_1970(SystemTime::now());
        let mut missing = missing.map(Some);
        for (number, interface) in (0..).zip(&self.interfaces) {
            let of = usize::from(matches!(interface.key, Key::Daemon(..)));
            let missing = missing[of].take().unwrap_or_default();
            let captured = interface.captured;
            pcapng::statistics(
                &mut self.octets,
                number,
                time,
                captured,
                missing.lost,
                missing.limited,
            );
        }
    }
}

/// Returns the names of roles, with commas.
fn names(roles: &[Role]) -> String {
    let names = roles.iter().map(|role| role.name());
    names.collect::<Vec<_>>().join(", ")
}

fn point_name(point: u32) -> &'static str {
    match point {
        RECEIVED => "received",
        PASSED => "passed",
        DROPPED => "dropped",
        FORWARDED => "forwarded",
        _ => "sent",
    }
}

fn name(interface: u32) -> String {
    let name = if_indextoname(interface).ok();
    let name = name.and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| format!("interface {interface}"))
}

fn since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64
}
