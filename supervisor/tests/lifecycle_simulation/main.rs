//! Drives the lifecycle machine through a made-up world, thousands of times, and checks the eight
//! properties of its contract after every step:
//!
//! 1. A route is published only in Ready, and withdrawn before any signal is sent.
//! 2. The in-flight requests of a generation are completed or failed exactly once.
//! 3. Quota is released once per grant, and only after the exit was seen.
//! 4. An event of an older generation, timer or reservation changes nothing and has no effect.
//! 5. Restarts in any window never exceed the budget; when faults stop and timers are served, every
//!    path rests in Unloaded, Ready, Resting or Quarantined.
//! 6. Requests to stop are idempotent in every state.
//! 7. A worker that nobody uses is ended with nothing in flight, and no request waits for ever for a
//!    model that rests.
//! 8. A model that was up, or is held back, is unloaded only if somebody asks for that; never because
//!    memory was denied when it was to come back.
//!
//! A seed that fails is named in the panic; `BULKHEAD_SIM_SEED=N` replays that one, and
//! `BULKHEAD_SIM_SEEDS=N` sets how many are tried. Each property is also shown to have teeth: a
//! machine whose effects are tampered with is caught.

mod checker;
mod subject;
mod world;

use subject::Mutation;
use world::{Tally, World};

const SEEDS: u64 = 2000;
const STEPS: usize = 400;

/// One life. The error names the property that was broken.
fn run(seed: u64, mutation: Mutation) -> Result<Tally, String> {
    let mut world = World::new(seed, mutation);
    for _ in 0..STEPS {
        world.step()?;
    }
    world.come_to_rest()?;
    Ok(world.tally)
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("the variable holds a number"))
}

#[test]
fn eight_properties_hold_for_every_seed() {
    let seeds = match number_from("BULKHEAD_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from("BULKHEAD_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let one = seeds.end - seeds.start == 1;
    let mut total = Tally::default();
    for seed in seeds {
        match run(seed, Mutation::None) {
            Ok(tally) => total.add(&tally),
            Err(broken) => panic!("{broken}\nreplay with BULKHEAD_SIM_SEED={seed}"),
        }
    }
    println!("{total:?}");
    assert!(one || total.is_thorough(), "the world is too tame to show anything: {total:?}");
}

/// Tampers with the machine and expects the property to notice, within a few seeds.
fn is_caught(mutation: Mutation, property: &str) {
    let caught: Vec<String> = (0..200).filter_map(|seed| run(seed, mutation).err()).collect();
    assert!(!caught.is_empty(), "{mutation:?} went unnoticed");
    assert!(
        caught.iter().any(|broken| broken.starts_with(property)),
        "{mutation:?} was noticed, but not as {property}: {}",
        caught[0]
    );
}

#[test]
fn a_route_kept_while_stopping_is_caught() {
    is_caught(Mutation::KeepRoute, "property 1");
}

#[test]
fn a_signal_before_the_withdrawal_is_caught() {
    is_caught(Mutation::SignalFirst, "property 1");
}

#[test]
fn forgotten_requests_are_caught() {
    is_caught(Mutation::ForgetInFlight, "property 2");
}

#[test]
fn requests_failed_twice_are_caught() {
    is_caught(Mutation::FailTwice, "property 2");
}

#[test]
fn a_release_before_the_exit_is_caught() {
    is_caught(Mutation::ReleaseEarly, "property 3");
}

#[test]
fn not_waiting_for_the_exit_is_caught() {
    is_caught(Mutation::ForgeExit, "property 3");
}

#[test]
fn a_forgotten_release_is_caught() {
    is_caught(Mutation::ForgetRelease, "property 3");
}

#[test]
fn accepting_a_stale_generation_is_caught() {
    is_caught(Mutation::AcceptStale, "property 4");
}

#[test]
fn restarts_beyond_the_budget_are_caught() {
    is_caught(Mutation::LargeBudget, "property 5");
}

#[test]
fn a_kill_that_is_tried_once_is_caught() {
    is_caught(Mutation::KillOnce, "property 5");
}

#[test]
fn demand_that_is_not_heard_is_caught() {
    is_caught(Mutation::DeafToDemand, "property 7");
}

#[test]
fn a_model_that_is_given_up_when_memory_is_denied_is_caught() {
    is_caught(Mutation::GiveUpWhenDenied, "property 8");
}

#[test]
fn a_rest_in_the_middle_of_requests_is_caught() {
    is_caught(Mutation::RestWhileBusy, "property 7");
}

#[test]
fn a_signal_for_each_request_to_stop_is_caught() {
    is_caught(Mutation::SignalAgain, "property 6");
}
