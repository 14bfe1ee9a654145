//! The machine, and what disturbs a measurement on it.

use std::{collections::BTreeMap, fs, path::Path, thread, time::Duration};

use anyhow::{Context as _, Result};
use aya::programs::{ProgramType, loaded_programs};
use nix::{
    sys::utsname::uname,
    unistd::{SysconfVar, sysconf},
};
use serde::{Deserialize, Serialize};
use teredo_lab::cpu;

/// XDP programs that the kernel calls directly; it calls all others by a pointer, which takes longer. The
/// benchmark itself has up to a dozen.
const DISPATCHED: usize = 48;
/// The time for which other processes are watched.
const WATCH: Duration = Duration::from_millis(300);
/// The share of a core above which another process disturbs.
const BUSY: f64 = 0.05;
/// The share of time taken by the hypervisor that is worth a remark.
const STOLEN: f64 = 0.01;
/// The load average that the benchmark makes by itself.
const OWN_LOAD: f64 = 1.5;

/// The machine and its state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the processor.
    pub processor: String,
    /// Number of cores.
    pub cores: usize,
    /// Whether it is a virtual machine.
    pub is_virtual: bool,
    /// Frequency of the first core at the start, in MHz, as the kernel reports it.
    pub megahertz: Option<f64>,
    /// The policy that chooses the frequency; `None` if the kernel does not choose.
    pub governor: Option<String>,
    /// Load average of the minute before the start.
    pub load_before: f64,
    /// Load average of the last minute.
    pub load_after: f64,
    /// Share of the time since the start that the hypervisor gave to others.
    pub stolen: f64,
    /// XDP programs of others, on all interfaces of the machine. Those beyond 48 slow down every one.
    pub xdp_programs: usize,
    /// Other processes that were busy at the start, with their share of a core.
    pub busy: BTreeMap<String, f64>,
    /// Clock ticks of all cores at the start: those stolen, and all.
    #[serde(skip)]
    ticks: (u64, u64),
}

impl Machine {
    /// Examines this machine now.
    ///
    /// # Errors
    ///
    /// Fails when the kernel reports an error.
    pub fn this() -> Result<Self> {
        let processors = fs::read_to_string("/proc/cpuinfo")?;
        let value = |name: &str| {
            let mut lines = processors.lines();
            lines.find_map(|line| Some(line.strip_prefix(name)?.split_once(": ")?.1.to_owned()))
        };
        let load = cpu::load()?;
        let governor = Path::new("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        let flags = value("flags").unwrap_or_default();
        Ok(Self {
            kernel: uname()?.release().to_string_lossy().into_owned(),
            processor: value("model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: thread::available_parallelism()?.get(),
            is_virtual: flags.split(' ').any(|flag| flag == "hypervisor"),
            megahertz: value("cpu MHz").and_then(|text| text.parse().ok()),
            governor: fs::read_to_string(governor)
                .ok()
                .map(|text| text.trim().to_owned()),
            load_before: load,
            load_after: load,
            stolen: 0.0,
            xdp_programs: loaded_programs()
                .filter_map(Result::ok)
                .filter(|program| program.program_type() == ProgramType::Xdp.into())
                .count(),
            busy: busy()?,
            ticks: ticks()?,
        })
    }

    /// Notes what has disturbed since the start.
    ///
    /// # Errors
    ///
    /// Fails when the kernel reports an error.
    pub fn conclude(&mut self) -> Result<()> {
        self.load_after = cpu::load()?;
        let (stolen, all) = ticks()?;
        let (stolen_before, before) = self.ticks;
        self.stolen = (stolen - stolen_before) as f64 / (all - before).max(1) as f64;
        Ok(())
    }

    /// A line about the machine.
    #[must_use]
    pub fn line(&self) -> String {
        let kind = if self.is_virtual { ", virtual" } else { "" };
        let frequency = self
            .megahertz
            .map_or_else(String::new, |frequency| format!(" at {frequency:.0} MHz"));
        format!(
            "Linux {}, {} x {}{frequency}{kind}",
            self.kernel, self.cores, self.processor
        )
    }

    /// A sentence for each thing that disturbs the measurement.
    #[must_use]
    pub fn disturbances(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.xdp_programs > DISPATCHED / 2 {
            found.push(format!(
                "{} XDP programs of others: with more than {DISPATCHED} on a machine every one is \
                 slower",
                self.xdp_programs
            ));
        }
        for (process, share) in &self.busy {
            found.push(format!("{process} uses {:.0} % of a core", share * 100.0));
        }
        if self.stolen > STOLEN {
            found.push(format!(
                "the hypervisor took {:.1} % of the time",
                self.stolen * 100.0
            ));
        }
        if self.load_before > OWN_LOAD {
            found.push(format!("load average {} at the start", self.load_before));
        }
        if let Some(governor) = self.governor.as_ref().filter(|one| *one != "performance") {
            found.push(format!(
                "the frequency follows the load (\"{governor}\"); for steady figures, \
                 `cpupower frequency-set -g performance`"
            ));
        }
        found
    }

    /// The lines about the machine and what disturbs.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "{}; load average {} before, {} after (the benchmark itself makes about {OWN_LOAD}); \
             {} XDP programs of others\n",
            self.line(),
            self.load_before,
            self.load_after,
            self.xdp_programs
        );
        for disturbance in self.disturbances() {
            text += &format!("disturbed: {disturbance}\n");
        }
        text
    }
}

/// The clock ticks of all cores: those that the hypervisor took, and all.
fn ticks() -> Result<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks = line.split_whitespace().skip(1).take(8);
    let ticks = ticks.map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    let stolen = ticks.get(7).copied().unwrap_or_default();
    Ok((stolen, ticks.iter().sum()))
}

/// The processes that use the processor now, by name and number, without this one.
fn busy() -> Result<BTreeMap<String, f64>> {
    let before = used()?;
    thread::sleep(WATCH);
    let after = used()?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")? as f64;
    let shares = after.into_iter().filter_map(|(process, ticks)| {
        let spent = ticks - before.get(&process)?;
        let share = spent as f64 / per_second / WATCH.as_secs_f64();
        (share > BUSY).then_some((process, share))
    });
    Ok(shares.collect())
}

/// The clock ticks that each other process has used.
fn used() -> Result<BTreeMap<String, u64>> {
    let own = std::process::id().to_string();
    let mut used = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|octet| octet.is_ascii_digit()) || name == own {
            continue;
        }
        // A process that ended meanwhile has no file.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        if let Some((command, ticks)) = parse(&stat) {
            used.insert(format!("{command} ({name})"), ticks);
        }
    }
    Ok(used)
}

/// The name and the clock ticks of a process, of user and system, in its file `stat`.
fn parse(stat: &str) -> Option<(String, u64)> {
    let (front, rest) = stat.rsplit_once(')')?;
    let (_, command) = front.split_once('(')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((command.to_owned(), ticks()? + ticks()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_name_and_ticks() {
        let stat = "7 (a (b) c) R 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0 1";
        assert_eq!(parse(stat), Some(("a (b) c".to_owned(), 42)));
        assert_eq!(parse("7 (a"), None);
    }

    #[test]
    fn what_disturbs_is_named() {
        let mut machine = Machine::this().unwrap();
        machine.xdp_programs = 49;
        machine.stolen = 0.07;
        machine.busy = [("rustc (5)".to_owned(), 0.9)].into();
        let text = machine.text();
        for part in ["49 XDP programs", "7.0 %", "rustc (5) uses 90 %"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
