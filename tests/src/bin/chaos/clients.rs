//! Steady requests to every model, each held against what it may be answered.

use std::thread::Scope;
use std::time::{Duration, Instant};

use crate::field::Field;
use crate::fleet::{Engine, TORCH_WITNESS, Victim, WITNESS};
use crate::question::Tolerance;

/// Enough to notice what a fault next door does, and little enough to leave the processors to others.
const PACE: Duration = Duration::from_millis(10);

/// Longer than the model that goes to rest takes to do so.
const DROWSY: Duration = Duration::from_millis(500);

/// Who asks one model.
#[derive(Clone, Copy, Debug)]
struct Asker {
    model: &'static str,
    engine: Engine,
    number: u16,
    tolerance: Tolerance,
    pace: Duration,
}

/// Two for each model, until the field says stop.
pub(crate) fn start<'scope>(field: &'scope Field<'_>, scope: &'scope Scope<'scope, '_>) {
    for number in 0..2 {
        let witness =
            |model, engine| Asker { model, engine, number, tolerance: Tolerance::None, pace: PACE };
        let mut askers = vec![witness(WITNESS, Engine::Echo)];
        askers.extend(field.torch.map(|_| witness(TORCH_WITNESS, Engine::Torch)));
        askers.extend(field.victims.iter().map(|victim| Asker {
            model: victim.name(),
            engine: victim.engine(),
            number,
            tolerance: Tolerance::Faults,
            pace: if *victim == Victim::Sleepy { DROWSY } else { PACE },
        }));
        for asker in askers {
            scope.spawn(move || ask(field, asker));
        }
    }
}

fn ask(field: &Field<'_>, asker: Asker) {
    let Asker { model, engine, number, tolerance, pace } = asker;
    let mut client = field.server.client();
    let mut questions = field.questions(model, number, engine);
    while !field.stop.comes_within(pace) {
        let question = questions.next();
        let sent = Instant::now();
        let outcome = client.try_infer(&question.infer);
        question.judge(&field.journal, model, tolerance, (&outcome, sent.elapsed()));
    }
}
