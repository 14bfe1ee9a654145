//! Pictures with panels of curves, for light and dark pages.

use std::fmt::Write as _;

/// The picture has its own background, because a page may be dark where the reader's system is
/// light.
const STYLE: &str = "
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; } .name { font-weight: 600; }
.note { fill: #59636e; } .paper { fill: #ffffff; }
.axis { stroke: #59636e; fill: none; } .grid { stroke: #d1d9e0; fill: none; }
polyline { fill: none; stroke-width: 2; } .spread { fill: none; stroke-width: 1; }
.blue { stroke: #0969da; } .orange { stroke: #bc4c00; } .green { stroke: #1a7f37; }
circle.blue { fill: #0969da; } circle.orange { fill: #bc4c00; } circle.green { fill: #1a7f37; }
.second { stroke-dasharray: 5 4; } circle.second { fill: none; stroke-dasharray: none; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .note { fill: #9198a1; } .paper { fill: #0d1117; }
.grid { stroke: #30363d; } .axis { stroke: #9198a1; }
}
";

/// Width and height of a panel.
pub const PANEL: (f64, f64) = (360.0, 190.0);
/// The distances of panels.
pub const GAP: (f64, f64) = (70.0, 70.0);
/// The left edge of the first panel.
pub const LEFT: f64 = 50.0;
/// The top of the first panel.
pub const TOP: f64 = 70.0;
const COLUMNS: usize = 2;
/// The baseline of the legend.
const LEGEND: f64 = 42.0;

/// An axis from one value to another.
#[derive(Clone, Debug)]
pub struct Axis {
    /// The value at the beginning.
    pub least: f64,
    /// The value at the end.
    pub most: f64,
    /// Whether equal distances are equal factors.
    pub is_logarithmic: bool,
    /// The marks: values, and their texts.
    pub marks: Vec<(f64, String)>,
}

impl Axis {
    /// The place of a value, from 0 to 1. Values beyond the ends are at the ends.
    fn place(&self, value: f64) -> f64 {
        let scale = |value: f64| match self.is_logarithmic {
            true => value.ln(),
            false => value,
        };
        let [least, most, value] = [self.least, self.most, value].map(scale);
        ((value - least) / (most - least)).clamp(0.0, 1.0)
    }
}

/// A point of a curve, with the least and the greatest value of its rounds, if there are several.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// The value on the horizontal axis.
    pub x: f64,
    /// The value on the vertical axis.
    pub y: f64,
    /// The extremes on the vertical axis.
    pub spread: Option<(f64, f64)>,
}

/// A picture that is being drawn.
#[derive(Clone, Debug)]
pub struct Picture {
    text: String,
}

impl Picture {
    /// Begins a picture with this number of panels.
    #[must_use]
    pub fn new(title: &str, heading: &str, panels: usize) -> Self {
        let width = LEFT + COLUMNS as f64 * (PANEL.0 + GAP.0);
        let height = TOP + panels.div_ceil(COLUMNS) as f64 * (PANEL.1 + GAP.1);
        Self {
            text: format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
                 <title>{title}</title>\n<style>{STYLE}</style>\n\
                 <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n\
                 <text class=\"title\" x=\"{LEFT}\" y=\"24\">{heading}</text>\n"
            ),
        }
    }

    /// Writes the names of classes of lines.
    pub fn legend(&mut self, lines: &[(String, String)]) {
        let mut x = LEFT;
        for (class, name) in lines {
            let end = x + 30.0;
            let _ = writeln!(
                self.text,
                "<polyline class=\"{class}\" points=\"{x},{LEGEND} {end},{LEGEND}\"/>\
                 <text x=\"{}\" y=\"{}\">{name}</text>",
                end + 6.0,
                LEGEND + 4.0
            );
            x += 200.0;
        }
    }

    /// Draws a panel, and returns it for lines in it.
    pub fn panel(&mut self, number: usize, name: &str, x: Axis, y: Axis) -> Panel {
        let place = (
            LEFT + (number % COLUMNS) as f64 * (PANEL.0 + GAP.0),
            TOP + (number / COLUMNS) as f64 * (PANEL.1 + GAP.1),
        );
        let panel = Panel { place, x, y };
        let (left, top) = place;
        let (width, height) = PANEL;
        let _ = writeln!(
            self.text,
            "<text class=\"name\" x=\"{left}\" y=\"{}\">{name}</text>",
            top - 6.0,
        );
        for (value, mark) in &panel.y.marks {
            let (_, line) = panel.at(panel.x.least, *value);
            let _ = writeln!(
                self.text,
                "<path class=\"grid\" d=\"M{left} {line}h{width}\"/>\
                 <text class=\"note\" text-anchor=\"end\" x=\"{}\" y=\"{}\">{mark}</text>",
                left - 6.0,
                line + 4.0
            );
        }
        for (value, mark) in &panel.x.marks {
            let (at, _) = panel.at(*value, panel.y.least);
            let _ = writeln!(
                self.text,
                "<text class=\"note\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{}\">{mark}</text>",
                top + height + 16.0,
            );
        }
        let _ = writeln!(
            self.text,
            "<path class=\"axis\" d=\"M{left} {top}v{height}h{width}\"/>"
        );
        panel
    }

    /// Draws a curve in a panel.
    pub fn line(&mut self, panel: &Panel, class: &str, points: &[Point]) {
        let joined: Vec<String> = points
            .iter()
            .map(|point| {
                let (x, y) = panel.at(point.x, point.y);
                format!("{x:.1},{y:.1}")
            })
            .collect();
        let _ = writeln!(
            self.text,
            "<polyline class=\"{class}\" points=\"{}\"/>",
            joined.join(" ")
        );
        for point in points {
            let (x, y) = panel.at(point.x, point.y);
            if let Some((least, most)) = point.spread {
                let [(_, bottom), (_, top)] = [least, most].map(|y| panel.at(point.x, y));
                let _ = writeln!(
                    self.text,
                    "<path class=\"spread {class}\" d=\"M{x:.1} {bottom:.1}V{top:.1}\"/>"
                );
            }
            let _ = writeln!(
                self.text,
                "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"
            );
        }
    }

    /// Returns the complete picture.
    #[must_use]
    pub fn finish(self) -> String {
        self.text + "</svg>\n"
    }
}

/// A panel of a picture.
#[derive(Clone, Debug)]
pub struct Panel {
    place: (f64, f64),
    x: Axis,
    y: Axis,
}

impl Panel {
    /// The place of two values in the picture.
    #[must_use]
    pub fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let (left, top) = self.place;
        (
            left + PANEL.0 * self.x.place(x),
            top + PANEL.1 * (1.0 - self.y.place(y)),
        )
    }
}
