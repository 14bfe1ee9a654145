//! The first line, the second if something is wrong, and the last with the keys.

use std::time::Duration;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{Theme, number};
use crate::{
    api::types::{Status, Verdict},
    top::model::{Link, Model, View},
};

/// Returns the lines at the top.
pub fn head_height(model: &Model) -> u16 {
    1 + u16::from(message(model).is_some())
}

/// Draws the daemon's name and state, and the message if there is one.
pub fn draw_head(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: &Theme) {
    let [first, second] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    let (word, style) = state(model, theme);
    let badge = Line::styled(format!(" {word} "), style);
    let [left, right] = Layout::horizontal([
        Constraint::Fill(1),
        Constraint::Length(u16::try_from(badge.width()).unwrap_or(u16::MAX)),
    ])
    .areas(first);
    let mut spans = vec![Span::styled(" teredo ", theme.strong())];
    if let Some(status) = model.status() {
        let roles = match &*status.roles {
            [] => "no role".to_owned(),
            roles => roles.join(" + "),
        };
        spans.push(Span::styled(status.name.clone(), theme.strong()));
        spans.push(Span::raw(format!(
            " {}  {roles}  up {}",
            status.version,
            number::long(uptime(status)),
        )));
    }
    frame.render_widget(Line::from(spans), left);
    frame.render_widget(badge, right);
    if let Some((text, is_bad)) = message(model) {
        let style = if is_bad { theme.bad() } else { theme.warning() };
        frame.render_widget(Line::styled(format!(" {text}"), style), second);
    }
}

fn uptime(status: &Status) -> Duration {
    Duration::try_from_secs_f64(status.uptime_seconds).unwrap_or_default()
}

/// Returns the state in a word.
fn state(model: &Model, theme: &Theme) -> (String, Style) {
    if let Link::Lost { .. } = model.link() {
        return ("NO ANSWER".to_owned(), theme.bad().patch(theme.selected()));
    }
    let Some(status) = model.status() else {
        return (String::new(), Style::new());
    };
    if model.is_paused() {
        let style = theme.warning().patch(theme.selected());
        return ("paused".to_owned(), style);
    }
    let (word, style) = match status.verdict {
        Verdict::Ok if status.draining.is_empty() => ("ok", theme.good()),
        Verdict::Ok => ("draining", theme.warning()),
        Verdict::Degraded => ("degraded", theme.warning()),
        Verdict::Down => ("DOWN", theme.bad()),
    };
    (word.to_owned(), style.patch(theme.selected()))
}

/// Returns the message of the second line, and whether it is bad.
fn message(model: &Model) -> Option<(String, bool)> {
    if let Link::Lost { since, reason } = model.link() {
        let time = number::long(model.now().saturating_sub(since));
        return Some((
            format!("no answer for {time}, trying again: {reason}"),
            true,
        ));
    }
    if let Some(notice) = model.notice() {
        return Some((notice.to_owned(), false));
    }
    let status = model.status()?;
    let peers = status.peers;
    if !status.draining.is_empty() {
        let text = format!(
            "{} accepts no new peers and clients; {} remain",
            status.draining.join(" and "),
            number::whole(peers.trusted + peers.untrusted),
        );
        return Some((text, false));
    }
    let (role, date) = status.sunset.iter().next()?;
    Some((format!("the {role} ends on {date}"), false))
}

/// Draws the keys, or the filter that is being typed.
pub fn draw_foot(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: &Theme) {
    if let Some(typed) = model.typed() {
        let line = Line::from(vec![
            Span::styled(" filter: ", theme.strong()),
            Span::raw(typed.to_owned()),
            Span::styled(" ", theme.selected()),
            Span::styled("  Enter applies, Esc cancels", theme.faint()),
        ]);
        frame.render_widget(line, area);
        return;
    }
    let (order, _) = model.order();
    let sort = format!("sort: {}", order.name());
    let mut spans = Vec::new();
    for (number, view) in (1..).zip(View::ALL) {
        let style = match view == model.view() {
            true => theme.selected(),
            false => Style::new(),
        };
        spans.push(Span::styled(format!(" {number} {} ", view.name()), style));
    }
    let mut width: usize = spans.iter().map(Span::width).sum();
    for (key, text) in [
        ("?", "help"),
        ("q", "end"),
        ("Enter", "open"),
        ("/", "filter"),
        ("s", &sort),
        ("Tab", "next list"),
        ("Space", "pause"),
    ] {
        let pair = [
            Span::styled(format!("  {key} "), theme.strong()),
            Span::styled(text.to_owned(), theme.faint()),
        ];
        width += pair.iter().map(Span::width).sum::<usize>();
        if width > usize::from(area.width) {
            break;
        }
        spans.extend(pair);
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
}
