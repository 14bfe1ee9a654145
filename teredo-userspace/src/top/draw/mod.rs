//! The picture of the view.

mod ascii;
mod frame;
mod number;
mod peers;
mod popup;
mod reasons;
mod roles;
mod theme;
mod traffic;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
};

pub use self::theme::Theme;
use super::model::{List, Model, View};

/// From this width on, parts stand side by side.
const WIDE: u16 = 120;
/// Lines of the list of peers or reasons, below which there is only one of them.
const LEAST: u16 = 4;

/// Draws the view.
pub fn draw(frame: &mut Frame<'_>, model: &Model, theme: &Theme) {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(frame::head_height(model)),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame::draw_head(frame, head, model, theme);
    match model.view() {
        View::Overview => draw_overview(frame, body, model, theme),
        View::Peers => peers::draw(frame, body, model, theme),
        View::Drops => reasons::draw(frame, body, model, theme),
        View::Roles => roles::draw(frame, body, model, theme),
    }
    frame::draw_foot(frame, foot, model, theme);
    if let Some(popup) = model.popup() {
        popup::draw(frame, body, popup, model, theme);
    }
    if !theme.is_unicode {
        ascii::replace(frame.buffer_mut());
    }
}

fn draw_overview(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: &Theme) {
    let is_wide = area.width >= WIDE;
    let conditions = roles::conditions(model, theme, area.width.saturating_sub(2));
    let conditions_height = match &conditions {
        // At most a third, or what is there: all are on the page of roles.
        Some(block) => block.height().min((area.height / 3).max(3)),
        None => 0,
    };
    let traffic_height = traffic::height(model, area.width).min(area.height);
    let [upper, middle, lower] = Layout::vertical([
        Constraint::Length(conditions_height),
        Constraint::Length(traffic_height),
        Constraint::Fill(1),
    ])
    .areas(area);
    if let Some(block) = conditions {
        block.draw(frame, upper, theme);
    }
    if is_wide {
        draw_wide(frame, middle, lower, model, theme);
        return;
    }
    traffic::draw(frame, middle, model, theme);
    draw_lists(frame, lower, model, theme);
}

fn draw_wide(frame: &mut Frame<'_>, middle: Rect, lower: Rect, model: &Model, theme: &Theme) {
    let [left, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(traffic::COUNTS)])
            .areas(middle);
    traffic::draw(frame, left, model, theme);
    traffic::draw_counts(frame, right, model, theme);
    let blocks = roles::blocks(model, theme, lower.width / 2);
    let height = blocks
        .iter()
        .map(roles::Part::height)
        .max()
        .unwrap_or_default();
    // With room enough, the roles are beside the lists.
    if lower.height < height + 2 * LEAST + 6 || blocks.is_empty() {
        draw_lists(frame, lower, model, theme);
        return;
    }
    let [lists, roles] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(height)]).areas(lower);
    draw_lists(frame, lists, model, theme);
    let widths = blocks.iter().map(|_| Constraint::Fill(1));
    for (block, area) in blocks
        .iter()
        .zip(Layout::horizontal(widths).split(roles).iter())
    {
        block.draw(frame, *area, theme);
    }
}

/// Draws peers and reasons: one above the other, or if there is no room, those that have the keys.
fn draw_lists(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: &Theme) {
    // A daemon that only serves has no peers.
    let has_peers = model.status().is_none_or(|status| status.peers.maximum > 0);
    if !has_peers {
        return reasons::draw(frame, area, model, theme);
    }
    if area.height < 2 * LEAST {
        return match model.list() {
            List::Peers => peers::draw(frame, area, model, theme),
            List::Drops => reasons::draw(frame, area, model, theme),
        };
    }
    let wanted = u16::try_from(model.reasons().len()).unwrap_or(u16::MAX);
    let share = wanted.saturating_add(3).min(area.height * 2 / 5).max(LEAST);
    let [upper, lower] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(share)]).areas(area);
    peers::draw(frame, upper, model, theme);
    reasons::draw(frame, lower, model, theme);
}

/// Returns the first line of a list that shows the selected one in `height` lines.
fn first_line(selected: usize, height: usize) -> usize {
    (selected + 1).saturating_sub(height)
}
