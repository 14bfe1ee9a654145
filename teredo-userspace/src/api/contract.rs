//! Tests of the API against its own OpenAPI document: every answer of a real socket is checked against the
//! schema of its status and media type.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::TcpStream,
};

use super::{
    converse,
    events::{Event, READERS, WAITING},
    handle::{Gate, Handle, PAGE},
    openapi::document,
    routes::routes,
    serve,
    tests::{exchange, free_tcp, listen, peer, snapshot, unix, with_api},
    types::PeerList,
};
use crate::{
    condition::{Condition, Kind},
    config::ApiAddress,
    metrics::Role,
};

/// The location of the document, which is never fetched.
const HERE: &str = "memory:///openapi.json";
/// The longest time for a step.
const PATIENCE: Duration = Duration::from_secs(10);

/// The document with its schemas.
struct Contract {
    document: Value,
    compiler: Compiler,
    schemas: Schemas,
}

impl Contract {
    fn new() -> Self {
        let document = document(&routes());
        let mut compiler = Compiler::new();
        compiler.enable_format_assertions();
        compiler.add_resource(HERE, document.clone()).unwrap();
        Self {
            document,
            compiler,
            schemas: Schemas::new(),
        }
    }

    fn schema(&mut self, pointer: &str) -> SchemaIndex {
        let place = format!("{HERE}#{pointer}");
        let compiled = self.compiler.compile(&place, &mut self.schemas);
        compiled.unwrap_or_else(|error| panic!("{pointer}: {error:#}"))
    }

    /// Checks a value against the schema at this place of the document.
    fn check(&mut self, pointer: &str, value: &Value) {
        let schema = self.schema(pointer);
        let checked = self.schemas.validate(value, schema);
        checked.unwrap_or_else(|error| panic!("{pointer}: {error:#}\nof {value:#}"));
    }

    /// Checks an answer as it came from the socket.
    fn check_answer(&mut self, method: &str, path: &str, answer: &str) -> u16 {
        let (head, body) = answer.split_once("\r\n\r\n").expect(answer);
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let path = path.split('?').next().unwrap();
        let described = &self.document["paths"][path][method]["responses"][status.to_string()];
        assert!(
            described.is_object(),
            "{method} {path} does not tell of {status}: {answer}"
        );
        let media = head
            .lines()
            .find_map(|line| line.strip_prefix("content-type: "));
        let Some(media) = media else {
            assert!(
                described["content"].is_null() && body.is_empty(),
                "{answer}"
            );
            return status;
        };
        let content = &described["content"][media];
        assert!(
            content.is_object(),
            "{method} {path} does not tell of {media}: {answer}"
        );
        let body = match media.ends_with("json") {
            true => serde_json::from_str(&unchunked(head, body)).expect(answer),
            false => Value::String(body.to_owned()),
        };
        let escape = |text: &str| {
            text.replace('~', "~0")
                .replace('/', "~1")
                .replace(' ', "%20")
        };
        self.check(
            &format!(
                "/paths/{}/{method}/responses/{status}/content/{}/schema",
                escape(path),
                escape(media)
            ),
            &body,
        );
        status
    }
}

/// Returns a body without the sizes of its chunks.
fn unchunked(head: &str, body: &str) -> String {
    if !head.contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let (mut rest, mut text) = (body, String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        text.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    text
}

fn address_of(tcp: &ApiAddress) -> SocketAddr {
    match tcp {
        ApiAddress::Tcp(address) => *address,
        ApiAddress::Unix(_) => unreachable!("it is on TCP"),
    }
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    let method = method.to_ascii_uppercase();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    exchange(address, &request).await
}

#[test]
fn the_document_is_one_of_openapi() {
    let document = document(&routes());
    assert_eq!(document["openapi"], "3.1.0");
    let version = document["info"]["version"].as_str().unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(operation["responses"]["200"].is_object(), "{method} {path}");
            assert!(
                operation["summary"]
                    .as_str()
                    .is_some_and(|text| text.ends_with('.'))
            );
        }
        let is_versioned = path.starts_with(&format!("/v{version}/"));
        let is_elsewhere = ["/metrics", "/healthz", "/readyz", "/peers"].contains(&&**path);
        assert!(is_versioned || is_elsewhere, "{path}");
    }
    // Every type that is named is there.
    let text = document.to_string();
    let named = text.split("\"#/components/schemas/").skip(1);
    let named: BTreeSet<_> = named.filter_map(|rest| rest.split('"').next()).collect();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    assert!(
        named.iter().all(|name| schemas.contains_key(*name)),
        "{named:?}"
    );
    for (name, schema) in schemas {
        assert!(schema["description"].is_string(), "{name} is not explained");
    }
}

#[tokio::test]
async fn every_answer_is_the_documented_one() {
    let tcp = free_tcp();
    let address = address_of(&tcp);
    let mut contract = Contract::new();
    let paths = contract.document["paths"].as_object().unwrap().clone();
    with_api(&tcp, 300, async {
        for (path, operations) in &paths {
            for method in operations.as_object().unwrap().keys() {
                if path == "/v1/events" {
                    continue;
                }
                let answer = ask(address, method, path).await;
                contract.check_answer(method, path, &answer);
            }
        }
        for (query, expected) in [
            ("prefix=2001::/32&state=trusted&path=xdp", 200),
            ("endpoint=192.0.2.1%3A4096&limit=3", 200),
            ("after=18446744073709551615", 200),
            ("state=", 400),
            ("limit=0", 400),
            ("prefix=2001::&prefix=2002::", 400),
            ("unknown", 400),
        ] {
            let path = format!("/v1/peers?{query}");
            let answer = ask(address, "get", &path).await;
            let status = contract.check_answer("get", &path, &answer);
            assert_eq!(status, expected, "{answer}");
        }
        // Whatever is not there is a problem, too.
        for (method, path, expected) in [("GET", "/v1/nothing", 404), ("PUT", "/v1/status", 405)] {
            let answer = ask(address, method, path).await;
            let start = format!("HTTP/1.1 {expected} ");
            assert!(answer.starts_with(&start), "{answer}");
            let body = answer.split_once("\r\n\r\n").unwrap().1;
            let problem = serde_json::from_str(body).expect(body);
            contract.check("/components/schemas/Problem", &problem);
        }
    })
    .await;
}

#[tokio::test]
async fn the_unix_socket_answers_as_documented() {
    let directory = tempfile::tempdir().unwrap();
    let (address, path) = unix(&directory);
    let mut contract = Contract::new();
    with_api(&address, 0, async {
        for (path_of_request, expected) in [("/v1/drain", 200), ("/v1/replace", 409)] {
            let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
            let request = format!("POST {path_of_request} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer)
                .await
                .unwrap();
            let status = contract.check_answer("post", path_of_request, &answer);
            assert_eq!(status, expected, "{answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn earlier_paths_are_the_same() {
    let tcp = free_tcp();
    let address = address_of(&tcp);
    with_api(&tcp, 3, async {
        let body = |path| async move {
            let answer = ask(address, "get", path).await;
            answer.split_once("\r\n\r\n").unwrap().1.to_owned()
        };
        assert_eq!(body("/status").await, body("/v1/status").await);
    })
    .await;
}

#[tokio::test]
async fn a_list_of_peers_goes_on_at_its_cursor() {
    let tcp = free_tcp();
    let number = 2 * PAGE + 10;
    with_api(&tcp, number, async {
        for limit in [100, PAGE, PAGE + 1, number, number + 1] {
            let (mut found, mut after) = (Vec::new(), Some(0));
            while let Some(cursor) = after {
                let path = format!("/v1/peers?limit={limit}&after={cursor}");
                let body = super::client::get(&tcp, &path).await.unwrap();
                let list: PeerList = serde_json::from_slice(&body).unwrap();
                assert!(list.peers.len() <= limit, "{} of {limit}", list.peers.len());
                found.extend(list.peers);
                after = list.next;
            }
            assert_eq!(found, (0..number).map(peer).collect::<Vec<_>>());
        }
        let body = super::client::get(&tcp, "/v1/peers").await.unwrap();
        let list: PeerList = serde_json::from_slice(&body).unwrap();
        assert_eq!((list.peers.len(), list.next), (number, None));
    })
    .await;
}

/// A reader of events.
struct Reader(Lines<BufReader<TcpStream>>);

impl Reader {
    async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET /v1/events HTTP/1.1\r\nhost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Self(BufReader::new(stream).lines())
    }

    /// Reads the lines up to the first with this beginning, and returns the rest of that; `None` at the end.
    async fn line(&mut self, start: &str) -> Option<String> {
        loop {
            let line = tokio::time::timeout(PATIENCE, self.0.next_line()).await;
            let line = line.expect("nothing comes").ok()??;
            if let Some(rest) = line.strip_prefix(start) {
                return Some(rest.to_owned());
            }
        }
    }

    async fn event(&mut self) -> Option<(String, Value)> {
        let name = self.line("event: ").await?;
        let data = self.line("data: ").await?;
        Some((name, serde_json::from_str(&data).unwrap()))
    }
}

fn condition() -> Condition {
    Condition {
        kind: Kind::Route,
        role: Role::Relay,
        subject: "2001::/32".to_owned(),
        text: "set it\nup".to_owned(),
    }
}

#[tokio::test]
async fn events_come_as_documented_and_end_with_the_gate() {
    let tcp = free_tcp();
    let address = address_of(&tcp);
    let mut contract = Contract::new();
    let (handle, requests) = Handle::new();
    let listeners = listen(std::slice::from_ref(&tcp)).unwrap();
    let work = async {
        let mut reader = Reader::connect(address).await;
        reader.line("HTTP/1.1 200 OK").await.unwrap();
        let media = reader.line("content-type: ").await.unwrap();
        assert_eq!(media, "text/event-stream");
        for event in [
            Event::ConditionBegan(condition()),
            Event::ConditionEnded(condition()),
            Event::RoleState(Role::Relay, "draining".to_owned()),
            Event::Status(Arc::new(snapshot())),
        ] {
            requests.publish(|| event);
        }
        for expected in ["condition-began", "condition-ended", "role-state", "status"] {
            let (name, data) = reader.event().await.unwrap();
            assert_eq!(name, expected);
            let media = "responses/200/content/text~1event-stream";
            let schema = format!("/paths/~1v1~1events/get/{media}/x-events/{name}");
            contract.check(&schema, &data);
        }
        requests.set_gate(Gate::Closed);
        assert_eq!(reader.event().await, None);
    };
    tokio::join!(work, async {
        serve(listeners, handle, None).await.unwrap()
    });
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_what_it_has_lost() {
    let tcp = free_tcp();
    let address = address_of(&tcp);
    let (handle, requests) = Handle::new();
    let listeners = listen(std::slice::from_ref(&tcp)).unwrap();
    let work = async {
        let mut reader = Reader::connect(address).await;
        reader.line("HTTP/1.1 200 OK").await.unwrap();
        for number in 0..WAITING + 5 {
            requests.publish(|| Event::RoleState(Role::Relay, number.to_string()));
        }
        let (name, data) = reader.event().await.unwrap();
        assert_eq!((&*name, data), ("lost", json!({"events": 5})));
        let (_, first) = reader.event().await.unwrap();
        assert_eq!(first, json!({"role": "relay", "state": "5"}));
    };
    tokio::select! {
        () = work => {}
        ended = serve(listeners, handle, None) => panic!("the API ended: {ended:?}"),
    }
}

#[tokio::test]
async fn only_so_many_read_events() {
    let tcp = free_tcp();
    let address = address_of(&tcp);
    let mut contract = Contract::new();
    let (handle, requests) = Handle::new();
    let listeners = listen(std::slice::from_ref(&tcp)).unwrap();
    let work = async {
        let mut readers = Vec::new();
        for _ in 0..READERS {
            let mut reader = Reader::connect(address).await;
            reader.line("HTTP/1.1 200 OK").await.unwrap();
            readers.push(reader);
        }
        let refused = ask(address, "get", "/v1/events").await;
        assert_eq!(contract.check_answer("get", "/v1/events", &refused), 503);
        drop(readers);
        // A place is free as soon as the end of a reader is noticed.
        let freed = async {
            loop {
                requests.publish(|| Event::RoleState(Role::Relay, "running".to_owned()));
                let mut reader = Reader::connect(address).await;
                let status = reader.line("HTTP/1.1 ").await;
                if status.is_some_and(|status| status.starts_with("200")) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, freed)
            .await
            .expect("no place becomes free");
    };
    tokio::select! {
        () = work => {}
        ended = serve(listeners, handle, None) => panic!("the API ended: {ended:?}"),
    }
}

#[test]
fn nothing_is_made_for_nobody() {
    let (_handle, requests) = Handle::new();
    requests.publish(|| panic!("nobody reads it"));
}

#[tokio::test(start_paused = true)]
async fn events_last_as_long_as_they_are_read() {
    let (handle, requests) = Handle::new();
    let (ours, theirs) = tokio::io::duplex(1 << 10);
    let reading = async {
        let (read, mut write) = tokio::io::split(ours);
        let request = b"GET /v1/events HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
        write.write_all(request).await.unwrap();
        let mut lines = BufReader::new(read).lines();
        // An hour of events, one in ten seconds.
        for second in 0..360 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            requests.publish(|| Event::RoleState(Role::Relay, second.to_string()));
            loop {
                let line = lines.next_line().await.unwrap().expect("it has ended");
                if line.starts_with("data: ") {
                    break;
                }
            }
        }
        // A reader that takes nothing any more.
        for _ in 0..1_000 {
            requests.publish(|| Event::RoleState(Role::Relay, "running".repeat(10)));
        }
    };
    let ended = converse(theirs, handle, true);
    let all = async { tokio::join!(reading, ended) };
    let all = tokio::time::timeout(Duration::from_secs(2 * 3600), all).await;
    all.expect("a reader that takes nothing keeps its place");
}
