//! The results as a picture, for light and dark pages: a panel for each attack, in which the share
//! of honest traffic is drawn over the rate of the attack.

use super::{flood::Attack, report::Point};
use crate::svg::{self, Axis, Picture};

/// Packets per second between the marks of the horizontal axis.
const STEP: f64 = 200_000.0;

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
            Self::Trusted => "blue",
            Self::New => "orange",
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
    let mut picture = Picture::new(
        "Share of honest traffic under attack",
        "Honest traffic that gets through, in percent, by thousand packets of attack a second",
        attacks.len(),
    );
    let lines = series.iter().enumerate().flat_map(|(order, (label, _))| {
        Line::ALL.map(|line| (class(order, line), format!("{}, {label}", line.name())))
    });
    picture.legend(&lines.collect::<Vec<_>>());
    for (number, attack) in attacks.iter().enumerate() {
        let name = format!(
            "{}, sources: {}",
            attack.packets.word(),
            attack.sources.word()
        );
        let panel = picture.panel(number, &name, rates_to(most), percent());
        for (order, (_, points)) in series.iter().enumerate() {
            for line in Line::ALL {
                let points = points.iter().filter(|point| point.attack == *attack);
                let points = points.map(|point| svg::Point {
                    x: point.rate,
                    y: line.percent(point),
                    spread: None,
                });
                picture.line(&panel, &class(order, line), &points.collect::<Vec<_>>());
            }
        }
    }
    picture.finish()
}

/// The horizontal axis.
fn rates_to(most: f64) -> Axis {
    let marks = (most / STEP) as u32;
    let marks = (0..=marks).step_by((marks as usize).div_ceil(6));
    Axis {
        least: 0.0,
        most,
        is_logarithmic: false,
        marks: marks
            .map(|mark| f64::from(mark) * STEP)
            .map(|rate| (rate, (rate / 1000.0).to_string()))
            .collect(),
    }
}

/// The vertical axis.
fn percent() -> Axis {
    let marks = [0, 50, 100].map(|percent| (f64::from(percent), percent.to_string()));
    Axis {
        least: 0.0,
        most: 100.0,
        is_logarithmic: false,
        marks: marks.to_vec(),
    }
}

fn class(order: usize, line: Line) -> String {
    let second = if order == 0 { "" } else { " second" };
    format!("{}{second}", line.class())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        attack::{
            flood::{Packets, Sources},
            report::Count,
        },
        svg::{GAP, LEFT, PANEL, TOP},
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
