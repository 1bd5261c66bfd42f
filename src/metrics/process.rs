//! Metrics that the system reports about this process, under the names that every Prometheus client library uses.

use std::fs;

use prometheus_client::{
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

/// Reads processor time, memory, open files and the start time of this process from `/proc`.
pub fn collect() -> Registry {
    let mut registry = Registry::with_prefix("process");
    if let Some(Stat { processor_ticks, started_ticks, pages }) = stat() {
        let seconds = |ticks: u64| ticks as f64 / clock_ticks_per_second() as f64;
        let (cpu, memory) = (seconds(processor_ticks), pages.saturating_mul(page_size() as u64));
        let help = "User and system processor time";
        registry.register_with_unit("cpu", help, Unit::Seconds, ConstCounter::new(cpu));
        let help = "Memory that is not swapped out";
        registry.register_with_unit("resident_memory", help, Unit::Bytes, ConstGauge::new(memory));
        if let Some(booted_at) = booted_at() {
            let started_at = ConstGauge::new(booted_at as f64 + seconds(started_ticks));
            let help = "When the process started, since the Unix epoch";
            registry.register_with_unit("start_time", help, Unit::Seconds, started_at);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // Less the descriptor that the directory is read with.
        let open = ConstGauge::new(open.count().saturating_sub(1));
        registry.register("open_fds", "Open files and sockets", open);
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    registry.register("max_fds", "Files and sockets that may be open", ConstGauge::new(limit));
    registry
}

/// Some of `/proc/self/stat` (proc_pid_stat(5)).
struct Stat {
    processor_ticks: u64,
    started_ticks: u64,
    pages: u64,
}

fn stat() -> Option<Stat> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses, which may have spaces; the next is the third.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let processor_ticks = field(14)? + field(15)?;
    Some(Stat { processor_ticks, started_ticks: field(22)?, pages: field(24)? })
}

/// When the system booted, in whole seconds since the Unix epoch.
fn booted_at() -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix_now;

    #[test]
    fn metrics_of_this_process_are_true() {
        let opened: Vec<_> = (0..50).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();

        let Stat { processor_ticks, started_ticks, pages } = stat().unwrap();
        let started_at = booted_at().unwrap() + started_ticks / clock_ticks_per_second();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &collect()).unwrap();

        // A test process is young, small and not idle.
        assert!(started_at.abs_diff(unix_now()) < 3600, "{started_at}");
        assert!((256..4_000_000).contains(&pages), "{pages}");
        assert!(processor_ticks < 360_000, "{processor_ticks}");
        let open = text.lines().find_map(|line| line.strip_prefix("process_open_fds "));
        assert!(open.unwrap().parse::<usize>().unwrap() > opened.len(), "{text}");
        assert!(text.contains("\nprocess_cpu_seconds_total "), "{text}");
    }
}
