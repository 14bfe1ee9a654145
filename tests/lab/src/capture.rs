//! Captures of the frames that cross an interface.

use std::{
    fs,
    io::Write as _,
    mem,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt},
};

use super::{namespace::Namespace, process::output, wait::wait_for};

/// Receive buffer for frames that arrive while the capturing thread does not run, in octets.
const BUFFER: usize = 32 << 20;
/// Length of the longest frame (after generic receive offload), in octets.
const LONGEST: usize = 1 << 17;

/// A captured Ethernet frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Time of the capture.
    pub at: SystemTime,
    /// Whether this namespace sent it.
    pub outgoing: bool,
    /// The frame from the Ethernet header on.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// The EtherType.
    #[must_use]
    pub fn ether_type(&self) -> Option<u16> {
        let octets = self.bytes.get(12..14)?;
        Some(u16::from_be_bytes([octets[0], octets[1]]))
    }

    /// Parses the frame into its layers.
    ///
    /// # Errors
    ///
    /// Fails when the frame is malformed.
    pub fn layers(&self) -> Result<etherparse::SlicedPacket<'_>> {
        Ok(etherparse::SlicedPacket::from_ethernet(&self.bytes)?)
    }

    /// The payload if the frame is a UDP datagram.
    #[must_use]
    pub fn udp_payload(&self) -> Option<&[u8]> {
        match self.layers().ok()?.transport? {
            etherparse::TransportSlice::Udp(udp) => Some(udp.payload()),
            _ => None,
        }
    }
}

/// A running capture on one interface, in both directions.
#[derive(Debug)]
pub struct Capture {
    frames: Arc<Mutex<Vec<Frame>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Capture {
    /// Captures every frame from now on.
    ///
    /// # Errors
    ///
    /// Fails when the interface does not exist.
    pub fn start(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::filtered(namespace, interface, |_| true)
    }

    /// Captures the frames that `wanted` selects from now on.
    ///
    /// # Errors
    ///
    /// Fails when the interface does not exist.
    pub fn filtered(
        namespace: &Namespace,
        interface: &str,
        wanted: impl Fn(&[u8]) -> bool + Send + 'static,
    ) -> Result<Self> {
        let socket = namespace
            .run(|| listen(interface))?
            .with_context(|| format!("capture on {interface} of {}", namespace.name()))?;
        let frames = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (frames, stop) = (Arc::clone(&frames), Arc::clone(&stop));
            std::thread::spawn(move || record(&socket, &wanted, &frames, &stop))
        };
        Ok(Self {
            frames,
            stop,
            thread: Some(thread),
        })
    }

    /// The frames captured so far.
    #[must_use]
    pub fn frames(&self) -> Vec<Frame> {
        self.lock().clone()
    }

    /// Number of frames captured so far that `wanted` selects.
    #[must_use]
    pub fn count(&self, wanted: impl Fn(&Frame) -> bool) -> usize {
        self.lock().iter().filter(|frame| wanted(frame)).count()
    }

    /// Waits for the first frame that `wanted` selects.
    ///
    /// # Errors
    ///
    /// Fails when there is none within `timeout`.
    pub fn wait_for(
        &self,
        what: &str,
        timeout: Duration,
        wanted: impl Fn(&Frame) -> bool,
    ) -> Result<Frame> {
        let mut seen = 0;
        wait_for(what, timeout, || {
            let frames = self.lock();
            let found = frames[seen..].iter().find(|frame| wanted(frame)).cloned();
            seen = frames.len();
            Ok(found)
        })
    }

    /// Ends the capture and returns every frame that arrived before the call.
    ///
    /// # Errors
    ///
    /// Fails when receiving failed.
    pub fn stop(mut self) -> Result<Frames> {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread
                .join()
                .expect("the recording thread does not panic")?;
        }
        Ok(Frames(mem::take(&mut *self.lock())))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Frame>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// The frames of a finished capture.
#[derive(Debug)]
pub struct Frames(pub Vec<Frame>);

impl Frames {
    /// Encodes the capture for tcpdump and Wireshark (pcap, microseconds, Ethernet).
    #[must_use]
    pub fn to_pcap(&self) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, u32::MAX, 1] {
            file.extend(word.to_ne_bytes());
        }
        for frame in &self.0 {
            let at = frame.at.duration_since(UNIX_EPOCH).unwrap_or_default();
            let length = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
            let seconds = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
            for word in [seconds, at.subsec_micros(), length, length] {
                file.extend(word.to_ne_bytes());
            }
            file.extend(&frame.bytes);
        }
        file
    }

    /// The lines in which tcpdump reports a wrong checksum. An absent checksum, which UDP over IPv4
    /// allows, is not wrong.
    ///
    /// # Errors
    ///
    /// Fails when tcpdump fails.
    pub fn bad_checksums(&self) -> Result<Vec<String>> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(&self.to_pcap())?;
        let text = output(
            Command::new("tcpdump")
                .args(["-n", "-vv", "-r"])
                .arg(file.path()),
        )?;
        Ok(text
            .lines()
            .filter(|line| {
                [
                    "incorrect",
                    "bad udp cksum",
                    "bad icmp6 cksum",
                    "bad cksum",
                    "wrong icmp cksum",
                ]
                .iter()
                .any(|complaint| line.contains(complaint))
            })
            .map(str::to_owned)
            .collect())
    }

    /// Writes the capture to a file, for people.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written.
    pub fn save(&self, path: &std::path::Path) -> Result<()> {
        fs::write(path, self.to_pcap()).with_context(|| format!("write {}", path.display()))
    }
}

/// A packet socket that receives everything on the interface.
///
/// # Errors
///
/// Fails when there is no such interface, or without root.
pub fn listen(interface: &str) -> Result<OwnedFd> {
    let index = if_nametoindex(interface)?;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::EthAll,
    )?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is a complete sockaddr_ll that lives during the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    // Between opening and binding, the socket has received from every interface.
    let mut buffer = [0];
    while nix::sys::socket::recv(
        socket.as_raw_fd(),
        &mut buffer,
        nix::sys::socket::MsgFlags::empty(),
    )
    .is_ok()
    {}
    Ok(socket)
}

fn record(
    socket: &OwnedFd,
    wanted: &dyn Fn(&[u8]) -> bool,
    frames: &Mutex<Vec<Frame>>,
    stop: &AtomicBool,
) -> Result<()> {
    let mut buffer = vec![0; LONGEST];
    loop {
        // Read before the socket is emptied, so that nothing older than the stop is missed.
        let last = stop.load(Ordering::Acquire);
        while let Some((length, outgoing)) = receive(socket, &mut buffer)? {
            if wanted(&buffer[..length]) {
                let frame = Frame {
                    at: SystemTime::now(),
                    outgoing,
                    bytes: buffer[..length].to_vec(),
                };
                frames
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(frame);
            }
        }
        if last {
            return Ok(());
        }
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::from(20_u8))?;
    }
}

/// Receives the next frame: its length and whether it is outgoing. `None` if no frame waits.
///
/// # Errors
///
/// Fails when the kernel reports an error.
pub fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<Option<(usize, bool)>> {
    // SAFETY: all-zero octets are a valid sockaddr_ll.
    let mut from = unsafe { mem::zeroed::<libc::sockaddr_ll>() };
    let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: buffer and address are valid for the lengths given with them during the call.
    let length = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut from).cast(),
            &raw mut size,
        )
    };
    match Errno::result(length) {
        Ok(length) => {
            let outgoing = from.sll_pkttype == libc::PACKET_OUTGOING;
            Ok(Some((usize::try_from(length)?, outgoing)))
        }
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        // The interface went down or was removed.
        Err(Errno::ENETDOWN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
