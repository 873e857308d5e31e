//! Pure verdict on a worker from its progress.
//!
//! Owns the rules by which a worker counts as unhealthy. It does not count, wait or act. A worker
//! is judged by what it did with its requests, never by a heartbeat: a thread that answers pings
//! says nothing about the one that hangs.
//!
//! Invariants: a violation weighs more than memory, memory more than threads, threads more than disk,
//! disk more than a hang and a hang more than a flood, so that the record names the gravest; a worker that has nothing to do
//! is healthy, however long it is silent.

use std::fmt;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthPolicy {
    /// How much longer than allowed a worker may take over one request.
    pub grace: Duration,
    /// Doorbells of one window beyond one for each completion. Some are honest: a completion that
    /// the supervisor had already seen is still rung for.
    pub spare_doorbells: u32,
    /// Facts of one window; an honest worker sends a handful in its life.
    pub facts: u32,
    /// Most bytes of host memory, for a worker whose memory is looked at.
    pub memory: Option<u64>,
    /// Most processes and threads, for a worker whose threads are counted.
    pub threads: u32,
    /// Most bytes in its scratch folder.
    pub scratch: Option<u64>,
}

/// What was seen of one worker in the window that just ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// How much longer than allowed the worker has been at its oldest request; `None` if it has not.
    pub overdue: Option<Duration>,
    /// A completion or a fact that no correct worker could have sent.
    pub violation: Option<String>,
    pub completions: u32,
    pub doorbells: u32,
    pub facts: u32,
    /// Bytes of host memory that it has; `None` if nobody looked, as when the kernel holds the limit.
    pub memory: Option<u64>,
    /// Threads of all its processes; `None` if nobody counted.
    pub threads: Option<u32>,
    /// What is in its scratch folder; `None` if nobody looked.
    pub scratch: Option<DiskUse>,
}

/// What a worker has in its scratch folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskUse {
    Bytes(u64),
    /// So much of this that it is not worth measuring.
    Endless(&'static str),
}

#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Healthy,
    Unhealthy(Reason),
}

/// Why a worker must go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    Violation(String),
    /// It has more host memory than it may, in bytes.
    HostMemory {
        used: u64,
        limit: u64,
    },
    /// It has more threads than it may.
    Threads {
        seen: u32,
        limit: u32,
    },
    /// It has more on disk than it may, in bytes.
    Scratch {
        found: DiskUse,
        limit: u64,
    },
    /// It has more of a device than it was granted, in bytes.
    DeviceMemory {
        used: u64,
        quota: u64,
    },
    /// A device of it is lost; why.
    DeviceLost(String),
    Hung {
        overdue: Duration,
    },
    Flood {
        what: Flood,
        seen: u32,
        limit: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    Doorbells,
    Facts,
}

impl HealthPolicy {
    pub fn judge(&self, seen: &Observation) -> Verdict {
        if let Some(violation) = &seen.violation {
            return Verdict::Unhealthy(Reason::Violation(violation.clone()));
        }
        let over_memory =
            |limit: &u64| seen.memory.filter(|used| used > limit).map(|u| (u, *limit));
        if let Some((used, limit)) = self.memory.as_ref().and_then(over_memory) {
            return Verdict::Unhealthy(Reason::HostMemory { used, limit });
        }
        if let Some(threads) = seen.threads.filter(|&threads| threads > self.threads) {
            return Verdict::Unhealthy(Reason::Threads { seen: threads, limit: self.threads });
        }
        if let (Some(found), Some(limit)) = (seen.scratch, self.scratch)
            && found.is_over(limit)
        {
            return Verdict::Unhealthy(Reason::Scratch { found, limit });
        }
        if let Some(overdue) = seen.overdue.filter(|&overdue| overdue > self.grace) {
            return Verdict::Unhealthy(Reason::Hung { overdue });
        }
        let doorbells = self.spare_doorbells.saturating_add(seen.completions);
        over(Flood::Doorbells, seen.doorbells, doorbells)
            .or_else(|| over(Flood::Facts, seen.facts, self.facts))
            .map_or(Verdict::Healthy, Verdict::Unhealthy)
    }
}

impl DiskUse {
    fn is_over(self, limit: u64) -> bool {
        match self {
            Self::Bytes(bytes) => bytes > limit,
            Self::Endless(_) => true,
        }
    }
}

impl fmt::Display for DiskUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
            Self::Endless(what) => f.write_str(what),
        }
    }
}

fn over(what: Flood, seen: u32, limit: u32) -> Option<Reason> {
    (seen > limit).then_some(Reason::Flood { what, seen, limit })
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(what) => write!(f, "protocol violation: {what}"),
            Self::HostMemory { used, limit } => {
                write!(f, "it had {used} bytes of host memory, memory_limit is {limit}")
            }
            Self::Threads { seen, limit } => {
                write!(f, "it had {seen} processes and threads, max_processes is {limit}")
            }
            Self::Scratch { found, limit } => {
                write!(f, "it had {found} in its scratch folder, scratch_limit is {limit}")
            }
            Self::DeviceMemory { used, quota } => {
                write!(f, "it had {used} bytes of device memory, its quota is {quota}")
            }
            Self::DeviceLost(why) => write!(f, "its device is lost: {why}"),
            Self::Hung { overdue } => {
                write!(f, "no answer for {overdue:?} longer than infer_timeout")
            }
            Self::Flood { what, seen, limit } => {
                write!(f, "{seen} {what} in one window, {limit} allowed")
            }
        }
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Doorbells => "doorbells",
            Self::Facts => "facts",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: HealthPolicy = HealthPolicy {
        grace: Duration::from_millis(500),
        spare_doorbells: 100,
        facts: 10,
        memory: Some(1000),
        threads: 50,
        scratch: Some(1 << 20),
    };

    fn reason(seen: &Observation) -> Option<Reason> {
        match POLICY.judge(seen) {
            Verdict::Healthy => None,
            Verdict::Unhealthy(reason) => Some(reason),
        }
    }

    #[test]
    fn silence_without_work_is_healthy() {
        assert_eq!(reason(&Observation::default()), None);
    }

    #[test]
    fn a_request_may_be_late_by_the_grace_and_no_more() {
        let late = |overdue| Observation { overdue: Some(overdue), ..Observation::default() };
        assert_eq!(reason(&late(POLICY.grace)), None);
        let overdue = POLICY.grace + Duration::from_nanos(1);
        assert_eq!(reason(&late(overdue)), Some(Reason::Hung { overdue }));
    }

    #[test]
    fn memory_counts_where_there_is_a_limit_and_somebody_looked() {
        let seen = |memory| Observation { memory, ..Observation::default() };
        assert_eq!(reason(&seen(Some(1000))), None);
        assert_eq!(reason(&seen(Some(1001))), Some(Reason::HostMemory { used: 1001, limit: 1000 }));
        assert_eq!(reason(&seen(None)), None);
        let boundless = HealthPolicy { memory: None, ..POLICY };
        assert_eq!(boundless.judge(&seen(Some(u64::MAX))), Verdict::Healthy);
    }

    #[test]
    fn threads_count_where_somebody_looked() {
        let seen = |threads| Observation { threads, ..Observation::default() };
        assert_eq!(reason(&seen(None)), None);
        assert_eq!(reason(&seen(Some(50))), None);
        assert_eq!(reason(&seen(Some(51))), Some(Reason::Threads { seen: 51, limit: 50 }));
    }

    #[test]
    fn what_is_on_disk_counts_where_there_is_a_limit_and_somebody_looked() {
        let seen = |scratch| Observation { scratch, ..Observation::default() };
        assert_eq!(reason(&seen(None)), None);
        assert_eq!(reason(&seen(Some(DiskUse::Bytes(1 << 20)))), None);
        for found in [DiskUse::Bytes((1 << 20) + 1), DiskUse::Endless("more of it")] {
            let limit = 1 << 20;
            assert_eq!(reason(&seen(Some(found))), Some(Reason::Scratch { found, limit }));
            let boundless = HealthPolicy { scratch: None, ..POLICY };
            assert_eq!(boundless.judge(&seen(Some(found))), Verdict::Healthy);
        }
    }

    #[test]
    fn a_busy_worker_may_ring_for_every_completion() {
        let busy = Observation { completions: 50_000, doorbells: 50_100, ..Observation::default() };
        assert_eq!(reason(&busy), None);
        let flood = Observation { doorbells: 101, ..Observation::default() };
        let expected = Reason::Flood { what: Flood::Doorbells, seen: 101, limit: 100 };
        assert_eq!(reason(&flood), Some(expected));
    }

    #[test]
    fn counts_at_the_edge_of_their_type_do_not_wrap() {
        let most = Observation {
            completions: u32::MAX,
            doorbells: u32::MAX,
            facts: 11,
            ..Observation::default()
        };
        let expected = Reason::Flood { what: Flood::Facts, seen: 11, limit: 10 };
        assert_eq!(reason(&most), Some(expected));
    }

    #[test]
    fn the_gravest_reason_is_named() {
        let all = Observation {
            overdue: Some(Duration::from_secs(9)),
            violation: Some("slot 7 completed twice".into()),
            completions: 0,
            doorbells: 5000,
            facts: 5000,
            scratch: Some(DiskUse::Endless("more of it")),
            memory: Some(5000),
            threads: Some(5000),
        };
        assert_eq!(reason(&all), Some(Reason::Violation("slot 7 completed twice".into())));
        let greedy = Observation { violation: None, ..all };
        let expected = Reason::HostMemory { used: 5000, limit: 1000 };
        assert_eq!(reason(&greedy), Some(expected));
        let many = Observation { memory: Some(1000), ..greedy };
        assert_eq!(reason(&many), Some(Reason::Threads { seen: 5000, limit: 50 }));
        let untidy = Observation { threads: Some(50), ..many };
        assert!(matches!(reason(&untidy), Some(Reason::Scratch { .. })));
        let hung = Observation { scratch: None, ..untidy };
        assert!(matches!(reason(&hung), Some(Reason::Hung { .. })));
    }
}
