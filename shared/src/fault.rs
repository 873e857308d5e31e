//! Fail points: named places at which a test has a process of ours go wrong.
//!
//! `BULKHEAD_FAULTS` names a folder. A fail point fires once for each time that a file of its name is
//! put there, and takes the file away. A release build has none of it: [`fires`] is `false` there,
//! whatever the environment says, and what would follow is not compiled in.

#[cfg(debug_assertions)]
const FOLDER: &str = "BULKHEAD_FAULTS";

/// Whether the fail point with this name is to go wrong now.
#[cfg(debug_assertions)]
pub fn fires(name: &str) -> bool {
    let folder = std::env::var_os(FOLDER).map(std::path::PathBuf::from);
    folder.is_some_and(|folder| std::fs::remove_file(folder.join(name)).is_ok())
}

#[cfg(not(debug_assertions))]
#[inline]
pub const fn fires(_name: &str) -> bool {
    false
}

/// If the fail point fires, keeps this thread for ever.
pub fn hang(name: &str) {
    if fires(name) {
        loop {
            std::thread::park();
        }
    }
}
