use std::{
    fs,
    net::{Ipv6Addr, SocketAddr, TcpListener},
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::Path,
    time::Duration,
};

use teredo_common::{address::ServicePrefix, time::Instant, verdict::Direction};
use teredo_proto::{relay::Statistics, server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    connections::PLACES,
    handle::PAGE,
    listener::{Leftover, examine},
    types::{Count, Peer, PeerState, Status},
    *,
};
use crate::{
    condition::{Condition, Kind, Lasting},
    config::ApiAddress,
    explain::{Explanation, Facts},
    handover::Inheritance,
    metrics::{self, Snapshot},
};

pub(super) fn peer(number: usize) -> Peer {
    Peer {
        address: Ipv6Addr::from((0x2001_u128 << 112) + number as u128),
        mapped: "192.0.2.1:4096".parse().unwrap(),
        state: PeerState::Trusted,
        symmetric: false,
        proved: true,
        last_received_seconds: Some(1.5),
        last_sent_seconds: None,
        local: false,
        xdp: true,
        packets: Some(Count::default()),
        bytes: Some(Count::default()),
    }
}

pub(super) fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot {
        name: "test".to_owned(),
        uptime: Duration::from_secs(90),
        ..Snapshot::default()
    };
    let sunset = Some("2030-12-31".parse().unwrap());
    let state = |is_draining, sunset| metrics::RoleState {
        is_draining,
        sunset,
    };
    snapshot.add_relay(state(false, None), &Statistics::default());
    snapshot.peers_trusted = 3;
    snapshot.add_server(state(true, sunset), &server::Statistics::default(), 4);
    let advertised = server::Service::Advertised.into();
    let (xdp, userspace) = (metrics::Path::Xdp, metrics::Path::Userspace);
    snapshot.requests.insert((advertised, xdp), 10);
    snapshot.requests.insert((advertised, userspace), 11);
    snapshot.add_traffic(Direction::Encap, metrics::Path::Xdp, 7, 700);
    snapshot.add_traffic(Direction::Decap, metrics::Path::Userspace, 8, 800);
    snapshot.add_dropped(metrics::Role::Relay, "source", 9);
    snapshot
}

/// Listens on new sockets.
pub(super) fn listen(addresses: &[ApiAddress]) -> Result<Listeners, listener::Error> {
    super::listen(addresses, None, &mut Inheritance::default())
}

/// A node with this many peers that answers until nobody can ask any more.
pub(super) async fn node(mut requests: Requests, peers: usize) {
    while let Some(request) = requests.recv().await {
        match request {
            Request::Snapshot(reply) => drop(reply.send(snapshot())),
            Request::Peers {
                cursor,
                most,
                reply,
                ..
            } => {
                let start = usize::try_from(cursor).unwrap_or(usize::MAX).min(peers);
                let end = peers.min(start + most.min(PAGE));
                let page = Page {
                    peers: (start..end).map(peer).collect(),
                    next: (end < peers).then_some(end as u64),
                };
                drop(reply.send(page));
            }
            Request::Withdraw(reply) => reply.send(Duration::ZERO).unwrap(),
            Request::Explain { reply, .. } => {
                let status = Status::from(&snapshot());
                let facts = Facts::new(snapshot().time, status, ServicePrefix::STANDARD);
                reply.send(Box::new(facts)).unwrap();
            }
            Request::CaptureParts(reply) => drop(reply.send(None)),
            Request::BeginCapture { reply, .. } => drop(reply.send(Err("not here".to_owned()))),
            Request::Drain(reply) => reply.send(()).unwrap(),
            Request::Replace(reply) => reply.send(Err("not here".to_owned())).unwrap(),
        }
    }
}

/// Serves on `address` while `work` runs.
pub(super) async fn with_api<T>(
    address: &ApiAddress,
    peers: usize,
    work: impl Future<Output = T>,
) -> T {
    let (handle, requests) = Handle::new();
    let listeners = listen(std::slice::from_ref(address)).unwrap();
    tokio::select! {
        result = work => result,
        ended = serve(listeners, handle, None) => panic!("the API ended: {ended:?}"),
        () = node(requests, peers) => panic!("the node ended"),
    }
}

pub(super) fn unix(directory: &tempfile::TempDir) -> (ApiAddress, std::path::PathBuf) {
    let path = directory.path().join("made/api.sock");
    (ApiAddress::Unix(path.clone()), path)
}

pub(super) fn free_tcp() -> ApiAddress {
    let socket = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    ApiAddress::Tcp(socket.local_addr().unwrap())
}

#[tokio::test]
async fn status_and_metrics_tell_the_same_numbers() {
    let address = free_tcp();
    let (status, metrics) = with_api(&address, 0, async {
        let status = client::get(&address, "/status").await.unwrap();
        let metrics = client::get(&address, "/metrics").await.unwrap();
        (status, String::from_utf8(metrics.to_vec()).unwrap())
    })
    .await;
    let status: Status = serde_json::from_slice(&status).unwrap();
    assert_eq!(status, Status::from(&snapshot()));
    assert_eq!((status.packets.encap.xdp, status.bytes.encap.xdp), (7, 700));
    assert_eq!(status.packets.decap.userspace, 8);
    assert_eq!(status.dropped["source"], 9);
    assert_eq!(status.roles, ["relay", "server"]);
    assert_eq!(status.draining, ["server"]);
    assert_eq!(status.sunset["server"], "2030-12-31");
    let server = status.server.unwrap();
    let advertised = server.requests["solicitation"]["advertised"];
    assert_eq!((advertised.xdp, advertised.userspace), (10, 11));
    assert_eq!(server.bindings, 4);
    for line in [
        r#"teredo_packets_total{role="relay",direction="encap",path="xdp"} 7"#,
        r#"teredo_bytes_total{role="relay",direction="decap",path="userspace"} 800"#,
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[test]
fn conditions_are_told_with_their_age() {
    let mut snapshot = snapshot();
    snapshot.time = Instant::ZERO + Duration::from_secs(12);
    snapshot.conditions.push(Lasting {
        condition: Condition {
            kind: Kind::FastPathOff,
            role: metrics::Role::Relay,
            subject: "eth0".to_owned(),
            text: "another program is there".to_owned(),
        },
        since: Instant::ZERO + Duration::from_secs(2),
    });
    let status = serde_json::to_value(Status::from(&snapshot)).unwrap();
    let expected = serde_json::json!([{
        "kind": "fast-path-off",
        "role": "relay",
        "subject": "eth0",
        "severity": "degraded",
        "text": "another program is there",
        "since_seconds": 10.0,
    }]);
    assert_eq!(status["conditions"], expected);
}

/// S-27: only who may use the unix socket may stop the service.
#[tokio::test]
async fn s27_draining_is_asked_for_on_the_unix_socket_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (unix, _) = unix(&directory);
    let drained = with_api(&unix, 0, client::post(&unix, "/drain")).await;
    assert!(drained.is_ok(), "{drained:?}");
    let tcp = free_tcp();
    let (handle, mut requests) = Handle::new();
    let listeners = listen(std::slice::from_ref(&tcp)).unwrap();
    tokio::select! {
        result = client::post(&tcp, "/drain") => {
            let sentence = result.unwrap_err().to_string();
            assert!(sentence.contains("refuses") && sentence.contains("unix socket"), "{sentence}");
        }
        ended = serve(listeners, handle, None) => panic!("the API ended: {ended:?}"),
        request = requests.recv() => panic!("the node was asked: {request:?}"),
    }
    // A client that only reads a page cannot drain by it.
    let result = with_api(&unix, 0, client::get(&unix, "/drain")).await;
    assert!(result.is_err());
}

#[tokio::test]
async fn peers_come_complete_in_pages() {
    for number in [0, 1, PAGE, PAGE + 1, 5 * PAGE + 7] {
        let directory = tempfile::tempdir().unwrap();
        let (address, _) = unix(&directory);
        let body = with_api(&address, number, client::get(&address, "/peers")).await;
        let peers: Vec<Peer> = serde_json::from_slice(&body.unwrap()).unwrap();
        let expected: Vec<_> = (0..number).map(peer).collect();
        assert_eq!(peers, expected);
    }
}

#[tokio::test]
async fn subjects_and_packets_are_explained_on_every_socket() {
    let directory = tempfile::tempdir().unwrap();
    let (unix, _) = unix(&directory);
    for address in [unix, free_tcp()] {
        let ask = async |body: &str| {
            let body = body.to_owned().into();
            client::ask(&address, "/v1/explain", body).await
        };
        let work = async {
            let answer = ask(r#"{"subject": "2001:0:102:304:0:efff:f6ff:fffe"}"#).await;
            let told: Explanation = serde_json::from_slice(&answer.unwrap()).unwrap();
            let decoded = told.teredo.unwrap();
            assert_eq!(decoded.mapped, "9.0.0.1:4096".parse().unwrap());
            assert!(told.network_namespace.is_some());
            for (body, part) in [
                (r#"{"subject": "9.0.0.1"}"#, "9.0.0.1:PORT"),
                (r#"{"packet": "6x"}"#, "`x` is no digit"),
                ("{}", "either `subject` or `packet`"),
                ("what", "not as documented"),
            ] {
                let refused = ask(body).await.unwrap_err().to_string();
                assert!(refused.contains(part), "{refused}");
            }
        };
        with_api(&address, 0, work).await;
    }
}

#[tokio::test]
async fn a_reader_who_stops_reading_stops_the_listing() {
    let directory = tempfile::tempdir().unwrap();
    let (address, path) = unix(&directory);
    let (handle, mut requests) = Handle::new();
    let listeners = listen(&[address]).unwrap();
    let pages = async {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let request = b"GET /peers HTTP/1.1\r\nhost: teredo\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut pages = 0;
        // An endless list. When no page was asked for in a while, the writer waits for us.
        while let Ok(Some(request)) =
            tokio::time::timeout(Duration::from_millis(500), requests.recv()).await
        {
            let Request::Peers { reply, .. } = request else {
                panic!("unexpected {request:?}");
            };
            pages += 1;
            assert!(pages < 100, "pages are produced that nobody takes");
            let page = Page {
                peers: (0..PAGE).map(peer).collect(),
                next: Some(1),
            };
            drop(reply.send(page));
        }
        drop(stream);
        pages
    };
    tokio::select! {
        pages = pages => assert!(pages > 0),
        ended = serve(listeners, handle, None) => panic!("the API ended: {ended:?}"),
    }
}

#[tokio::test]
async fn a_node_that_has_ended_is_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let (address, _) = unix(&directory);
    let (handle, requests) = Handle::new();
    drop(requests);
    let listeners = listen(std::slice::from_ref(&address)).unwrap();
    tokio::select! {
        result = client::get(&address, "/status") => {
            let sentence = result.unwrap_err().to_string();
            assert!(sentence.contains("the daemon is stopping"), "{sentence}");
        }
        ended = serve(listeners, handle, None) => panic!("the API ended: {ended:?}"),
    }
}

#[tokio::test]
async fn the_socket_is_for_its_group_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (address, path) = unix(&directory);
    with_api(&address, 0, async {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
    })
    .await;
    assert!(!path.exists());
    assert!(
        !path.parent().unwrap().exists(),
        "the directory made for it"
    );
    assert!(directory.path().exists());
}

#[tokio::test]
async fn a_dead_daemons_socket_is_replaced_and_a_live_ones_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let address = [ApiAddress::Unix(path.clone())];
    // Dropping a std listener leaves its file, as a crash does.
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(examine(&path, None).unwrap(), Leftover::DeadSocket);
    let listeners = listen(&address).unwrap();
    assert!(examine(&path, None).is_err());
    let sentence = listen(&address).unwrap_err().to_string();
    assert!(sentence.starts_with("already running: "), "{sentence}");
    assert!(
        examine(&path, None).is_err(),
        "the failed start took the socket"
    );
    drop(listeners);
    assert!(!path.exists());
}

#[tokio::test]
async fn nothing_else_is_ever_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    fs::write(&path, "precious").unwrap();
    let sentence = listen(&[ApiAddress::Unix(path.clone())])
        .unwrap_err()
        .to_string();
    assert!(sentence.contains("is not a socket"), "{sentence}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

    fs::remove_file(&path).unwrap();
    let listeners = listen(&[ApiAddress::Unix(path.clone())]).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "another's").unwrap();
    drop(listeners);
    assert!(path.exists());
}

#[tokio::test]
async fn a_failed_second_address_takes_the_first_back() {
    let directory = tempfile::tempdir().unwrap();
    let (address, path) = unix(&directory);
    let taken = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let tcp: SocketAddr = taken.local_addr().unwrap();
    let sentence = listen(&[address, ApiAddress::Tcp(tcp)])
        .unwrap_err()
        .to_string();
    assert!(
        sentence.contains(&format!("tcp:{tcp}")) && sentence.contains("node.api"),
        "{sentence}"
    );
    assert!(!path.exists() && !path.parent().unwrap().exists());
}

/// Sends a request and returns the whole answer, or nothing if the connection was closed.
pub(super) async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn an_idle_crowd_locks_nobody_out() {
    for beginning in [
        "",
        "POST /v1/explain HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 9\r\n\r\n",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (unix, _) = unix(&directory);
        let tcp = free_tcp();
        let ApiAddress::Tcp(address) = tcp else {
            unreachable!()
        };
        let (handle, requests) = Handle::new();
        let listeners = listen(&[unix.clone(), tcp.clone()]).unwrap();
        let work = async {
            let mut crowd = Vec::new();
            for _ in 0..300 {
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                stream.write_all(beginning.as_bytes()).await.unwrap();
                crowd.push(stream);
            }
            client::get(&unix, "/status").await.unwrap();
            client::get(&tcp, "/status").await.unwrap();
            let mut open = 0;
            for stream in &mut crowd {
                let mut octet = [0];
                let closed =
                    tokio::time::timeout(Duration::from_millis(1), stream.read(&mut octet));
                open += usize::from(closed.await.is_err());
            }
            assert!(open <= PLACES, "{open} connections are held");
        };
        tokio::select! {
            () = work => {}
            ended = serve(listeners, handle, None) => panic!("the API ended: {ended:?}"),
            () = node(requests, 0) => panic!("the node ended"),
        }
    }
}

#[tokio::test]
async fn a_connection_is_for_one_request_of_bounded_size() {
    let tcp = free_tcp();
    let ApiAddress::Tcp(address) = tcp else {
        unreachable!()
    };
    with_api(&tcp, 0, async {
        let request = "GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
        let answer = exchange(address, &request.repeat(2)).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1, "{answer}");
        let long = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", "a".repeat(100_000));
        let answer = exchange(address, &long).await;
        assert!(!answer.contains("200"), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn health_is_told_in_plain_text_and_to_head_requests() {
    let tcp = free_tcp();
    let ApiAddress::Tcp(address) = tcp else {
        unreachable!()
    };
    with_api(&tcp, 0, async {
        let ask = |method, page| {
            let request = format!("{method} {page} HTTP/1.1\r\nhost: {address}\r\n\r\n");
            async move { exchange(address, &request).await }
        };
        let healthy = ask("GET", "/healthz").await;
        assert!(healthy.starts_with("HTTP/1.1 200 OK\r\n"), "{healthy}");
        assert!(healthy.contains("content-type: text/plain; charset=utf-8\r\n"));
        assert!(healthy.ends_with("\r\n\r\nok\n"), "{healthy}");
        let headers = ask("HEAD", "/healthz").await;
        assert!(headers.starts_with("HTTP/1.1 200 OK\r\n"), "{headers}");
        assert!(headers.ends_with("\r\n\r\n"), "{headers}");
        // The server of these tests drains.
        let draining = ask("GET", "/readyz").await;
        assert!(draining.starts_with("HTTP/1.1 503 "), "{draining}");
        assert!(draining.contains("draining server: "), "{draining}");
        assert!(ask("HEAD", "/readyz").await.starts_with("HTTP/1.1 503 "));
        assert!(ask("POST", "/healthz").await.starts_with("HTTP/1.1 405 "));
    })
    .await;
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_not_healthy() {
    let tcp = free_tcp();
    let ApiAddress::Tcp(address) = tcp else {
        unreachable!()
    };
    let (handle, _requests) = Handle::new();
    let listeners = listen(std::slice::from_ref(&tcp)).unwrap();
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\n\r\n");
    tokio::select! {
        answer = exchange(address, &request) => {
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert!(answer.contains("starting daemon: "), "{answer}");
        }
        ended = serve(listeners, handle, None) => panic!("the API ended: {ended:?}"),
    }
}

#[tokio::test]
async fn web_pages_are_refused_on_tcp_alone() {
    let tcp = free_tcp();
    let ApiAddress::Tcp(address) = tcp else {
        unreachable!()
    };
    with_api(&tcp, 1, async {
        for header in [
            "host: rebind.example",
            "host: 127.0.0.1\r\norigin: http://a.example",
        ] {
            for path in ["/status", "/peers", "/nothing"] {
                let request = format!("GET {path} HTTP/1.1\r\n{header}\r\n\r\n");
                let answer = exchange(address, &request).await;
                assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn lists_of_peers_wait_for_each_other_and_not_the_status() {
    let tcp = free_tcp();
    let ApiAddress::Tcp(address) = tcp else {
        unreachable!()
    };
    let (handle, mut requests) = Handle::new();
    let listeners = listen(std::slice::from_ref(&tcp)).unwrap();
    let asked = std::cell::RefCell::new(std::collections::BTreeMap::<u64, usize>::new());
    let node = async {
        // An endless list, which the clients do not read.
        while let Some(request) = requests.recv().await {
            match request {
                Request::Snapshot(reply) => drop(reply.send(snapshot())),
                Request::Peers { cursor, reply, .. } => {
                    *asked.borrow_mut().entry(cursor).or_default() += 1;
                    let page = Page {
                        peers: (0..PAGE).map(peer).collect(),
                        next: Some(1),
                    };
                    drop(reply.send(page));
                }
                Request::Explain { .. }
                | Request::CaptureParts(_)
                | Request::BeginCapture { .. }
                | Request::Withdraw(_)
                | Request::Drain(_)
                | Request::Replace(_) => {
                    panic!("nobody asks for that")
                }
            }
        }
    };
    let work = async {
        let mut readers = Vec::new();
        for _ in 0..10 {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = b"GET /peers HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
            stream.write_all(request).await.unwrap();
            readers.push(stream);
        }
        for _ in 0..10 {
            client::get(&tcp, "/status").await.unwrap();
        }
        assert_eq!(asked.borrow().get(&0), Some(&2), "lists at once");
        drop(readers);
    };
    tokio::select! {
        () = work => {}
        ended = serve(listeners, handle, None) => panic!("the API ended: {ended:?}"),
        () = node => panic!("the node ended"),
    }
}

/// Daemons that start and stop at the same moment share a directory that none of them finds.
#[test]
fn daemons_that_start_together_all_listen() {
    for _ in 0..40 {
        let directory = tempfile::tempdir().unwrap();
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for number in 0..4 {
                let (start, path) = (&start, directory.path().join("run"));
                scope.spawn(move || {
                    let path = path.join(format!("{number}.sock"));
                    start.wait();
                    for _ in 0..5 {
                        let address = [ApiAddress::Unix(path.clone())];
                        let listeners = listen(&address).unwrap();
                        std::os::unix::net::UnixStream::connect(&path).unwrap();
                        drop(listeners);
                    }
                });
            }
        });
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().collect();
        let left = left
            .iter()
            .flat_map(|run| fs::read_dir(run.path()).unwrap());
        assert_eq!(left.count(), 0, "files are left");
    }
}

/// Of daemons of one name exactly one starts, also where a dead one has left its socket.
#[test]
fn of_daemons_of_one_name_one_starts() {
    for _ in 0..40 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        drop(UnixListener::bind(&path).unwrap());
        let start = std::sync::Barrier::new(4);
        let started: Vec<_> = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| {
                let address = [ApiAddress::Unix(path.clone())];
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    listen(&address)
                })
            });
            threads.map(|thread| thread.join().unwrap()).into()
        });
        let (listening, refused): (Vec<_>, Vec<_>) = started.into_iter().partition(Result::is_ok);
        assert_eq!(listening.len(), 1, "{refused:?}");
        std::os::unix::net::UnixStream::connect(&path).unwrap();
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_found_before_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("one/two/api.sock");
    let sentence = examine(&path, None).unwrap_err().to_string();
    assert!(sentence.contains("cannot listen on unix:"), "{sentence}");
    let error = listen(&[ApiAddress::Unix(path)]).unwrap_err();
    assert_eq!(error.to_string(), sentence);
}

#[tokio::test]
async fn nobody_there_is_a_sentence() {
    let address = ApiAddress::Unix(Path::new("/nonexistent/api.sock").to_owned());
    let sentence = client::get(&address, "/status")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        sentence.contains("no daemon answers on unix:/nonexistent/api.sock")
            && sentence.contains("teredo run"),
        "{sentence}"
    );
}
