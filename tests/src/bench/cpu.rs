//! Cores, and the time that somebody had one.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::{Pid, SysconfVar, sysconf},
};

/// The core of relay processes.
pub const RELAY: usize = 0;
/// The core of the generator, and of everything that runs inline with it.
pub const GENERATOR: usize = 1;

/// Keeps the calling thread on one core.
///
/// # Errors
///
/// When there is no such core.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set)
        .with_context(|| format!("run on core {core}; the benchmark needs two cores"))
}

/// Runs `work` on one core; the processes that it starts stay there. On the calling thread, because
/// the laboratory's daemons end with the thread that has started them.
///
/// # Errors
///
/// As `work`, or when there is no such core.
pub fn on_core<T>(core: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this)?;
    pin(core)?;
    let result = work();
    sched_setaffinity(this, &before)?;
    result
}

/// CPU time that was had, and waited for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time {
    /// On a core.
    pub used: Duration,
    /// Ready to run while others had the core.
    pub waited: Duration,
}

impl std::ops::Sub for Time {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            used: self.used.saturating_sub(earlier.used),
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }
}

/// Of the calling thread.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn of_this_thread() -> Result<Time> {
    of("/proc/thread-self/schedstat")
}

/// Of every thread of some processes, by its number.
#[derive(Clone, Debug, Default)]
pub struct Threads(BTreeMap<PathBuf, Time>);

impl Threads {
    /// The threads that these processes have now. One that ends meanwhile does not count.
    ///
    /// # Errors
    ///
    /// When the kernel tells something else than expected.
    pub fn of(pids: &[Pid]) -> Result<Self> {
        let mut threads = BTreeMap::new();
        for pid in pids {
            let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
                continue;
            };
            for thread in entries.flatten() {
                let path = thread.path().join("schedstat");
                if let Ok(text) = fs::read_to_string(&path) {
                    threads.insert(path, time(&text)?);
                }
            }
        }
        Ok(Self(threads))
    }

    /// What they have used together, and the longest that one of them has waited.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Time {
        let spent = self
            .0
            .iter()
            .map(|(thread, time)| *time - earlier.0.get(thread).copied().unwrap_or_default());
        spent.fold(Time::default(), |all, one| Time {
            used: all.used + one.used,
            waited: all.waited.max(one.waited),
        })
    }
}

fn of(path: &str) -> Result<Time> {
    time(&fs::read_to_string(path).with_context(|| format!("read {path}"))?)
}

/// `schedstat` of a task: nanoseconds on a core, nanoseconds waiting for one, and more.
fn time(text: &str) -> Result<Time> {
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let mut next = || {
        let number = numbers.next().context("schedstat has two numbers")??;
        anyhow::Ok(Duration::from_nanos(number))
    };
    Ok(Time {
        used: next()?,
        waited: next()?,
    })
}

/// What happened to a core besides the work of the task in question.
#[derive(Clone, Copy, Debug, Default)]
pub struct Core {
    /// The hypervisor had it.
    pub stolen: Duration,
    /// Its kernel thread did work that interrupts had left.
    pub softirq: Duration,
}

impl std::ops::Sub for Core {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            stolen: self.stolen.saturating_sub(earlier.stolen),
            softirq: self.softirq.saturating_sub(earlier.softirq),
        }
    }
}

/// Of the core of this number, since the start of the machine.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn of_core(core: usize) -> Result<Core> {
    let stat = fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{core}");
    let stolen = stat
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name.as_str()))
        .and_then(|fields| fields.get(8)?.parse::<u64>().ok())
        .with_context(|| format!("/proc/stat has no {name}"))?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
    let softirq = match ksoftirqd(core)? {
        Some(pid) => of(&format!("/proc/{pid}/schedstat"))?.used,
        None => Duration::ZERO,
    };
    Ok(Core {
        stolen: Duration::from_secs_f64(stolen as f64 / per_second as f64),
        softirq,
    })
}

/// The kernel thread of a core; invisible from within some containers.
fn ksoftirqd(core: usize) -> Result<Option<Pid>> {
    let name = format!("ksoftirqd/{core}");
    Ok(threads_named(|found| found == name)?.first().copied())
}

/// The processes, kernel threads included, whose names are wanted.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn threads_named(wanted: impl Fn(&str) -> bool) -> Result<Vec<Pid>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse().ok()) else {
            continue;
        };
        // A process that ended meanwhile has no name.
        let found = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if wanted(found.trim_end()) {
            threads.push(Pid::from_raw(pid));
        }
    }
    Ok(threads)
}

/// The load average of the last minute.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let first = text.split_whitespace().next().context("no load average")?;
    Ok(first.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(used: u64, waited: u64) -> Time {
        let [used, waited] = [used, waited].map(Duration::from_nanos);
        Time { used, waited }
    }

    #[test]
    fn threads_share_what_they_use_but_wait_at_the_same_time() {
        let threads = |times: &[Time]| {
            let numbered = times.iter().enumerate();
            Threads(
                numbered
                    .map(|(number, time)| (number.to_string().into(), *time))
                    .collect(),
            )
        };
        let before = threads(&[time(100, 10), time(200, 20)]);
        // A third thread is new.
        let after = threads(&[time(150, 40), time(260, 25), time(5, 1)]);
        let spent = after.since(&before);
        assert_eq!(spent.used.as_nanos(), 50 + 60 + 5);
        assert_eq!(spent.waited.as_nanos(), 30);
    }

    #[test]
    fn this_threads_time_goes_on() {
        let before = of_this_thread().unwrap();
        crate::lab::wait_until("time passes", Duration::from_secs(5), || {
            Ok(of_this_thread()?.used > before.used)
        })
        .unwrap();
    }
}
