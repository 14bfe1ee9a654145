//! Tests of the whole view: answers and keys go in, pictures come out.

use std::{net::Ipv6Addr, time::Duration};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::{Terminal, backend::TestBackend, style::Color};

use super::{
    answers::{Answers, Both, Cursor, Failure, Listing, Page, Peer},
    draw::{Theme, draw},
    keys::Action,
    model::{Link, Model, Popup, View},
    once::{lines, picture},
};
use crate::{
    api::types::{Condition, Paths, PeerCounts, PeerState, ServerStatus, Status, Verdict},
    condition::Severity,
    metrics::{Attachment, Mode, Snapshot},
};

const COLOURS: Theme = Theme {
    has_colour: true,
    is_unicode: true,
};
/// The sizes that have to look good: of a usual terminal, a small and a large one.
const SIZES: [(u16, u16); 3] = [(80, 24), (60, 20), (200, 60)];

/// Returns the status of an idle relay after some seconds.
pub fn status(uptime_seconds: f64) -> Status {
    Status {
        name: "relay-1".to_owned(),
        uptime_seconds,
        roles: vec!["relay".to_owned()],
        peers: PeerCounts {
            maximum: 10_000,
            ..PeerCounts::default()
        },
        ..Status::from(&Snapshot::default())
    }
}

/// Returns a trusted peer at 20.0.0.`number` that the fast path serves.
pub fn peer(number: u8) -> Peer {
    let address = format!("2001:0:1400:1:0:fbff:ebff:ff{:02x}", !number);
    Peer {
        address: address.parse().unwrap(),
        mapped: format!("20.0.0.{number}:1024").parse().unwrap(),
        state: PeerState::Trusted,
        symmetric: false,
        proved: true,
        local: false,
        xdp: true,
        last_received_seconds: Some(0.0),
        last_sent_seconds: None,
        packets: None,
        bytes: None,
    }
}

/// Returns the peer with packets sent to it.
pub fn sent(mut peer: Peer, packets: u64) -> Peer {
    let both = |encap| Some(Both { encap, decap: 0 });
    peer.packets = both(packets);
    peer.bytes = both(packets * 100);
    peer
}

/// A relay and server at work, and the view of it.
struct Scene {
    model: Model,
    seconds: u64,
    status: Status,
    peers: Vec<Peer>,
}

impl Scene {
    fn new() -> Self {
        let mut status = status(100.0);
        status.roles.push("server".to_owned());
        status.server = Some(ServerStatus::default());
        status.peers.trusted = 20;
        status.peers.proved = 19;
        status.peers.untrusted = 1;
        status.xdp = vec![Attachment {
            interface: "eth0".to_owned(),
            mode: Mode::Native,
            reason: String::new(),
            dropped: 0,
        }];
        Self {
            model: Model::new(Duration::from_secs(1)),
            seconds: 0,
            status,
            peers: (1..=20).map(|number| sent(peer(number), 0)).collect(),
        }
    }

    /// Lets a second pass in which the traffic of each peer grows with its number.
    fn pass(&mut self) {
        self.seconds += 1;
        let status = &mut self.status;
        status.uptime_seconds += 1.0;
        status.packets.encap.xdp += 48_123;
        status.packets.encap.userspace += 12;
        status.packets.decap.xdp += 24_000;
        status.bytes.encap.xdp += 51_500_000;
        status.bytes.decap.xdp += 4_200_000;
        status.bubbles.sent += 7;
        status.bubbles.received += 5;
        let mut drop = |reason: &str, packets| {
            *status.dropped.entry(reason.to_owned()).or_default() += packets;
        };
        drop("encap-new-peer-limit", 120);
        drop("decap-unknown-peer", 2);
        drop("encap-multicast", 1);
        *status.passed.entry("not-ip".to_owned()).or_default() += 3;
        let server = status.server.get_or_insert_default();
        let results = server.requests.entry("bubble".to_owned()).or_default();
        let paths: &mut Paths = results.entry("forwarded".to_owned()).or_default();
        paths.xdp += 40;
        for (number, peer) in (1..).zip(&mut self.peers) {
            let grow = |both: Option<Both>, by| {
                let mut both = both?;
                both.encap += by;
                both.decap += by / 2;
                Some(both)
            };
            peer.packets = grow(peer.packets, number * 10);
            peer.bytes = grow(peer.bytes, number * 9_000);
        }
        self.answer();
    }

    fn answer(&mut self) {
        let page = Page {
            peers: self.peers.clone(),
            next: None,
        };
        let opened = self.model.question().opened;
        let answers = Answers {
            status: self.status.clone(),
            peers: Listing::Page(page),
            opened: self
                .peers
                .iter()
                .find(|peer| Some(peer.address) == opened)
                .cloned(),
        };
        self.model
            .handle_answers(Duration::from_secs(self.seconds), Ok(answers));
    }

    fn at_work() -> Self {
        let mut scene = Self::new();
        for _ in 0..30 {
            scene.pass();
        }
        scene
    }

    fn in_trouble() -> Self {
        let mut scene = Self::at_work();
        scene.status.verdict = Verdict::Down;
        scene.status.conditions = vec![
            condition(
                "fast-path-off",
                Severity::Degraded,
                "The interface eth0 has no program.",
            ),
            condition(
                "route-diverted",
                Severity::Down,
                "There is a route of exactly the same prefix that leads elsewhere. Remove it with \
                 `ip -6 route del 2001::/32`, or set relay.route = false.",
            ),
        ];
        scene.pass();
        scene
    }

    fn keys(&mut self, keys: &str) -> Option<Action> {
        let mut last = None;
        for character in keys.chars() {
            let code = match character {
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::Tab,
                '\x1b' => KeyCode::Esc,
                '<' => KeyCode::Backspace,
                character => KeyCode::Char(character),
            };
            last = self
                .model
                .handle_key(KeyEvent::new(code, KeyModifiers::NONE));
        }
        last
    }

    fn picture(&self, (width, height): (u16, u16)) -> String {
        picture(&self.model, &COLOURS, width, height)
    }

    fn selected(&self) -> Ipv6Addr {
        self.model.peers().sorted()[self.model.selected_peer()]
    }
}

fn failure(is_gone: bool) -> Failure {
    Failure {
        reason: "no daemon answers on unix:/x".to_owned(),
        is_gone,
    }
}

fn condition(kind: &str, severity: Severity, text: &str) -> Condition {
    Condition {
        kind: kind.to_owned(),
        role: "relay".to_owned(),
        subject: String::new(),
        severity,
        text: text.to_owned(),
        since_seconds: 75.0,
    }
}

#[track_caller]
fn assert_shows(picture: &str, parts: &[&str]) {
    for part in parts {
        assert!(picture.contains(part), "{part} is not in\n{picture}");
    }
}

/// Returns the line with the first part, without what changes its width.
fn line<'a>(picture: &'a str, part: &str) -> &'a str {
    let line = picture.lines().find(|line| line.contains(part));
    line.unwrap_or_else(|| panic!("{part} is not in\n{picture}"))
}

#[test]
fn every_size_shows_what_matters_most() {
    let scene = Scene::at_work();
    for size in SIZES {
        let picture = scene.picture(size);
        assert_shows(
            &picture,
            &[
                "relay-1",
                "relay + server",
                " ok",
                "to clients",
                "48.1k",
                "20 trusted",
            ],
        );
        let busiest = line(&picture, &peer(20).address.to_string());
        assert!(busiest.contains("200"), "{busiest}");
        let dropped = line(&picture, "encap-new-peer-limit");
        assert!(
            dropped.contains("120") && dropped.contains("To a peer"),
            "{dropped}"
        );
        assert!(
            !picture.contains("encap-multicast"),
            "that is no defect\n{picture}"
        );
    }
    assert_shows(&scene.picture((120, 40)), &["1 untrusted"]);
    let wide = scene.picture(SIZES[2]);
    assert_shows(
        &wide,
        &["20.0.0.20:1024", "bubble forwarded", "native", "█"],
    );
    let usual = scene.picture(SIZES[0]);
    assert_shows(
        &line(&usual, "to clients").replace(' ', ""),
        &["48.1k412M12099.9%"],
    );
}

#[test]
fn conditions_show_their_remedies_and_the_worst_first() {
    let scene = Scene::in_trouble();
    for size in SIZES {
        let picture = scene.picture(size);
        assert_shows(&picture, &["DOWN", "route-diverted", "relay, for 1 min"]);
        let words: String = picture
            .split(['\n', '│'])
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ");
        assert_shows(
            &words.split_whitespace().collect::<Vec<_>>().join(" "),
            &["leads elsewhere. Remove it with `ip -6 route del 2001::/32`"],
        );
    }
    let mut scene = scene;
    scene.keys("4");
    let picture = scene.picture(SIZES[0]);
    let down = picture.find("route-diverted").unwrap();
    assert!(down < picture.find("fast-path-off").unwrap(), "{picture}");
}

#[test]
fn no_size_and_no_state_breaks_the_picture() {
    for mut scene in [Scene::new(), Scene::at_work(), Scene::in_trouble()] {
        for keys in [
            "1",
            "2",
            "3",
            "4",
            "1?",
            "?1\n",
            "\n",
            "1\t\n",
            "3\n",
            "2/trusted",
            "\x1b1",
        ] {
            scene.keys(keys);
            for width in [1, 20, 79, 120, 250] {
                for height in [1, 3, 8, 24, 70] {
                    scene.picture((width, height));
                }
            }
        }
    }
}

#[test]
fn an_ascii_terminal_gets_nothing_else() {
    let mut scene = Scene::in_trouble();
    scene.status.name = "Brücke\x1b[2J".to_owned();
    scene.pass();
    for keys in ["1", "2\n", "3", "4", "?"] {
        scene.keys(keys);
        for (width, height) in SIZES {
            let picture = picture(&scene.model, &Theme::PLAIN, width, height);
            let others = picture
                .chars()
                .filter(|c| !c.is_ascii() || (c.is_control() && *c != '\n'));
            assert_eq!(others.collect::<String>(), "", "{picture}");
        }
    }
}

#[test]
fn without_colours_no_cell_has_one() {
    for (theme, has_some) in [(COLOURS, true), (Theme::PLAIN, false)] {
        let scene = Scene::in_trouble();
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let frame = terminal
            .draw(|frame| draw(frame, &scene.model, &theme))
            .unwrap();
        let cells = &frame.buffer.content;
        let coloured = cells
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        assert_eq!(coloured, has_some, "{}", lines(frame.buffer));
    }
}

#[test]
fn the_selection_follows_its_peer() {
    let mut scene = Scene::at_work();
    assert_eq!(scene.selected(), peer(20).address);
    scene.keys("jj");
    assert_eq!(scene.selected(), peer(18).address);
    scene.keys("r");
    assert_eq!(
        scene.selected(),
        peer(18).address,
        "although the order is another one"
    );
    assert_eq!(scene.model.selected_peer(), 17);
    scene.keys("G");
    assert_eq!(scene.selected(), peer(20).address);
    scene.keys("g");
    assert_eq!(scene.selected(), peer(1).address);
    // The peer has gone.
    scene.peers.remove(0);
    scene.pass();
    assert_eq!(scene.selected(), peer(2).address);
    scene.keys("rsss");
    assert_shows(&scene.picture(SIZES[0]), &["peers by address"]);
}

#[test]
fn a_peer_opens_with_all_that_is_known_of_it() {
    let mut scene = Scene::at_work();
    scene.keys("j\n");
    assert_eq!(scene.model.question().opened, Some(peer(19).address));
    scene.pass();
    scene.pass();
    for size in SIZES {
        let picture = scene.picture(size);
        assert_shows(
            &picture,
            &[
                "20.0.0.19:1024",
                "20.0.0.1",
                "the fast path serves it",
                "packets/s",
                "190",
            ],
        );
    }
    // The next one, with the popup open.
    scene.keys("j");
    assert_eq!(scene.model.popup(), Some(&Popup::Peer(peer(18).address)));
    scene.keys("\x1b");
    assert_eq!(scene.model.popup(), None);
    assert_eq!(scene.model.question().opened, None);
}

#[test]
fn a_reason_opens_with_its_meaning() {
    let mut scene = Scene::at_work();
    scene.keys("\t\n");
    assert_shows(
        &scene.picture(SIZES[0]),
        &[
            "To a peer that is not in the map, beyond the budget.",
            "dropped 120 in a second",
        ],
    );
    scene.keys("\x1b3");
    let picture = scene.picture(SIZES[0]);
    assert_shows(&picture, &["passed  not-ip", "dropped decap-unknown-peer"]);
}

#[test]
fn a_filter_selects_peers() {
    let mut scene = Scene::at_work();
    scene.keys("/0.0.1");
    assert_shows(
        &scene.picture(SIZES[0]),
        &["filter: 0.0.1", "Enter applies"],
    );
    assert_eq!(
        scene.keys("q<"),
        None,
        "a letter is no key while a text is typed"
    );
    scene.keys("7:\n");
    assert_eq!(scene.model.peers().sorted(), [peer(17).address]);
    assert_shows(&scene.picture(SIZES[0]), &["1 match 0.0.17:"]);
    assert_eq!(scene.model.question().selection, []);
    scene.keys("\x1b");
    assert_eq!(scene.model.peers().sorted().len(), 20);
    scene.keys("/20.0.0.9\n");
    let selection = [("endpoint", "20.0.0.9".to_owned())];
    assert_eq!(scene.model.question().selection, selection);
    scene.pass();
    assert_eq!(scene.model.peers().sorted(), [peer(9).address]);
}

#[test]
fn large_tables_are_read_page_by_page() {
    let mut scene = Scene::new();
    let page = |peers: &[Peer], next| {
        Listing::Page(Page {
            peers: peers.to_vec(),
            next,
        })
    };
    let next = Cursor::Text("twenty".to_owned());
    for (seconds, listing, after) in [
        (1, page(&scene.peers[..10], Some(next.clone())), Some(next)),
        (2, page(&scene.peers[10..], None), None),
    ] {
        let answers = Answers {
            status: scene.status.clone(),
            peers: listing,
            opened: None,
        };
        scene
            .model
            .handle_answers(Duration::from_secs(seconds), Ok(answers));
        assert_eq!(scene.model.question().after, after);
    }
    assert_shows(&scene.picture(SIZES[2]), &["20 of 21 seen, all in 1 s"]);
}

#[test]
fn an_older_daemon_says_less() {
    let mut scene = Scene::at_work();
    for peer in &mut scene.peers {
        peer.packets = None;
        peer.bytes = None;
    }
    scene.pass();
    for size in SIZES {
        assert_shows(
            &scene.picture(size),
            &["peers by last heard", "heard", "0 s"],
        );
    }
    scene.keys("\n");
    assert_shows(
        &scene.picture(SIZES[0]),
        &["does not count the traffic of peers"],
    );
    scene.status.peers.trusted = 100_000;
    let answers = Answers {
        status: scene.status.clone(),
        peers: Listing::TooMany,
        opened: None,
    };
    scene
        .model
        .handle_answers(Duration::from_secs(99), Ok(answers));
    assert_shows(&scene.picture(SIZES[0]), &["100,001 peers are too many"]);
}

#[test]
fn a_daemon_that_goes_away_is_awaited() {
    let mut scene = Scene::at_work();
    let at = |seconds| Duration::from_secs(seconds);
    scene.model.handle_answers(at(31), Err(failure(true)));
    scene.model.handle_time(at(35));
    for size in SIZES {
        let picture = scene.picture(size);
        assert_shows(
            &picture,
            &[
                "NO ANSWER",
                "no answer for 4 s, trying again: no daemon answers",
            ],
        );
    }
    // It comes back as a new process of a newer version.
    scene.seconds = 36;
    scene.status.uptime_seconds = 0.5;
    scene.status.version = "9.9.9".to_owned();
    scene.status.packets = Default::default();
    scene.answer();
    assert_eq!(scene.model.link(), Link::Up);
    assert_eq!(scene.model.flows(), None);
    assert_shows(
        &scene.picture(SIZES[0]),
        &["the daemon was replaced: 9.9.9 after"],
    );
    scene.pass();
    assert_shows(line(&scene.picture(SIZES[0]), "to clients"), &["48.1k"]);
    scene.model.handle_time(at(120));
    scene.keys("p");
    assert_eq!(scene.model.notice(), None);
}

#[test]
fn a_process_that_was_young_is_replaced_by_one_that_is_older() {
    for is_gone in [true, false] {
        let mut scene = Scene::at_work();
        scene
            .model
            .handle_answers(Duration::from_secs(31), Err(failure(is_gone)));
        scene.pass();
        assert_eq!(scene.model.notice().is_some(), is_gone);
        assert_eq!(scene.model.flows().is_none(), is_gone);
    }
}

#[test]
fn a_daemon_that_does_not_answer_is_noticed() {
    let mut scene = Scene::at_work();
    scene.model.handle_time(Duration::from_secs(34));
    assert_eq!(scene.model.link(), Link::Up);
    scene.model.handle_time(Duration::from_secs(36));
    assert_shows(
        &scene.picture(SIZES[0]),
        &["no answer for 6 s", "it takes long"],
    );
}

#[test]
fn keys_do_what_the_help_says() {
    let mut scene = Scene::at_work();
    let control = |character| KeyEvent::new(KeyCode::Char(character), KeyModifiers::CONTROL);
    assert_eq!(scene.keys("q"), Some(Action::Quit));
    assert_eq!(scene.model.handle_key(control('c')), Some(Action::Quit));
    assert_eq!(scene.model.handle_key(control('z')), Some(Action::Suspend));
    assert_eq!(scene.model.handle_key(control('l')), Some(Action::Redraw));
    for (key, view) in ["1", "2", "3", "4"].into_iter().zip(View::ALL) {
        scene.keys(key);
        assert_eq!(scene.model.view(), view);
    }
    for size in SIZES {
        scene.keys("1?");
        assert_shows(
            &scene.picture(size),
            &["sort by traffic", "filter peers", "Ctrl-Z"],
        );
        scene.keys("?");
        assert_eq!(scene.model.popup(), None);
    }
    scene.keys(" ");
    assert!(scene.model.is_paused());
    scene.model.handle_time(Duration::from_secs(500));
    assert_eq!(scene.model.link(), Link::Up, "nobody asks");
    assert_shows(&scene.picture(SIZES[0]), &["paused"]);
    scene.keys(" ");
    assert_eq!(
        scene.model.link(),
        Link::Up,
        "the first answer has time to come"
    );
}

#[test]
fn a_client_shows_its_state() {
    let mut scene = Scene::new();
    scene.status.roles = vec!["client".to_owned()];
    scene.status.server = None;
    scene.status.client = Some(crate::metrics::ClientStatus {
        state: "qualified".to_owned(),
        address: Some(peer(1).address),
        port: 4096,
        ..Default::default()
    });
    scene.pass();
    scene.pass();
    for size in SIZES {
        let picture = scene.picture(size);
        assert_shows(&picture, &["sent", "received"]);
        assert!(
            !picture.contains("XDP packets"),
            "it has no fast path\n{picture}"
        );
    }
    scene.keys("4");
    assert_shows(&scene.picture(SIZES[0]), &["qualified", "UDP 4096"]);
}
