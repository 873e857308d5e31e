//! What the driver's error numbers (Xid) say of a device; pure.
//!
//! A number counts as the loss of the device where NVIDIA's catalog of them ("Analyzing Xid Errors with
//! the Xid Catalog", the table for A100 and newer, column *immediate action*) has the device reset or the
//! machine restarted before anything runs on it again: `RESET_GPU`, `RESTART_BM`, and of its workflows
//! that of 48, which ends in a reset, and 74, whose text says that it takes one. Exceptions:
//!
//! - 155 and 156 are also told of what is intended, or may wait: links that are put to sleep, memory
//!   that is taken out of use.
//! - 144 to 150 (NVLink 5) mean anything from nothing to a reset, by details that are not in the event.
//! - 154 says that the recommended action has changed, and not to what; what it follows is judged
//!   instead.
//! - 167 has no action in the catalog, and no answer from the device either.
//!
//! An application's are those that the catalog answers with `RESTART_APP`, and 43 and 45, which are the
//! end of an application in other words: who caused one is ended by its own error.

/// What a number means for whoever uses the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing runs on it until it was reset; why.
    Lost(&'static str),
    /// The fault of one process, which notices by itself.
    Application(&'static str),
    /// Worth a line in the log.
    Notice(&'static str),
}

/// What the driver says where it does not know either.
pub const UNKNOWN: u64 = 999;

#[must_use]
pub fn meaning(xid: u64) -> Meaning {
    let found = MEANINGS.iter().find(|(numbers, _)| numbers.contains(&xid));
    found.map_or(Meaning::Notice("a number that is not in the table"), |(_, meaning)| *meaning)
}

use Meaning::{Application, Lost, Notice};

const MEANINGS: &[(&[u64], Meaning)] = &[
    (&[46], Lost("it has stopped processing")),
    (&[48], Lost("an uncorrectable memory error (double bit ECC)")),
    (&[62], Lost("its internal micro-controller has halted")),
    (&[64], Lost("broken memory could not be taken out of use")),
    (&[74], Lost("an NVLink connection has failed")),
    (&[79], Lost("it has fallen off its bus")),
    (&[95], Lost("a memory error that is not contained in one application")),
    (&[109], Lost("it does not switch between contexts any more")),
    (&[110], Lost("a security fault of its hardware")),
    (&[119], Lost("its system processor (GSP) does not answer")),
    (&[120], Lost("an error of its system processor (GSP)")),
    (&[136], Lost("an NVLink connection cannot be trained")),
    (&[140], Lost("a memory error that could not be dealt with")),
    (&[143], Lost("it could not be initialised")),
    (&[158, 167], Lost("it does not answer in time, for good")),
    (&[8], Application("its work took too long")),
    (&[11, 25, 32, 80], Application("an invalid stream of commands")),
    (&[13], Application("an illegal operation, as an access out of bounds")),
    (&[31], Application("an access to memory that is not mapped")),
    (&[39, 40, 41, 70, 71, 72, 75, 76, 77, 85], Application("an error of a copy engine")),
    (&[126, 127, 128, 129, 130, 131, 132, 133, 134, 135], Application("an error of a copy engine")),
    (&[43], Application("it was stopped after an error of its own")),
    (&[45], Application("what it had was cleaned up after it was aborted")),
    (&[60, 68, 83, 84, 88, 89, 96, 97, 98], Application("an error of a video engine")),
    (&[82, 99, 100, 101, 102, 103, 104, 105], Application("an error of a picture engine")),
    (&[69], Application("an invalid method of the graphics engine")),
    (&[86, 139], Application("an error of the optical flow engine")),
    (&[94], Application("a memory error that is contained in one application")),
    (&[37, 38], Notice("an error of the driver's firmware")),
    (&[44], Notice("a fault during a context switch")),
    (&[54], Notice("its auxiliary power is not connected")),
    (&[63], Notice("broken memory was taken out of use")),
    (&[66, 67], Notice("an illegal access by the driver")),
    (&[92], Notice("many memory errors that were corrected")),
    (&[121], Notice("errors of the link to the processor that were corrected")),
    (&[137], Notice("an illegal access over NVLink")),
    (&[144, 145, 146, 147, 148, 149, 150], Notice("an error of NVLink")),
    (&[154], Notice("what is recommended to recover it has changed")),
    (&[155], Notice("an NVLink connection is down, which may be intended")),
    (&[156, 157, 160, 161], Notice("parts of it are taken out of use")),
    (&[171, 172], Notice("details of an uncorrectable memory error")),
    (&[UNKNOWN], Notice("an error that the driver has no number for")),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_needs_a_reset_is_the_loss_of_the_device() {
        for xid in [46, 48, 62, 64, 74, 79, 95, 109, 110, 119, 120, 136, 140, 143, 158] {
            assert!(matches!(meaning(xid), Lost(_)), "{xid}");
        }
    }

    #[test]
    fn what_an_application_does_wrong_costs_nobody_the_device() {
        for xid in [13, 31, 43, 45, 68, 69, 94] {
            assert!(matches!(meaning(xid), Application(_)), "{xid}");
        }
        for xid in [0, 63, 92, 154, UNKNOWN, u64::MAX] {
            assert!(matches!(meaning(xid), Notice(_)), "{xid}");
        }
    }

    #[test]
    fn no_number_means_two_things() {
        let numbers: Vec<u64> =
            MEANINGS.iter().flat_map(|(numbers, _)| *numbers).copied().collect();
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len());
    }
}
