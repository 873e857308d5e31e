//! How long a call takes; printed, not asserted.

use std::path::Path;
use std::time::{Duration, Instant};

use shared::id::RequestId;
use worker::engine::{Outputs, PlaceError, Placed, PlannedOutput, Request};

use crate::support::{Draft, fp32, model, say};

/// One buffer that is used again, as a slot is.
struct Slot(Vec<u8>);

impl Outputs for Slot {
    fn place(&mut self, plan: &[PlannedOutput]) -> Result<Placed<'_>, PlaceError> {
        Ok(Placed { bytes: vec![&mut self.0[..plan[0].len]] })
    }
}

#[test]
fn the_time_of_a_call_is_printed() {
    print_time("identity", model("def forward(self, x):\n    return x\n"));
    match std::env::var_os("BULKHEAD_TEST_MODELS") {
        Some(folder) => print_time("mlp", Draft::of_file(&Path::new(&folder).join("mlp.pt"))),
        None => say("skipped: the time of mlp's call needs BULKHEAD_TEST_MODELS"),
    }
}

fn print_time(name: &str, draft: Draft) {
    let mut model = draft.load();
    let x = fp32(&[1, 64], &[0.5; 64]);
    let inputs = [x.view(0)];
    let mut slot = Slot(vec![0; 4096]);
    let mut times = Vec::new();
    for _ in 0..2000 {
        let start = Instant::now();
        model
            .engine
            .infer(&Request { id: RequestId(0), inputs: &inputs, wanted: 1 }, &mut slot)
            .unwrap();
        times.push(start.elapsed());
    }
    say(&format!("{name}: {:?} a call", median(&mut times[200..])));
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
