//! Requests to the API.

use std::time::Duration;

use teredo::{
    api::{Handle, Page, Request, Requests, types::Status},
    explain::Facts,
    metrics::Snapshot,
    testing,
};
use teredo_common::{address::ServicePrefix, time::Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    runtime::Builder,
};

/// Room for the request and for the answer.
const ROOM: usize = 1 << 20;

/// Sends the octets, all but the first, as one connection of the kind that the first says, and reads the
/// answer to its end.
pub fn run(octets: &[u8]) {
    let Some((kind, request)) = octets.split_first() else {
        return;
    };
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let is_tcp = kind & 1 != 0;
    let (answer, drained) = runtime.block_on(converse(request, is_tcp));
    assert!(!(is_tcp && drained), "any user may connect");
    if answer.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1."), "{text}");
    assert!(!drained || text.contains(" 200 "), "{text}");
    if is_of_another_page(request) {
        assert!(!text.contains(" 200 OK"), "a web page is answered");
    }
}

/// Whether it is a plain request that a browser would send for a page other than the daemon's.
fn is_of_another_page(request: &[u8]) -> bool {
    const BEGINNING: &[u8] = b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: ";
    let rest = request.strip_prefix(BEGINNING);
    let origin = rest.and_then(|rest| rest.split(|octet| *octet == b'\r').next());
    let own: [&[u8]; 2] = [b"http://127.0.0.1", b"https://127.0.0.1"];
    origin.is_some_and(|origin| !own.contains(&origin.trim_ascii()))
}

/// Returns the answer, and whether the node was told to drain.
async fn converse(request: &[u8], is_tcp: bool) -> (Vec<u8>, bool) {
    let (handle, requests) = Handle::new();
    let (mut client, server) = duplex(ROOM);
    client.write_all(request).await.expect("there is room");
    let exchange = async {
        testing::api(server, handle, is_tcp).await;
    };
    let reading = async {
        client.shutdown().await.expect("it is open");
        let mut answer = Vec::new();
        // An error is the end, too.
        let _ = client.read_to_end(&mut answer).await;
        answer
    };
    let ((), answer, drained) = tokio::join!(exchange, reading, node(requests));
    (answer, drained)
}

/// A node that answers until nobody asks any more.
async fn node(mut requests: Requests) -> bool {
    let mut is_drained = false;
    while let Some(request) = requests.recv().await {
        match request {
            Request::Snapshot(reply) => drop(reply.send(Snapshot::default())),
            Request::Peers { reply, .. } => drop(reply.send(Page::default())),
            Request::Explain { reply, .. } => {
                let status = Status::from(&Snapshot::default());
                let now = Instant::ZERO + Duration::from_secs(1000);
                let facts = Facts::new(now, status, ServicePrefix::STANDARD);
                drop(reply.send(Box::new(facts)));
            }
            Request::Replace(reply) => drop(reply.send(Ok(()))),
            Request::Withdraw(reply) => drop(reply.send(Duration::ZERO)),
            Request::CaptureParts(reply) => drop(reply.send(None)),
            Request::BeginCapture { reply, .. } => drop(reply.send(Err("not here".to_owned()))),
            Request::Drain(reply) => {
                is_drained = true;
                let _ = reply.send(());
            }
        }
    }
    is_drained
}
