//! The expected duration of a run.

use std::{collections::BTreeSet, time::Duration};

use super::{
    cases::{Part, Place, Selection, Variant},
    run::Extent,
};

/// Time that a measurement takes beside its own: the sink has to become quiet before and after it.
const AROUND: Duration = Duration::from_millis(150);
/// Time in which a relay or server starts.
const START: Duration = Duration::from_millis(800);
/// Time in which a case is prepared and proved.
const PREPARE: Duration = Duration::from_millis(350);
/// Time in which a client becomes known to a relay.
const CLIENT: Duration = Duration::from_micros(35);
/// Time of a neighbour and of a route.
const ROUTE: Duration = Duration::from_micros(12);
/// Trials of a bisection.
const TRIALS: u32 = 11;

/// A sentence about the expected duration.
#[must_use]
pub fn announcement(selection: &Selection, extent: Extent) -> String {
    let parts: Vec<Part> = Part::ALL
        .into_iter()
        .map(|(part, _)| part)
        .filter(|part| selection.part(*part))
        .collect();
    let all: Duration = parts
        .iter()
        .map(|part| of_part(*part, selection, extent))
        .sum();
    let words: Vec<&str> = parts.iter().map(|part| part.word()).collect();
    let seconds = all.as_secs_f64();
    let about = match seconds {
        ..=100.0 => format!("{seconds:.0} seconds"),
        _ => format!("{:.0} minutes", seconds / 60.0),
    };
    format!(
        "{} rounds of {} s: about {about} for {}",
        extent.rounds,
        extent.time.as_secs_f64(),
        words.join(", ")
    )
}

/// The expected duration of a part.
#[must_use]
pub fn of_part(part: Part, selection: &Selection, extent: Extent) -> Duration {
    let rounds = extent.rounds as u32;
    let measurements = |cases: u32, variants: u32| {
        let each = (extent.time + AROUND) * rounds + PREPARE;
        each * cases * variants + START * variants
    };
    let directions = selection.directions().count() as u32;
    match part {
        Part::TestRun => START + Duration::from_millis(150) * rounds * 2 * directions,
        Part::Churn => START + Duration::from_millis(1_300) * rounds * 12,
        Part::Solicitations => {
            let cases = if selection.is_first_impression() {
                1
            } else {
                2
            };
            measurements(cases, selection.servers().count() as u32)
        }
        Part::Client => {
            let variants = selection.client_variants().count() as u32;
            // Clients qualify first.
            measurements(2 * directions, variants) + Duration::from_secs(6) * variants
        }
        Part::Memory => START * 3 + CLIENT * 100_000 * 6,
        part => {
            let relays = selection.relays(part);
            let cases = selection.cases(part);
            let count = cases.len() as u32;
            let variants = relays.len() as u32;
            let sum_of = |numbers: &mut dyn Iterator<Item = u32>| {
                numbers.collect::<BTreeSet<u32>>().into_iter().sum::<u32>()
            };
            // The first clients of many are those of fewer.
            let clients = cases.iter().map(|case| case.clients).max().unwrap_or(0);
            let on_link = cases
                .iter()
                .filter(|case| case.hosts.place == Place::OnLink);
            let neighbours = sum_of(&mut on_link.map(|case| case.hosts.count));
            let processes = relays.iter().filter(|variant| {
                matches!(
                    variant,
                    Variant::Xdp
                        | Variant::Uncounted
                        | Variant::Userspace
                        | Variant::Threads
                        | Variant::Miredo
                )
            });
            let filling = CLIENT * clients * processes.count() as u32;
            let routes = match part {
                Part::Routes => ROUTE * 200_000 * variants,
                _ => ROUTE * neighbours * variants,
            };
            let measured = match part {
                Part::Loss => {
                    let trial = extent.time + AROUND * 2;
                    trial * TRIALS * rounds.min(3) * count * variants + START * variants
                }
                _ => measurements(count, variants),
            };
            measured + filling + routes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_impression_takes_about_a_minute() {
        let mut quick = Selection::default();
        quick.is_quick = true;
        let extent = Extent {
            time: Duration::from_millis(200),
            rounds: 3,
        };
        let parts = Part::ALL.into_iter().map(|(part, _)| part);
        let parts = parts.filter(|part| quick.part(*part));
        let all: Duration = parts.map(|part| of_part(part, &quick, extent)).sum();
        assert!((30..90).contains(&all.as_secs()), "{all:?}");
    }
}
