//! Cores, and the CPU time that threads and processes use.

use std::{
    collections::BTreeMap, fs, os::unix::process::CommandExt as _, path::PathBuf, process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::{Pid, SysconfVar, sysconf},
};

/// The core of relay processes.
pub const RELAY: usize = 0;
/// The core of the generator, and of all processing inline with it.
pub const GENERATOR: usize = 1;

/// Keeps the calling thread on one core.
///
/// # Errors
///
/// Fails when there is no such core.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set)
        .with_context(|| format!("run on core {core}; the benchmark needs two cores"))
}

/// Keeps the calling thread on the core that it is on.
///
/// # Errors
///
/// Fails when the kernel reports an error.
pub fn stay() -> Result<()> {
    pin(sched_getcpu()?)
}

/// Lets the program that the command starts go before all usual ones, if that is permitted here.
pub fn prefer(command: &mut Command) {
    let prefer = || {
        let parameters = libc::sched_param { sched_priority: 1 };
        // SAFETY: the parameters are valid during the call.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameters) };
        Ok(())
    };
    // SAFETY: between fork and exec only one system call takes place.
    unsafe { command.pre_exec(prefer) };
}

/// Runs `work` on one core; the processes that it starts stay there. The calling thread does the
/// work, because the laboratory's daemons end with the thread that started them.
///
/// # Errors
///
/// Fails as `work`, or when there is no such core.
pub fn on_core<T>(core: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this)?;
    pin(core)?;
    let result = work();
    sched_setaffinity(this, &before)?;
    result
}

/// CPU time that the calling thread has used.
///
/// # Errors
///
/// Fails when the kernel reports an error.
pub fn of_this_thread() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// A measurement of the CPU time that all threads of some processes use.
#[derive(Clone, Debug, Default)]
pub struct Threads(BTreeMap<PathBuf, Duration>);

impl Threads {
    /// Starts to measure the threads that these processes have now. A thread that ends meanwhile
    /// does not count.
    ///
    /// # Errors
    ///
    /// Fails when the kernel's report has an unexpected form.
    pub fn of(pids: &[Pid]) -> Result<Self> {
        let mut threads = BTreeMap::new();
        for pid in pids {
            let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
                continue;
            };
            for thread in entries.flatten() {
                let path = thread.path().join("schedstat");
                if let Ok(text) = fs::read_to_string(&path) {
                    threads.insert(path, used(&text)?);
                }
            }
        }
        Ok(Self(threads))
    }

    /// CPU time used by all threads together since the start.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Duration {
        let spent = self.0.iter().map(|(thread, used)| {
            used.saturating_sub(earlier.0.get(thread).copied().unwrap_or_default())
        });
        spent.sum()
    }
}

fn of(path: &str) -> Result<Duration> {
    used(&fs::read_to_string(path).with_context(|| format!("read {path}"))?)
}

/// `schedstat` of a task: nanoseconds on a core, and more.
fn used(text: &str) -> Result<Duration> {
    let first = text.split_whitespace().next();
    let nanoseconds = first.context("schedstat is empty")?.parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// Time that a core spent on anything but the measured task.
#[derive(Clone, Copy, Debug, Default)]
pub struct Core {
    /// Idle time, to 10 milliseconds.
    pub idle: Duration,
    /// Time of the core's kernel thread, which does work deferred by interrupts.
    pub softirq: Duration,
}

impl std::ops::Sub for Core {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            idle: self.idle.saturating_sub(earlier.idle),
            softirq: self.softirq.saturating_sub(earlier.softirq),
        }
    }
}

/// Reads the times of the core of this number since the machine started.
///
/// # Errors
///
/// Fails when the kernel reports an error.
pub fn of_core(core: usize) -> Result<Core> {
    let stat = fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{core}");
    // The name, then ticks: user, nice, system, idle, waiting for input or output.
    let idle = stat
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name.as_str()))
        .and_then(|fields| {
            let ticks = fields.get(4..6)?.iter().map(|ticks| ticks.parse::<u64>());
            ticks.sum::<Result<u64, _>>().ok()
        })
        .with_context(|| format!("/proc/stat has no {name}"))?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
    let softirq = match ksoftirqd(core)? {
        Some(pid) => of(&format!("/proc/{pid}/schedstat"))?,
        None => Duration::ZERO,
    };
    Ok(Core {
        idle: Duration::from_secs_f64(idle as f64 / per_second as f64),
        softirq,
    })
}

/// The kernel thread of a core; invisible from within some containers.
fn ksoftirqd(core: usize) -> Result<Option<Pid>> {
    let name = format!("ksoftirqd/{core}");
    Ok(threads_named(|found| found == name)?.first().copied())
}

/// The processes, kernel threads included, whose names are `wanted`.
///
/// # Errors
///
/// Fails when the kernel reports an error.
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
/// Fails when the kernel reports an error.
pub fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let first = text.split_whitespace().next().context("no load average")?;
    Ok(first.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up() {
        let threads = |nanoseconds: &[u64]| {
            let numbered = nanoseconds.iter().enumerate();
            let named = numbered
                .map(|(number, used)| (number.to_string().into(), Duration::from_nanos(*used)));
            Threads(named.collect())
        };
        // The third is new.
        let spent = threads(&[150, 260, 5]).since(&threads(&[100, 200]));
        assert_eq!(spent.as_nanos(), 50 + 60 + 5);
    }

    #[test]
    fn the_first_field_is_the_cpu_time() {
        assert_eq!(used("1234 99 7\n").unwrap().as_nanos(), 1234);
        assert!(used("").is_err());
    }

    #[test]
    fn cpu_time_of_a_busy_thread_advances() {
        let before = of_this_thread().unwrap();
        crate::wait_until("time passes", Duration::from_secs(5), || {
            Ok(of_this_thread()? > before)
        })
        .unwrap();
    }
}
