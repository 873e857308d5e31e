//! Workers that are hostile to their supervisor: each attack is seen for what it is, or does nothing.

use tests::Infer;

use crate::row::Row;
use crate::scene::VICTIM;

/// The answer may have come before what was wrong was seen, in a worker that went on.
const OR_ANSWERED: &[u16] = &[200, 500];

fn violation(command: &str, statuses: &[u16]) {
    Row::new().strike(command, statuses, "ended").back_after("violation").run();
}

/// The kernel refuses it, each of the ways that there are; the model's error says how.
fn refused(command: &str) {
    for level in ["standard", "none"] {
        Row::new().server("worker.confinement", level).strike(command, &[500], "refused: ").run();
    }
}

#[test]
fn a_doorbell_flood() {
    Row::new().strike("flood-bell 10000000", OR_ANSWERED, "ended").back_after("flood").run();
}

#[test]
fn a_ring_scribble() {
    violation("scribble", &[500]);
}

#[test]
fn a_forged_completion() {
    violation("forge", &[500]);
}

#[test]
fn a_replayed_completion() {
    violation("replay", &[500]);
}

#[test]
fn a_malformed_fact() {
    violation("malformed-fact", OR_ANSWERED);
}

#[test]
fn a_second_confinement() {
    violation("confined-again", OR_ANSWERED);
}

#[test]
fn a_closed_control_socket() {
    violation("close-socket", &[500]);
}

/// Pages of what it may write are the worker's to give back: they read as zeros, which is no ring.
#[test]
fn holes_in_the_responses() {
    violation("punch-hole responses", &[500]);
}

#[test]
fn holes_in_the_requests() {
    refused("punch-hole requests");
}

#[test]
fn requests_cut_short() {
    refused("truncate requests");
}

#[test]
fn responses_cut_short() {
    refused("truncate responses");
}

#[test]
fn requests_overwritten() {
    refused("overwrite");
}

/// What is sent to it piles up to the limit of a socket, is refused from then on, and all that does
/// not come over the socket is served.
#[test]
fn a_control_socket_that_is_not_read() {
    let large = || Infer::new(VICTIM).floats(&vec![1.5; 20_000]).once();
    let row = Row::new().set("slot_size", "4KiB").strike("unread", &[200], "");
    let row = (0..400).fold(row, |row, _| row.request(large(), &[507, 503], ""));
    row.run();
}
