//! Packets per second without loss, by bisection as in RFC 2544, and the latency at half of that rate.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use teredo_lab::programs;
use teredo_lab_ebpf::latency;

use super::{
    cases::{Case, Variant},
    relay::Relay,
    report::Spread,
    throughput::Subject as _,
};

/// Steps of the bisection: the rate is found to within 1 % of the highest.
const STEPS: usize = 7;
/// Frames that the generator sends before it lets the network work. More would be bursts.
const BATCH: u32 = 4;
/// The share of the rate without loss at which latency is measured.
const LOAD: f64 = 0.5;
/// Packets of the trial at saturation.
const PROBE: f64 = 1_000_000.0;
/// A process is not offered more than this multiple of its rate at saturation.
const MOST: f64 = 1.2;

/// The results of one variant in one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LossReport {
    /// The workload.
    #[serde(flatten)]
    pub case: Case,
    /// The workload as a text.
    pub name: String,
    /// The variant.
    pub variant: Variant,
    /// Packets per second without loss.
    pub lossless: Spread,
    /// Latencies of every round, at half of that rate.
    pub latency: Vec<Latency>,
}

/// Times from generator to sink, in nanoseconds, to within a sixteenth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the packets took less.
    pub median: u32,
    /// 99 % of the packets took less.
    pub p99: u32,
    /// 99.9 % of the packets took less.
    pub p999: u32,
    /// All packets took less.
    pub most: u32,
}

impl Latency {
    /// Reads the histogram of a sink.
    #[must_use]
    pub fn of(histogram: &[u64]) -> Self {
        let all: u64 = histogram.iter().sum();
        let below = |share: f64| {
            let wanted = (all as f64 * share).ceil() as u64;
            let mut sum = 0;
            let bucket = histogram.iter().position(|count| {
                sum += count;
                sum >= wanted && sum > 0
            });
            // The upper bound of the bucket.
            bucket.map_or(0, |bucket| latency::least(bucket as u32 + 1))
        };
        Self {
            median: below(0.5),
            p99: below(0.99),
            p999: below(0.999),
            most: below(1.0),
        }
    }

    fn text(self) -> String {
        let figures = [self.median, self.p99, self.p999, self.most];
        let figures = figures.map(|nanoseconds| format!("{:.1}", f64::from(nanoseconds) / 1e3));
        figures.join(" / ")
    }
}

impl LossReport {
    /// The heading of the lines.
    #[must_use]
    pub fn heading() -> String {
        format!(
            "\n{:<34} {:<18} {:>24}  latency at half load, us: median / 99 % / 99.9 % / most",
            "without loss", "", "million packets/s"
        )
    }

    /// The latencies of the round in the middle.
    #[must_use]
    pub fn typical(&self) -> Latency {
        let mut rounds = self.latency.clone();
        rounds.sort_by_key(|latency| latency.median);
        rounds.get(rounds.len() / 2).copied().unwrap_or_default()
    }

    /// The line of the table.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "{:<34} {:<18} {:>24}  {}",
            self.name,
            self.variant.title(),
            self.lossless.text(1e6, 3),
            self.typical().text()
        )
    }
}

/// Measures each relay in a case, in this number of rounds of trials of `time`.
///
/// # Errors
///
/// Fails when a relay does not work.
pub fn measure(
    relays: &mut [Relay],
    case: Case,
    time: Duration,
    rounds: usize,
) -> Result<Vec<LossReport>> {
    let mut results = vec![(Vec::new(), Vec::new()); relays.len()];
    for _ in 0..rounds {
        for (relay, (rates, latencies)) in relays.iter_mut().zip(&mut results) {
            let title = relay.variant.title();
            let mut trials = Trials::new(relay, case, time);
            let rate = trials
                .lossless()
                .with_context(|| format!("{title}: {case}"))?;
            rates.push(rate);
            latencies.push(trials.latency(rate * LOAD)?);
        }
    }
    let reports = relays.iter().zip(results).filter_map(|(relay, result)| {
        let (rates, latency) = result;
        Some(LossReport {
            case,
            name: case.to_string(),
            variant: relay.variant,
            lossless: Spread::of(rates)?,
            latency,
        })
    });
    Ok(reports.collect())
}

/// Trials with one relay in one case.
struct Trials<'a> {
    relay: &'a mut Relay,
    case: Case,
    time: Duration,
}

/// The outcome of a trial.
struct Trial {
    /// Packets per second that were offered.
    offered: f64,
    /// Packets that were sent, and that arrived.
    sent: u64,
    arrived: u64,
}

impl<'a> Trials<'a> {
    fn new(relay: &'a mut Relay, case: Case, time: Duration) -> Self {
        Self { relay, case, time }
    }

    /// Returns the highest rate at which every packet arrives.
    fn lossless(&mut self) -> Result<f64> {
        let saturated = self.run(None)?;
        if saturated.arrived == saturated.sent {
            // Inline with the generator, which waits.
            return Ok(saturated.offered);
        }
        let share = saturated.arrived as f64 / saturated.sent as f64;
        let most = saturated.offered * share * MOST;
        let (mut good, mut bad) = (0.0, most);
        for _ in 0..STEPS {
            let rate = (good + bad) / 2.0;
            let trial = self.run(Some(rate))?;
            match trial.arrived == trial.sent {
                // As offered, which may be less than was wanted.
                true => good = trial.offered.min(rate).max(good),
                false => bad = rate,
            }
        }
        Ok(good)
    }

    /// Returns the latencies at this rate.
    fn latency(&mut self, rate: f64) -> Result<Latency> {
        if rate <= 0.0 {
            return Ok(Latency::default());
        }
        self.relay.sink.read_stamps(true)?;
        self.run(Some(rate))?;
        let histogram = self.relay.sink.latencies()?;
        self.relay.sink.read_stamps(false)?;
        Ok(Latency::of(&histogram))
    }

    /// Offers packets at this rate, or as fast as the generator can.
    fn run(&mut self, rate: Option<f64>) -> Result<Trial> {
        self.relay.get_ready(self.case)?;
        let mut generator = self.relay.stamped(self.case)?;
        let relay = &mut *self.relay;
        relay.sink.settle()?;
        relay.sink.reset()?;
        let wanted = rate.map_or(PROBE, |rate| rate * self.time.as_secs_f64());
        let count = wanted.max(1.0) as u32;
        let run = match rate {
            Some(rate) => {
                let interval = Duration::from_nanos((1e9 / rate) as u64);
                generator.send_paced(&relay.site.far, count, interval, BATCH)
            }
            None => generator.send(&relay.site.far, count, programs::BATCH),
        }?;
        let arrived = relay.sink.settle()?.packets;
        Ok(Trial {
            offered: rate.unwrap_or(f64::from(count) / run.elapsed.as_secs_f64()),
            sent: count.into(),
            arrived,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_upper_bounds() {
        let mut histogram = vec![0; latency::BUCKETS as usize];
        histogram[latency::bucket(1000) as usize] = 990;
        histogram[latency::bucket(50_000) as usize] = 10;
        let latency = Latency::of(&histogram);
        assert!((1000..1100).contains(&latency.median));
        assert_eq!(latency.p99, latency.median);
        assert!((50_000..54_000).contains(&latency.p999));
        assert_eq!(latency.most, latency.p999);
        assert_eq!(Latency::of(&[0; 512]), Latency::default());
    }
}
