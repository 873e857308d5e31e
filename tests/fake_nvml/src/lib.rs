//! A library that answers as NVIDIA's management library does, with what a test has written down.
//!
//! It exports what `nvml-wrapper` calls of it for Bulkhead, and with the feature `r615` the two functions
//! for memory limits of control groups. What it says stands in a text file beside the library itself, with
//! `.control` behind its name, which is read again in each call; a test replaces it as a whole (by a
//! rename). So each copy of the library is a machine of its own. It has to be a copy: the loader takes two
//! links to one file for one library. What it is told goes to a file with `.log` behind the name.
//!
//! A line of the control file is a word and what belongs to it:
//!
//! ```text
//! driver VERSION            the version of the driver
//! init CODE                 the initialisation fails with this code
//! count NUMBER              so many devices are counted, whatever there are
//! delay MILLISECONDS        every call takes so long
//! hang FUNCTION             this one does not return as long as this line is there; * is each of them
//! answer FUNCTION CODE      this one gives this code and does nothing else
//! limits fail CODE          setting a limit gives this code
//! limits read SOFT HARD     whatever was set, this is read
//! device UUID               a device; what follows is about it, up to the next one
//! slice UUID                an instance of the last device, which is in MIG mode; likewise
//! mig                       the device is in MIG mode, with or without instances
//! name TEXT
//! memory TOTAL RESERVED USED
//! busy PERCENT
//! compute NUMBER BYTES      a process that computes; BYTES may be `unknown`
//! graphics NUMBER BYTES     one that draws
//! processes COUNT           there are said to be so many processes of either kind
//! garbled                   the newer form of both lists is nonsense
//! lost CODE                 every question about the device gives this code
//! xid EVENT NUMBER          an error of this number, reported once for each name of an event
//! ```
//!
//! `answer` after `device` or `slice` is about calls for that one. The words `init` and `shutdown` in the
//! log are calls of these; `set UUID GROUP SOFT HARD` is a limit that was asked for.

pub mod calls;
mod control;
pub mod events;
#[cfg(feature = "r615")]
pub mod limits;
mod machine;
pub mod processes;
