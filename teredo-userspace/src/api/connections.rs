//! The connections of one listening socket: a bounded number, each for one request and a bounded time.
//!
//! The API has one thread, and the daemon a bounded number of file descriptors. Without these bounds any
//! local user could use up both through a TCP socket of the API. An answer that lasts, such as a stream of
//! events, has no bounded time, but must be taken.

use std::{
    collections::BTreeMap,
    future::pending,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, extract::Request, response::Response, serve::Listener};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::handle::Gate;

/// The most connections of one listening socket at the same time.
pub const PLACES: usize = 32;
/// The time within which a request must arrive.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The time within which an answer must be taken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The time within which the last answers must be taken.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(1);
/// The most octets of a request's header, and of a connection's buffers.
const BUFFER_MAX: usize = 16 * 1024;
/// The pause after a connection was accepted, which leaves the CPU to packets.
const PAUSE: Duration = Duration::from_millis(2);

/// Serves the connections of a listening socket until the gate is closed, and then those whose requests have
/// arrived. Dropping the future ends them.
pub async fn serve<L: Listener>(mut socket: L, router: Router, mut gate: watch::Receiver<Gate>) {
    let mut places = Places::new(PLACES);
    let mut connections = JoinSet::new();
    loop {
        // Nobody can change it any more if this fails.
        let is_open = gate.wait_for(|gate| *gate != Gate::Shut).await;
        if is_open.is_ok_and(|gate| *gate == Gate::Closed) {
            break;
        }
        let (stream, _) = tokio::select! {
            // An error, such as too few file descriptors, is tried again inside.
            accepted = socket.accept() => accepted,
            Ok(()) = gate.changed() => continue,
        };
        let place = places.take().await;
        connections.spawn(converse(TokioIo::new(stream), router.clone(), place));
        while connections.try_join_next().is_some() {}
        sleep(PAUSE).await;
    }
    places.end_idle();
    let ended = async { while connections.join_next().await.is_some() {} };
    // A slow reader must not delay the end.
    let _ = timeout(CLOSING_TIMEOUT, ended).await;
}

/// Answers the request of the only connection.
#[cfg(any(test, feature = "testing"))]
pub async fn converse_alone<S>(stream: S, router: Router)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let place = Places::new(1).take().await;
    converse(TokioIo::new(stream), router, place).await;
}

/// Answers the request of one connection. There is no second one, so that a connection is either
/// idle or being answered.
async fn converse<S>(stream: S, router: Router, mut place: Place)
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let waiting = place.waiting.clone();
    let router = TowerToHyperService::new(router);
    let progress = Progress::new();
    let mut stalled = progress.0.subscribe();
    let service = service_fn(move |mut request: Request<Incoming>| {
        waiting.end();
        request.extensions_mut().insert(progress.clone());
        let response = router.call(request);
        async move { Ok::<Response, io::Error>(response.await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(BUFFER_MAX)
        .keep_alive(false)
        .serve_connection(stream, service);
    tokio::select! {
        // The client has gone or is answered; neither is worth a line in the log.
        _ = connection => {}
        () = place.lost() => {}
        () = passed(&mut stalled) => {}
    }
}

/// The progress of an answer that lasts. It is an extension of every request.
#[derive(Clone, Debug)]
pub struct Progress(watch::Sender<Instant>);

impl Progress {
    /// Returns the progress of a connection that begins.
    fn new() -> Self {
        let end = Instant::now() + REQUEST_TIMEOUT + ANSWER_TIMEOUT;
        Self(watch::Sender::new(end))
    }

    /// Notes that the client takes the answer: it has as much time again for the rest.
    pub fn note(&self) {
        self.0.send_replace(Instant::now() + ANSWER_TIMEOUT);
    }
}

/// Waits until a point in time that may move meanwhile.
async fn passed(end: &mut watch::Receiver<Instant>) {
    loop {
        let until = *end.borrow();
        if until <= Instant::now() {
            return;
        }
        sleep_until(until).await;
    }
}

/// The places for connections.
struct Places {
    free: Arc<Semaphore>,
    idle: Idle,
    /// The number of the next connection.
    next: u64,
}

/// The connections whose request has not arrived yet, by number: the oldest is the first.
type Idle = Arc<Mutex<BTreeMap<u64, oneshot::Sender<()>>>>;

impl Places {
    fn new(number: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(number)),
            idle: Idle::default(),
            next: 0,
        }
    }

    /// Ends the connections whose requests have not arrived.
    fn end_idle(&self) {
        for (_, idle) in locked(&self.idle, std::mem::take) {
            // The connection may have ended at this moment.
            let _ = idle.send(());
        }
    }

    /// Waits for a place. If none is free, the oldest idle connection loses its place.
    async fn take(&mut self) -> Place {
        if self.free.available_permits() == 0 {
            let oldest = locked(&self.idle, BTreeMap::pop_first);
            if let Some((_, oldest)) = oldest {
                // The connection may have ended at this moment.
                let _ = oldest.send(());
            }
        }
        let permit = self.free.clone().acquire_owned().await.ok();
        let (sender, lost) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        locked(&self.idle, |idle| idle.insert(number, sender));
        Place {
            waiting: Waiting {
                number,
                idle: self.idle.clone(),
            },
            lost,
            _permit: permit,
        }
    }
}

/// The place of one connection, free again when dropped.
struct Place {
    waiting: Waiting,
    lost: oneshot::Receiver<()>,
    /// `None` is impossible: the semaphore is never closed.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Waits until another connection takes the place; forever once the request has arrived.
    async fn lost(&mut self) {
        if (&mut self.lost).await.is_err() {
            pending().await
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.end();
    }
}

/// The wait of one connection for its request.
#[derive(Clone)]
struct Waiting {
    number: u64,
    idle: Idle,
}

impl Waiting {
    /// Ends the wait: the connection keeps its place from now on.
    fn end(&self) {
        locked(&self.idle, |idle| idle.remove(&self.number));
    }
}

fn locked<T>(idle: &Idle, change: impl FnOnce(&mut BTreeMap<u64, oneshot::Sender<()>>) -> T) -> T {
    change(&mut idle.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    /// The longest time for a step.
    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn the_oldest_idle_connection_makes_room() {
        let mut places = Places::new(2);
        let mut first = places.take().await;
        let mut second = places.take().await;
        first.waiting.end();
        let third = tokio::spawn(async move { (places.take().await, places) });
        let asked = timeout(PATIENCE, second.lost()).await;
        assert!(asked.is_ok(), "it makes no room");
        assert!(timeout(SHORT, first.lost()).await.is_err(), "it was asked");
        drop(second);
        let (third, mut places) = third.await.unwrap();
        third.waiting.end();
        // Both are being answered now: a newcomer waits until one has ended.
        assert!(timeout(SHORT, places.take()).await.is_err());
        drop(first);
        places.take().await;
    }
}
