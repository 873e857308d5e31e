//! Faults at random over several models under load, with what must hold checked all along.
//!
//! - `dice`, `schedule`: which fault comes when; the same for the same seed.
//! - `fleet`: the models, each with a policy of its own, and the witnesses, which nothing strikes.
//! - `field`, `journal`: what is shared, and what is written down.
//! - `question`, `clients`: requests with known answers, to all models.
//! - `strike`, `nuisance`: carry faults out.
//! - `census`: what must hold whenever no fault comes for a while.
//! - `causes`: whether each worker ended for what was done to it.
//! - `report`: the table at the end, or all there is to know about a violation.
//!
//! What must hold: a witness has no error and no wrong answer; every request is answered in time with a
//! documented status; no worker ends as anything but what was done to it; in a truce every model comes back, the server is as small as before, and nothing
//! is left of what was struck; in the end the server exits with 0 and leaves nothing.

mod causes;
mod census;
mod clients;
mod dice;
mod field;
mod fleet;
mod journal;
mod nuisance;
mod question;
mod report;
mod schedule;
mod strike;

use std::io::Write as _;
use std::process::ExitCode;
use std::thread::scope;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;

use crate::causes::Causes;
use crate::census::Footprint;
use crate::field::Field;
use crate::fleet::{Torch, builder};
use crate::schedule::{Fault, Nuisance, Schedule};

/// Draws faults at random over several models under load, and checks what must hold all along.
#[derive(Debug, Parser)]
#[command(name = "scripts/chaos")]
struct Options {
    /// How long, without the start and the end.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// The same seed draws the same faults; printed if it is drawn.
    #[arg(long)]
    seed: Option<u64>,
}

/// Between two truces.
const ROUND: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(any_seed);
    let limit = Duration::try_from_secs_f64(options.minutes * 60.0).unwrap_or(ROUND);
    tests::say(&format!("chaos: seed {seed}, {limit:.0?} of faults"));
    let torch = Torch::find();
    let mut server = builder(torch.as_ref()).start();
    let field = Field::new(&server, torch.as_ref());
    let footprints = scope(|scope| {
        clients::start(&field, scope);
        let footprints = battle(&field, seed, limit);
        field.stop.stop();
        footprints
    });
    if let Err(what) = &footprints {
        field.journal.violated(what.clone());
    }
    let mut pages = field.journal.read();
    if pages.violation.is_none()
        && let Err(what) = census::end(&mut server)
    {
        pages.violation = Some((limit, what));
    }
    if let Some(text) = report::violation(seed, &pages, &server) {
        tests::say(&text);
        return ExitCode::FAILURE;
    }
    let summary = footprints.map(|found| report::summary(&pages, server.logs(), found));
    let text = format!("{}{}", summary.unwrap_or_default(), report::verdict(seed, &pages));
    let _closed = writeln!(std::io::stdout(), "{text}");
    ExitCode::SUCCESS
}

fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos())
}

/// Rounds of faults with a truce after each. The server's footprint before and after.
fn battle(field: &Field<'_>, seed: u64, limit: Duration) -> Result<(Footprint, Footprint), String> {
    warm(field);
    let before = census::truce(field, None)?;
    tests::say(&report::progress(&field.journal.read(), field.journal.elapsed(), before));
    let mut after = before;
    let mut schedule = Schedule::new(seed, &field.victims);
    let mut causes = Causes::default();
    let end = field.journal.elapsed() + limit;
    while field.journal.elapsed() < end && !field.journal.is_violated() {
        let round = (field.journal.elapsed() + ROUND).min(end);
        fight(field, &mut schedule, round);
        if field.journal.is_violated() {
            break;
        }
        after = census::truce(field, Some(before))?;
        let pages = field.journal.read();
        if let Some(what) = causes.unexplained(field.server.logs(), &pages, &field.victims) {
            return Err(what);
        }
        tests::say(&report::progress(&pages, field.journal.elapsed(), after));
    }
    Ok((before, after))
}

/// What makes a server take memory once is no growth: an allocator keeps some of the largest moment. This
/// is larger than any that comes by chance.
fn warm(field: &Field<'_>) {
    for _ in 0..3 {
        scope(|scope| {
            for &victim in &field.victims {
                for nuisance in [Nuisance::LargeInputs, Nuisance::HangUpInAnswer] {
                    let fault = Fault::Client(victim, nuisance);
                    scope.spawn(move || strike::strike(field, fault, 0));
                }
            }
            scope.spawn(move || strike::strike(field, Fault::Crowd, 0));
        });
    }
}

/// One round: it ends when the last of its faults has been answered.
fn fight(field: &Field<'_>, schedule: &mut Schedule, end: Duration) {
    scope(|scope| {
        while field.journal.elapsed() < end && !field.journal.is_violated() {
            let step = schedule.next();
            let _never_while_this_runs = field.stop.comes_within(step.pause);
            let number = field.journal.note(step.fault);
            scope.spawn(move || strike::strike(field, step.fault, number));
        }
    });
}
