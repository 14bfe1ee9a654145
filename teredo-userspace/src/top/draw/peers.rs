//! The list of peers.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Rect},
    style::Style,
    text::{Line, Text},
    widgets::{Row, Table},
};

use super::{Theme, first_line, number};
use crate::{
    api::types::PeerState,
    top::{
        answers::{Both, Peer},
        model::{List, Model},
        peers::{Observed, Order},
    },
};

/// A column of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Address,
    Mapped,
    To,
    From,
    BitsTo,
    BitsFrom,
    Bits,
    Total,
    Heard,
    Sent,
    State,
}

impl Column {
    /// The columns that stand in `width` characters, the most important ones first.
    fn of(width: u16, are_counted: bool) -> Vec<Self> {
        use Column::*;
        let counted: &[&[Self]] = &[
            &[
                Address, Mapped, To, From, BitsTo, BitsFrom, Total, Heard, Sent, State,
            ],
            &[Address, Mapped, To, From, Bits, Heard, State],
            &[Address, To, From, Bits, Heard, State],
            &[Address, To, From, State],
            &[Address, To, From],
        ];
        let uncounted: &[&[Self]] = &[
            &[Address, Mapped, Heard, Sent, State],
            &[Address, Mapped, Heard, State],
            &[Address, Heard, State],
        ];
        let sets = if are_counted { counted } else { uncounted };
        let fits = |set: &&&[Self]| {
            let columns = set.iter().map(|column| column.width() + 1);
            columns.sum::<u16>() - 1 <= width
        };
        let set = sets.iter().find(fits).or(sets.last());
        set.map(|set| set.to_vec()).unwrap_or_default()
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Mapped => "mapped endpoint",
            Self::To => "to /s",
            Self::From => "from /s",
            Self::Bits => "bit/s",
            Self::BitsTo => "to bit/s",
            Self::BitsFrom => "from bit/s",
            Self::Total => "packets",
            Self::Heard => "heard",
            Self::Sent => "sent",
            Self::State => "state",
        }
    }

    const fn width(self) -> u16 {
        match self {
            Self::Address => 36,
            Self::Mapped => 21,
            Self::To => 6,
            Self::From => 7,
            Self::Bits | Self::Heard | Self::Sent => 6,
            Self::BitsTo => 8,
            Self::BitsFrom => 10,
            Self::Total => 13,
            Self::State => 9,
        }
    }

    const fn is_text(self) -> bool {
        matches!(self, Self::Address | Self::Mapped | Self::State)
    }

    fn cell(self, observed: &Observed, model: &Model, theme: &Theme) -> Text<'static> {
        let (peer, rate) = (&observed.peer, observed.rate);
        let text = match self {
            Self::Address => peer.address.to_string(),
            Self::Mapped => peer.mapped.to_string(),
            Self::To => number::rate(rate.map(|rate| rate.packets_encap)),
            Self::From => number::rate(rate.map(|rate| rate.packets_decap)),
            Self::Bits => number::bits(rate.map(|rate| rate.bytes_encap + rate.bytes_decap)),
            Self::BitsTo => number::bits(rate.map(|rate| rate.bytes_encap)),
            Self::BitsFrom => number::bits(rate.map(|rate| rate.bytes_decap)),
            Self::Total => match peer.packets.map(Both::total) {
                Some(packets) => number::whole(packets),
                None => "-".to_owned(),
            },
            Self::Heard => number::age(observed.heard(model.now())),
            Self::Sent => number::age(observed.sent(model.now())),
            Self::State => {
                let (word, style) = state(peer, theme);
                return Text::styled(word, style);
            }
        };
        let side = match self.is_text() {
            true => Alignment::Left,
            false => Alignment::Right,
        };
        Text::from(text).alignment(side)
    }
}

/// Returns how a peer is served, in a word.
pub fn state(peer: &Peer, theme: &Theme) -> (&'static str, Style) {
    match (peer.state, peer.xdp) {
        (PeerState::Untrusted, _) => ("untrusted", theme.warning()),
        (PeerState::Trusted, true) => ("XDP", theme.good()),
        (PeerState::Trusted, false) if peer.local => ("local", Style::new()),
        (PeerState::Trusted, false) if peer.symmetric => ("symmetric", Style::new()),
        (PeerState::Trusted, false) => ("trusted", Style::new()),
    }
}

/// Draws the list.
pub fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: &Theme) {
    let block = theme.block(&title(model), model.list() == List::Peers);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let peers = model.peers();
    if peers.sorted().is_empty() {
        let line = Line::styled(emptiness(model), theme.faint());
        frame.render_widget(line, inside);
        return;
    }
    let columns = Column::of(inside.width, peers.are_counted());
    let height = usize::from(inside.height.saturating_sub(1));
    let selected = model.selected_peer();
    let first = first_line(selected, height);
    let shown = peers.sorted().iter().enumerate().skip(first).take(height);
    let rows = shown.filter_map(|(place, address)| {
        let observed = peers.get(address)?;
        let is_selected = place == selected && model.list() == List::Peers;
        let (theme, style) = match is_selected {
            true => (&Theme::PLAIN, theme.selected()),
            false => (theme, Style::new()),
        };
        let cells = columns
            .iter()
            .map(|column| column.cell(observed, model, theme));
        Some(Row::new(cells.collect::<Vec<_>>()).style(style))
    });
    let titles = columns.iter().map(|column| {
        let side = match column.is_text() {
            true => Alignment::Left,
            false => Alignment::Right,
        };
        Text::from(column.title()).alignment(side)
    });
    // What is left over is for the last column, so that the others stay together.
    let widths = columns.iter().map(|column| match column {
        Column::State => Constraint::Min(column.width()),
        _ => Constraint::Length(column.width()),
    });
    let table = Table::new(rows.collect::<Vec<_>>(), widths.collect::<Vec<_>>())
        .header(Row::new(titles).style(theme.faint()))
        .column_spacing(1);
    frame.render_widget(table, inside);
}

fn title(model: &Model) -> String {
    let peers = model.peers();
    let (order, is_reversed) = model.order();
    let order = match (order, peers.are_counted()) {
        // Nothing else is known of them.
        (Order::Traffic | Order::Total, false) => Order::Heard,
        (order, _) => order,
    };
    let mut title = format!("peers by {}", order.name());
    if is_reversed {
        title += ", reversed";
    }
    let shown = number::whole(peers.sorted().len() as u64);
    let known = model
        .status()
        .map(|status| status.peers.trusted + status.peers.untrusted);
    if !model.filter().is_empty() {
        title += &format!(": {shown} match {}", model.filter());
    } else if let Some(known) = known
        && peers.sorted().len() as u64 != known
    {
        title += &format!(": {shown} of {} seen", number::whole(known));
    }
    if let Some(round) = peers.round() {
        title += &format!(", all in {}", number::long(round));
    }
    if peers.is_full() {
        title += ", no more are remembered";
    }
    title
}

/// Returns the reason why there is no peer.
fn emptiness(model: &Model) -> String {
    let peers = model.peers();
    if peers.are_refused() {
        let known = model
            .status()
            .map(|status| status.peers.trusted + status.peers.untrusted);
        return format!(
            "{} peers are too many: this daemon is older and lists all of them or none",
            number::whole(known.unwrap_or_default())
        );
    }
    if model.filter().is_empty() {
        return "no peers".to_owned();
    }
    match peers.is_first_round() {
        true => "none yet that matches".to_owned(),
        false => format!("no peer matches {}; Esc removes the filter", model.filter()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_into_their_width() {
        for (width, are_counted, columns) in [
            (198, true, 10),
            (118, true, 7),
            (78, true, 6),
            (58, true, 3),
            (20, true, 3),
            (100, false, 5),
            (78, false, 4),
            (58, false, 3),
        ] {
            let found = Column::of(width, are_counted);
            assert_eq!(found.len(), columns, "{width} {are_counted} {found:?}");
        }
    }
}
