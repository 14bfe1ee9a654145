//! Traffic whose arrival and content are checked.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    panic,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, setsockopt, sockopt},
};

use super::{cpu, echo::Requests, namespace::Namespace, wait::uninterrupted};

/// Time without progress after which a connection has failed by default.
const IDLE: Duration = Duration::from_secs(20);
/// The time for which a datagram may be under way after the last one was sent, on a machine that is busy or emulated.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// Time without a datagram after which a receiver looks at what its sender has done.
const SILENCE: Duration = Duration::from_millis(20);
const CHUNK: usize = 64 * 1024;
/// Number of lost datagrams that a report names.
const LOST: usize = 10;
/// Octets of the buffer of a stream's receiver.
const ROOM: usize = 32 << 20;

/// A run of `ping`: number and length of the packets, and the time to wait.
#[derive(Clone, Copy, Debug)]
pub struct Ping {
    to: Ipv6Addr,
    count: u32,
    payload: u16,
    hop_limit: u8,
    interval: Option<Duration>,
    wait: Duration,
}

/// The results of a run of `ping`.
#[derive(Clone, Debug)]
pub struct Pong {
    /// Echo requests sent.
    pub sent: u32,
    /// Echo replies received.
    pub received: u32,
    /// The complete output, with errors from routers.
    pub text: String,
}

impl Ping {
    /// One echo request of 56 octets, waiting 10 seconds for the reply.
    #[must_use]
    pub fn to(to: Ipv6Addr) -> Self {
        Self {
            to,
            count: 1,
            payload: 56,
            hop_limit: 64,
            interval: None,
            wait: Duration::from_secs(10),
        }
    }

    /// Sends this number of requests.
    #[must_use]
    pub fn count(self, count: u32) -> Self {
        Self { count, ..self }
    }

    /// Sets the time between two requests, which is otherwise 200 ms in [`Self::from`], and 20 ms in [`Self::all_from`]. In the
    /// former, `ping` waits no longer than that for the last replies if others have come, so that some may be missing at
    /// the end.
    #[must_use]
    pub fn interval(self, interval: Duration) -> Self {
        Self {
            interval: Some(interval),
            ..self
        }
    }

    /// Sets the length of the whole IPv6 packet, in octets; 48 at least.
    #[must_use]
    pub fn packet_size(self, size: u16) -> Self {
        Self {
            payload: size.saturating_sub(48),
            ..self
        }
    }

    /// Sets the hop limit of the requests.
    #[must_use]
    pub fn hop_limit(self, hop_limit: u8) -> Self {
        Self { hop_limit, ..self }
    }

    /// Sets the time to wait for replies after the last request.
    #[must_use]
    pub fn wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// Sends the requests and waits for the replies.
    ///
    /// # Errors
    ///
    /// Fails when `ping` cannot run. Missing replies are no error.
    pub fn from(self, namespace: &Namespace) -> Result<Pong> {
        let interval = self.interval.unwrap_or(Duration::from_millis(200));
        let mut command = Command::new("ping");
        command
            .args(["-6", "-n", "-M", "do"])
            .args(["-i", &interval.as_secs_f64().to_string()])
            .args(["-c", &self.count.to_string()])
            .args(["-s", &self.payload.to_string()])
            .args(["-t", &self.hop_limit.to_string()])
            .args(["-W", &self.wait.as_secs_f64().to_string()])
            .arg(self.to.to_string());
        let result = namespace.run(|| command.output())?.context("start ping")?;
        let text = String::from_utf8_lossy(&result.stdout).into_owned();
        let statistics = text
            .lines()
            .find(|line| line.contains("packets transmitted"));
        let Some(statistics) = statistics else {
            bail!("ping: {}{text}", String::from_utf8_lossy(&result.stderr));
        };
        let number = |suffix: &str| {
            statistics
                .split(", ")
                .find_map(|part| part.strip_suffix(suffix)?.parse().ok())
        };
        Ok(Pong {
            sent: number(" packets transmitted").context("ping counts what it sends")?,
            received: number(" received").context("ping counts what it receives")?,
            text,
        })
    }

    /// Sends the requests; every reply must come.
    ///
    /// # Errors
    ///
    /// Fails when a reply is missing.
    pub fn all_from(self, namespace: &Namespace) -> Result<()> {
        let requests = Requests {
            to: self.to,
            count: self.count.try_into()?,
            payload: self.payload,
            hop_limit: self.hop_limit,
            interval: self.interval.unwrap_or(Duration::from_millis(20)),
            wait: self.wait,
        };
        let missing = namespace.run(|| requests.send())??;
        ensure!(
            missing.is_empty(),
            "of {} echo requests from {} to {} some were not answered: {missing:?}",
            self.count,
            namespace.name(),
            self.to
        );
        Ok(())
    }
}

/// A TCP connection whose two ends send at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    to: IpAddr,
    upload: u64,
    download: u64,
    idle: Duration,
    pause: Duration,
    compared: bool,
}

impl Tcp {
    /// Prepares a connection to this address; nothing is sent yet. It fails after 20 seconds
    /// without progress.
    #[must_use]
    pub fn to(to: impl Into<IpAddr>) -> Self {
        Self {
            to: to.into(),
            upload: 0,
            download: 0,
            idle: IDLE,
            pause: Duration::ZERO,
            compared: true,
        }
    }

    /// Turns the comparison of the content off: only the amount that arrives counts.
    #[must_use]
    pub fn uncompared(self) -> Self {
        Self {
            compared: false,
            ..self
        }
    }

    /// Sets the octets from the connecting to the accepting end.
    #[must_use]
    pub fn upload(self, upload: u64) -> Self {
        Self { upload, ..self }
    }

    /// Sets the octets from the accepting to the connecting end.
    #[must_use]
    pub fn download(self, download: u64) -> Self {
        Self { download, ..self }
    }

    /// Sets the longest time without progress.
    #[must_use]
    pub fn idle(self, idle: Duration) -> Self {
        Self { idle, ..self }
    }

    /// Sets the pause of either end after every 64 KiB that it has sent.
    #[must_use]
    pub fn pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// Connects from one namespace to the other and transfers; every octet is compared with the one
    /// sent, unless comparison is off.
    ///
    /// # Errors
    ///
    /// Fails when there is no progress for too long, or when the content differs.
    pub fn between(self, connecting: &Namespace, accepting: &Namespace) -> Result<Duration> {
        let listener = accepting.run(|| TcpListener::bind((self.to, 0)))??;
        let address = listener.local_addr()?;
        let start = Instant::now();
        thread::scope(|scope| {
            let acceptor = scope.spawn(|| -> Result<()> {
                let stream = accept(&listener, self.idle)?;
                self.exchange(&stream, self.download, self.upload)
                    .context("the accepting end")
            });
            let connector = || -> Result<()> {
                let stream =
                    connecting.run(|| TcpStream::connect_timeout(&address, self.idle))??;
                self.exchange(&stream, self.upload, self.download)
                    .context("the connecting end")
            };
            let connected = connector().with_context(|| format!("TCP to {address}"));
            let accepted = acceptor
                .join()
                .unwrap_or_else(|panic| panic::resume_unwind(panic));
            connected.and(accepted)
        })?;
        Ok(start.elapsed())
    }

    fn exchange(self, stream: &TcpStream, send: u64, receive: u64) -> Result<()> {
        stream.set_read_timeout(Some(self.idle))?;
        stream.set_write_timeout(Some(self.idle))?;
        thread::scope(|scope| {
            let sender = scope.spawn(|| match self.compared {
                true => send_content(stream, send, self.pause),
                false => send_anything(stream, send),
            });
            let received = match self.compared {
                true => receive_content(stream, receive),
                false => receive_anything(stream, receive),
            };
            let received = received.context("receive");
            let sent = sender
                .join()
                .unwrap_or_else(|panic| panic::resume_unwind(panic));
            sent.context("send").and(received)
        })
    }
}

fn accept(listener: &TcpListener, timeout: Duration) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let stream = super::wait_for("a connection arrives", timeout, || {
        match listener.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    })?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn send_content(mut stream: &TcpStream, length: u64, pause: Duration) -> Result<()> {
    let mut content = Content::new();
    let mut left = length;
    while left > 0 {
        let chunk = content.next(left);
        stream.write_all(chunk)?;
        left -= chunk.len() as u64;
        thread::sleep(pause);
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(())
}

fn receive_content(mut stream: &TcpStream, length: u64) -> Result<()> {
    let mut content = Content::new();
    let mut buffer = vec![0; CHUNK];
    let mut left = length;
    while left > 0 {
        let expected = content.next(left);
        let received = &mut buffer[..expected.len()];
        stream
            .read_exact(received)
            .with_context(|| format!("after {} of {length} octets", length - left))?;
        ensure!(
            received == expected,
            "the content differs after octet {}",
            length - left
        );
        left -= expected.len() as u64;
    }
    let timeout = stream.read_timeout()?.unwrap_or(IDLE);
    let more = uninterrupted(timeout, || stream.read(&mut buffer))?;
    ensure!(more == 0, "more than {length} octets came");
    Ok(())
}

fn send_anything(mut stream: &TcpStream, length: u64) -> Result<()> {
    let chunk = vec![0xa5; 4 * CHUNK];
    let mut left = length;
    while left > 0 {
        let size = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
        stream.write_all(&chunk[..size])?;
        left -= size as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(())
}

/// Receives octets without having them copied.
fn receive_anything(stream: &TcpStream, length: u64) -> Result<()> {
    let mut buffer = vec![0; 16 * CHUNK];
    let mut received = 0;
    loop {
        // With this flag, TCP counts the octets and discards them.
        match recv(stream.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
            Ok(0) => break,
            Ok(size) => received += size as u64,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(received == length, "{received} of {length} octets came");
    Ok(())
}

/// A sequence of octets that both ends know and that does not repeat soon (xorshift).
struct Content {
    state: u64,
    chunk: Vec<u8>,
}

impl Content {
    fn new() -> Self {
        Self {
            state: 0x9e37_79b9_7f4a_7c15,
            chunk: vec![0; CHUNK],
        }
    }

    fn next(&mut self, left: u64) -> &[u8] {
        for word in self.chunk.chunks_exact_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            word.copy_from_slice(&self.state.to_ne_bytes());
        }
        let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        &self.chunk[..length]
    }
}

/// A steady stream of numbered UDP datagrams in the background.
#[derive(Debug)]
pub struct UdpStream {
    /// Ends the sender.
    stop: Arc<AtomicBool>,
    /// Whether the sender has ended.
    ended: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Result<UdpReport>>,
}

/// The outcome of a [`UdpStream`].
#[derive(Clone, Debug, Default)]
pub struct UdpReport {
    /// Datagrams sent.
    pub sent: u64,
    /// Different datagrams received.
    pub received: u64,
    /// Datagrams received again.
    pub repeated: u64,
    /// Datagrams received after one that was sent later.
    pub overtaken: u64,
    /// The longest time between two arrivals.
    pub longest_gap: Duration,
    /// The first of those that never came, each with the time at which one came that was sent later.
    pub lost: Vec<(u64, SystemTime)>,
}

impl UdpStream {
    /// Sends a datagram of `size` octets (8 at least) every `interval` to `address` in namespace
    /// `to`.
    ///
    /// # Errors
    ///
    /// Fails when a socket cannot be opened.
    pub fn start(
        from: &Namespace,
        to: &Namespace,
        address: IpAddr,
        size: usize,
        interval: Duration,
    ) -> Result<Self> {
        let sink = to.run(|| UdpSocket::bind((address, 0)))??;
        // A receiver that waits for a busy CPU loses nothing.
        setsockopt(&sink, sockopt::RcvBufForce, &ROOM)?;
        let target = sink.local_addr()?;
        sink.set_read_timeout(Some(SILENCE))?;
        let unspecified = SocketAddr::new(
            if address.is_ipv6() {
                Ipv6Addr::UNSPECIFIED.into()
            } else {
                std::net::Ipv4Addr::UNSPECIFIED.into()
            },
            0,
        );
        let source = from.run(|| UdpSocket::bind(unspecified))??;
        let (stop, ended) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let (sent, received) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let sender = {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            let send = move || send_numbers(&source, target, size.max(8), interval, &sent, &stop);
            thread::spawn(send)
        };
        let receiver = {
            let (sent, received) = (Arc::clone(&sent), Arc::clone(&received));
            let ended = Arc::clone(&ended);
            thread::spawn(move || receive_numbers(&sink, size.max(8), &sent, &received, &ended))
        };
        Ok(Self {
            stop,
            ended,
            sent,
            received,
            sender,
            receiver,
        })
    }

    /// Datagrams sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Datagrams received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Ends the stream; datagrams under way still count.
    ///
    /// # Errors
    ///
    /// Fails when sending failed for another reason than a temporary lack of a route.
    pub fn stop(self) -> Result<UdpReport> {
        self.stop.store(true, Ordering::Release);
        let sent = self.sender.join().expect("the sender does not panic")?;
        self.ended.store(true, Ordering::Release);
        let report = self.receiver.join().expect("the receiver does not panic")?;
        Ok(UdpReport { sent, ..report })
    }
}

fn send_numbers(
    socket: &UdpSocket,
    to: SocketAddr,
    size: usize,
    interval: Duration,
    sent: &AtomicU64,
    stop: &AtomicBool,
) -> Result<u64> {
    // The kernel has a queue for each CPU, and a packet in one overtakes those in another.
    cpu::stay()?;
    let mut datagram = vec![0; size];
    let mut next = Instant::now();
    let mut number = 0_u64;
    while !stop.load(Ordering::Acquire) {
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        match socket.send_to(&datagram, to) {
            // An ICMPv6 error for an earlier datagram, or a missing route: lost in either case.
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused
                        | ErrorKind::HostUnreachable
                        | ErrorKind::NetworkUnreachable
                        | ErrorKind::PermissionDenied
                ) => {}
            Err(error) => return Err(error.into()),
        }
        number += 1;
        sent.store(number, Ordering::Relaxed);
        // A sender that had to wait for a CPU does not send everything at once then.
        next = (next + interval).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(number)
}

fn receive_numbers(
    socket: &UdpSocket,
    size: usize,
    sent: &AtomicU64,
    received: &AtomicU64,
    ended: &AtomicBool,
) -> Result<UdpReport> {
    let mut buffer = vec![0; size + 1];
    let mut seen = std::collections::HashSet::new();
    let mut last: Option<Instant> = None;
    let mut newest = 0;
    let mut missing = BTreeMap::new();
    let mut report = UdpReport::default();
    // When the last one was received, or the sender was seen to have ended after that.
    let mut idle: Option<Instant> = None;
    loop {
        match uninterrupted(SILENCE, || socket.recv(&mut buffer)) {
            Ok(length) => {
                ensure!(
                    length == size,
                    "a datagram of {length} instead of {size} octets"
                );
                let number = buffer[..8].try_into().map(u64::from_be_bytes)?;
                if seen.insert(number) {
                    report.received += 1;
                    received.fetch_add(1, Ordering::Relaxed);
                } else {
                    report.repeated += 1;
                }
                report.overtaken += u64::from(number < newest);
                let overtaking = SystemTime::now();
                missing.extend((newest + 1..number).map(|number| (number, overtaking)));
                missing.remove(&number);
                newest = newest.max(number);
                let now = Instant::now();
                if let Some(last) = last.replace(now) {
                    report.longest_gap = report.longest_gap.max(now - last);
                }
                idle = idle.map(|_| now);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if !ended.load(Ordering::Acquire) {
                    continue;
                }
                let idle = *idle.get_or_insert_with(Instant::now);
                if report.received >= sent.load(Ordering::Relaxed) || idle.elapsed() >= UNDER_WAY {
                    report.lost = missing.into_iter().take(LOST).collect();
                    return Ok(report);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict of a receiver of `expected` octets on the octets received.
    fn receive(octets: &[u8], expected: u64) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut sender = TcpStream::connect(listener.local_addr()?)?;
        let receiver = accept(&listener, IDLE)?;
        sender.write_all(octets)?;
        drop(sender);
        receive_content(&receiver, expected)
    }

    #[test]
    fn a_receiver_notices_every_difference() {
        let good = Content::new().next(1000).to_vec();
        receive(&good, 1000).unwrap();
        let mut bad = good.clone();
        bad[999] ^= 1;
        for (octets, complaint) in [
            (&bad[..], "the content differs"),
            (&good[..999], "after 0 of 1000 octets"),
            (&[&good[..], &[0]].concat(), "more than 1000 octets"),
        ] {
            let error = receive(octets, 1000).unwrap_err();
            assert!(format!("{error:#}").contains(complaint), "{error:#}");
        }
    }
}
