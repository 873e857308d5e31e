//! The kernel's limits for one process.
//!
//! Not among them is `RLIMIT_NPROC`: it counts all processes and threads of a user, so that it would
//! let one model's threads keep another's from starting, and it does not bind root at all. New
//! processes are refused by seccomp; the number of threads is a matter of control groups.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proto::control::{Confinement, Device, Taken};

/// How much sooner than others a worker is chosen when the machine's memory runs out: between -1000
/// and 1000; others have 0.
const OOM_SCORE_ADJ: i32 = 500;
const OOM_FILE: &str = "/proc/self/oom_score_adj";

/// Descriptors alone, in a way that the model can undo.
pub(super) fn descriptors(confinement: &Confinement) -> Taken {
    let most = u64::from(confinement.max_descriptors);
    let lowered = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, most.min(hard), hard));
    match lowered {
        Ok(()) => Taken::Holds(most.to_string()),
        Err(error) => Taken::Missing(format!("setrlimit: {error}")),
    }
}

/// Descriptors, locked memory, message queues, real-time priorities.
pub(super) fn resources(confinement: &Confinement, device: Device) -> Taken {
    let descriptors = u64::from(confinement.max_descriptors);
    let mut limits = vec![
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, descriptors),
        (Resource::RLIMIT_MSGQUEUE, 0),
        (Resource::RLIMIT_RTPRIO, 0),
    ];
    if device == Device::Cpu {
        limits.push((Resource::RLIMIT_MEMLOCK, 0));
    }
    match limits.into_iter().try_for_each(|(resource, most)| lower(resource, most)) {
        Ok(()) => Taken::Holds(format!("{descriptors} descriptors")),
        Err(error) => Taken::Missing(format!("setrlimit: {error}")),
    }
}

/// Private memory, and the size of each memory object and file.
pub(super) fn data(limit: u64) -> Taken {
    shared::sys::process::ignore_file_size_signal();
    let both =
        lower(Resource::RLIMIT_DATA, limit).and_then(|()| lower(Resource::RLIMIT_FSIZE, limit));
    match both {
        Ok(()) => Taken::Holds(format!(
            "{} MiB of private memory; memory objects of large outputs are bounded one by one, \
             not together",
            limit >> 20
        )),
        Err(error) => Taken::Missing(format!("setrlimit: {error}")),
    }
}

/// Lowers both values; one that is lower already stays.
fn lower(resource: Resource, most: u64) -> Result<(), Errno> {
    let (_, hard) = getrlimit(resource)?;
    let most = most.min(hard);
    setrlimit(resource, most, most)
}

/// Has the kernel choose this process before others when memory runs out.
pub(super) fn out_of_memory_first() -> Taken {
    let now = std::fs::read_to_string(OOM_FILE);
    let now: i32 = now.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let wanted = now.max(OOM_SCORE_ADJ);
    match std::fs::write(OOM_FILE, wanted.to_string()) {
        Ok(()) => Taken::Holds(wanted.to_string()),
        Err(error) => Taken::Missing(format!("{OOM_FILE}: {error}")),
    }
}
