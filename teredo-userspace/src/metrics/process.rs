//! The metrics of the process itself, under the names that every program has for Prometheus.

use std::{fmt, fs, sync::LazyLock};

use nix::{
    sys::resource::{Resource, UsageWho, getrlimit, getrusage},
    unistd::{SysconfVar, sysconf},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

/// Collects the metrics of this process.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut to: DescriptorEncoder) -> fmt::Result {
        if let Some(seconds) = cpu_seconds() {
            let help = "Time of the processors that the process has used, in seconds";
            let mut metric =
                to.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
        }
        for (name, help, value) in [
            (
                "process_start_time_seconds",
                "When the process started, in seconds since the Unix epoch",
                *START_TIME,
            ),
            (
                "process_resident_memory_bytes",
                "Memory that the process occupies, in octets",
                resident_bytes(),
            ),
            (
                "process_open_fds",
                "File descriptors that the process has open",
                open_descriptors(),
            ),
            (
                "process_max_fds",
                "The most file descriptors that the process may have open",
                most_descriptors(),
            ),
        ] {
            if let Some(value) = value {
                let mut metric = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
                metric.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

/// The start of the process, by the clock as it was at the first look: steps of the clock do not move it.
static START_TIME: LazyLock<Option<f64>> = LazyLock::new(|| {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let ticks = sysconf(SysconfVar::CLK_TCK).ok()??;
    start_time(&stat, &boot, ticks as f64)
});

/// Returns the start of a process from its `stat` and that of the system, with this many ticks a second.
fn start_time(stat: &str, boot: &str, ticks: f64) -> Option<f64> {
    // The name of the program, in parentheses, may have spaces.
    let (_, fields) = stat.rsplit_once(") ")?;
    let start: f64 = fields.split(' ').nth(19)?.parse().ok()?;
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.parse::<f64>().ok()? + start / ticks)
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let times = [usage.user_time(), usage.system_time()];
    let seconds = times.map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6);
    Some(seconds.iter().sum())
}

fn resident_bytes() -> Option<f64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: f64 = pages.split(' ').nth(1)?.parse().ok()?;
    let size = sysconf(SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * size as f64)
}

fn open_descriptors() -> Option<f64> {
    // One of them is that of the directory.
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(open.saturating_sub(1) as f64)
}

fn most_descriptors() -> Option<f64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    Some(soft as f64)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn the_start_is_the_boot_and_the_ticks_since() {
        let fields = (4..=21).map(|field| field.to_string()).collect::<Vec<_>>();
        let stat = format!("1 (a) b) S {} 250 23", fields.join(" "));
        let boot = "cpu  1 2 3\nbtime 1700000000\nprocesses 9\n";
        assert_eq!(start_time(&stat, boot, 100.0), Some(1_700_000_002.5));
        assert_eq!(start_time("", boot, 100.0), None);
    }

    #[test]
    fn this_process_has_all_of_them() {
        let epoch = SystemTime::UNIX_EPOCH;
        let now = SystemTime::now()
            .duration_since(epoch)
            .unwrap()
            .as_secs_f64();
        let started = START_TIME.unwrap();
        assert!(
            (now - 3600.0..now + 2.0).contains(&started),
            "{started} of {now}"
        );
        assert!(resident_bytes().unwrap() > 1e6);
        let before = open_descriptors().unwrap();
        let file = fs::File::open("/proc/self/stat").unwrap();
        assert!(open_descriptors().unwrap() > before - 8.0);
        drop(file);
        assert!(most_descriptors().unwrap() > before);
        assert!(cpu_seconds().unwrap() > 0.0);
    }
}
