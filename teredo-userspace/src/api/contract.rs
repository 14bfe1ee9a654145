//! Tests of the API against its own OpenAPI document: every answer of a real socket is checked against the
//! schema of its status and media type.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Value, json};
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
        BufReader, Lines,
    },
    net::{TcpStream, UnixStream},
};

use super::{
    connections::BODY_MAX,
    converse,
    events::{Event, READERS, WAITING},
    handle::{Gate, Handle, PAGE, Page, Request},
    openapi::document,
    problem::PROBLEM_JSON,
    routes::routes,
    serve,
    tests::{exchange, free_tcp, listen, node, peer, snapshot, unix, with_api},
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

/// Returns status, media type and body of the answer to a request that is refused; `None` if it is fulfilled.
async fn refusal(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> Option<(u16, String, String)> {
    // It may be refused before it was read.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut lines = BufReader::new(stream);
    let (mut head, mut body) = (String::new(), String::new());
    while !head.ends_with("\r\n\r\n") {
        let read = lines.read_line(&mut head).await.unwrap();
        assert!(read > 0, "{request} has no answer: {head}");
    }
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    if status < 400 {
        return None;
    }
    // What is left of the request may cut the connection.
    let _ = lines.read_to_string(&mut body).await;
    let media = head
        .lines()
        .find_map(|line| line.strip_prefix("content-type: "));
    Some((status, media.unwrap_or_default().to_owned(), body))
}

/// Requests that most routes refuse: for whatever reason, the answer is a problem.
#[tokio::test]
async fn every_refusal_is_a_problem() {
    let directory = tempfile::tempdir().unwrap();
    let (unix, socket) = unix(&directory);
    let tcp = free_tcp();
    let address = address_of(&tcp);
    let mut contract = Contract::new();
    let (handle, requests) = Handle::new();
    let listeners = listen(&[unix, tcp]).unwrap();
    let mut paths: Vec<_> = contract.document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    paths.extend(
        routes()
            .iter()
            .flat_map(|route| route.aliases)
            .map(|&path| path.to_owned()),
    );
    paths.extend(["/", "/page/style.css", "/nothing"].map(str::to_owned));
    let large = "a".repeat(BODY_MAX + 1);
    let large = format!("content-length: {}\r\n\r\n{large}", large.len());
    let rests = [
        "\r\n",
        "host: rebind.example\r\n\r\n",
        "origin: http://a.example\r\n\r\n",
        "content-length: 1\r\n\r\n{",
        "content-type: text/html\r\ncontent-length: 2\r\n\r\n{}",
        "transfer-encoding: chunked\r\n\r\nx\r\n",
        &large,
    ];
    let queries = [
        "",
        "?state=a&state=b",
        "?role=a&role=b",
        "?unknown",
        "?after=%ff&sample=-1",
    ];
    let mut refused = BTreeSet::new();
    let work = async {
        for path in &paths {
            for method in ["GET", "POST", "PUT"] {
                let queries = queries.iter().map(|query| (*query, rests[0]));
                let rests = rests.iter().map(|rest| ("", *rest));
                for (query, rest) in queries.chain(rests) {
                    let request =
                        format!("{method} {path}{query} HTTP/1.1\r\nhost: 127.0.0.1\r\n{rest}");
                    let answers = [
                        refusal(TcpStream::connect(address).await.unwrap(), &request).await,
                        refusal(UnixStream::connect(&socket).await.unwrap(), &request).await,
                    ];
                    for (status, media, body) in answers.into_iter().flatten() {
                        let line: String = request.chars().take(200).collect();
                        let is_health = path.ends_with("z") && status == 503;
                        if is_health {
                            assert_eq!(media, "text/plain; charset=utf-8", "{line}");
                            continue;
                        }
                        assert_eq!(media, PROBLEM_JSON, "{line}: {status} {body}");
                        let problem = serde_json::from_str(&body).expect(&line);
                        contract.check("/components/schemas/Problem", &problem);
                        assert_eq!(problem["status"], status, "{line}");
                        refused.insert(status);
                        let method = method.to_ascii_lowercase();
                        let operation = &contract.document["paths"][path][method];
                        let described = &operation["responses"][status.to_string()];
                        assert!(
                            operation.is_null() || described.is_object(),
                            "{line}: {status}"
                        );
                    }
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        ended = serve(listeners, handle, None) => panic!("the API ended: {ended:?}"),
        () = node(requests, 3) => panic!("the node ended"),
    }
    let expected = BTreeSet::from([400, 403, 404, 405, 409, 413]);
    assert!(refused.is_superset(&expected), "{refused:?}");
}

#[test]
fn every_request_is_in_the_table_and_no_other() {
    const PAGE: &str = include_str!("../../../docs/api.md");
    let start = PAGE.find("| request | answer |").unwrap();
    let table = PAGE[start..].split("\n\n").next().unwrap();
    let rows = table
        .lines()
        .skip(2)
        .filter_map(|row| row.split(" | ").next());
    // Every second part is between backticks.
    let told: Vec<_> = rows
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let document = document(&routes());
    let mut there = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            there.insert(format!("{} {path}", method.to_ascii_uppercase()));
        }
    }
    let different: BTreeSet<_> = told.iter().map(|&request| request.to_owned()).collect();
    assert_eq!(different, there);
    assert_eq!(told.len(), there.len(), "a request is there twice");
    for alias in routes().iter().flat_map(|route| route.aliases) {
        assert!(PAGE.contains(&format!("`{alias}`")), "{alias}");
    }
}

#[tokio::test]
async fn the_unix_socket_answers_as_documented() {
    let directory = tempfile::tempdir().unwrap();
    let (address, path) = unix(&directory);
    let mut contract = Contract::new();
    with_api(&address, 0, async {
        for (path_of_request, expected) in [("/v1/drain", 200), ("/v1/replace", 409)] {
            let mut stream = UnixStream::connect(&path).await.unwrap();
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
            let events =
                "/paths/~1v1~1events/get/responses/200/content/text~1event-stream/schema/oneOf";
            let described = contract
                .document
                .pointer(events)
                .unwrap()
                .as_array()
                .unwrap();
            let named = |event: &Value| event["properties"]["event"]["const"] == name;
            let number = described.iter().position(named).unwrap();
            let schema = format!("{events}/{number}/properties/data/contentSchema");
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

#[tokio::test(start_paused = true)]
async fn lists_last_as_long_as_they_are_read() {
    for path in ["/v1/peers", "/peers"] {
        let (handle, mut requests) = Handle::new();
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        let reading = async {
            let (mut read, mut write) = tokio::io::split(ours);
            let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
            write.write_all(request.as_bytes()).await.unwrap();
            // An hour.
            for _ in 0..120 {
                tokio::time::sleep(Duration::from_secs(30)).await;
                let octets = &mut [0; 1 << 17];
                read.read_exact(octets).await.expect("it has ended");
            }
            // A reader that takes nothing any more.
            tokio::time::sleep(Duration::from_secs(120)).await;
        };
        let endless = async {
            while let Some(Request::Peers { reply, .. }) = requests.recv().await {
                let peers = (0..PAGE).map(peer).collect();
                drop(reply.send(Page {
                    peers,
                    next: Some(1),
                }));
            }
        };
        let conversation = async {
            converse(theirs, handle, true).await;
            tokio::time::Instant::now()
        };
        let start = tokio::time::Instant::now();
        let ((), (), ended) = tokio::join!(reading, endless, conversation);
        let lasted = (ended - start).as_secs();
        assert!((3600..3600 + 120).contains(&lasted), "{lasted} s");
    }
}
