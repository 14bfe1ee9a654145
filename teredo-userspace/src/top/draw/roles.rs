//! Conditions, fast path, limits, server and client.

use ratatui::{
    Frame,
    layout::Rect,
    style::Style,
    text::{Line, Span, Text},
};

use super::{Theme, WIDE, number};
use crate::{
    api::types::{Paths, ServerStatus, Status},
    condition::Severity,
    metrics::{ClientStatus, Mode},
    top::model::Model,
};

/// A part of the page with a title.
pub struct Part {
    title: &'static str,
    lines: Vec<Line<'static>>,
}

impl Part {
    /// Returns the lines that it takes with its frame.
    pub fn height(&self) -> u16 {
        u16::try_from(self.lines.len() + 2).unwrap_or(u16::MAX)
    }

    /// Draws the part, as far as there is room.
    pub fn draw(&self, frame: &mut Frame<'_>, area: Rect, theme: &Theme) {
        let block = theme.block(self.title, false);
        let inside = block.inner(area);
        frame.render_widget(block, area);
        let shown = usize::from(inside.height);
        let mut lines: Vec<_> = self.lines.iter().take(shown).cloned().collect();
        if self.lines.len() > shown
            && let Some(last) = lines.last_mut()
        {
            *last = Line::styled("… more on page 4", theme.faint());
        }
        frame.render_widget(Text::from(lines), inside);
    }
}

/// Draws the page.
pub fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: &Theme) {
    let width = match area.width >= WIDE {
        true => area.width / 2,
        false => area.width,
    };
    let mut lines = Vec::new();
    let conditions = conditions(model, theme, area.width.saturating_sub(2));
    let none = Part {
        title: "conditions",
        lines: vec![Line::styled("none: every role does its job", theme.good())],
    };
    for part in [conditions.unwrap_or(none)]
        .into_iter()
        .chain(blocks(model, theme, width))
    {
        lines.push(Line::styled(part.title, theme.strong()));
        lines.extend(part.lines.into_iter().map(|line| {
            let mut indented = Line::from(vec![Span::raw("  ")]);
            indented.style = line.style;
            indented.spans.extend(line.spans);
            indented
        }));
        lines.push(Line::default());
    }
    lines.pop();
    let most = lines
        .len()
        .saturating_sub(usize::from(area.height.saturating_sub(2)));
    let first = model.scroll().min(most);
    let title = match most {
        0 => "roles".to_owned(),
        _ => format!("roles (arrows move: line {} of {})", first + 1, lines.len()),
    };
    let block = theme.block(&title, true);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    frame.render_widget(Text::from_iter(lines.into_iter().skip(first)), inside);
}

/// Returns the conditions with their remedies, each in lines of `width` characters; `None` if there are
/// none.
pub fn conditions(model: &Model, theme: &Theme, width: u16) -> Option<Part> {
    let status = model.status()?;
    if status.conditions.is_empty() {
        return None;
    }
    let mut conditions: Vec<_> = status.conditions.iter().collect();
    conditions.sort_by_key(|condition| std::cmp::Reverse(condition.severity));
    let mut lines = Vec::new();
    for condition in conditions {
        let style = theme.severity(condition.severity);
        let word = match condition.severity {
            Severity::Down => "DOWN",
            Severity::Degraded => "degraded",
        };
        lines.push(Line::from(vec![
            Span::styled(format!("{word} {}", condition.kind), style),
            Span::styled(
                format!(
                    "  {}, for {}",
                    condition.role,
                    number::age(Some(condition.since_seconds))
                ),
                theme.faint(),
            ),
        ]));
        let room = usize::from(width.saturating_sub(4)).max(20);
        let text = wrap(&condition.text, room);
        lines.extend(text.into_iter().map(|line| Line::from(format!("  {line}"))));
    }
    Some(Part {
        title: "conditions",
        lines,
    })
}

/// Returns the parts of the daemon that run.
pub fn blocks(model: &Model, theme: &Theme, width: u16) -> Vec<Part> {
    let Some(status) = model.status() else {
        return Vec::new();
    };
    let mut parts = Vec::new();
    if let Some(client) = &status.client {
        parts.push(client_part(client, theme));
    } else {
        parts.push(fast_path(status, theme, width));
    }
    if let Some(server) = &status.server {
        parts.push(server_part(model, server, theme));
    }
    if !status.endpoints.is_empty() || status.peers.maximum > 0 {
        parts.push(limits(status, theme));
    }
    parts
}

fn pair(name: &str, value: String, style: Style, theme: &Theme) -> Line<'static> {
    let name = Span::styled(format!("{name:<11}"), theme.faint());
    Line::from(vec![name, Span::styled(value, style)])
}

fn fast_path(status: &Status, theme: &Theme, width: u16) -> Part {
    let mut lines = Vec::new();
    if status.xdp.is_empty() {
        lines.push(Line::styled(
            "off: the daemon does all the work",
            theme.faint(),
        ));
    }
    for attachment in &status.xdp {
        let style = match attachment.mode {
            Mode::Native => theme.good(),
            Mode::Generic => theme.warning(),
            Mode::Off => theme.bad(),
        };
        let mut text = attachment.mode.name().to_owned();
        if attachment.dropped > 0 {
            let dropped = number::whole(attachment.dropped);
            text += &format!(", its driver dropped {dropped} frames");
        }
        lines.push(pair(&attachment.interface, text, style, theme));
        let room = usize::from(width.saturating_sub(6)).max(20);
        let reason = wrap(&attachment.reason, room);
        lines.extend(
            reason
                .into_iter()
                .map(|line| Line::from(format!("  {line}"))),
        );
    }
    Part {
        title: "fast path",
        lines,
    }
}

fn server_part(model: &Model, server: &ServerStatus, theme: &Theme) -> Part {
    let mut lines = Vec::new();
    for (kind, results) in &server.requests {
        for (result, paths) in results {
            let Paths { xdp, userspace } = *paths;
            let total = xdp.saturating_add(userspace);
            if total == 0 {
                continue;
            }
            let key = (kind.clone(), result.clone());
            let flows = model.flows();
            let rate = flows.and_then(|flows| flows.requests.get(&key).copied());
            let text = format!(
                "{:>6}/s {:>15}  {} in XDP",
                number::rate(rate),
                number::whole(total),
                number::share(xdp as f64, total as f64),
            );
            let name = Span::styled(format!("{:<24}", format!("{kind} {result}")), theme.faint());
            lines.push(Line::from(vec![name, Span::raw(text)]));
        }
    }
    if lines.is_empty() {
        lines.push(Line::styled("nothing served yet", theme.faint()));
    }
    if server.bindings > 0 {
        let text = number::whole(server.bindings);
        lines.push(pair("tunnels", text, Style::new(), theme));
    }
    Part {
        title: "server",
        lines,
    }
}

fn client_part(client: &ClientStatus, theme: &Theme) -> Part {
    let shown = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let style = match &*client.state {
        "qualified" => theme.good(),
        "starting" | "second" => theme.warning(),
        _ => theme.bad(),
    };
    let mut lines = vec![pair("state", client.state.clone(), style, theme)];
    for (name, value) in [
        (
            "address",
            shown(client.address.map(|address| address.to_string())),
        ),
        (
            "mapped",
            shown(client.mapped.map(|mapped| mapped.to_string())),
        ),
        ("port", format!("UDP {}", client.port)),
        ("NAT", shown(client.nat_behaviour.clone())),
        (
            "server",
            shown(client.server.map(|server| server.to_string())),
        ),
        (
            "refresh",
            format!("{:.0} s at most", client.refresh_seconds),
        ),
        (
            "solicited",
            format!(
                "{} times, qualified {} times",
                number::whole(client.solicitations),
                number::whole(client.qualified)
            ),
        ),
    ] {
        lines.push(pair(name, value, Style::new(), theme));
    }
    if let Some(mapping) = client.port_mapping {
        lines.push(pair("forwarded", mapping.to_string(), Style::new(), theme));
    }
    if client.tunnel {
        let text = "everything goes through the server".to_owned();
        lines.push(pair("tunnel", text, Style::new(), theme));
    }
    Part {
        title: "client",
        lines,
    }
}

/// Returns the endpoints, and what is limited beside its use.
fn limits(status: &Status, theme: &Theme) -> Part {
    let mut lines = Vec::new();
    for (role, endpoints) in &status.endpoints {
        let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
        lines.push(pair(
            role,
            format!("UDP {}", endpoints.join(", ")),
            Style::new(),
            theme,
        ));
    }
    let peers = status.peers;
    if peers.maximum > 0 {
        let used = peers.trusted + peers.untrusted;
        let text = format!(
            "{} {} of {}",
            number::gauge(used, peers.maximum, 10),
            number::whole(used),
            number::whole(peers.maximum)
        );
        let style = match used.saturating_mul(10) >= peers.maximum.saturating_mul(9) {
            true => theme.warning(),
            false => Style::new(),
        };
        lines.push(pair("peers", text, style, theme));
    }
    Part {
        title: "endpoints and limits",
        lines,
    }
}

/// Breaks a text into lines of at most `width` characters, between words as far as possible.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        let used = line.chars().count();
        if used > 0 && used + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
        } else if used > 0 {
            line.push(' ');
        }
        while word.len() > width {
            lines.push(word.drain(..width).collect());
        }
        line.extend(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("", 7), [""; 0]);
        assert_eq!(wrap("ab", 0), ["a", "b"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("ab abcdefghij", 4), ["ab", "abcd", "efgh", "ij"]);
    }
}
