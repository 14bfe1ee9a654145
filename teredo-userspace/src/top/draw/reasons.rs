//! The list of reasons for which packets are dropped or passed.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Rect},
    style::Style,
    text::{Line, Text},
    widgets::{Row, Table},
};

use super::{Theme, first_line, number};
use crate::{
    metrics::{Role, meaning},
    top::model::{List, Model, Reason, View},
};

/// Draws the list.
pub fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: &Theme) {
    let has_keys = model.list() == List::Drops;
    let block = theme.block(&title(model), has_keys);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let found = model.reasons();
    if found.is_empty() {
        let line = Line::styled("nothing", theme.good());
        frame.render_widget(line, inside);
        return;
    }
    let height = usize::from(inside.height.saturating_sub(1));
    let selected = model.selected_reason(&found);
    let first = first_line(selected, height);
    let longest = found.iter().map(|reason| reason.name.len()).max();
    let longest = u16::try_from(longest.unwrap_or_default()).unwrap_or(u16::MAX);
    let has_both = model.view() == View::Drops && found.iter().any(|reason| !reason.is_drop);
    let shown = found.iter().enumerate().skip(first).take(height);
    let rows = shown.map(|(place, reason)| {
        let is_selected = place == selected && has_keys;
        match is_selected {
            true => row(reason, model, &Theme::PLAIN, has_both).style(theme.selected()),
            false => row(reason, model, theme, has_both),
        }
    });
    let right = |text: &'static str| Text::from(text).alignment(Alignment::Right);
    let mut titles = vec![
        Text::from("reason"),
        right("/s"),
        right("total"),
        Text::from("meaning"),
    ];
    let mut widths = vec![
        Constraint::Length(longest.clamp(10, 28)),
        Constraint::Length(5),
        Constraint::Length(6),
        Constraint::Fill(1),
    ];
    if has_both {
        titles.insert(0, Text::from(""));
        widths.insert(0, Constraint::Length(7));
    }
    let table = Table::new(rows.collect::<Vec<_>>(), widths)
        .header(Row::new(titles).style(theme.faint()))
        .column_spacing(1);
    frame.render_widget(table, inside);
}

fn row(reason: &Reason, model: &Model, theme: &Theme, has_both: bool) -> Row<'static> {
    let right = |text: String| Text::from(text).alignment(Alignment::Right);
    let is_now = reason.rate.is_some_and(|rate| rate > 0.0);
    let style = match (is_now, reason.is_drop) {
        (true, true) => theme.warning(),
        (true, false) => Style::new(),
        (false, _) => theme.faint(),
    };
    let mut cells = vec![
        Text::styled(reason.name.clone(), style),
        right(number::rate(reason.rate)),
        right(number::short(reason.total as f64)),
        Text::from(meaning(reason, model).unwrap_or_default()),
    ];
    if has_both {
        let word = if reason.is_drop { "dropped" } else { "passed" };
        cells.insert(0, Text::styled(word, theme.faint()));
    }
    Row::new(cells)
}

/// Returns a reason in words.
pub fn meaning(reason: &Reason, model: &Model) -> Option<String> {
    let name = &reason.name;
    let meaning = match reason.is_drop {
        true => {
            let roles = model.status()?.roles.iter();
            let roles = roles.filter_map(|role| Role::of_name(role));
            let mut meanings = roles.filter_map(|role| meaning::dropped(role, name));
            meanings
                .next()
                .or_else(|| meaning::dropped_by_fast_path(name))
        }
        false => meaning::passed(name),
    };
    meaning.map(meaning::plain)
}

fn title(model: &Model) -> String {
    let rate = model.flows().map(|flows| flows.dropped());
    let rate = rate.map_or(String::new(), |rate| format!(" {}/s", number::short(rate)));
    match model.view() {
        View::Drops => format!("dropped{rate}; passed by the fast path to kernel and daemon"),
        _ => format!("dropped{rate}"),
    }
}
