//! Which files of a leaf say what; pure.

use super::hierarchy::{Controller, Kind};
use crate::config::HostLimits;

/// One file and what is written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) file: &'static str,
    pub(super) value: String,
    pub(super) need: Need,
}

/// Whether a limit holds without a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Must,
    /// It makes the limit better. Not every kernel has it.
    May,
}

/// Microseconds over which a share of the processors is measured.
const PERIOD: u32 = 100_000;
/// What the kernel takes at least.
const LEAST_QUOTA: f64 = 1000.0;

/// What the kernel takes at most.
const MOST_WEIGHT: u64 = 10_000;
const MOST_SHARES: u64 = 262_144;

/// What to write, in this order, so that `controller` holds `limits`.
pub(super) fn settings(kind: &Kind, controller: Controller, limits: &HostLimits) -> Vec<Setting> {
    match (kind, controller) {
        (Kind::V2, Controller::Memory) => {
            let mut all = vec![may("memory.oom.group", 1)];
            if let Some(bytes) = limits.memory {
                all.extend([must("memory.max", bytes), may("memory.swap.max", 0)]);
            }
            all
        }
        (Kind::V1(_), Controller::Memory) => limits.memory.map_or_else(Vec::new, |bytes| {
            // Memory and swap together must not be less than memory.
            let both = may("memory.memsw.limit_in_bytes", bytes);
            vec![must("memory.limit_in_bytes", bytes), both, may("memory.swappiness", 0)]
        }),
        (Kind::V2, Controller::Cpu) => {
            let mut all = vec![must("cpu.weight", limits.cpu_weight)];
            all.extend(limits.cpu.map(|cores| must("cpu.max", max(cores))));
            all
        }
        (Kind::V1(_), Controller::Cpu) => {
            let mut all = vec![must("cpu.shares", shares(limits.cpu_weight.into()))];
            if let Some(cores) = limits.cpu {
                let quota = format!("{:.0}", quota(cores));
                all.extend([must("cpu.cfs_period_us", PERIOD), must("cpu.cfs_quota_us", quota)]);
            }
            all
        }
        (Kind::V1(_) | Kind::V2, Controller::Processes) => {
            vec![must("pids.max", limits.max_processes)]
        }
    }
}

/// What the group around all leaves should weigh, in the unit of `cpu_weight`. Left as it was made, it
/// would weigh as much as one process of others, on all processors together: one worker that is busy
/// on one of them would have the others wait, wherever they are. So it weighs what the leaves do,
/// but no more than the heaviest of them on each processor: a weight is used by whoever is
/// busy, and what idle workers have is not for one that spins to push the server aside with.
pub(super) fn together(weights: &[u64], processors: usize) -> u64 {
    let heaviest = weights.iter().copied().max().unwrap_or(0);
    let most = heaviest.saturating_mul(u64::try_from(processors).unwrap_or(u64::MAX));
    weights.iter().fold(0, |sum: u64, weight| sum.saturating_add(*weight)).min(most)
}

/// What gives the group around all leaves this weight.
pub(super) fn around(kind: &Kind, weight: u64) -> Setting {
    match kind {
        Kind::V2 => may("cpu.weight", weight.clamp(1, MOST_WEIGHT)),
        Kind::V1(_) => may("cpu.shares", shares(weight)),
    }
}

fn shares(weight: u64) -> u64 {
    (weight.saturating_mul(1024) / 100).clamp(2, MOST_SHARES)
}

/// The file that counts what the kernel has killed for memory, in a line `oom_kill N`.
pub(super) fn oom_file(kind: &Kind) -> &'static str {
    match kind {
        Kind::V2 => "memory.events",
        Kind::V1(_) => "memory.oom_control",
    }
}

/// The number in the line `KEY N`; 0 if there is none.
pub(super) fn count(text: &str, key: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

fn must(file: &'static str, value: impl ToString) -> Setting {
    Setting { file, value: value.to_string(), need: Need::Must }
}

fn may(file: &'static str, value: impl ToString) -> Setting {
    Setting { file, value: value.to_string(), need: Need::May }
}

fn quota(cores: f64) -> f64 {
    (cores * f64::from(PERIOD)).max(LEAST_QUOTA)
}

fn max(cores: f64) -> String {
    format!("{:.0} {PERIOD}", quota(cores))
}

#[cfg(test)]
mod tests {
    use super::super::hierarchy::Controllers;
    use super::*;

    const LIMITS: HostLimits = HostLimits {
        memory: Some(64 << 20),
        cpu: Some(1.5),
        cpu_weight: 200,
        max_processes: 32,
        max_descriptors: 64,
        scratch: None,
    };

    fn written(kind: &Kind, controller: Controller, limits: &HostLimits) -> Vec<String> {
        let all = settings(kind, controller, limits);
        all.iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
    }

    #[test]
    fn version_two_is_told_everything() {
        let written = |controller| written(&Kind::V2, controller, &LIMITS);
        let memory = ["memory.oom.group=1", "memory.max=67108864", "memory.swap.max=0"];
        assert_eq!(written(Controller::Memory), memory);
        assert_eq!(written(Controller::Cpu), ["cpu.weight=200", "cpu.max=150000 100000"]);
        assert_eq!(written(Controller::Processes), ["pids.max=32"]);
    }

    #[test]
    fn version_one_is_told_the_same_in_its_words() {
        let kind = Kind::V1(Controllers::new());
        let written = |controller| written(&kind, controller, &LIMITS);
        let memory = [
            "memory.limit_in_bytes=67108864",
            "memory.memsw.limit_in_bytes=67108864",
            "memory.swappiness=0",
        ];
        assert_eq!(written(Controller::Memory), memory);
        let cpu = ["cpu.shares=2048", "cpu.cfs_period_us=100000", "cpu.cfs_quota_us=150000"];
        assert_eq!(written(Controller::Cpu), cpu);
        assert_eq!(written(Controller::Processes), ["pids.max=32"]);
    }

    #[test]
    fn what_is_not_limited_is_not_written() {
        let none = HostLimits { memory: None, cpu: None, cpu_weight: 1, ..LIMITS };
        let v1 = Kind::V1(Controllers::new());
        assert_eq!(written(&Kind::V2, Controller::Memory, &none), ["memory.oom.group=1"]);
        assert_eq!(written(&v1, Controller::Memory, &none), [""; 0]);
        assert_eq!(written(&v1, Controller::Cpu, &none), ["cpu.shares=10"]);
        let least = HostLimits { cpu: Some(0.0), ..none };
        assert_eq!(written(&Kind::V2, Controller::Cpu, &least)[1], "cpu.max=1000 100000");
    }

    #[test]
    fn all_leaves_together_weigh_what_they_do_and_no_more_than_processors_can_use() {
        assert_eq!(together(&[], 4), 0);
        assert_eq!(together(&[100, 200], 4), 300);
        assert_eq!(together(&[100; 20], 4), 400);
        assert_eq!(together(&[100, 300, 100, 100], 1), 300);
        assert_eq!(together(&[u64::MAX, 1], usize::MAX), u64::MAX);
    }

    #[test]
    fn the_group_around_has_a_weight_that_the_kernel_takes() {
        let written = |kind, weights| {
            let Setting { file, value, .. } = around(kind, weights);
            format!("{file}={value}")
        };
        let v1 = Kind::V1(Controllers::new());
        assert_eq!(written(&v1, 300), "cpu.shares=3072");
        assert_eq!(written(&Kind::V2, 300), "cpu.weight=300");
        assert_eq!([written(&v1, 0), written(&Kind::V2, 0)], ["cpu.shares=2", "cpu.weight=1"]);
        let most = [written(&v1, u64::MAX), written(&Kind::V2, u64::MAX)];
        assert_eq!(most, ["cpu.shares=262144", "cpu.weight=10000"]);
    }

    #[test]
    fn kills_are_counted_by_their_own_line() {
        assert_eq!(count("oom 7\noom_kill 3\noom_group_kill 1\n", "oom_kill"), 3);
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "oom_kill"), 2);
        assert_eq!(count("oom_kill\noom_kill x\n", "oom_kill"), 0);
        assert_eq!(count("", "oom_kill"), 0);
    }
}
