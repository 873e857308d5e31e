//! What must not be said where, beside the levels.

use crate::source::{Source, Tests};
use crate::violation::Violation;

/// Words that may stand only in some files.
#[derive(Debug)]
struct Absence {
    /// Prefixes of paths.
    within: &'static [&'static str],
    except: &'static [&'static str],
    words: &'static [&'static str],
    tests: Tests,
    rule: &'static str,
}

const PRODUCT: &[&str] = &["supervisor/", "worker/", "shared/", "proto/"];

const ABSENCES: &[Absence] = &[
    Absence {
        within: &[
            "supervisor/src/frontend/",
            "supervisor/src/admission/",
            "supervisor/src/schedule/",
        ],
        except: &[],
        words: &["lifecycle", "process"],
        tests: Tests::Included,
        rule: "the data plane does not know the control plane: they meet in `route`",
    },
    Absence {
        within: &["supervisor/src/lifecycle/"],
        except: &[],
        words: &["frontend", "admission"],
        tests: Tests::Included,
        rule: "the control plane does not know the data plane: they meet in `route`",
    },
    Absence {
        within: &["supervisor/"],
        except: &["supervisor/src/frontend/"],
        words: &["hyper", "hyper_util", "http_body_util", "tonic"],
        tests: Tests::Included,
        rule: "only `frontend` speaks to clients",
    },
    Absence {
        within: PRODUCT,
        except: &[
            "supervisor/src/process/session.rs",
            "worker/src/session.rs",
            "proto/src/control.rs",
        ],
        words: &["ipc_channel"],
        tests: Tests::LeftOut,
        rule: "ipc-channel carries commands down, from session to session",
    },
    Absence {
        within: PRODUCT,
        except: &["supervisor/src/telemetry/traces/"],
        words: &["opentelemetry", "opentelemetry_sdk", "opentelemetry_otlp"],
        tests: Tests::Included,
        rule: "traces are noted in words of our own, and become OpenTelemetry's in one room",
    },
    Absence {
        within: PRODUCT,
        except: &["supervisor/src/frontend/metrics/"],
        words: &["prometheus_client"],
        tests: Tests::Included,
        rule: "counters are kept in `stats`; how they are written down is the front end's affair",
    },
    Absence {
        within: PRODUCT,
        except: &["supervisor/src/system/host.rs"],
        words: &["sysinfo"],
        tests: Tests::LeftOut,
        rule: "the machine is looked at in one place",
    },
    Absence {
        within: PRODUCT,
        except: &["proto/src/codec.rs"],
        words: &["bincode"],
        tests: Tests::Included,
        rule: "bincode is used with a limit, and so in `proto::codec` alone",
    },
    Absence {
        within: PRODUCT,
        except: &["supervisor/src/device/", "shared/src/sys/nvml_limits.rs"],
        words: &["nvml_wrapper", "nvml_wrapper_sys", "MemoryLimits"],
        tests: Tests::Included,
        rule: "only `device` speaks to the GPU driver",
    },
    Absence {
        within: PRODUCT,
        except: &["worker/torch/"],
        words: &["tch", "torch_sys"],
        tests: Tests::Included,
        rule: "only the worker that has libtorch in its name links it",
    },
    Absence {
        within: &["supervisor/", "worker/", "shared/", "proto/", "tests/"],
        except: &[
            "shared/src/sys/",
            "shared/src/memory/",
            "shared/src/ring/",
            "worker/src/engine/",
            "worker/torch/",
            // A library of C functions: it is called with pointers.
            "tests/fake_nvml/",
        ],
        words: &["unsafe"],
        tests: Tests::Included,
        rule: "unsafe code has an address: shared::{sys, memory, ring} and the engines",
    },
    Absence {
        within: PRODUCT,
        except: &["shared/src/sync.rs"],
        words: &["sync::atomic", "AtomicPtr", "AtomicI32", "AtomicI64", "AtomicU8"],
        tests: Tests::LeftOut,
        rule: "atomics come from shared::sync, so that loom can take their place",
    },
    Absence {
        within: &["shared/", "worker/", "proto/"],
        except: &[],
        words: &["async", "await", "tokio"],
        tests: Tests::Included,
        rule: "a worker has no async runtime, nor what it shares with the supervisor",
    },
    Absence {
        within: &["supervisor/", "worker/", "shared/", "proto/", "tests/"],
        except: &[],
        words: &["thread::sleep"],
        tests: Tests::Included,
        rule: "wait on a condition with a deadline; a sleep is a guess",
    },
    Absence {
        within: PRODUCT,
        except: &["supervisor/src/main.rs"],
        words: &["anyhow"],
        tests: Tests::LeftOut,
        rule: "an error that crosses a module has a type; anyhow is for main and for tests",
    },
    Absence {
        within: PURE,
        except: &[],
        words: IMPURE,
        tests: Tests::LeftOut,
        rule: "this file is pure: no waiting, clock, file, lock, thread or randomness",
    },
];

/// Policies and computations that tests drive without a world around them.
const PURE: &[&str] = &[
    "shared/src/elements.rs",
    "shared/src/limits.rs",
    "shared/src/ring/doorbell.rs",
    "shared/src/ring/table.rs",
    "shared/src/tensor.rs",
    "shared/src/text.rs",
    "supervisor/src/config/check.rs",
    "supervisor/src/config/diff.rs",
    "supervisor/src/device/checked.rs",
    "supervisor/src/device/reading.rs",
    "supervisor/src/device/roster.rs",
    "supervisor/src/device/xid.rs",
    "supervisor/src/config/reload.rs",
    "supervisor/src/enclosure/hierarchy.rs",
    "supervisor/src/enclosure/name.rs",
    "supervisor/src/enclosure/report.rs",
    "supervisor/src/enclosure/settings.rs",
    "supervisor/src/exit_kind.rs",
    "supervisor/src/frontend/http/decode/cells.rs",
    "supervisor/src/frontend/http/decode/depth.rs",
    "supervisor/src/frontend/http/decode/headers.rs",
    "supervisor/src/frontend/http/decode/inflate.rs",
    "supervisor/src/frontend/http/decode/parameters.rs",
    "supervisor/src/frontend/http/decode/plan.rs",
    "supervisor/src/frontend/http/decode/raw.rs",
    "supervisor/src/frontend/http/decode/scatter.rs",
    "supervisor/src/frontend/http/status.rs",
    "supervisor/src/health/device.rs",
    "supervisor/src/health/suspects.rs",
    "supervisor/src/health/verdict.rs",
    "supervisor/src/health/vigil.rs",
    "supervisor/src/lane/order.rs",
    "supervisor/src/lane/table.rs",
    "supervisor/src/lifecycle/classify.rs",
    "supervisor/src/lifecycle/effect.rs",
    "supervisor/src/lifecycle/event.rs",
    "supervisor/src/lifecycle/facts.rs",
    "supervisor/src/lifecycle/history.rs",
    "supervisor/src/lifecycle/machine.rs",
    "supervisor/src/lifecycle/outcome.rs",
    "supervisor/src/lifecycle/reload/deed.rs",
    "supervisor/src/lifecycle/reload/plan.rs",
    "supervisor/src/lifecycle/reload/report.rs",
    "supervisor/src/lifecycle/restart.rs",
    "supervisor/src/lifecycle/state.rs",
    "supervisor/src/quota/accounts.rs",
    "supervisor/src/quota/gate.rs",
    "supervisor/src/quota/ledger.rs",
    "supervisor/src/quota/measured.rs",
    "supervisor/src/quota/placement.rs",
    "supervisor/src/quota/sighting.rs",
    "supervisor/src/repository/geometry.rs",
    "supervisor/src/repository/select.rs",
    "supervisor/src/request.rs",
    "supervisor/src/schedule/pool.rs",
    "supervisor/src/schema.rs",
    "supervisor/src/stats/histogram.rs",
    "supervisor/src/stats/minute.rs",
    "supervisor/src/system/standing.rs",
    "supervisor/src/telemetry/traces/parent.rs",
    "supervisor/src/telemetry/traces/spans.rs",
    "worker/src/confine/plan.rs",
    "worker/src/confine/rules.rs",
    "worker/src/engine/device.rs",
    "worker/src/pump/exhaustion.rs",
    "worker/src/pump/place.rs",
];

const IMPURE: &[&str] = &[
    "async",
    "await",
    "Instant::now",
    "MonotonicNanos::now",
    "SystemTime",
    "fs",
    "File",
    "Mutex",
    "RwLock",
    "Condvar",
    "thread",
    "rand",
    "mpsc",
    "oneshot",
];

pub(crate) fn check(source: &Source) -> Vec<Violation> {
    let in_any = |prefixes: &[&str]| prefixes.iter().any(|p| source.path.starts_with(p));
    let mut found = Vec::new();
    for absence in ABSENCES {
        let left_out = absence.tests == Tests::LeftOut && source.is_test();
        if !in_any(absence.within) || in_any(absence.except) || left_out {
            continue;
        }
        for word in absence.words {
            for line in source.mentions(word, absence.tests) {
                let message = format!("`{word}` here: {}", absence.rule);
                found.push(Violation::new(source, line, message));
            }
        }
    }
    found
}

/// The names in the tables that no file has any more.
pub(crate) fn stale(sources: &[Source]) -> Vec<Violation> {
    let named = ABSENCES.iter().flat_map(|a| a.within.iter().chain(a.except));
    named
        .filter(|name| !sources.iter().any(|source| source.path.starts_with(**name)))
        .map(|name| Violation::of_file(name, "a rule names this, and it does not exist".into()))
        .collect()
}
