//! One graph of the last hour: areas upon each other, as SVG with its numbers as text.

use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};

use super::numbers::{duration, short};

/// The size of the picture in units of its own; the style stretches it.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 120.0;
/// The time between two rows of the numbers as text.
const ROW: f64 = 300.0;

/// A moment: its age, the length of its interval, and the values of all series.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Seconds since the end of the interval.
    pub age: f64,
    /// Seconds that the interval took.
    pub length: f64,
    /// The value of each series.
    pub values: Vec<f64>,
}

/// A graph.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Identifies it on the page.
    pub id: &'static str,
    /// What it shows.
    pub title: String,
    /// The unit of all values.
    pub unit: &'static str,
    /// The series' names, from the bottom to the top.
    pub series: Vec<String>,
    /// The moments, oldest first.
    pub moments: Vec<Moment>,
    /// The time that the picture covers, in seconds.
    pub span: f64,
}

impl Picture {
    /// Renders the picture, its legend and its numbers.
    pub fn render(&self) -> Markup {
        let id = self.id;
        // Room above, so that the highest value is seen to be one.
        let top = scale(self.highest().map_or(0.0, |(value, _)| value * 1.05));
        html! {
            figure .graph #{ "graph-" (id) } {
                figcaption { h3 { (self.title) } span .unit { (self.unit) } }
                div .plot {
                    div .axis aria-hidden="true" {
                        span { (round(top)) } span { (round(top / 2.0)) } span { "0" }
                    }
                    svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none"
                        role="img" aria-labelledby={ (id) "-name " (id) "-text" } {
                        title #{ (id) "-name" } { (self.title) ", " (self.unit) ", the last hour" }
                        desc #{ (id) "-text" } { (self.summary()) }
                        (self.grid())
                        @for index in (0..self.series.len()).rev() {
                            path .{ "area series-" (index) } d=(self.area(index, top)) {}
                        }
                    }
                    div .hours aria-hidden="true" {
                        span { "1 h ago" } span { "30 min ago" } span { "now" }
                    }
                }
                (self.legend())
                (self.table())
            }
        }
    }

    fn grid(&self) -> Markup {
        let mut lines = String::new();
        for part in 1..4 {
            let x = WIDTH * f64::from(part) / 4.0;
            let _ = write!(lines, "M{x} 0V{HEIGHT}");
        }
        let _ = write!(lines, "M0 {}H{WIDTH}", HEIGHT / 2.0);
        html! { path .grid d=(lines) {} }
    }

    fn legend(&self) -> Markup {
        let last = self.moments.last();
        html! {
            ul .legend {
                @for (index, name) in self.series.iter().enumerate() {
                    li {
                        // A picture, since a style within the page is forbidden.
                        svg viewBox="0 0 10 10" aria-hidden="true" {
                            rect .{ "series-" (index) } width="10" height="10" rx="2" {}
                        }
                        (name)
                        @if let Some(last) = last { " " strong { (short(last.values[index])) } }
                    }
                }
            }
        }
    }

    /// Renders the averages of every five minutes.
    fn table(&self) -> Markup {
        let rows = self.rows();
        html! {
            details {
                summary { "Numbers" span .hidden { " of “" (self.title) "”" } }
                @if rows.is_empty() {
                    p .nothing { "None yet." }
                } @else {
                    table {
                        thead { tr {
                            th scope="col" { "Minutes ago" }
                            @for name in &self.series { th .number scope="col" { (name) } }
                        } }
                        tbody {
                            @for (minutes, values) in rows {
                                tr {
                                    th scope="row" { (minutes) }
                                    @for value in values { td .number { (short(value)) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn rows(&self) -> Vec<(String, Vec<f64>)> {
        let mut rows = Vec::new();
        let mut from = 0.0;
        while from < self.span {
            let to = from + ROW;
            let within: Vec<_> = self
                .moments
                .iter()
                .filter(|moment| (from..to).contains(&moment.age))
                .collect();
            if !within.is_empty() {
                let mean = |index: usize| {
                    let sum: f64 = within.iter().map(|moment| moment.values[index]).sum();
                    sum / within.len() as f64
                };
                let values = (0..self.series.len()).map(mean).collect();
                rows.push((format!("{} to {}", from / 60.0, to / 60.0), values));
            }
            from = to;
        }
        rows
    }

    /// Returns the highest sum of all series, and its age.
    fn highest(&self) -> Option<(f64, f64)> {
        let sums = self
            .moments
            .iter()
            .map(|moment| (moment.values.iter().sum::<f64>(), moment.age));
        sums.max_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// Says in words what the picture shows.
    fn summary(&self) -> String {
        let (Some((highest, age)), Some(last)) = (self.highest(), self.moments.last()) else {
            return "Nothing has been recorded yet.".to_owned();
        };
        let now: f64 = last.values.iter().sum();
        let parts: Vec<_> = self
            .series
            .iter()
            .zip(&last.values)
            .map(|(name, value)| format!("{name} {}", short(*value)))
            .collect();
        format!(
            "Now {}: {}. The highest was {}, {} ago.",
            short(now),
            parts.join(", "),
            short(highest),
            duration(age)
        )
    }

    /// Returns the outline of a series together with those below it.
    fn area(&self, index: usize, top: f64) -> PreEscaped<String> {
        let mut path = String::new();
        let mut run: Vec<(f64, f64)> = Vec::new();
        let mut before: Option<&Moment> = None;
        for moment in &self.moments {
            let sum: f64 = moment.values[..=index].iter().sum();
            let y = HEIGHT - HEIGHT * sum / top;
            let is_apart =
                before.is_some_and(|before| before.age - moment.age > moment.length * 1.5);
            if is_apart {
                close(&mut path, &run);
                run.clear();
            }
            if run.is_empty() {
                run.push((self.x(moment.age + moment.length), y));
            }
            run.push((self.x(moment.age), y));
            before = Some(moment);
        }
        close(&mut path, &run);
        PreEscaped(path)
    }

    fn x(&self, age: f64) -> f64 {
        (WIDTH - WIDTH * age / self.span).max(0.0)
    }
}

/// Adds an area between the bottom and the points.
fn close(path: &mut String, points: &[(f64, f64)]) {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return;
    };
    // Writing to a String cannot fail.
    let _ = write!(path, "M{:.0} {HEIGHT}", first.0);
    for (x, y) in points {
        let _ = write!(path, "L{x:.0} {y:.1}");
    }
    let _ = write!(path, "L{:.0} {HEIGHT}Z", last.0);
}

/// Returns a round number that is not less than the highest value: 1, 2 or 5 times a power of ten.
fn scale(highest: f64) -> f64 {
    let mut power = 1.0;
    while power * 10.0 < highest {
        power *= 10.0;
    }
    let steps = [1.0, 2.0, 5.0].map(|step| step * power);
    steps
        .into_iter()
        .find(|step| *step >= highest)
        .unwrap_or(power * 10.0)
}

/// Shows a number of the scale, without digits that say nothing.
fn round(number: f64) -> String {
    let text = short(number);
    match text.split_once('.') {
        Some((whole, rest)) => {
            let end = rest.find('\u{a0}').unwrap_or(rest.len());
            let (decimals, unit) = rest.split_at(end);
            match decimals.trim_end_matches('0') {
                "" => format!("{whole}{unit}"),
                decimals => format!("{whole}.{decimals}{unit}"),
            }
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(moments: Vec<Moment>) -> Picture {
        Picture {
            id: "test",
            title: "A <test>".to_owned(),
            unit: "packets/s",
            series: vec!["fast".to_owned(), "slow".to_owned()],
            moments,
            span: 3_600.0,
        }
    }

    fn moment(age: f64, values: [f64; 2]) -> Moment {
        Moment {
            age,
            length: 10.0,
            values: values.to_vec(),
        }
    }

    #[test]
    fn scales_are_round() {
        for (highest, top) in [
            (0.0, 1.0),
            (1.0, 1.0),
            (3.0, 5.0),
            (5.1, 10.0),
            (1_001.0, 2_000.0),
        ] {
            assert_eq!(scale(highest), top);
        }
        for (number, text) in [
            (10_000.0, "10 k"),
            (2_500.0, "2.5 k"),
            (0.5, "0.5"),
            (100.0, "100"),
        ] {
            assert_eq!(round(number), text.replace(' ', "\u{a0}"));
        }
    }

    #[test]
    fn areas_lie_upon_each_other() {
        let picture = picture(vec![
            moment(1_800.0, [50.0, 50.0]),
            moment(1_790.0, [0.0, 25.0]),
        ]);
        assert_eq!(
            &*picture.area(0, 100.0).0,
            "M358 120L358 60.0L360 60.0L362 120.0L362 120Z"
        );
        assert_eq!(
            &*picture.area(1, 100.0).0,
            "M358 120L358 0.0L360 0.0L362 90.0L362 120Z"
        );
    }

    #[test]
    fn a_pause_leaves_a_gap() {
        let picture = picture(vec![moment(1_800.0, [1.0, 0.0]), moment(900.0, [1.0, 0.0])]);
        assert_eq!(picture.area(0, 1.0).0.matches('M').count(), 2);
    }

    #[test]
    fn the_picture_is_told_in_words_and_numbers() {
        let moments = vec![moment(600.0, [2_000.0, 500.0]), moment(0.0, [100.0, 20.0])];
        let text = picture(moments).render().into_string();
        assert!(
            text.contains(
                "Now 120: fast 100, slow 20. The highest was 2.50\u{a0}k, 10 min 0 s ago."
            ),
            "{text}"
        );
        assert!(
            text.contains("A &lt;test&gt;") && !text.contains("<test>"),
            "{text}"
        );
        assert!(
            text.contains("<th scope=\"row\">10 to 15</th><td class=\"number\">2.00\u{a0}k</td>"),
            "{text}"
        );
        let nothing = picture(Vec::new()).render().into_string();
        assert!(
            nothing.contains("Nothing has been recorded yet."),
            "{nothing}"
        );
    }
}
