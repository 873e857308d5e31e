//! Every measure of a confinement, in the order that they need.

use proto::control::{Confinement, Level, LoadSpec, Measure, Taken};

use super::namespaces::Separated;
use super::seccomp::Subject;
use super::{capabilities, landlock, limits, seccomp};

/// Takes every measure of `confinement`, for good, and says what came of each.
///
/// The process must have one thread. Afterwards it can open the files of `spec` and what its
/// libraries need, and write to the scratch folder alone.
pub fn apply(confinement: &Confinement, spec: &LoadSpec, separated: Separated) -> Vec<Measure> {
    let mut report = Report(Vec::new());
    // Not before: the kernel lets nobody send descriptors while more of the same user's are on their
    // way than its limit is, and a handshake has some to send.
    match confinement.level {
        Level::None => {
            if let missing @ Taken::Missing(_) = limits::descriptors(confinement) {
                report.add("descriptors", missing);
            }
            return report.0;
        }
        Level::Standard => {}
        Level::Strict => report.0.extend(separated.measures()),
    }
    report.add("one thread", one_thread());
    report.add("limits", limits::resources(confinement, spec.device));
    if let Some(limit) = confinement.data_limit {
        report.add("data limit", limits::data(limit));
    }
    report.add("killed first", limits::out_of_memory_first());
    let files = landlock::restrict(confinement, spec);
    let other_processes_are_shut = files.fully_shut();
    report.0.extend(files.measures);
    if !other_processes_are_shut {
        report.add("not dumpable", not_dumpable());
    }
    report.add("capabilities", capabilities::drop_all());
    // Last: it refuses calls that the others make.
    let pid = std::process::id();
    let data_limit = confinement.data_limit;
    report.add("seccomp", seccomp::install(Subject { device: spec.device, data_limit, pid }));
    report.0
}

#[derive(Debug)]
struct Report(Vec<Measure>);

impl Report {
    fn add(&mut self, name: &str, outcome: Taken) {
        self.0.push(Measure { name: name.into(), outcome });
    }
}

/// Landlock and the capabilities of a thread that runs already stay as they are.
fn one_thread() -> Taken {
    match shared::sys::process::threads() {
        1 => Taken::Holds(String::new()),
        0 => Taken::Missing("/proc does not say how many threads there are".into()),
        more => Taken::Missing(format!("{more} threads ran already")),
    }
}

/// The next best where Landlock does not keep workers apart: no process of the same user reads this
/// one's memory. It costs the supervisor of an ordinary user its own look at it, so only there.
fn not_dumpable() -> Taken {
    match nix::sys::prctl::set_dumpable(false) {
        Ok(()) => Taken::Holds("in place of Landlock".into()),
        Err(error) => Taken::Missing(format!("prctl: {error}")),
    }
}
