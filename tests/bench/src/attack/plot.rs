//! The results as a picture, for light and dark pages: a panel for each attack, in which the share
//! of honest traffic is drawn over the rate of the attack.

use std::fmt::Write as _;

use super::{flood::Attack, report::Point};

const PANEL: (f64, f64) = (360.0, 190.0);
const GAP: (f64, f64) = (70.0, 70.0);
const LEFT: f64 = 50.0;
const TOP: f64 = 70.0;
const COLUMNS: usize = 2;
/// Packets per second between the marks of the horizontal axis.
const STEP: f64 = 200_000.0;

/// The picture has its own background, because a page may be dark where the reader's system is
/// light.
const STYLE: &str = "
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; } .name { font-weight: 600; }
.note { fill: #59636e; } .paper { fill: #ffffff; }
.axis { stroke: #59636e; fill: none; } .grid { stroke: #d1d9e0; fill: none; }
polyline { fill: none; stroke-width: 2; }
.trusted { stroke: #0969da; } .new { stroke: #bc4c00; }
circle.trusted { fill: #0969da; } circle.new { fill: #bc4c00; }
.second { stroke-dasharray: 5 4; } circle.second { fill: none; stroke-dasharray: none; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .note { fill: #9198a1; } .paper { fill: #0d1117; }
.grid { stroke: #30363d; } .axis { stroke: #9198a1; }
}
";

/// A line in a panel.
#[derive(Clone, Copy, Debug)]
enum Line {
    Trusted,
    New,
}

impl Line {
    const ALL: [Self; 2] = [Self::Trusted, Self::New];

    const fn class(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::New => "new",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Trusted => "trusted peers",
            Self::New => "new peers",
        }
    }

    fn percent(self, point: &Point) -> f64 {
        match self {
            Self::Trusted => point.trusted.percent(),
            Self::New => point.new.percent(),
        }
    }
}

/// Draws the points of at most two series, such as with and without the defence, as SVG.
#[must_use]
pub fn draw(series: &[(&str, &[Point])]) -> String {
    let mut attacks: Vec<Attack> = Vec::new();
    for point in series.iter().flat_map(|(_, points)| *points) {
        if !attacks.contains(&point.attack) {
            attacks.push(point.attack);
        }
    }
    let rates = series.iter().flat_map(|(_, points)| *points);
    let most = rates.map(|point| point.rate).fold(STEP, f64::max);
    let most = (most / STEP).ceil() * STEP;
    let rows = attacks.len().div_ceil(COLUMNS);
    let width = LEFT + COLUMNS as f64 * (PANEL.0 + GAP.0);
    let height = TOP + rows as f64 * (PANEL.1 + GAP.1);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <title>Share of honest traffic under attack</title>\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"24\">Honest traffic that gets through, in percent, \
         by thousand packets of attack a second</text>\n"
    );
    legend(&mut text, series);
    for (number, attack) in attacks.iter().enumerate() {
        let x = LEFT + (number % COLUMNS) as f64 * (PANEL.0 + GAP.0);
        let y = TOP + (number / COLUMNS) as f64 * (PANEL.1 + GAP.1);
        panel(&mut text, (x, y), *attack, most);
        for (order, (_, points)) in series.iter().enumerate() {
            let points: Vec<&Point> = points
                .iter()
                .filter(|point| point.attack == *attack)
                .collect();
            for line in Line::ALL {
                polyline(&mut text, (x, y), order, line, &points, most);
            }
        }
    }
    text.push_str("</svg>\n");
    text
}

fn legend(text: &mut String, series: &[(&str, &[Point])]) {
    let mut x = LEFT;
    for (order, (label, _)) in series.iter().enumerate() {
        for line in Line::ALL {
            let class = class(order, line);
            let end = x + 30.0;
            let _ = writeln!(
                text,
                "<polyline class=\"{class}\" points=\"{x},42 {end},42\"/>\
                 <text x=\"{}\" y=\"46\">{}, {label}</text>",
                end + 6.0,
                line.name()
            );
            x += 200.0;
        }
    }
}

fn class(order: usize, line: Line) -> String {
    let second = if order == 0 { "" } else { " second" };
    format!("{}{second}", line.class())
}

fn panel(text: &mut String, (x, y): (f64, f64), attack: Attack, most: f64) {
    let (width, height) = PANEL;
    let _ = writeln!(
        text,
        "<text class=\"name\" x=\"{x}\" y=\"{}\">{}, sources: {}</text>",
        y - 6.0,
        attack.packets.word(),
        attack.sources.word()
    );
    for percent in [0, 50, 100] {
        let line = y + height * f64::from(100 - percent) / 100.0;
        let _ = writeln!(
            text,
            "<path class=\"grid\" d=\"M{x} {line}h{width}\"/>\
             <text class=\"note\" text-anchor=\"end\" x=\"{}\" y=\"{}\">{percent}</text>",
            x - 6.0,
            line + 4.0
        );
    }
    let marks = (most / STEP) as u32;
    for mark in (0..=marks).step_by((marks as usize).div_ceil(6)) {
        let rate = f64::from(mark) * STEP;
        let at = x + width * rate / most;
        let _ = writeln!(
            text,
            "<text class=\"note\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{}\">{}</text>",
            y + height + 16.0,
            rate / 1000.0
        );
    }
    let _ = writeln!(
        text,
        "<path class=\"axis\" d=\"M{x} {y}v{height}h{width}\"/>"
    );
}

fn polyline(
    text: &mut String,
    (x, y): (f64, f64),
    order: usize,
    line: Line,
    points: &[&Point],
    most: f64,
) {
    let class = class(order, line);
    let places: Vec<(f64, f64)> = points
        .iter()
        .map(|point| {
            let share = line.percent(point).min(100.0) / 100.0;
            (x + PANEL.0 * point.rate / most, y + PANEL.1 * (1.0 - share))
        })
        .collect();
    let joined: Vec<String> = places
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let _ = writeln!(
        text,
        "<polyline class=\"{class}\" points=\"{}\"/>",
        joined.join(" ")
    );
    for (x, y) in places {
        let _ = writeln!(
            text,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::attack::{
        flood::{Packets, Sources},
        report::Count,
    };

    fn point(packets: Packets, rate: f64, arrived: u64) -> Point {
        let attack = Attack {
            packets,
            sources: Sources::All,
        };
        Point {
            attack,
            intended: rate as u32,
            rate,
            trusted: Count { of: 100, arrived },
            new: Count::default(),
            newcomers: Vec::new(),
            cpu: 0.0,
            memory: 0,
            side_effects: 0.0,
            frames: BTreeMap::new(),
        }
    }

    #[test]
    fn every_attack_has_a_panel_and_every_point_a_mark() {
        let off = [
            point(Packets::Garbage, 0.0, 100),
            point(Packets::Garbage, 1e6, 50),
        ];
        let on = [point(Packets::Native, 5e5, 100)];
        let picture = draw(&[("defence on", &on), ("defence off", &off)]);
        assert_eq!(picture.matches("class=\"name\"").count(), 2);
        assert_eq!(picture.matches("<circle").count(), 2 * 3);
        // Half of the packets at the right edge.
        let (x, y) = (LEFT + PANEL.0, TOP + PANEL.1 / 2.0);
        let mark = format!("cx=\"{:.1}\" cy=\"{y:.1}\"", x + PANEL.0 + GAP.0);
        let first = format!("cx=\"{x:.1}\" cy=\"{y:.1}\"");
        assert!(
            picture.contains(&mark) || picture.contains(&first),
            "{picture}"
        );
    }
}
