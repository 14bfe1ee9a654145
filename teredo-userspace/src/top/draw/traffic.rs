//! The traffic: rates for each direction and path, peers, bubbles.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span, Text},
    widgets::{Row, Table},
};

use super::{Theme, WIDE, number};
use crate::{
    api::types::Status,
    top::{flows::Rates, model::Model},
};

/// The width of the counts, if they stand beside the rates.
pub const COUNTS: u16 = 40;
/// Lines of the graph of a direction with room enough.
const GRAPH: u16 = 3;

/// Returns the height of the part in a picture of this width.
pub fn height(model: &Model, width: u16) -> u16 {
    let lines = match (forwards(model), width >= WIDE) {
        (true, true) => (1 + 2 * GRAPH).max(counts_height(model, COUNTS - 2)),
        (false, true) => counts_height(model, COUNTS - 2),
        (true, false) => 3 + counts_height(model, width.saturating_sub(2)),
        (false, false) => counts_height(model, width.saturating_sub(2)),
    };
    lines + 2
}

/// Whether the daemon forwards packets, as a relay or a client.
fn forwards(model: &Model) -> bool {
    let roles = model.status().map(|status| &*status.roles);
    roles.is_none_or(|roles| roles.iter().any(|role| role == "relay" || role == "client"))
}

fn counts_height(model: &Model, width: u16) -> u16 {
    u16::try_from(counts(model, &Theme::PLAIN, width).len()).unwrap_or(u16::MAX)
}

/// Draws the part, with the counts below the rates if it is narrow.
pub fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: &Theme) {
    let is_wide = frame.area().width >= WIDE;
    let block = theme.block("traffic in each second", false);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let rows = match (forwards(model), is_wide) {
        (false, _) => 0,
        (true, false) => 3,
        (true, true) => 1 + 2 * GRAPH,
    };
    let [rates, counted] =
        Layout::vertical([Constraint::Length(rows), Constraint::Fill(1)]).areas(inside);
    if rows > 0 {
        draw_rates(frame, rates, model, theme, if is_wide { GRAPH } else { 1 });
    }
    if !is_wide {
        let text = counts(model, theme, counted.width);
        frame.render_widget(Text::from(text), counted);
    } else if rows == 0 {
        let text = "this daemon forwards nothing";
        frame.render_widget(Line::styled(text, theme.faint()), counted);
    }
}

/// Draws the counts as a part of their own.
pub fn draw_counts(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: &Theme) {
    let block = theme.block("peers and bubbles", false);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let text = counts(model, theme, inside.width);
    frame.render_widget(Text::from(text), inside);
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: &Theme, lines: u16) {
    let has_fast_path = model.status().is_some_and(|status| status.client.is_none());
    let titles: &[&str] = match has_fast_path {
        true => &[
            "",
            "XDP packets",
            "bit/s",
            "daemon packets",
            "bit/s",
            "in XDP",
        ],
        false => &["", "packets", "bit/s"],
    };
    let mut widths = vec![Constraint::Length(12)];
    widths.extend(titles.iter().skip(1).map(|title| {
        let width = u16::try_from(title.len()).unwrap_or_default();
        Constraint::Length(width.max(6))
    }));
    let columns: u16 = 12
        + titles
            .iter()
            .skip(1)
            .map(|title| u16::try_from(title.len()).unwrap_or_default().max(6) + 1)
            .sum::<u16>();
    let [numbers, graphs] =
        Layout::horizontal([Constraint::Length(columns), Constraint::Fill(1)]).areas(area);
    let right = |text: String| Text::from(text).alignment(Alignment::Right);
    let flows = model.flows();
    let row = |name: &str, style: Style, place: fn(&Rates) -> [f64; 2]| {
        let packets = flows.map(|flows| place(&flows.packets));
        let bytes = flows.map(|flows| place(&flows.bytes));
        let mut cells = vec![Text::styled(name.to_owned(), style)];
        if has_fast_path {
            let [xdp, daemon] = packets.unwrap_or_default();
            cells.extend([
                right(number::rate(packets.map(|packets| packets[0]))),
                right(number::bits(bytes.map(|bytes| bytes[0]))),
                right(number::rate(packets.map(|packets| packets[1]))),
                right(number::bits(bytes.map(|bytes| bytes[1]))),
                right(number::share(xdp, xdp + daemon)),
            ]);
        } else {
            cells.extend([
                right(number::rate(packets.map(|packets| packets[1]))),
                right(number::bits(bytes.map(|bytes| bytes[1]))),
            ]);
        }
        Row::new(cells).height(lines)
    };
    let (to, from) = match has_fast_path {
        true => ("to clients", "from clients"),
        false => ("sent", "received"),
    };
    let rows = [
        row(to, theme.encap(), |rates| rates.encap),
        row(from, theme.decap(), |rates| rates.decap),
    ];
    let titles = titles.iter().map(|title| right((*title).to_owned()));
    let table = Table::new(rows, widths)
        .header(Row::new(titles).style(theme.faint()))
        .column_spacing(1);
    frame.render_widget(table, numbers);
    draw_graphs(frame, graphs, model, theme, lines);
}

fn draw_graphs(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: &Theme, lines: u16) {
    let [title, upper, lower] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(lines),
        Constraint::Length(lines),
    ])
    .areas(area);
    let width = usize::from(area.width.saturating_sub(2));
    if width < 4 {
        return;
    }
    let span = model.period() * u32::try_from(width.min(240)).unwrap_or(240);
    let text = format!("last {}", number::long(span));
    if text.len() <= width {
        let line = Line::styled(text, theme.faint()).alignment(Alignment::Right);
        frame.render_widget(line, title);
    }
    for (area, values, style) in [
        (upper, &model.history().encap, theme.encap()),
        (lower, &model.history().decap, theme.decap()),
    ] {
        let text = number::graph(values.iter(), width, usize::from(lines));
        let lines = text
            .into_iter()
            .map(|line| Line::styled(format!("  {line}"), style));
        frame.render_widget(Text::from_iter(lines), area);
    }
}

/// Returns the numbers of peers and bubbles, each limit beside its use.
fn counts(model: &Model, theme: &Theme, width: u16) -> Vec<Line<'static>> {
    let Some(status) = model.status() else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    let mut line = |name: &'static str, text: String| {
        let name = Span::styled(format!("{name:<9}"), theme.faint());
        lines.push(Line::from(vec![name, Span::raw(text)]));
    };
    let peers = status.peers;
    if peers.maximum > 0 {
        let all = peers.trusted + peers.untrusted;
        let proved = match status.roles.iter().any(|role| role == "relay") {
            true => format!(" ({} proved)", number::whole(peers.proved)),
            false => String::new(),
        };
        let trusted = format!("{} trusted{proved}", number::whole(peers.trusted));
        let untrusted = format!("{} untrusted", number::whole(peers.untrusted));
        let limit = format!(
            "{} {} of {}",
            number::gauge(all, peers.maximum, 10),
            number::share(all as f64, peers.maximum as f64),
            number::whole(peers.maximum),
        );
        let both = format!("{trusted}, {untrusted}");
        let room = usize::from(width).saturating_sub(9);
        if both.len() + 3 + limit.chars().count() <= room {
            line("peers", format!("{both}   {limit}"));
        } else {
            match both.len() <= room {
                true => line("peers", both),
                false => {
                    line("peers", trusted);
                    line("", untrusted);
                }
            }
            line("limit", limit);
        }
    }
    line("bubbles", bubbles(model, status, usize::from(width)));
    lines
}

fn bubbles(model: &Model, status: &Status, width: usize) -> String {
    let rates = model.flows().map(|flows| flows.bubbles);
    let (sent, received) = (rates.map(|rates| rates.0), rates.map(|rates| rates.1));
    let short = format!(
        "{}/s sent, {}/s received",
        number::rate(sent),
        number::rate(received),
    );
    let long = format!(
        "{short}; {} and {} since the start",
        number::whole(status.bubbles.sent),
        number::whole(status.bubbles.received),
    );
    match 9 + long.len() <= width {
        true => long,
        false => short,
    }
}
