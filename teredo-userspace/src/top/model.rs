//! The state of the view.

use std::{collections::VecDeque, mem, net::Ipv6Addr, time::Duration};

use crossterm::event::{KeyCode, KeyEvent};

use super::{
    answers::{Answers, Failure, Question},
    filter::Filter,
    flows::{self, Flows, NOISE},
    keys::{self, Action, Command},
    peers::{Order, Peers},
};
use crate::api::types::Status;

/// The measurements that the graphs show at most.
const HISTORY: usize = 240;
/// Lines of a page of a list.
const PAGE: isize = 10;
/// The time for which a notice shows.
const NOTICE: Duration = Duration::from_secs(20);
/// The longest filter.
const LONGEST_FILTER: usize = 100;

/// A page of the view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// A part of everything.
    #[default]
    Overview,
    /// All peers.
    Peers,
    /// All reasons of drops.
    Drops,
    /// Conditions, fast path, limits, server and client.
    Roles,
}

impl View {
    /// All pages, in the order of their keys.
    pub const ALL: [Self; 4] = [Self::Overview, Self::Peers, Self::Drops, Self::Roles];

    /// The name for the user.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Peers => "peers",
            Self::Drops => "drops",
            Self::Roles => "roles",
        }
    }
}

/// A list that keys move in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum List {
    /// The peers.
    #[default]
    Peers,
    /// The reasons.
    Drops,
}

/// Something in front of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Popup {
    /// The keys.
    Help,
    /// A peer.
    Peer(Ipv6Addr),
    /// A reason.
    Reason(ReasonKey),
}

/// A reason: whether packets are dropped for it, or frames passed, and its name.
pub type ReasonKey = (bool, String);

/// A line of the list of reasons.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// Whether packets are dropped, not passed to the kernel.
    pub is_drop: bool,
    /// Its name.
    pub name: String,
    /// Packets since the start of the daemon.
    pub total: u64,
    /// Packets in a second.
    pub rate: Option<f64>,
}

/// The connection to the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// It answers.
    Up,
    /// It does not.
    Lost {
        /// Since when.
        since: Duration,
        /// Why.
        reason: String,
    },
}

/// The latest measurements, the newest last.
#[derive(Debug, Default)]
pub struct History {
    /// Packets in a second to clients.
    pub encap: VecDeque<f64>,
    /// From clients.
    pub decap: VecDeque<f64>,
    /// Dropped.
    pub dropped: VecDeque<f64>,
}

impl History {
    fn push(&mut self, flows: &Flows) {
        let [encap, decap] = flows.packets.totals();
        for (values, value) in [
            (&mut self.encap, encap),
            (&mut self.decap, decap),
            (&mut self.dropped, flows.dropped()),
        ] {
            if values.len() == HISTORY {
                values.pop_front();
            }
            values.push_back(value);
        }
    }
}

/// The state of the view.
#[derive(Debug)]
pub struct Model {
    period: Duration,
    now: Duration,
    answered: Duration,
    link: Link,
    /// Whether the process that answered last has ended.
    has_ended: bool,
    notice: Option<(Duration, String)>,
    status: Option<Status>,
    flows: Option<Flows>,
    history: History,
    peers: Peers,
    view: View,
    list: List,
    popup: Option<Popup>,
    order: Order,
    is_reversed: bool,
    filter: Filter,
    filter_text: String,
    /// The text that is being typed.
    typed: Option<String>,
    selected_peer: Option<Ipv6Addr>,
    selected_reason: Option<ReasonKey>,
    /// Traffic of the opened peer, in packets in a second.
    peer_history: VecDeque<f64>,
    /// Lines by which the page of roles is moved up.
    scroll: usize,
    is_paused: bool,
}

impl Model {
    /// Returns the state before the first answer. Answers come in intervals of `period`.
    pub fn new(period: Duration) -> Self {
        Self {
            period,
            now: Duration::ZERO,
            answered: Duration::ZERO,
            link: Link::Up,
            has_ended: false,
            notice: None,
            status: None,
            flows: None,
            history: History::default(),
            peers: Peers::default(),
            view: View::default(),
            list: List::default(),
            popup: None,
            order: Order::default(),
            is_reversed: false,
            filter: Filter::default(),
            filter_text: String::new(),
            typed: None,
            selected_peer: None,
            selected_reason: None,
            peer_history: VecDeque::new(),
            scroll: 0,
            is_paused: false,
        }
    }

    /// Handles the progress of time.
    pub fn handle_time(&mut self, now: Duration) {
        self.now = now;
        if let Some((end, _)) = &self.notice
            && *end <= now
        {
            self.notice = None;
        }
    }

    /// Handles the answers to the last question, or the reason why there are none.
    pub fn handle_answers(&mut self, now: Duration, answers: Result<Answers, Failure>) {
        self.handle_time(now);
        let answers = match answers {
            Ok(answers) => answers,
            Err(Failure { reason, is_gone }) => {
                self.has_ended |= is_gone;
                let since = match &self.link {
                    Link::Up => now,
                    Link::Lost { since, .. } => *since,
                };
                self.link = Link::Lost { since, reason };
                return;
            }
        };
        self.answered = now;
        self.link = Link::Up;
        self.handle_status(answers.status);
        self.peers.handle_listing(now, answers.peers);
        if let Some(peer) = answers.opened {
            let address = peer.address;
            self.peers.observe(now, peer);
            self.remember(address);
        }
        self.sort();
    }

    /// Handles a key, and returns what the model cannot do.
    pub fn handle_key(&mut self, key: KeyEvent) -> Option<Action> {
        let command = keys::command(key);
        if let Some(Command::Act(action)) = command
            && (self.typed.is_none() || key.code != KeyCode::Char('q'))
        {
            return Some(action);
        }
        if self.typed.is_some() {
            self.type_key(key);
        } else if let Some(command) = command {
            self.handle_command(command);
        }
        None
    }

    /// Returns what to ask the daemon now.
    pub fn question(&self) -> Question {
        Question {
            selection: self.filter.selection(),
            after: self.peers.cursor(),
            opened: match &self.popup {
                Some(Popup::Peer(address)) => Some(*address),
                _ => None,
            },
        }
    }

    /// The time now.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The interval between two answers.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// The connection. A daemon that takes too long is lost, too.
    pub fn link(&self) -> Link {
        let waited = self.now.saturating_sub(self.answered);
        match &self.link {
            Link::Up if !self.is_paused && waited > self.period * 3 + Duration::from_secs(2) => {
                Link::Lost {
                    since: self.answered,
                    reason: "it takes long to answer".to_owned(),
                }
            }
            link => link.clone(),
        }
    }

    /// A message that shows for some time.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_ref().map(|(_, text)| &**text)
    }

    /// The last status.
    pub fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    /// The rates, after the second answer.
    pub fn flows(&self) -> Option<&Flows> {
        self.flows.as_ref()
    }

    /// The latest measurements.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The peers.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The page.
    pub fn view(&self) -> View {
        self.view
    }

    /// The list that keys move in.
    pub fn list(&self) -> List {
        match self.view {
            View::Peers => List::Peers,
            View::Drops => List::Drops,
            View::Overview | View::Roles => self.list,
        }
    }

    /// What is in front of the page.
    pub fn popup(&self) -> Option<&Popup> {
        self.popup.as_ref()
    }

    /// The order of peers, and whether it is reversed.
    pub fn order(&self) -> (Order, bool) {
        (self.order, self.is_reversed)
    }

    /// The filter in use, as it was typed.
    pub fn filter(&self) -> &str {
        &self.filter_text
    }

    /// The filter that is being typed.
    pub fn typed(&self) -> Option<&str> {
        self.typed.as_deref()
    }

    /// Traffic of the opened peer.
    pub fn peer_history(&self) -> &VecDeque<f64> {
        &self.peer_history
    }

    /// Lines by which the page of roles is moved up.
    pub fn scroll(&self) -> usize {
        self.scroll
    }

    /// Whether no more questions are asked.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The place of the selected peer in the sorted list.
    pub fn selected_peer(&self) -> usize {
        let peers = self.peers.sorted();
        let place = |address| peers.iter().position(|peer| *peer == address);
        self.selected_peer.and_then(place).unwrap_or_default()
    }

    /// The place of the selected reason in the list.
    pub fn selected_reason(&self, reasons: &[Reason]) -> usize {
        let Some((is_drop, name)) = &self.selected_reason else {
            return 0;
        };
        let is_selected = |reason: &Reason| reason.is_drop == *is_drop && reason.name == *name;
        reasons.iter().position(is_selected).unwrap_or_default()
    }

    /// Returns the reasons for which packets were dropped, those of now first; on the page of drops also
    /// those for which the fast path passed frames.
    pub fn reasons(&self) -> Vec<Reason> {
        let Some(status) = &self.status else {
            return Vec::new();
        };
        let mut reasons = Vec::new();
        let with_passed = self.view == View::Drops;
        for (is_drop, counts) in [(true, &status.dropped), (false, &status.passed)] {
            if !is_drop && !with_passed {
                continue;
            }
            let rates = self.flows.as_ref().map(|flows| match is_drop {
                true => &flows.dropped,
                false => &flows.passed,
            });
            let counts = counts.iter();
            let counted = counts.filter(|(name, total)| **total > 0 && *name != NOISE);
            let mut part: Vec<_> = counted
                .map(|(name, &total)| Reason {
                    is_drop,
                    name: name.clone(),
                    total,
                    rate: rates.map(|rates| rates.get(name).copied().unwrap_or_default()),
                })
                .collect();
            part.sort_by(|a, b| {
                let rate = |reason: &Reason| reason.rate.unwrap_or_default();
                rate(b)
                    .total_cmp(&rate(a))
                    .then(b.total.cmp(&a.total))
                    .then(a.name.cmp(&b.name))
            });
            reasons.append(&mut part);
        }
        reasons
    }

    fn handle_status(&mut self, after: Status) {
        let has_ended = mem::take(&mut self.has_ended);
        if let Some(before) = &self.status {
            if has_ended || flows::is_restarted(before, &after) {
                let text = match before.version == after.version {
                    true => "the daemon was restarted; rates begin anew".to_owned(),
                    false => format!(
                        "the daemon was replaced: {} after {}; rates begin anew",
                        after.version, before.version
                    ),
                };
                self.notice = Some((self.now + NOTICE, text));
                self.flows = None;
                self.peers.restart();
                self.peer_history.clear();
            } else if let Some(flows) = Flows::between(before, &after) {
                self.history.push(&flows);
                self.flows = Some(flows);
            }
        }
        self.status = Some(after);
    }

    fn remember(&mut self, address: Ipv6Addr) {
        let observed = self.peers.get(&address);
        if let Some(rate) = observed.and_then(|observed| observed.rate) {
            if self.peer_history.len() == HISTORY {
                self.peer_history.pop_front();
            }
            self.peer_history.push_back(rate.packets());
        }
    }

    fn type_key(&mut self, key: KeyEvent) {
        let Some(typed) = &mut self.typed else {
            return;
        };
        match key.code {
            KeyCode::Enter => {
                let text = self.typed.take().unwrap_or_default();
                self.set_filter(text.trim().to_owned());
            }
            KeyCode::Esc => self.typed = None,
            KeyCode::Backspace => {
                typed.pop();
            }
            KeyCode::Char(character) if typed.len() < LONGEST_FILTER => typed.push(character),
            _ => {}
        }
    }

    fn set_filter(&mut self, text: String) {
        let filter = Filter::parse(&text);
        self.filter_text = text;
        // The daemon selects, so that what is known of others grows old.
        if filter.selection() != self.filter.selection() {
            self.peers.clear();
        }
        self.filter = filter;
        self.selected_peer = None;
        self.sort();
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Act(_) => {}
            Command::Help => {
                self.popup = match self.popup {
                    Some(Popup::Help) => None,
                    _ => Some(Popup::Help),
                };
            }
            Command::Show(number) => {
                self.view = View::ALL[number.min(View::ALL.len() - 1)];
                self.popup = None;
                self.scroll = 0;
            }
            Command::NextList => {
                self.list = match self.list {
                    List::Peers => List::Drops,
                    List::Drops => List::Peers,
                };
            }
            Command::Move(lines) => self.move_by(lines),
            Command::MovePage(pages) => self.move_by(pages * PAGE),
            Command::MoveToEnd { last: false } => self.move_by(isize::MIN),
            Command::MoveToEnd { last: true } => self.move_by(isize::MAX),
            Command::Open => self.open(),
            Command::Close => match self.popup.take() {
                Some(_) => {}
                None if !self.filter.is_empty() => self.set_filter(String::new()),
                None => {}
            },
            Command::Sort => {
                self.order = self.order.next();
                self.sort();
            }
            Command::Reverse => {
                self.is_reversed = !self.is_reversed;
                self.sort();
            }
            Command::Filter => {
                self.typed = Some(self.filter_text.clone());
                self.popup = None;
                if self.view != View::Overview {
                    self.view = View::Peers;
                }
                self.list = List::Peers;
            }
            Command::Pause => {
                self.is_paused = !self.is_paused;
                self.answered = self.now;
            }
        }
    }

    /// Moves the selection. With a peer or a reason open, the next one opens.
    fn move_by(&mut self, lines: isize) {
        let moved = |place: usize, length: usize| {
            let last = length.saturating_sub(1).cast_signed();
            let place = place.cast_signed().saturating_add(lines);
            place.clamp(0, last).cast_unsigned()
        };
        if self.view == View::Roles && self.popup.is_none() {
            // The picture knows how many lines there are.
            self.scroll = moved(self.scroll, 1_000);
            return;
        }
        match self.list() {
            List::Peers => {
                let peers = self.peers.sorted();
                self.selected_peer = peers.get(moved(self.selected_peer(), peers.len())).copied();
            }
            List::Drops => {
                let reasons = self.reasons();
                let place = moved(self.selected_reason(&reasons), reasons.len());
                let reason = reasons.into_iter().nth(place);
                self.selected_reason = reason.map(|reason| (reason.is_drop, reason.name));
            }
        }
        if matches!(self.popup, Some(Popup::Peer(_) | Popup::Reason(_))) {
            self.open();
        }
    }

    fn open(&mut self) {
        if self.popup == Some(Popup::Help) || self.view == View::Roles {
            self.popup = None;
            return;
        }
        self.popup = match self.list() {
            List::Peers => {
                let peers = self.peers.sorted();
                let address = peers.get(self.selected_peer()).copied();
                self.selected_peer = address;
                if self.popup != address.map(Popup::Peer) {
                    self.peer_history.clear();
                }
                address.map(Popup::Peer)
            }
            List::Drops => {
                let reasons = self.reasons();
                let place = self.selected_reason(&reasons);
                let reason = reasons.into_iter().nth(place);
                let key = reason.map(|reason| (reason.is_drop, reason.name));
                self.selected_reason.clone_from(&key);
                key.map(Popup::Reason)
            }
        };
    }

    fn sort(&mut self) {
        self.peers.sort(&self.filter, self.order, self.is_reversed);
    }
}
