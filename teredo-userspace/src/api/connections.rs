//! The connections of one listening socket: a bounded number, each for one request and a bounded time.
//!
//! The API has one thread, and the daemon a bounded number of file descriptors. Without these bounds any
//! local user could use up both through a TCP socket of the API. A request has to arrive as a whole, with its
//! body, in a short time. An answer may last, as a stream of events or a long list does, but each part of it
//! must be taken. If all places are taken, a newcomer gets that of the connection that has waited longest for its client.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::StatusCode,
    middleware::Next,
    response::Response,
    serve::Listener,
};
use http_body_util::BodyExt as _;
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{handle::Gate, problem::Problem};

/// The most connections of one listening socket at the same time.
pub const PLACES: usize = 32;
/// The time within which a request must arrive, with its body.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The time within which an answer must begin. The longest wait is that of `relay.grace`, a minute at most.
pub const BEGIN_TIMEOUT: Duration = Duration::from_secs(90);
/// The time within which each part of an answer must be made and taken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The time for which a connection keeps its place against newcomers although its client takes nothing of the answer.
const TAKING_TIMEOUT: Duration = Duration::from_millis(250);
/// The interval between two looks for a place that a newcomer may have.
const SEARCH: Duration = Duration::from_millis(50);
/// The time within which the last answers must be taken.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(1);
/// The most octets of a request's body. The largest is a packet of 64 KiB, each octet in two hexadecimal digits
/// and a space.
pub const BODY_MAX: usize = 256 * 1024;
/// The most octets of a larger body that are read before it is refused. If the connection ends with octets on their
/// way, the client may not get the answer.
const DISCARDED_MAX: usize = 4 * 1024 * 1024;
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
        let place = tokio::select! {
            place = places.take() => place,
            // The newcomer has sent no request that was read.
            Ok(_) = gate.wait_for(|gate| *gate == Gate::Closed) => break,
        };
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
async fn converse<S>(stream: S, router: Router, place: Place)
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let progress = Progress::new();
    let mut late = progress.0.subscribe();
    let arrival = Arrival {
        waiting: place.waiting.clone(),
        progress: progress.clone(),
    };
    let waiting = place.waiting.clone();
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(arrival.clone());
        let response = router.call(request);
        let (progress, waiting) = (progress.clone(), waiting.clone());
        async move {
            let response: Response = response.await?;
            progress.allow(ANSWER_TIMEOUT);
            Ok::<_, Infallible>(response.map(|body| Answer {
                body,
                progress,
                waiting,
            }))
        }
    });
    let connection = http1::Builder::new()
        // All of the request has a time, not its header alone.
        .header_read_timeout(None)
        .max_buf_size(BUFFER_MAX)
        .keep_alive(false)
        .serve_connection(stream, service);
    tokio::select! {
        // First: a timer wakes the connection, too, which may make another part of the answer then and have time for it.
        biased;
        () = passed(&mut late) => {}
        () = place.lost() => {}
        // The client has gone or is answered; neither is worth a line in the log.
        _ = connection => {}
    }
}

/// Answers a request once all of its body has arrived, which handlers get as a whole. Until then the connection
/// is one that waits for its request.
pub async fn receive(request: Request, next: Next) -> Result<Response, Problem> {
    let arrival = request.extensions().get::<Arrival>().cloned();
    let (head, body) = request.into_parts();
    let body = receive_body(body).await?;
    if let Some(arrival) = arrival {
        arrival.complete();
    }
    Ok(next.run(Request::from_parts(head, body.into())).await)
}

async fn receive_body(mut body: Body) -> Result<Bytes, Problem> {
    let too_large = || {
        let most = BODY_MAX / 1024;
        let why =
            format!("the body of the request has more than {most} KiB, the most that is read");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, why)
    };
    if hyper::body::Body::size_hint(&body).lower() > DISCARDED_MAX as u64 {
        return Err(too_large());
    }
    let (mut octets, mut size) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let data = frame.map(Frame::into_data).map_err(|error| {
            Problem::bad_request(format!("the body of the request cannot be read: {error}"))
        })?;
        let data = data.unwrap_or_default();
        size += data.len();
        if size <= BODY_MAX {
            octets.extend_from_slice(&data);
        } else if size > DISCARDED_MAX {
            break;
        }
    }
    match size {
        ..=BODY_MAX => Ok(octets.into()),
        _ => Err(too_large()),
    }
}

/// The request of a connection that is about to arrive. It is an extension of the request.
#[derive(Clone)]
struct Arrival {
    waiting: Waiting,
    progress: Progress,
}

impl Arrival {
    /// Notes that the request has arrived: it keeps its place until it is answered.
    fn complete(&self) {
        self.waiting.end();
        self.progress.allow(BEGIN_TIMEOUT);
    }
}

/// The moment at which a connection ends unless it makes progress.
#[derive(Clone, Debug)]
struct Progress(watch::Sender<Instant>);

impl Progress {
    /// Returns the progress of a connection that begins.
    fn new() -> Self {
        Self(watch::Sender::new(Instant::now() + REQUEST_TIMEOUT))
    }

    /// Allows this much time for the next step.
    fn allow(&self, time: Duration) {
        self.0.send_replace(Instant::now() + time);
    }
}

/// The body of an answer. Each part is asked for when the client has taken those before, and has its own time.
struct Answer {
    body: Body,
    progress: Progress,
    waiting: Waiting,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        this.waiting.end();
        let frame = Pin::new(&mut this.body).poll_frame(context);
        if frame.is_ready() {
            this.progress.allow(ANSWER_TIMEOUT);
            this.waiting.begin(Step::Answer);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
    waits: Waits,
    /// The number of the next connection.
    next: u64,
}

/// The connections that wait for their clients, by number.
type Waits = Arc<Mutex<BTreeMap<u64, Wait>>>;

/// The wait of a connection for its client.
struct Wait {
    step: Step,
    /// The moment from which a newcomer may have the place.
    due: Instant,
    lost: Arc<Notify>,
}

/// A step that a client has to take.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It sends its request.
    Request,
    /// It takes a part of the answer.
    Answer,
}

impl Places {
    fn new(number: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(number)),
            waits: Waits::default(),
            next: 0,
        }
    }

    /// Ends the connections whose requests have not arrived.
    fn end_idle(&self) {
        locked(&self.waits, |waits| {
            let idle = waits.values().filter(|wait| wait.step == Step::Request);
            idle.for_each(|wait| wait.lost.notify_one());
        });
    }

    /// Waits for a place. If none is free, the connection that has waited longest for its client loses its place.
    async fn take(&mut self) -> Place {
        let permit = loop {
            if self.free.available_permits() == 0 {
                self.dismiss(Instant::now());
            }
            let free = self.free.clone().acquire_owned();
            // Another connection may begin to wait meanwhile.
            if let Ok(permit) = timeout(SEARCH, free).await {
                break permit.ok();
            }
        };
        let waiting = Waiting {
            number: self.next,
            waits: self.waits.clone(),
            lost: Arc::default(),
        };
        self.next += 1;
        waiting.begin(Step::Request);
        Place {
            waiting,
            _permit: permit,
        }
    }

    /// Ends the connection that has waited longest, if a newcomer may have its place.
    fn dismiss(&self, now: Instant) {
        locked(&self.waits, |waits| {
            let due = waits.iter().filter(|(_, wait)| wait.due <= now);
            let first = due.min_by_key(|(number, wait)| (wait.due, **number));
            let number = first.map(|(number, _)| *number);
            if let Some(wait) = number.and_then(|number| waits.remove(&number)) {
                // The connection may have ended at this moment.
                wait.lost.notify_one();
            }
        });
    }
}

/// The place of one connection, free again when dropped.
struct Place {
    waiting: Waiting,
    /// `None` is impossible: the semaphore is never closed.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Waits until another connection takes the place.
    async fn lost(&self) {
        self.waiting.lost.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.end();
    }
}

/// The waits of one connection for its client. While it waits for the daemon, it keeps its place.
#[derive(Clone)]
struct Waiting {
    number: u64,
    waits: Waits,
    lost: Arc<Notify>,
}

impl Waiting {
    /// Begins the wait for a step.
    fn begin(&self, step: Step) {
        let patience = match step {
            Step::Request => Duration::ZERO,
            Step::Answer => TAKING_TIMEOUT,
        };
        let wait = Wait {
            step,
            due: Instant::now() + patience,
            lost: self.lost.clone(),
        };
        locked(&self.waits, |waits| waits.insert(self.number, wait));
    }

    /// Ends the wait, if there is one.
    fn end(&self) {
        locked(&self.waits, |waits| waits.remove(&self.number));
    }
}

fn locked<T>(waits: &Waits, change: impl FnOnce(&mut BTreeMap<u64, Wait>) -> T) -> T {
    change(&mut waits.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::{
        middleware::from_fn,
        routing::{get, post},
    };
    use futures_util::stream;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        sync::mpsc,
    };

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    /// The longest time for a step.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// A request that is complete.
    const COMPLETE: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    /// Requests that are not.
    const INCOMPLETE: [&str; 4] = [
        "",
        "POST / HT",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n",
    ];

    #[tokio::test]
    async fn the_oldest_idle_connection_makes_room() {
        let mut places = Places::new(2);
        let first = places.take().await;
        let second = places.take().await;
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

    /// A listening socket in memory.
    struct Socket(mpsc::UnboundedReceiver<DuplexStream>);

    impl Listener for Socket {
        type Io = DuplexStream;
        type Addr = ();

        async fn accept(&mut self) -> (DuplexStream, ()) {
            match self.0.recv().await {
                Some(stream) => (stream, ()),
                None => pending().await,
            }
        }

        fn local_addr(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Answers `POST /`, never `GET /`, and `GET /list` with much.
    fn router() -> Router {
        let router = Router::new()
            .route("/", get(pending::<()>).post(async |_: Bytes| "done"))
            .route("/list", get(async || "a".repeat(1 << 16)));
        router.layer(from_fn(receive))
    }

    /// The other ends of connections to a socket that is served.
    struct Clients {
        connect: mpsc::UnboundedSender<DuplexStream>,
        gate: watch::Sender<Gate>,
    }

    impl Clients {
        /// Serves a socket.
        fn new() -> (Self, impl Future<Output = ()>) {
            let (connect, streams) = mpsc::unbounded_channel();
            let gate = watch::Sender::new(Gate::Open);
            let serving = serve(Socket(streams), router(), gate.subscribe());
            (Self { connect, gate }, serving)
        }

        /// Connects and sends `text`.
        async fn send(&self, text: &str) -> DuplexStream {
            let (mut ours, theirs) = duplex(1 << 10);
            self.connect.send(theirs).unwrap();
            ours.write_all(text.as_bytes()).await.unwrap();
            ours
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_are_not_complete_lock_nobody_out() {
        for incomplete in INCOMPLETE {
            let (clients, serving) = Clients::new();
            let work = async {
                let mut crowd = Vec::new();
                for _ in 0..3 * PLACES {
                    crowd.push(clients.send(incomplete).await);
                }
                let start = Instant::now();
                let body = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab";
                let mut answer = String::new();
                let mut client = clients.send(body).await;
                client.read_to_string(&mut answer).await.unwrap();
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                assert!(start.elapsed() < REQUEST_TIMEOUT, "{incomplete}");
                // Nobody needs the places of the last ones, which have their time and no more.
                let mut last = crowd.pop().unwrap();
                let ended = last.read_to_string(&mut answer).await;
                assert_eq!(ended.unwrap(), 0, "{answer}");
                assert!(start.elapsed() < REQUEST_TIMEOUT + PATIENCE, "{incomplete}");
            };
            tokio::select! {
                () = work => {}
                () = serving => panic!("the end"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_nobody_takes_lock_nobody_out() {
        let (clients, serving) = Clients::new();
        let work = async {
            let mut crowd = Vec::new();
            for _ in 0..3 * PLACES {
                crowd.push(clients.send("GET /list HTTP/1.1\r\nhost: a\r\n\r\n").await);
            }
            let start = Instant::now();
            let body = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab";
            let mut answer = String::new();
            let mut client = clients.send(body).await;
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert!(start.elapsed() < 4 * TAKING_TIMEOUT);
            // Nobody needs the places of the last ones, which are only slow.
            sleep(4 * TAKING_TIMEOUT).await;
            let mut last = crowd.pop().unwrap();
            last.read_to_string(&mut answer).await.unwrap();
            assert!(answer.len() > 1 << 16, "{}", answer.len());
        };
        tokio::select! {
            () = work => {}
            () = serving => panic!("the end"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_waits_for_the_daemon_keeps_its_place() {
        let (clients, serving) = Clients::new();
        let work = async {
            let mut crowd = Vec::new();
            for _ in 0..PLACES {
                crowd.push(clients.send(COMPLETE).await);
            }
            let mut newcomer = clients.send(COMPLETE).await;
            let mut nothing = String::new();
            let wait = BEGIN_TIMEOUT - PATIENCE;
            let answered = timeout(wait, newcomer.read_to_string(&mut nothing)).await;
            assert!(answered.is_err(), "{nothing}");
            for client in &mut crowd {
                let ended = timeout(SHORT, client.read_to_string(&mut nothing)).await;
                assert!(ended.is_err(), "a connection has lost its place");
            }
        };
        tokio::select! {
            () = work => {}
            () = serving => panic!("the end"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_delays_the_end() {
        for text in INCOMPLETE.into_iter().chain([COMPLETE]) {
            let (clients, serving) = Clients::new();
            let serving = tokio::spawn(serving);
            let mut crowd = Vec::new();
            for _ in 0..=PLACES {
                crowd.push(clients.send(text).await);
            }
            // All were accepted in this virtual time.
            sleep(Duration::from_secs(1)).await;
            let start = Instant::now();
            clients.gate.send_replace(Gate::Closed);
            serving.await.unwrap();
            assert!(start.elapsed() <= CLOSING_TIMEOUT + SHORT, "{text}");
        }
    }

    /// Sends a request to a router, and returns the client's end and the conversation.
    async fn ask(router: Router, request: &str) -> (DuplexStream, impl Future<Output = ()>) {
        let (mut ours, theirs) = duplex(1 << 10);
        ours.write_all(request.as_bytes()).await.unwrap();
        (ours, converse_alone(theirs, router))
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_begin_late_and_last_long() {
        const PARTS: usize = 60;
        let late = async || {
            sleep(BEGIN_TIMEOUT - SHORT).await;
            Body::from_stream(stream::unfold(0, |number| async move {
                sleep(ANSWER_TIMEOUT - SHORT).await;
                let part = Ok::<_, Infallible>(Bytes::from_static(b"part"));
                (number < PARTS).then_some((part, number + 1))
            }))
        };
        let router = Router::new().route("/", get(late)).layer(from_fn(receive));
        let (mut client, conversation) = ask(router, COMPLETE).await;
        let mut answer = String::new();
        let (_, read) = tokio::join!(conversation, client.read_to_string(&mut answer));
        read.unwrap();
        assert_eq!(answer.matches("part").count(), PARTS);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_ends() {
        let endless = async || {
            let part = Bytes::from_static(&[0; 1 << 10]);
            Body::from_stream(stream::repeat_with(move || {
                Ok::<_, Infallible>(part.clone())
            }))
        };
        let router = Router::new()
            .route("/", get(endless))
            .layer(from_fn(receive));
        let (mut client, conversation) = ask(router, COMPLETE).await;
        let start = Instant::now();
        let reading = async {
            // It reads for a while.
            for _ in 0..100 {
                sleep(Duration::from_secs(10)).await;
                client.read_exact(&mut [0; 1 << 16]).await.unwrap();
            }
        };
        tokio::join!(conversation, reading);
        let lasted = start.elapsed().as_secs();
        assert!(
            (1_000..1_000 + 2 * ANSWER_TIMEOUT.as_secs()).contains(&lasted),
            "{lasted}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_size_of_a_body_is_bounded() {
        let router = || {
            let size = async |body: Bytes| body.len().to_string();
            Router::new().route("/", post(size)).layer(from_fn(receive))
        };
        let body = |size| "a".repeat(size);
        let known = |size| format!("content-length: {size}\r\n\r\n{}", body(size));
        let chunked = |size| {
            format!(
                "transfer-encoding: chunked\r\n\r\n{size:x}\r\n{}\r\n0\r\n\r\n",
                body(size)
            )
        };
        for (rest, status) in [
            (known(BODY_MAX), 200),
            (chunked(BODY_MAX), 200),
            (known(BODY_MAX + 1), 413),
            (chunked(BODY_MAX + 1), 413),
            // The body itself need not come.
            (format!("content-length: {}\r\n\r\n", 1_u64 << 60), 413),
        ] {
            let request = format!("POST / HTTP/1.1\r\nhost: a\r\n{rest}");
            let (client, server) = duplex(request.len() + (1 << 10));
            let (mut read, mut write) = tokio::io::split(client);
            let mut answer = String::new();
            let (_, sent, got) = tokio::join!(
                converse_alone(server, router()),
                write.write_all(request.as_bytes()),
                read.read_to_string(&mut answer)
            );
            sent.and(got).unwrap();
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
        }
    }
}
