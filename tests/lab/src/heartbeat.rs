//! A TCP connection that is never silent for long, unless packets are lost.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::namespace::Namespace;

/// Time without progress after which a connection has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Numbers on a TCP connection, one at each interval.
#[derive(Debug)]
pub struct Heartbeat {
    /// Ends the sender.
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Result<(u64, Duration)>>,
}

impl Heartbeat {
    /// Connects to `address` in the namespace `to`, and sends a number every `interval`.
    ///
    /// # Errors
    ///
    /// Fails when there is no connection.
    pub fn start(
        from: &Namespace,
        to: &Namespace,
        address: IpAddr,
        interval: Duration,
    ) -> Result<Self> {
        let listener = to.run(|| TcpListener::bind((address, 0)))??;
        let target = listener.local_addr()?;
        let sending = from.run(|| TcpStream::connect_timeout(&target, PATIENCE))??;
        sending.set_nodelay(true)?;
        sending.set_write_timeout(Some(PATIENCE))?;
        let (receiving, _) = listener.accept()?;
        receiving.set_read_timeout(Some(PATIENCE))?;
        let stop = Arc::new(AtomicBool::new(false));
        Ok(Self {
            sender: thread::spawn({
                let stop = Arc::clone(&stop);
                move || send(sending, interval, &stop)
            }),
            receiver: thread::spawn(move || receive(receiving)),
            stop,
        })
    }

    /// Ends the connection, and returns the longest time between two arrivals.
    ///
    /// # Errors
    ///
    /// Fails when the connection has failed, or not every number arrived in its turn.
    pub fn stop(self) -> Result<Duration> {
        self.stop.store(true, Ordering::Release);
        let sent = self.sender.join().expect("the sender does not panic")?;
        let received = self.receiver.join().expect("the receiver does not panic");
        let (received, silence) = received?;
        ensure!(received == sent, "{received} of {sent} numbers arrived");
        Ok(silence)
    }
}

fn send(mut stream: TcpStream, interval: Duration, stop: &AtomicBool) -> Result<u64> {
    let mut number = 0_u64;
    while !stop.load(Ordering::Acquire) {
        stream
            .write_all(&number.to_be_bytes())
            .with_context(|| format!("send number {number}"))?;
        number += 1;
        thread::sleep(interval);
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(number)
}

fn receive(mut stream: TcpStream) -> Result<(u64, Duration)> {
    let (mut expected, mut silence) = (0_u64, Duration::ZERO);
    let mut last: Option<Instant> = None;
    let mut octets = [0; 8];
    loop {
        match stream.read_exact(&mut octets) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Ok((expected, silence));
            }
            Err(error) => return Err(error).context(format!("receive number {expected}")),
        }
        let number = u64::from_be_bytes(octets);
        ensure!(number == expected, "{number} came instead of {expected}");
        expected += 1;
        let now = Instant::now();
        if let Some(last) = last.replace(now) {
            silence = silence.max(now - last);
        }
    }
}
