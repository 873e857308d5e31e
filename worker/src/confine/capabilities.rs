//! The powers of root, all of them.
//!
//! A worker of a root supervisor keeps the user number 0 and with it the files of root, but reads no
//! file that root's own permissions do not let it read.

use caps::{CapSet, CapsHashSet, errors::CapsError};
use proto::control::Taken;

pub(super) fn drop_all() -> Taken {
    // First, because it needs a capability. Whoever lacks that has none that exec could give back:
    // no_new_privs is set and seccomp refuses exec.
    let bounding = caps::clear(None, CapSet::Bounding);
    let sets = [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted];
    let cleared = sets.into_iter().try_for_each(|set| caps::clear(None, set)).and_then(|()| none());
    match (cleared, bounding) {
        (Err(error), _) => Taken::Missing(error.to_string()),
        (Ok(()), Ok(())) => Taken::Holds("none left".into()),
        (Ok(()), Err(_)) => Taken::Holds("none left; the bounding set is root's to clear".into()),
    }
}

fn none() -> Result<(), CapsError> {
    let left: CapsHashSet = caps::read(None, CapSet::Permitted)?;
    if left.is_empty() { Ok(()) } else { Err(format!("{} are left", left.len()).into()) }
}
