//! The curves of a report as pictures.

use super::{CaseReport, Report};
use crate::{
    cases::{Case, Direction, Part, Place, Variant},
    svg::{Axis, Picture, Point},
};

/// Returns the pictures, by the names of their files, as far as there are curves.
#[must_use]
pub fn curves(report: &Report) -> Vec<(&'static str, String)> {
    let pictures = [
        ("peers.svg", peers(report)),
        ("hosts.svg", hosts(report)),
        ("sizes.svg", sizes(report)),
    ];
    let pictures = pictures.into_iter();
    pictures
        .filter_map(|(name, picture)| Some((name, picture?)))
        .collect()
}

/// The reports of a part that has at least two points.
fn of(report: &Report, part: Part) -> Option<Vec<&CaseReport<Case>>> {
    let cases = report.cases.iter();
    let cases: Vec<_> = cases.filter(|case| case.part == part.word()).collect();
    (cases.len() > 1).then_some(cases)
}

/// The ratios of our XDP program to the bare redirect in some cases, over what differs between them.
fn points(cases: &[&CaseReport<Case>], x: impl Fn(&Case) -> f64) -> Vec<Point> {
    let points = cases.iter().filter_map(|report| {
        let spread = report.result(Variant::Xdp)?.of_bare?;
        Some(Point {
            x: x(&report.case),
            y: spread.median,
            spread: Some((spread.minimum, spread.maximum)),
        })
    });
    points.collect()
}

fn peers(report: &Report) -> Option<String> {
    let cases = of(report, Part::Peers)?;
    let mut picture = Picture::new(
        "Packet rate over the number of peers",
        "Packet rate in XDP, of that of the bare redirect, by the number of peers in rotation",
        Direction::ALL.len(),
    );
    for (number, direction) in Direction::ALL.into_iter().enumerate() {
        let name = match direction {
            Direction::Decap => "from clients (decap)",
            _ => "to clients (encap)",
        };
        let panel = picture.panel(number, name, decades(6), ratio());
        let cases = cases.iter().copied();
        let cases: Vec<_> = cases
            .filter(|case| case.case.direction == direction)
            .collect();
        let points = points(&cases, |case| f64::from(case.clients));
        picture.line(&panel, "blue", &points);
    }
    Some(picture.finish())
}

fn hosts(report: &Report) -> Option<String> {
    let mut cases = of(report, Part::Hosts)?;
    cases.extend(of(report, Part::Routes).unwrap_or_default());
    let mut picture = Picture::new(
        "Packet rate over the number of native hosts",
        "Packet rate in XDP, of that of the bare redirect, by the number of native hosts in rotation",
        1,
    );
    let lines = [
        (Place::Behind, "blue", "behind a gateway"),
        (Place::OnLink, "orange", "on the link"),
        (
            Place::Scattered,
            "green",
            "behind a gateway, each with a route",
        ),
    ];
    let legend = lines.map(|(_, class, name)| (class.to_owned(), name.to_owned()));
    picture.legend(&legend);
    let panel = picture.panel(0, "from one client (decap)", decades(5), ratio());
    for (place, class, _) in lines {
        let cases = cases.iter().copied();
        let cases = cases.filter(|case| case.case.hosts.place == place);
        // One host with many routes is not the one of the curve.
        let cases =
            cases.filter(|case| case.part == Part::Hosts.word() || place == Place::Scattered);
        let points = points(&cases.collect::<Vec<_>>(), |case| {
            f64::from(case.hosts.count)
        });
        picture.line(&panel, class, &points);
    }
    Some(picture.finish())
}

fn sizes(report: &Report) -> Option<String> {
    let cases = of(report, Part::Sizes)?;
    let mut picture = Picture::new(
        "Packet rate over the size of packets",
        "Packet rate in XDP, of that of the bare redirect, by octets of the inner packet",
        Direction::ALL.len(),
    );
    for (number, direction) in Direction::ALL.into_iter().enumerate() {
        let octets = Axis {
            least: 0.0,
            most: 1280.0,
            is_logarithmic: false,
            marks: [0, 256, 512, 1024, 1280]
                .map(|mark| (f64::from(mark), mark.to_string()))
                .to_vec(),
        };
        let panel = picture.panel(number, direction.word(), octets, ratio());
        let cases = cases.iter().copied();
        let cases: Vec<_> = cases
            .filter(|case| case.case.direction == direction)
            .collect();
        picture.line(&panel, "blue", &points(&cases, |case| f64::from(case.size)));
    }
    Some(picture.finish())
}

/// An axis from 1 to this power of ten.
fn decades(most: i32) -> Axis {
    let marks = (0..=most).map(|power| {
        let text = match power {
            0..3 => 10_i32.pow(power as u32).to_string(),
            3..6 => format!("{}k", 10_i32.pow(power as u32 - 3)),
            _ => format!("{}M", 10_i32.pow(power as u32 - 6)),
        };
        (10_f64.powi(power), text)
    });
    Axis {
        least: 1.0,
        most: 10_f64.powi(most),
        is_logarithmic: true,
        marks: marks.collect(),
    }
}

/// An axis from 0 to 1.
fn ratio() -> Axis {
    let marks = [0.0, 0.25, 0.5, 0.75, 1.0].map(|mark: f64| (mark, mark.to_string()));
    Axis {
        least: 0.0,
        most: 1.0,
        is_logarithmic: false,
        marks: marks.to_vec(),
    }
}
