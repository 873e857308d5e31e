//! On which rung of the ladder each limit is held; pure.
//!
//! Rungs are ordered from the hardest to none at all. Each limit has its own: a machine may hold
//! memory by one means and processes by another.

use std::fmt;
use std::path::PathBuf;

use super::hierarchy::{Controller, Controllers, Kind};
use crate::config::{Confinement, HostLimits};

/// A limit and what holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit<T, R> {
    pub limit: T,
    pub rung: R,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryRung {
    CgroupV2,
    CgroupV1,
    /// The worker's own `RLIMIT_DATA`, with the ways around it closed by its confinement; and the
    /// watchdog beside it.
    DataLimit,
    /// It is looked at, and ended when it is found over the limit. What it takes between two looks
    /// it has.
    Watchdog,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuRung {
    CgroupV2,
    CgroupV1,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessRung {
    CgroupV2,
    CgroupV1,
    /// Further processes are refused by the worker's confinement; its threads are counted, and it is
    /// ended when there are too many. What it starts between two looks it has.
    Confinement,
    /// Processes and threads are counted, and nothing refuses them.
    Watchdog,
}

/// What ends the processes that a worker has started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TreeKill {
    /// One write, which no process escapes.
    CgroupKill,
    /// One after the other, as the control group lists them.
    CgroupMembers,
    /// Those that have not left the group; and the ones that come back to the supervisor as orphans.
    #[default]
    ProcessGroup,
}

/// What holds one worker. Limits in bytes, cores and processes.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitsReport {
    /// `None` where no limit is configured.
    pub memory: Option<Limit<u64, MemoryRung>>,
    pub cpu: Option<Limit<f64, CpuRung>>,
    pub processes: Limit<u32, ProcessRung>,
    pub tree_kill: TreeKill,
    pub scratch: PathBuf,
    /// Bytes that may be in it, as far as a watchdog sees; `None` where no limit is configured.
    pub scratch_limit: Option<u64>,
    /// What the machine has and yet refused.
    pub problems: Vec<String>,
}

/// What could be had of the machine, for all workers or for one.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) leaves: Vec<(Kind, Controllers)>,
    pub(super) tree_kill: TreeKill,
    pub(super) scratch: PathBuf,
    pub(super) problems: Vec<String>,
}

impl LimitsReport {
    pub(super) fn new(held: Held, limits: &HostLimits, confinement: Confinement) -> Self {
        let confined = match confinement {
            Confinement::None => Confined::No,
            Confinement::Standard | Confinement::Strict => Confined::Itself,
        };
        let memory = limits.memory.map(|bytes| Limit {
            limit: u64::try_from(bytes).unwrap_or(u64::MAX),
            rung: match (held.by(Controller::Memory), confined) {
                (Some(Kind::V2), _) => MemoryRung::CgroupV2,
                (Some(Kind::V1(_)), _) => MemoryRung::CgroupV1,
                (None, Confined::Itself) => MemoryRung::DataLimit,
                (None, Confined::No) => MemoryRung::Watchdog,
            },
        });
        let cpu = limits.cpu.map(|limit| Limit {
            limit,
            rung: match held.by(Controller::Cpu) {
                Some(Kind::V2) => CpuRung::CgroupV2,
                Some(Kind::V1(_)) => CpuRung::CgroupV1,
                None => CpuRung::None,
            },
        });
        let processes = Limit {
            limit: limits.max_processes,
            rung: match (held.by(Controller::Processes), confined) {
                (Some(Kind::V2), _) => ProcessRung::CgroupV2,
                (Some(Kind::V1(_)), _) => ProcessRung::CgroupV1,
                (None, Confined::Itself) => ProcessRung::Confinement,
                (None, Confined::No) => ProcessRung::Watchdog,
            },
        };
        let Held { tree_kill, scratch, problems, .. } = held;
        let scratch_limit = limits.scratch.map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX));
        Self { memory, cpu, processes, tree_kill, scratch, scratch_limit, problems }
    }

    /// What the worker is to limit itself to, in bytes of private memory.
    #[must_use]
    pub fn data_limit(&self) -> Option<u64> {
        let limit = self.memory.as_ref()?;
        match limit.rung {
            MemoryRung::DataLimit => Some(limit.limit),
            MemoryRung::CgroupV2 | MemoryRung::CgroupV1 | MemoryRung::Watchdog => None,
        }
    }

    /// Whether its memory has to be looked at because nothing better holds it.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.memory.as_ref().is_some_and(|memory| match memory.rung {
            MemoryRung::DataLimit | MemoryRung::Watchdog => true,
            MemoryRung::CgroupV2 | MemoryRung::CgroupV1 => false,
        })
    }

    /// Whether its threads have to be counted: what its confinement refuses is processes.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        match self.processes.rung {
            ProcessRung::Confinement | ProcessRung::Watchdog => true,
            ProcessRung::CgroupV2 | ProcessRung::CgroupV1 => false,
        }
    }

    /// What was asked for and is held weakly or not at all, a sentence each.
    #[must_use]
    pub fn shortfalls(&self) -> Vec<String> {
        let memory = self.memory.as_ref().and_then(|memory| match memory.rung {
            MemoryRung::Watchdog => Some("memory_limit is held by a watchdog only".to_owned()),
            MemoryRung::CgroupV2 | MemoryRung::CgroupV1 | MemoryRung::DataLimit => None,
        });
        let cpu = self.cpu.as_ref().and_then(|cpu| match cpu.rung {
            CpuRung::None => Some("cpu_limit is not held: no control group for it".to_owned()),
            CpuRung::CgroupV2 | CpuRung::CgroupV1 => None,
        });
        memory.into_iter().chain(cpu).chain(self.problems.iter().cloned()).collect()
    }
}

#[derive(Clone, Copy)]
enum Confined {
    No,
    Itself,
}

impl Held {
    fn by(&self, controller: Controller) -> Option<&Kind> {
        let leaf = self.leaves.iter().find(|(_, controllers)| controllers.contains(&controller));
        leaf.map(|(kind, _)| kind)
    }
}

impl fmt::Display for LimitsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.memory {
            None => f.write_str("memory unlimited")?,
            Some(Limit { limit, rung }) => write!(f, "memory {limit} bytes by {rung}")?,
        }
        match &self.cpu {
            None => f.write_str("; cpu unlimited")?,
            Some(Limit { limit, rung }) => write!(f, "; cpu {limit} cores by {rung}")?,
        }
        let Limit { limit, rung } = &self.processes;
        write!(f, "; processes {limit} by {rung}; tree ended by {}", self.tree_kill)?;
        write!(f, "; scratch {}", self.scratch.display())?;
        if let Some(limit) = self.scratch_limit {
            write!(f, " {limit} bytes by a watchdog")?;
        }
        self.problems.iter().try_for_each(|problem| write!(f, "; {problem}"))
    }
}

impl fmt::Display for MemoryRung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CgroupV2 => "cgroup v2",
            Self::CgroupV1 => "cgroup v1",
            Self::DataLimit => "RLIMIT_DATA and a watchdog",
            Self::Watchdog => "a watchdog only",
        })
    }
}

impl fmt::Display for CpuRung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CgroupV2 => "cgroup v2",
            Self::CgroupV1 => "cgroup v1",
            Self::None => "nothing",
        })
    }
}

impl fmt::Display for ProcessRung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CgroupV2 => "cgroup v2",
            Self::CgroupV1 => "cgroup v1",
            Self::Confinement => "a watchdog (processes by its confinement)",
            Self::Watchdog => "a watchdog only",
        })
    }
}

impl fmt::Display for TreeKill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CgroupKill => "cgroup.kill",
            Self::CgroupMembers => "the members of its control group",
            Self::ProcessGroup => "its process group",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HostLimits = HostLimits {
        memory: Some(64 << 20),
        cpu: Some(0.5),
        cpu_weight: 100,
        max_processes: 32,
        max_descriptors: 64,
        scratch: Some(4096),
    };

    fn report(leaves: &[(Kind, &[Controller])], confinement: Confinement) -> LimitsReport {
        let leaf = |(kind, c): &(Kind, &[Controller])| (kind.clone(), c.iter().copied().collect());
        let leaves = leaves.iter().map(leaf).collect();
        let held = Held { leaves, scratch: "/s".into(), ..Held::default() };
        LimitsReport::new(held, &LIMITS, confinement)
    }

    fn v1(controller: Controller) -> Kind {
        Kind::V1(Controllers::from([controller]))
    }

    #[test]
    fn each_controller_has_a_rung_of_its_own() {
        let held = report(
            &[(Kind::V2, &[Controller::Cpu]), (v1(Controller::Memory), &[Controller::Memory])],
            Confinement::Standard,
        );
        let text = "memory 67108864 bytes by cgroup v1; cpu 0.5 cores by cgroup v2; \
                    processes 32 by a watchdog (processes by its confinement); tree ended by its process group; scratch /s 4096 bytes by a watchdog";
        assert_eq!(held.to_string(), text);
        assert_eq!((held.data_limit(), held.is_watched()), (None, false));
    }

    #[test]
    fn without_control_groups_a_worker_limits_itself_and_is_watched() {
        let alone = report(&[], Confinement::Standard);
        assert_eq!(alone.memory.as_ref().unwrap().rung, MemoryRung::DataLimit);
        assert_eq!((alone.data_limit(), alone.is_watched()), (Some(64 << 20), true));
        assert_eq!(alone.shortfalls().len(), 1, "the processors: {:?}", alone.shortfalls());
    }

    #[test]
    fn a_watchdog_alone_is_said_to_be_one() {
        let bare = report(&[], Confinement::None);
        assert_eq!(bare.memory.as_ref().unwrap().rung, MemoryRung::Watchdog);
        assert_eq!((bare.data_limit(), bare.is_watched()), (None, true));
        assert!(bare.shortfalls()[0].contains("watchdog only"), "{:?}", bare.shortfalls());
        assert_eq!(bare.processes.rung, ProcessRung::Watchdog);
    }

    proptest! {
        #[test]
        fn a_memory_limit_is_always_held_by_something(
            has in any::<[bool; 3]>(), confined: bool,
        ) {
            let mut leaves: Vec<(Kind, &[Controller])> = Vec::new();
            if has[0] { leaves.push((Kind::V2, &[])) }
            if has[1] { leaves.push((v1(Controller::Memory), &[Controller::Memory])) }
            if has[2] { leaves.push((v1(Controller::Processes), &[Controller::Processes])) }
            let level = if confined { Confinement::Strict } else { Confinement::None };
            let report = report(&leaves, level);
            prop_assert_eq!(report.is_watched(), !has[1]);
            prop_assert_eq!(report.is_counted(), !has[2]);
            prop_assert_eq!(report.data_limit().is_some(), !has[1] && confined);
        }
    }
}
