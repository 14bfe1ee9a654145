use std::time::{Duration, Instant};

use teredo_common::{time, verdict::Direction};
use teredo_proto::{relay::Statistics, server};

use super::{
    document,
    peers::{Filter, Listing},
};
use crate::{
    api::history::{History, INTERVAL},
    condition::{Condition, Kind, Lasting},
    metrics::{Attachment, ClientStatus, Mode, Path, Role, RoleState, Snapshot},
};

const EVIL: &str = "\"><script>alert('x')</script>&";

fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot {
        name: "test".to_owned(),
        uptime: Duration::from_secs(90),
        ..Snapshot::default()
    };
    snapshot.add_relay(RoleState::default(), &Statistics::default());
    snapshot
}

fn with_condition(kind: Kind, text: &str) -> Snapshot {
    let mut snapshot = snapshot();
    snapshot.time = time::Instant::ZERO + Duration::from_secs(75);
    snapshot.conditions.push(Lasting {
        condition: Condition {
            kind,
            role: Role::Relay,
            subject: "eth0".to_owned(),
            text: text.to_owned(),
        },
        since: time::Instant::ZERO,
    });
    snapshot
}

fn page(snapshot: &Snapshot) -> String {
    page_of(snapshot, &History::default(), Instant::now())
}

fn page_of(snapshot: &Snapshot, history: &History, now: Instant) -> String {
    let (filter, listing) = (Filter::default(), Listing::default());
    document::render(snapshot, &history.describe(now), &filter, &listing).into_string()
}

/// Returns the band at the top.
fn band(page: &str) -> &str {
    let start = page.find("id=\"band\"").unwrap();
    &page[start..start + page[start..].find("</p>").unwrap()]
}

#[test]
fn the_band_says_how_it_is() {
    let ok = page(&snapshot());
    assert!(band(&ok).contains("<h1>ok</h1>"), "{ok}");
    assert!(band(&ok).contains("The relay is at work."), "{ok}");
    let degraded = page(&with_condition(Kind::FastPathOff, "set it up"));
    assert!(band(&degraded).contains("<h1>degraded</h1>"), "{degraded}");
    assert!(band(&degraded).contains("set it up") && degraded.contains("for 1 min 15 s"));
    let down = page(&with_condition(Kind::Route, "add it"));
    assert!(band(&down).contains("<h1>down</h1>"), "{down}");
    let mut both = with_condition(Kind::FastPathOff, "set it up");
    let route = with_condition(Kind::Route, "`ip route add`");
    both.conditions.extend(route.conditions);
    let both = page(&both);
    let worst = "<code>ip route add</code> (and 1 more)";
    assert!(band(&both).contains(worst), "{both}");
    let mut draining = snapshot();
    let state = RoleState {
        is_draining: true,
        sunset: None,
    };
    draining.roles.insert(Role::Relay, state);
    draining.peers_trusted = 12;
    let draining = page(&draining);
    assert!(band(&draining).contains("<h1>draining</h1>"), "{draining}");
    assert!(draining.contains("12 peers remain"));
    assert!(band(&page(&Snapshot::default())).contains("<h1>starting</h1>"));
    let mut client = Snapshot::default();
    client.roles.insert(Role::Client, RoleState::default());
    client.client = Some(ClientStatus {
        state: "starting".to_owned(),
        ..ClientStatus::default()
    });
    let client = page(&client);
    assert!(
        band(&client).contains("The client has no address yet."),
        "{client}"
    );
    assert!(
        client.contains("asks the server&#39;s primary")
            || client.contains("asks the server's primary"),
        "{client}"
    );
}

#[test]
fn the_band_changes_with_the_state_alone() {
    let mut snapshot = snapshot();
    let before = page(&snapshot);
    snapshot.uptime = Duration::from_secs(91);
    snapshot.peers_trusted = 5;
    snapshot.add_traffic(Direction::Encap, Path::Xdp, 7, 700);
    let after = page(&snapshot);
    assert_ne!(before, after);
    assert_eq!(band(&before), band(&after), "it would be read aloud");
}

#[test]
fn everything_from_outside_is_escaped() {
    let mut snapshot = with_condition(Kind::FastPathOff, EVIL);
    snapshot.name = EVIL.to_owned();
    snapshot.xdp.push(Attachment {
        interface: EVIL.to_owned(),
        mode: Mode::Generic,
        reason: EVIL.to_owned(),
        dropped: 0,
    });
    let filter: Filter = serde_json::from_value(serde_json::json!({
        "prefix": EVIL, "endpoint": EVIL, "state": EVIL, "path": EVIL, "after": EVIL,
    }))
    .unwrap();
    let listing = Listing::refused(filter.parse().unwrap_err());
    let hour = History::default().describe(Instant::now());
    let page = document::render(&snapshot, &hour, &filter, &listing).into_string();
    assert!(!page.contains("<script>"), "{page}");
    assert!(page.matches("&lt;script&gt;").count() >= 7, "{page}");
}

#[test]
fn nothing_is_within_the_page_that_the_policy_forbids() {
    let page = page(&snapshot());
    for forbidden in [
        "style=",
        "<style",
        "onclick",
        "javascript:",
        "http://",
        "https://",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert_eq!(page.matches("<script").count(), 1);
    assert!(page.contains("<script src=\"/page/script.js\" type=\"module\"></script>"));
}

#[test]
fn drops_are_explained_and_those_of_the_last_minute_come_first() {
    let (mut history, start) = (History::default(), Instant::now());
    let mut snapshot = snapshot();
    snapshot.add_dropped(Role::Relay, "source", 1_000);
    history.record(start, &snapshot);
    snapshot.add_dropped(Role::Relay, "too-many-peers", 3);
    snapshot
        .dropped
        .insert((Role::Relay, Path::Xdp, "decap-own-source"), 2);
    history.record(start + INTERVAL, &snapshot);
    let page = page_of(&snapshot, &history, start + INTERVAL);
    let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}: {page}"));
    let section = place("<section id=\"drops\"");
    assert!(section < place("<code>too-many-peers</code>"));
    assert!(place("<code>too-many-peers</code>") < place("<code>source</code>"));
    place("The outer source is the relay itself.");
    place("relay, fast path");
}

#[test]
fn each_role_has_its_graphs_and_tables() {
    let (mut history, start) = (History::default(), Instant::now());
    let mut relay = snapshot();
    history.record(start, &relay);
    relay.add_traffic(Direction::Encap, Path::Xdp, 5_000, 500_000);
    history.record(start + INTERVAL, &relay);
    let relay = page_of(&relay, &history, start + INTERVAL);
    for text in [
        "graph-encap",
        "graph-decap",
        "graph-peers",
        "graph-drops",
        "Now 500: fast path 500, daemon 0.",
    ] {
        assert!(relay.contains(text), "{text}");
    }
    assert!(!relay.contains("graph-requests") && !relay.contains("id=\"server\""));
    let mut server = Snapshot::default();
    server.add_server(RoleState::default(), &server::Statistics::default(), 0);
    let advertised = server::Service::Advertised.into();
    server.requests.insert((advertised, Path::Xdp), 3_000);
    let server = page_of(&server, &history, start + INTERVAL);
    for text in [
        "graph-requests",
        "id=\"server\"",
        "advertised",
        "3\u{202f}000",
    ] {
        assert!(server.contains(text), "{text}");
    }
    assert!(!server.contains("graph-encap") && !server.contains("id=\"peers\""));
}
