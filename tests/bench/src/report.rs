//! The results: as a table, as JSON, and compared with the limits.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use aya::programs::{ProgramType, loaded_programs};
use nix::sys::utsname::uname;
use serde::Serialize;
use teredo_lab::cpu;

use super::{
    cases::{CLIENTS, Case, Direction, Solicitations, Stream, Tunnel, Variant, Workload},
    churn,
    memory::Memory,
    test_run::Cost,
    throughput::Sample,
};

/// The limit of resident memory and that of maps, in octets.
const MEMORY_LIMIT: u64 = 64 << 20;

/// The median and the extremes of some figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median: the middle figure, or the mean of the two in the middle.
    pub median: f64,
    /// The smallest figure.
    pub minimum: f64,
    /// The largest figure.
    pub maximum: f64,
}

impl Spread {
    /// Computes the spread of these figures, if there are any.
    #[must_use]
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures = figures.into_iter().collect::<Vec<_>>();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        Some(Self {
            median: match figures.len() % 2 {
                0 => (figures.get(middle.checked_sub(1)?)? + figures[middle]) / 2.0,
                _ => figures[middle],
            },
            minimum: *figures.first()?,
            maximum: *figures.last()?,
        })
    }

    /// Formats the spread with this number of decimals, each figure divided by `unit`.
    fn text(self, unit: f64, decimals: usize) -> String {
        let [median, minimum, maximum] =
            [self.median, self.minimum, self.maximum].map(|figure| figure / unit);
        format!("{median:.decimals$} ({minimum:.decimals$}-{maximum:.decimals$})")
    }
}

/// The samples of one variant in one case, one for each round.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// The variant.
    pub variant: Variant,
    /// The samples in the order of the rounds.
    pub samples: Vec<Sample>,
}

/// The measurements of one case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport<W> {
    /// The workload.
    #[serde(flatten)]
    pub case: W,
    /// A series for each variant.
    pub series: Vec<Series>,
    /// The results derived from the series.
    pub results: Vec<CaseResult>,
}

/// The results of one variant.
#[derive(Clone, Debug, Serialize)]
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
    pub fn new(case: W, series: Vec<Series>) -> Self {
        let results = series
            .iter()
            .filter_map(|variant| result::<W>(variant, &series))
            .collect();
        Self {
            case,
            series,
            results,
        }
    }

    fn result(&self, variant: Variant) -> Option<&CaseResult> {
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
        Variant::None => None,
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

/// The rounds of the XDP program alone.
#[derive(Clone, Debug, Serialize)]
pub struct TestRunReport {
    /// The direction of the packets.
    pub direction: Direction,
    /// Number of clients that took turns.
    pub clients: u32,
    /// Nanoseconds per packet.
    pub nanoseconds: Spread,
}

impl TestRunReport {
    /// Summarises rounds of the same direction and number of clients.
    #[must_use]
    pub fn of(costs: &[Cost]) -> Option<Self> {
        let first = costs.first()?;
        Some(Self {
            direction: first.direction,
            clients: first.clients,
            nanoseconds: Spread::of(costs.iter().map(|cost| cost.nanoseconds))?,
        })
    }

    /// The line of the table.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "XDP program alone, {}, {} clients: {} ns/packet",
            self.direction.word(),
            self.clients,
            self.nanoseconds.text(1.0, 0)
        )
    }
}

/// One of the acceptance limits.
#[derive(Clone, Debug, Serialize)]
pub struct Criterion {
    /// The limited figure's name.
    pub what: String,
    /// The measured figure; `None` if no round was suitable.
    pub figure: Option<f64>,
    /// The limit.
    pub limit: f64,
    /// Whether the figure is within it.
    pub met: Option<bool>,
}

impl Criterion {
    fn at_least(what: String, figure: Option<f64>, limit: f64) -> Self {
        Self {
            what,
            figure,
            limit,
            met: figure.map(|figure| figure >= limit),
        }
    }

    fn at_most(what: String, figure: Option<f64>, limit: f64) -> Self {
        Self {
            what,
            figure,
            limit,
            met: figure.map(|figure| figure <= limit),
        }
    }

    fn line(&self) -> String {
        let verdict = match self.met {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "unknown",
        };
        let figure = self
            .figure
            .map_or_else(String::new, |figure| format!("{figure:.2}"));
        format!(
            "{verdict:<8} {:<70} {figure:>7} (limit {})\n",
            self.what, self.limit
        )
    }
}

/// The machine and its state.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the processor.
    pub processor: String,
    /// Number of cores.
    pub cores: usize,
    /// Load average of the minute before the start.
    pub load_before: f64,
    /// Load average of the last minute.
    pub load_after: f64,
    /// XDP programs of others, on all interfaces of the machine. Those beyond [`DISPATCHED`] slow down
    /// every one.
    pub xdp_programs: usize,
}

/// XDP programs that the kernel calls directly; it calls all others by a pointer, which takes longer. The
/// benchmark itself has up to a dozen.
const DISPATCHED: usize = 48;

impl Machine {
    /// Examines this machine now.
    ///
    /// # Errors
    ///
    /// Fails when the kernel reports an error.
    pub fn this() -> Result<Self> {
        let processors = fs::read_to_string("/proc/cpuinfo")?;
        let models = || {
            let lines = processors.lines();
            lines.filter_map(|line| line.strip_prefix("model name")?.split_once(": "))
        };
        let load = cpu::load()?;
        Ok(Self {
            kernel: uname()?.release().to_string_lossy().into_owned(),
            processor: models()
                .next()
                .map_or("unknown", |(_, model)| model)
                .to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            load_before: load,
            load_after: load,
            xdp_programs: loaded_programs()
                .filter_map(Result::ok)
                .filter(|program| program.program_type() == ProgramType::Xdp.into())
                .count(),
        })
    }
}

/// The complete results.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// Seconds of each measurement.
    pub seconds: f64,
    /// Rounds of each case.
    pub rounds: usize,
    /// The XDP program alone.
    pub test_runs: Vec<TestRunReport>,
    /// The XDP program alone, while routes change.
    pub churn: Vec<churn::Cost>,
    /// Packets per second through the relays.
    pub cases: Vec<CaseReport<Case>>,
    /// Solicitations per second that servers answer.
    pub solicitations: Vec<CaseReport<Solicitations>>,
    /// Packets per second through clients.
    pub tunnels: Vec<CaseReport<Tunnel>>,
    /// TCP through clients, in kilobytes instead of packets.
    pub streams: Vec<CaseReport<Stream>>,
    /// Memory with many clients.
    pub memory: Vec<Memory>,
    /// The limits.
    pub criteria: Vec<Criterion>,
}

impl Report {
    /// Makes a report without measurements.
    ///
    /// # Errors
    ///
    /// Fails when the machine cannot be examined.
    pub fn new(time: Duration, rounds: usize) -> Result<Self> {
        Ok(Self {
            machine: Machine::this()?,
            seconds: time.as_secs_f64(),
            rounds,
            test_runs: Vec::new(),
            churn: Vec::new(),
            cases: Vec::new(),
            solicitations: Vec::new(),
            tunnels: Vec::new(),
            streams: Vec::new(),
            memory: Vec::new(),
            criteria: Vec::new(),
        })
    }

    /// Compares the results with the limits.
    ///
    /// # Errors
    ///
    /// Fails when the load average cannot be read.
    pub fn conclude(&mut self) -> Result<()> {
        self.machine.load_after = cpu::load()?;
        self.criteria = Vec::new();
        for direction in Direction::ALL {
            let case = Case::demanding(direction);
            if let Some(report) = self.cases.iter().find(|report| report.case == case) {
                let limits = Limits::RELAY;
                self.criteria.extend(limits.hold_against(report));
            }
        }
        for report in &self.solicitations {
            self.criteria.extend(Limits::SERVER.hold_against(report));
        }
        for report in &self.tunnels {
            self.criteria.extend(Limits::CLIENT.hold_against(report));
        }
        for report in &self.streams {
            self.criteria.extend(Limits::CLIENT.hold_against(report));
        }
        for memory in &self.memory {
            if memory.variant == Variant::Xdp {
                self.criteria.extend(memory_limits(memory));
            }
        }
        Ok(())
    }

    /// The lines about the limits and the machine.
    #[must_use]
    pub fn conclusion(&self) -> String {
        let mut text = String::from("\n");
        for memory in &self.memory {
            text += &format!(
                "{}, {} clients: {:.1} MiB resident, {:.1} MiB of maps\n",
                memory.variant.title(),
                super::memory::CLIENTS,
                mebibytes(memory.resident),
                mebibytes(memory.maps)
            );
        }
        for criterion in &self.criteria {
            text += &criterion.line();
        }
        let Machine {
            kernel,
            processor,
            cores,
            load_before,
            load_after,
            xdp_programs,
        } = &self.machine;
        text += &format!(
            "Linux {kernel}, {cores} x {processor}; load average {load_before} before, \
             {load_after} after (the benchmark itself makes about 1.5); \
             {xdp_programs} XDP programs of others\n"
        );
        if *xdp_programs > DISPATCHED / 2 {
            text += &format!(
                "With more than {DISPATCHED} XDP programs on a machine every one is slower: \
                 these figures are too low\n"
            );
        }
        text
    }

    /// The lines of the table of costs during changes: one for each kind and rate, compared with the cost
    /// without changes in the same round.
    #[must_use]
    pub fn churn_lines(&self) -> Vec<String> {
        let of = |kind: churn::Kind, rate: u32| {
            let costs = self.churn.iter();
            costs.filter(move |cost| cost.kind == kind && cost.rate == rate)
        };
        let line = |kind: churn::Kind, rate| {
            let costs = Spread::of(of(kind, rate).map(|cost| cost.nanoseconds))?;
            let changes = Spread::of(of(kind, rate).map(|cost| cost.changes))?;
            let rounds = of(kind, rate).zip(of(kind, 0));
            let ratios = rounds.map(|(cost, still)| cost.nanoseconds / still.nanoseconds);
            Some(format!(
                "XDP program alone, {} clients, {}, {:.0} a second: {} ns/packet ({:+.1} %)",
                CLIENTS[1],
                kind.title(),
                changes.median,
                costs.text(1.0, 0),
                (Spread::of(ratios)?.median - 1.0) * 100.0,
            ))
        };
        let rates = |kind| churn::RATES.map(|rate| line(kind, rate));
        let lines = churn::Kind::ALL.into_iter().flat_map(rates);
        lines.flatten().collect()
    }

    /// Writes the report to `directory`: under a name of its own, and as `latest.json`.
    ///
    /// # Errors
    ///
    /// Fails when the report cannot be written.
    pub fn save(&self, directory: &Path) -> Result<PathBuf> {
        let text = serde_json::to_string_pretty(self)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        fs::create_dir_all(directory)
            .with_context(|| format!("make the directory {}", directory.display()))?;
        let path = directory.join(format!("bench-{now}.json"));
        for path in [&path, &directory.join("latest.json")] {
            fs::write(path, &text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(path)
    }
}

fn mebibytes(octets: u64) -> f64 {
    octets as f64 / f64::from(1 << 20)
}

/// Limits of speed.
struct Limits {
    /// Limits of XDP, for roles that have it.
    xdp: Option<XdpLimits>,
    /// The least rate of userspace in relation to Miredo's.
    userspace_of_miredo: f64,
}

struct XdpLimits {
    /// The least rate in packets in relation to the bare program's.
    of_bare: f64,
    /// The least rate in relation to Miredo's.
    of_miredo: f64,
    /// The greatest CPU time in relation to Miredo's, if limited.
    cpu: Option<f64>,
}

impl Limits {
    const RELAY: Self = Self {
        xdp: Some(XdpLimits {
            of_bare: 0.55,
            of_miredo: 6.0,
            cpu: Some(0.1),
        }),
        userspace_of_miredo: 1.5,
    };
    const SERVER: Self = Self {
        xdp: Some(XdpLimits {
            of_bare: 0.6,
            of_miredo: 10.0,
            cpu: None,
        }),
        userspace_of_miredo: 2.0,
    };
    const CLIENT: Self = Self {
        xdp: None,
        userspace_of_miredo: 1.5,
    };

    fn hold_against<W: Workload>(&self, report: &CaseReport<W>) -> Vec<Criterion> {
        let name = |what: &str| format!("{}: {what}", report.case);
        let median = |spread: Option<Spread>| spread.map(|spread| spread.median);
        let mut criteria = Vec::new();
        if let (Some(limits), Some(xdp)) = (&self.xdp, report.result(Variant::Xdp)) {
            let [of_bare, of_miredo, cpu] =
                [xdp.of_bare, xdp.of_miredo, xdp.cpu_of_miredo].map(median);
            let what = name(&format!("XDP, {}", W::OF_BARE));
            criteria.extend([
                Criterion::at_least(what, of_bare, limits.of_bare),
                Criterion::at_least(name("XDP, times Miredo"), of_miredo, limits.of_miredo),
            ]);
            if let Some(limit) = limits.cpu {
                let what = name("XDP, CPU time of Miredo's");
                criteria.push(Criterion::at_most(what, cpu, limit));
            }
        }
        if let Some(userspace) = report.result(Variant::Userspace) {
            let of_miredo = median(userspace.of_miredo);
            let what = name("userspace, times Miredo");
            criteria.push(Criterion::at_least(
                what,
                of_miredo,
                self.userspace_of_miredo,
            ));
        }
        criteria
    }
}

fn memory_limits(memory: &Memory) -> [Criterion; 2] {
    let limit = mebibytes(MEMORY_LIMIT);
    [(memory.resident, "resident"), (memory.maps, "of maps")].map(|(octets, what)| {
        let what = format!("{} clients: MiB {what}", super::memory::CLIENTS);
        Criterion::at_most(what, Some(mebibytes(octets)), limit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_median_is_in_the_middle() {
        let spread = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!(
            (spread.minimum, spread.median, spread.maximum),
            (1.0, 2.0, 3.0)
        );
        assert_eq!(Spread::of([1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let case = Case::demanding(Direction::Encap);
        let report = CaseReport::new(
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
        let report = CaseReport::new(case, vec![xdp.clone(), miredo.clone()]);
        let of_miredo = report.result(Variant::Xdp).unwrap().of_miredo.unwrap();
        assert_eq!((of_miredo.minimum, of_miredo.maximum), (8.0, 8.0));
        miredo.samples[0].busy = 0.5;
        let report = CaseReport::new(case, vec![xdp, miredo]);
        assert_eq!(report.result(Variant::Xdp).unwrap().of_miredo, None);
    }

    #[test]
    fn a_figure_beyond_a_limit_fails() {
        let (least, most) = (Criterion::at_least, Criterion::at_most);
        assert_eq!(least(String::new(), Some(0.54), 0.55).met, Some(false));
        assert_eq!(most(String::new(), Some(0.11), 0.1).met, Some(false));
        assert_eq!(most(String::new(), None, 0.1).met, None);
        let memory = Memory {
            variant: Variant::Xdp,
            resident: MEMORY_LIMIT,
            maps: MEMORY_LIMIT + 1,
        };
        let met = memory_limits(&memory).map(|limit| limit.met);
        assert_eq!(met, [Some(true), Some(false)]);
    }
}
