//! The results of one case.

use serde::{Deserialize, Serialize};

use super::Spread;
use crate::{
    cases::{Part, Variant, Workload},
    throughput::Sample,
};

/// The samples of one variant in one case, one for each round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Series {
    /// The variant.
    pub variant: Variant,
    /// The samples in the order of the rounds.
    pub samples: Vec<Sample>,
}

/// The measurements of one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CaseReport<W> {
    /// The part of the run.
    pub part: String,
    /// The workload as a text, by which two reports are compared.
    pub name: String,
    /// The workload.
    #[serde(flatten)]
    pub case: W,
    /// A series for each variant.
    pub series: Vec<Series>,
    /// The results derived from the series.
    pub results: Vec<CaseResult>,
}

/// The results of one variant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CaseResult {
    /// The variant.
    pub variant: Variant,
    /// Packets per second.
    pub rate: Spread,
    /// Rate divided by that of [`Variant::Bare`] in the same round; only of rounds in which both
    /// were saturated.
    pub of_bare: Option<Spread>,
    /// Rate divided by Miredo's in the same round; only of rounds in which both were saturated.
    pub of_miredo: Option<Spread>,
    /// CPU nanoseconds per packet: for processes, their own; for inline variants, the cost beyond
    /// that of [`Variant::None`] in the same round.
    pub cpu_nanoseconds: Option<Spread>,
    /// CPU time per packet divided by Miredo's in the same round.
    pub cpu_of_miredo: Option<Spread>,
}

impl<W: Workload> CaseReport<W> {
    /// Computes the results of these series.
    #[must_use]
    pub fn new(part: Part, case: W, series: Vec<Series>) -> Self {
        let results = series
            .iter()
            .filter_map(|variant| result::<W>(variant, &series))
            .collect();
        Self {
            part: part.word().to_owned(),
            name: case.to_string(),
            case,
            series,
            results,
        }
    }

    /// The results of a variant, if it was measured.
    #[must_use]
    pub fn result(&self, variant: Variant) -> Option<&CaseResult> {
        self.results.iter().find(|result| result.variant == variant)
    }

    /// The lines of the table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "\n{}\n  {:<18} {:>24} {:>17} {:>21} {:>17} {:>17}\n",
            self.case,
            "",
            W::RATE,
            W::OF_BARE,
            "times Miredo",
            W::COST,
            "of Miredo's"
        );
        for result in &self.results {
            let ratio = |spread: Option<Spread>| {
                spread.map_or_else(String::new, |spread| spread.text(1.0, 2))
            };
            let cpu = result
                .cpu_nanoseconds
                .map_or_else(String::new, |spread| spread.text(1.0, 0));
            text += &format!(
                "  {:<18} {:>24} {:>17} {:>21} {:>17} {:>17}\n",
                W::title(result.variant),
                result.rate.text(1e6, 3),
                ratio(result.of_bare),
                ratio(result.of_miredo),
                cpu,
                ratio(result.cpu_of_miredo)
            );
        }
        for series in &self.series {
            let idle = series
                .samples
                .iter()
                .filter(|sample| !sample.is_saturated());
            match idle.count() {
                _ if !W::SATURATES => {}
                0 => {}
                idle => {
                    text += &format!(
                        "  {}: not saturated in {idle} of {} rounds, so faster than it looks: \
                         the machine is busy\n",
                        W::title(series.variant),
                        series.samples.len()
                    );
                }
            }
            let fast = Spread::of(series.samples.iter().filter_map(|sample| sample.fast_share));
            if let Some(fast) = fast {
                text += &format!(
                    "  {}: {:.2} % of the packets in XDP\n",
                    W::title(series.variant),
                    100.0 * fast.minimum
                );
            }
        }
        text
    }
}

fn result<W: Workload>(series: &Series, all: &[Series]) -> Option<CaseResult> {
    let samples = |variant: Variant| {
        let found = all.iter().find(|series| series.variant == variant);
        found.map(|series| series.samples.as_slice())
    };
    let ratio = |variant: Variant, figure: &dyn Fn(usize, &Sample, Variant) -> Option<f64>| {
        let others = samples(variant)?;
        let rounds = series.samples.iter().zip(others).enumerate();
        Spread::of(rounds.filter_map(|(round, (sample, other))| {
            Some(figure(round, sample, series.variant)? / figure(round, other, variant)?)
        }))
    };
    // The cost of generator and sink in this round is not the variant's.
    let cpu = |round: usize, sample: &Sample, variant: Variant| match variant {
        Variant::None | Variant::Device => None,
        _ => {
            let inline = match sample.inline_nanoseconds {
                Some(inline) => {
                    let none = samples(Variant::None)?.get(round)?;
                    (inline - none.inline_nanoseconds?).max(0.0)
                }
                None => 0.0,
            };
            Some(inline + sample.process_nanoseconds)
        }
    };
    let rate = |_, sample: &Sample, _| {
        let counts = sample.is_saturated() || !W::SATURATES;
        counts.then_some(sample.rate)
    };
    let rounds = series.samples.iter().enumerate();
    Some(CaseResult {
        variant: series.variant,
        rate: Spread::of(series.samples.iter().map(|sample| sample.rate))?,
        of_bare: ratio(Variant::Bare, &rate),
        of_miredo: ratio(Variant::Miredo, &rate),
        cpu_nanoseconds: Spread::of(
            rounds.filter_map(|(round, sample)| cpu(round, sample, series.variant)),
        ),
        cpu_of_miredo: ratio(Variant::Miredo, &cpu),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cases::{Case, Direction},
        report::limits::Limits,
    };

    fn sample(rate: f64, process_nanoseconds: f64, inline: bool) -> Sample {
        Sample {
            offered: 1,
            delivered: 1,
            rate,
            share: 1.0,
            busy: 1.0,
            inline_nanoseconds: inline.then_some(1e9 / rate),
            process_nanoseconds,
            fast_share: None,
        }
    }

    fn series(variant: Variant, rates: [f64; 2], process_nanoseconds: f64) -> Series {
        let inline = variant.is_inline();
        Series {
            variant,
            samples: rates
                .map(|rate| sample(rate, process_nanoseconds, inline))
                .to_vec(),
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let case = Case::demanding(Direction::Encap);
        let report = CaseReport::new(
            Part::Throughput,
            case,
            vec![
                // The second round ran at half the speed.
                series(Variant::None, [10e6, 5e6], 0.0),
                series(Variant::Bare, [5e6, 2.5e6], 0.0),
                series(Variant::Xdp, [4e6, 2e6], 10.0),
                series(Variant::Miredo, [250e3, 125e3], 4000.0),
            ],
        );
        let xdp = report.result(Variant::Xdp).unwrap();
        let of_bare = xdp.of_bare.unwrap();
        assert_eq!((of_bare.minimum, of_bare.maximum), (0.8, 0.8));
        assert_eq!(xdp.of_miredo.unwrap().median, 16.0);
        // 250 - 100 and 500 - 200 inline, 10 in the process.
        let cpu = xdp.cpu_nanoseconds.unwrap();
        assert_eq!((cpu.minimum, cpu.maximum), (160.0, 310.0));
        let limits = Limits::RELAY.hold_against(&report);
        let met = limits.iter().map(|limit| limit.met).collect::<Vec<_>>();
        assert_eq!(met, [Some(true); 3]);
    }

    #[test]
    fn a_round_without_saturation_gives_no_ratio() {
        let mut miredo = series(Variant::Miredo, [250e3, 125e3], 4000.0);
        miredo.samples[1].busy = 0.5;
        let xdp = series(Variant::Xdp, [2e6, 2e6], 0.0);
        let case = Case::demanding(Direction::Decap);
        let report = CaseReport::new(Part::Throughput, case, vec![xdp.clone(), miredo.clone()]);
        let of_miredo = report.result(Variant::Xdp).unwrap().of_miredo.unwrap();
        assert_eq!((of_miredo.minimum, of_miredo.maximum), (8.0, 8.0));
        miredo.samples[0].busy = 0.5;
        let report = CaseReport::new(Part::Throughput, case, vec![xdp, miredo]);
        assert_eq!(report.result(Variant::Xdp).unwrap().of_miredo, None);
    }
}
