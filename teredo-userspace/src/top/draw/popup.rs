//! What is in front of the page: the keys, a peer, a reason.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use ratatui::{
    Frame,
    layout::Rect,
    style::Style,
    text::{Line, Span, Text},
    widgets::Clear,
};
use teredo_common::address::{embedded_mapping, embedded_server, has_cone_flag};

use super::{Theme, number, peers, reasons, roles::wrap};
use crate::{
    api::types::PeerState,
    top::{
        answers::Peer,
        keys::HELP,
        model::{Model, Popup, ReasonKey},
        peers::Observed,
    },
};

/// The width of the frame, if the terminal is as wide.
const WIDTH: u16 = 76;

/// Draws a frame in the middle of `area`.
pub fn draw(frame: &mut Frame<'_>, area: Rect, popup: &Popup, model: &Model, theme: &Theme) {
    let width = WIDTH.min(area.width);
    let room = usize::from(width.saturating_sub(4));
    let (title, lines) = match popup {
        Popup::Help => ("keys".to_owned(), help(theme)),
        Popup::Peer(address) => (address.to_string(), peer(*address, model, theme, room)),
        Popup::Reason(key) => (key.1.clone(), reason(key, model, theme, room)),
    };
    let height = u16::try_from(lines.len() + 2)
        .unwrap_or(u16::MAX)
        .min(area.height);
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, place);
    let block = theme.block(&title, true);
    let inside = block.inner(place);
    frame.render_widget(block, place);
    let indented = lines.into_iter().map(|mut line| {
        line.spans.insert(0, Span::raw(" "));
        line
    });
    frame.render_widget(Text::from_iter(indented), inside);
}

fn help(theme: &Theme) -> Vec<Line<'static>> {
    let lines = HELP.iter().map(|(key, text)| {
        Line::from(vec![
            Span::styled(format!("{key:<14}"), theme.strong()),
            Span::raw(*text),
        ])
    });
    let mut lines: Vec<_> = lines.collect();
    lines.push(Line::default());
    lines.push(Line::styled(
        "\"to\" is towards Teredo clients, \"from\" comes from them.",
        theme.faint(),
    ));
    lines.push(Line::styled(
        "XDP is the fast path in the kernel; the daemon does the rest.",
        theme.faint(),
    ));
    lines
}

fn pair(name: &str, value: impl Into<String>, style: Style, theme: &Theme) -> Line<'static> {
    let name = Span::styled(format!("{name:<11}"), theme.faint());
    Line::from(vec![name, Span::styled(value.into(), style)])
}

fn peer(address: Ipv6Addr, model: &Model, theme: &Theme, room: usize) -> Vec<Line<'static>> {
    let Some(observed) = model.peers().get(&address) else {
        return vec![Line::styled(
            "the daemon does not know this peer any more",
            theme.warning(),
        )];
    };
    let peer = &observed.peer;
    let plain = Style::new();
    let mut lines = vec![pair("mapped", peer.mapped.to_string(), plain, theme)];
    let octets = address.octets();
    let endpoint = SocketAddrV4::from(embedded_mapping(&octets));
    if endpoint != peer.mapped {
        let text = format!("{endpoint}, not where it is: its NAT is symmetric");
        lines.push(pair("in address", text, plain, theme));
    }
    let server = Ipv4Addr::from(embedded_server(&octets));
    lines.push(pair("server", server.to_string(), plain, theme));
    let cone = match has_cone_flag(&octets) {
        true => "the address says that its NAT is a cone",
        false => "the address says that its NAT is not a cone",
    };
    lines.push(pair("cone flag", cone, plain, theme));
    let (_, style) = peers::state(peer, theme);
    for (place, text) in wrap(state(peer), room.saturating_sub(11))
        .into_iter()
        .enumerate()
    {
        let name = if place == 0 { "state" } else { "" };
        lines.push(pair(name, text, style, theme));
    }
    let ago = |seconds: Option<f64>| match seconds {
        Some(_) => format!("{} ago", number::age(seconds)),
        None => "never".to_owned(),
    };
    lines.push(pair(
        "heard",
        ago(observed.heard(model.now())),
        plain,
        theme,
    ));
    lines.push(pair(
        "sent to",
        ago(observed.sent(model.now())),
        plain,
        theme,
    ));
    lines.push(Line::default());
    lines.extend(traffic(observed, model, theme, room));
    lines
}

/// Returns what a peer's state means.
fn state(peer: &Peer) -> &'static str {
    match (peer.state, peer.xdp, peer.proved, peer.local) {
        (PeerState::Untrusted, ..) => {
            "untrusted: it has not answered yet; packets to it wait for its answer"
        }
        (_, true, ..) => "trusted and proved; the fast path serves it",
        (_, false, _, true) => "trusted, on the same link",
        (_, false, true, _) => "trusted and proved; the daemon serves it",
        (_, false, false, _) => "trusted; the daemon serves it until its mapping is proved",
    }
}

fn traffic(observed: &Observed, model: &Model, theme: &Theme, room: usize) -> Vec<Line<'static>> {
    let (Some(packets), Some(bytes)) = (observed.peer.packets, observed.peer.bytes) else {
        return vec![Line::styled(
            "this daemon does not count the traffic of peers",
            theme.faint(),
        )];
    };
    let mut lines = vec![Line::styled(
        format!(
            "{:<11}{:>12}{:>12}{:>16}{:>16}",
            "", "packets/s", "bit/s", "packets", "octets"
        ),
        theme.faint(),
    )];
    let rate = observed.rate;
    for (name, style, per_second, octets, packets, bytes) in [
        (
            "to",
            theme.encap(),
            rate.map(|rate| rate.packets_encap),
            rate.map(|rate| rate.bytes_encap),
            packets.encap,
            bytes.encap,
        ),
        (
            "from",
            theme.decap(),
            rate.map(|rate| rate.packets_decap),
            rate.map(|rate| rate.bytes_decap),
            packets.decap,
            bytes.decap,
        ),
    ] {
        let text = format!(
            "{name:<11}{:>12}{:>12}{:>16}{:>16}",
            number::rate(per_second),
            number::bits(octets),
            number::whole(packets),
            number::whole(bytes),
        );
        lines.push(Line::styled(text, style));
    }
    lines.push(Line::default());
    let graph = number::graph(model.peer_history().iter(), room, 2);
    lines.extend(
        graph
            .into_iter()
            .map(|line| Line::styled(line, theme.encap())),
    );
    lines.push(Line::styled(
        "packets in a second, both ways, since it was opened",
        theme.faint(),
    ));
    lines
}

fn reason(key: &ReasonKey, model: &Model, theme: &Theme, room: usize) -> Vec<Line<'static>> {
    let (is_drop, name) = key;
    let found = model.reasons();
    let mut reasons = found.iter();
    let Some(reason) = reasons.find(|reason| reason.is_drop == *is_drop && reason.name == *name)
    else {
        return vec![Line::styled(
            "nothing since the daemon started",
            theme.faint(),
        )];
    };
    let meaning = reasons::meaning(reason, model);
    let meaning = meaning.unwrap_or_else(|| {
        "This program is older than the daemon and does not know it.".to_owned()
    });
    let mut lines: Vec<_> = wrap(&meaning, room).into_iter().map(Line::from).collect();
    lines.push(Line::default());
    let verb = if *is_drop { "dropped" } else { "passed" };
    let text = format!(
        "{verb} {} in a second, {} since the start",
        number::rate(reason.rate),
        number::whole(reason.total)
    );
    lines.push(Line::styled(text, theme.strong()));
    lines.push(Line::default());
    let more = match is_drop {
        true => "The packet ends here.",
        false => "The frame goes on unchanged to the kernel, and if it is Teredo, to the daemon.",
    };
    lines.extend(
        wrap(more, room)
            .into_iter()
            .map(|line| Line::styled(line, theme.faint())),
    );
    lines
}
