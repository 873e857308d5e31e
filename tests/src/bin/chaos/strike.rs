//! Carries faults out, and looks at what each of them is answered.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::workers::zygotes_of;
use tests::{Client, Echo, Infer, Response};

use crate::field::Field;
use crate::fleet::{Engine, Victim};
use crate::nuisance;
use crate::question::{Tolerance, check};
use crate::schedule::{Change, Control, Fault, Repeat};

/// Starts of a worker included, and the end of one that does not want to.
const CONTROL_LIMIT: Duration = Duration::from_secs(40);

pub(crate) fn strike(field: &Field<'_>, fault: Fault, number: usize) {
    match fault {
        Fault::Signal(victim, signal) => send_signal(field, victim, signal),
        Fault::Command(victim, command, repeat) => {
            send_command(field, victim, &unique(victim, number), (command, repeat));
        }
        Fault::Deaf(victim) => one_by_one(field, victim, number, ["ignore-term", "hang sleep"]),
        Fault::Bomb(victim) => one_by_one(field, victim, number, ["fork-bomb 40", "crash abort"]),
        Fault::Zygote(signal) => {
            zygotes_of(field.server.pid()).iter().for_each(|zygote| zygote.signal(signal));
        }
        Fault::Control(victim, control) => carry_out(field, victim, control),
        Fault::File(victim, change) => change_file(field, victim, change),
        Fault::Client(victim, nuisance) => nuisance::be(field, victim, nuisance),
        Fault::Malformed => nuisance::malformed(field),
        Fault::Crowd => nuisance::crowd(field),
        Fault::Heal => heal(field),
    }
}

/// As no other request is, so that each crash is one of a request that nobody has seen.
fn unique(victim: Victim, number: usize) -> Infer {
    let number = u16::try_from(number % 60_000).unwrap_or(0);
    Infer::new(victim.name()).floats(&[f32::from(number), -1.0])
}

fn send_signal(field: &Field<'_>, victim: Victim, signal: Signal) {
    let Some(worker) = field.server.workers_of(victim.name()).pop() else { return };
    worker.signal(signal);
    if signal == Signal::SIGSEGV {
        // Rust's handler waits for the fault to come again, which a real one does.
        worker.signal(signal);
    }
}

fn one_by_one(field: &Field<'_>, victim: Victim, number: usize, commands: [&str; 2]) {
    for command in commands {
        let infer = unique(victim, number);
        send_command(field, victim, &infer, (command, Repeat::Forbidden));
    }
}

fn send_command(
    field: &Field<'_>,
    victim: Victim,
    infer: &Infer,
    (command, repeat): (&str, Repeat),
) {
    let infer = infer.clone().and_command(command);
    let infer = match repeat {
        Repeat::Allowed => infer,
        Repeat::Forbidden => infer.once(),
    };
    let sent = Instant::now();
    let outcome = field.server.client().try_infer(&infer);
    check(&field.journal, victim.name(), Tolerance::Oddities, (&outcome, sent.elapsed()));
}

fn carry_out(field: &Field<'_>, victim: Victim, control: Control) {
    let _alone = field.repository(victim);
    match control {
        Control::Unload => post(field, victim, "unload"),
        Control::Load => post(field, victim, "load"),
        Control::Reload => {
            post(field, victim, "unload");
            post(field, victim, "load");
        }
    }
}

fn change_file(field: &Field<'_>, victim: Victim, change: Change) {
    let _alone = field.repository(victim);
    let (repository, name) = (field.server.repository(), victim.name());
    match (victim.engine(), change) {
        (Engine::Echo, Change::Renewed) => {
            repository.echo(name, &Echo::default().parameter("delay_us", "200"));
        }
        (Engine::Echo, Change::Fatal) => {
            repository.echo(name, &Echo::default().parameter("load_crash", "segv"));
        }
        (_, Change::Garbage) => repository.config(name, "backend: { \"what\" ] input"),
        (Engine::Torch, Change::Renewed) => restore(field, victim),
        (Engine::Torch, Change::Fatal) => {
            let file = repository.version(name, 1).join("model.pt");
            let _violation = std::fs::write(file, b"PK\x03\x04 not much of a model")
                .map_err(|error| field.journal.violated(format!("the repository: {error}")));
        }
    }
    post(field, victim, "load");
    restore(field, victim);
    post(field, victim, "load");
}

/// What is on disk, as it was at the start.
pub(crate) fn restore(field: &Field<'_>, victim: Victim) {
    let (repository, name) = (field.server.repository(), victim.name());
    match (victim.engine(), field.torch) {
        (Engine::Echo, _) => repository.echo(name, &Echo::default()),
        (Engine::Torch, Some(torch)) => {
            repository.config(name, &torch.config(name));
            repository.torch(name, torch.file());
        }
        (Engine::Torch, None) => {}
    }
}

/// Loads what is not there, be it unloaded or out of restarts.
pub(crate) fn heal(field: &Field<'_>) {
    for victim in &field.victims {
        let _alone = field.repository(*victim);
        if is_down(&mut field.server.client(), *victim) {
            post(field, *victim, "load");
        }
    }
}

fn is_down(client: &mut Client, victim: Victim) -> bool {
    let listed = client.index(victim.name());
    listed.iter().all(|line| line.state == "UNAVAILABLE")
}

/// A load or an unload, whatever comes of it: another fault may come in between.
fn post(field: &Field<'_>, victim: Victim, what: &str) {
    let name = victim.name();
    let sent = Instant::now();
    let outcome = request(field, name, what);
    let took = sent.elapsed();
    let answered = match &outcome {
        Ok(response) => [200, 400, 503, 504].contains(&response.status) && took < CONTROL_LIMIT,
        Err(_) => false,
    };
    if !answered {
        let outcome = outcome.map(|response| (response.status, response.error()));
        field.journal.violated(format!("after {took:?}, {what} of {name} gave {outcome:?}"));
    }
}

fn request(field: &Field<'_>, name: &str, what: &str) -> io::Result<Response> {
    let path = format!("/v2/repository/models/{name}/{what}");
    field.server.client().request("POST", &path, &[], b"")
}

/// A load that must succeed; the error is what it gave instead.
pub(crate) fn must_load(field: &Field<'_>, victim: Victim) -> Result<(), String> {
    match request(field, victim.name(), "load") {
        Ok(response) if response.status == 200 => Ok(()),
        Ok(response) => Err(format!("{}: {}", response.status, response.error())),
        Err(error) => Err(error.to_string()),
    }
}
