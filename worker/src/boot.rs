//! From a fresh process to one that serves: a type for each phase, each consuming the one before.
//!
//! ```text
//! Inherited   holds the control socket and nothing else, ends with its parent
//!    │        hello: version, memory objects; the command channel is given to the supervisor
//! Handshaken  can be told what to load
//!    │        the load command came
//! Confined    has given up everything that loading does not need; no model byte was read so far
//!    │        the engine loads the model and runs it a few times
//! Loaded      has told the supervisor what it learned
//!    │
//! serving     the pump, until Shutdown
//! ```
//! A phase that fails ends the process with one of the codes of [`WorkerExit`].

use std::ffi::OsString;
use std::time::{Duration, Instant};

use proto::control::{
    Confinement, Fact, HANDSHAKE_VERSION, LoadSpec, Loaded as LoadedFact, MAX_BUILD_BYTES,
    OnDevice, WarmupExtent, WorkerExit,
};
use shared::limits::{MAX_ERROR_BYTES, MAX_TENSORS};
use shared::ring::consumer::{AttachError, RequestConsumer, attach};
use shared::ring::producer::ResponseProducer;
use shared::sys::process::peak_rss;
use shared::text::{chain, clean};

use crate::confine::{self, Separated};
use crate::control::{Control, ControlError};
use crate::engine::{Engine, LoadError, Loader};
use crate::inherit::{InheritError, Inherited};
use crate::pump::{Pump, PumpError, Stop, Warmup, warm_up};
use crate::session::{Commands, SessionError};
use crate::telemetry;
use crate::zygote::{self, Role, ZygoteError};

/// How long the supervisor may take from the handshake to the load command.
const LOAD_COMMAND_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("bad start")]
    Inherit(#[from] InheritError),
    #[error("the zygote failed")]
    Zygote(#[from] ZygoteError),
    #[error("the handshake failed")]
    Greeting(#[source] ControlError),
    #[error("the supervisor speaks version {0} of the handshake, not {HANDSHAKE_VERSION}")]
    Version(u32),
    #[error("cannot map the memory objects")]
    Attach(#[from] AttachError),
    #[error("the memory objects are not of this generation")]
    Generation,
    #[error("the command channel failed")]
    Session(#[source] SessionError),
    #[error("no load command")]
    NoLoad(#[source] SessionError),
    #[error("cannot load the model")]
    Load(#[from] LoadError),
    #[error("cannot report to the supervisor")]
    Report(#[source] ControlError),
    #[error("the transport failed")]
    Serve(#[from] PumpError),
}

impl BootError {
    fn exit(&self) -> WorkerExit {
        match self {
            Self::Inherit(_) | Self::Zygote(_) => WorkerExit::BadStart,
            Self::Greeting(_)
            | Self::Version(_)
            | Self::Attach(_)
            | Self::Generation
            | Self::Session(_) => WorkerExit::Handshake,
            Self::NoLoad(_) => WorkerExit::NoLoad,
            Self::Load(_) => WorkerExit::LoadFailed,
            Self::Report(_) | Self::Serve(_) => WorkerExit::Transport,
        }
    }
}

/// What a worker binary is made of.
#[derive(Debug)]
pub struct Program<'a> {
    /// By the names that models use.
    pub engines: &'a [(&'a str, Loader)],
    /// Readies the framework for copies of the process: loads what every model will need, starts no
    /// thread, asks no device anything.
    pub warm: fn() -> Result<(), String>,
}

/// The whole life of a worker, or of a zygote and then, in its copies, of workers.
pub fn run(program: &Program<'_>) -> ! {
    telemetry::abort_on_panic();
    let result = match is_zygote() {
        false => live(program.engines, std::env::args_os()),
        true => zygote::serve(std::env::args_os(), program.warm).map_err(BootError::from).and_then(
            |role| match role {
                Role::Done => Ok(()),
                Role::Worker(arguments) => live(program.engines, arguments.into_iter()),
            },
        ),
    };
    let exit = match result {
        Ok(()) => WorkerExit::Clean,
        Err(error) => {
            telemetry::error(format_args!("{}", chain(&error)));
            error.exit()
        }
    };
    shared::sys::process::end(exit.code())
}

fn is_zygote() -> bool {
    std::env::args_os().nth(1).is_some_and(|argument| argument == zygote::ARGUMENT)
}

fn live(
    engines: &[(&str, Loader)],
    arguments: impl Iterator<Item = OsString>,
) -> Result<(), BootError> {
    let inherited = Inherited::take(arguments)?;
    let handshaken = Handshaken::new(inherited)?;
    let confined = Confined::new(handshaken)?;
    let loaded = Loaded::new(confined, engines)?;
    loaded.serve()
}

/// The memory objects are mapped and the supervisor can send commands.
struct Handshaken {
    control: Control,
    requests: RequestConsumer,
    responses: ResponseProducer,
    commands: Commands,
    confinement: Confinement,
    separated: Separated,
}

impl Handshaken {
    fn new(inherited: Inherited) -> Result<Self, BootError> {
        let Inherited { socket, separated } = inherited;
        let mut control = Control::new(socket).map_err(BootError::Greeting)?;
        let greeting = control.greeting().map_err(BootError::Greeting)?;
        let hello = greeting.hello;
        if hello.version != HANDSHAKE_VERSION {
            return Err(BootError::Version(hello.version));
        }
        let (requests, responses) = attach(greeting.requests, greeting.responses)?;
        if responses.generation() != hello.worker.generation {
            return Err(BootError::Generation);
        }
        let commands = Commands::attach(&hello).map_err(BootError::Session)?;
        let confinement = hello.confinement;
        Ok(Self { control, requests, responses, commands, confinement, separated })
    }
}

/// What to load is known, and this process can reach nothing that it will not need for it; the
/// supervisor knows how far that holds.
struct Confined {
    control: Control,
    requests: RequestConsumer,
    responses: ResponseProducer,
    stop: Stop,
    spec: LoadSpec,
}

impl Confined {
    fn new(handshaken: Handshaken) -> Result<Self, BootError> {
        let Handshaken { control, requests, responses, commands, confinement, separated } =
            handshaken;
        let spec = commands.wait_for_load(LOAD_COMMAND_LIMIT).map_err(BootError::NoLoad)?;
        let stop = Stop::of(&requests);
        control.fall_silent_elsewhere();
        // Most measures hold for this thread and those that it starts: there must be no other yet.
        let measures = confine::apply(&confinement, &spec, separated);
        control.report(&Fact::Confined(measures), None).map_err(BootError::Report)?;
        // From here on a supervisor that has gone ends this process, also in a long load.
        commands.watch(stop.clone()).map_err(BootError::NoLoad)?;
        Ok(Self { control, requests, responses, stop, spec })
    }
}

/// The model runs, and the supervisor knows its tensors.
struct Loaded {
    pump: Pump,
}

impl Loaded {
    fn new(confined: Confined, engines: &[(&str, Loader)]) -> Result<Self, BootError> {
        let Confined { control, requests, responses, stop, spec } = confined;
        match load(&spec, engines) {
            Ok((engine, fact)) => {
                control.report(&Fact::Loaded(fact), None).map_err(BootError::Report)?;
                Ok(Self { pump: Pump { requests, responses, control, engine, stop } })
            }
            Err(error) => {
                let permanent = matches!(error, LoadError::Permanent(_));
                let message = clean(&error.to_string(), MAX_ERROR_BYTES);
                let fact = Fact::LoadFailed { message, permanent };
                control.report(&fact, None).map_err(BootError::Report)?;
                Err(error.into())
            }
        }
    }

    fn serve(self) -> Result<(), BootError> {
        Ok(self.pump.run()?)
    }
}

fn load(
    spec: &LoadSpec,
    engines: &[(&str, Loader)],
) -> Result<(Box<dyn Engine>, LoadedFact), LoadError> {
    let Some((_, loader)) = engines.iter().find(|(name, _)| *name == spec.engine) else {
        let known: Vec<&str> = engines.iter().map(|(name, _)| *name).collect();
        let (engine, known) = (&spec.engine, known.join(", "));
        return Err(LoadError::Permanent(format!(
            "this worker has no engine {engine:?}, only {known}"
        )));
    };
    let start = Instant::now();
    let mut engine = loader(spec)?;
    let load_nanos = nanos(start.elapsed());
    let warmup_nanos = match warm_up(engine.as_mut()) {
        Warmup::Done(took) => nanos(took),
        Warmup::Skipped { input } => {
            telemetry::info(format_args!(
                "no warm-up: the type or shape of {input:?} is not known"
            ));
            0
        }
        Warmup::Failed(error) => {
            telemetry::warning(format_args!("the warm-up on zeros failed: {error}"));
            0
        }
    };
    let schema = engine.schema();
    for (what, specs) in [("inputs", &schema.inputs), ("outputs", &schema.outputs)] {
        if specs.len() > MAX_TENSORS {
            let (has, most) = (specs.len(), MAX_TENSORS);
            let message = format!("the model has {has} {what}, at most {most} are possible");
            return Err(LoadError::Permanent(message));
        }
    }
    let (inputs, outputs) = (schema.inputs, schema.outputs);
    let on_device = engine.on_device().map(|used| OnDevice {
        allocator_limit: used.allocator_limit,
        peak: used.peak,
        warmup: WarmupExtent::Partial,
    });
    let build = clean(&engine.build(), MAX_BUILD_BYTES);
    let peak_rss = peak_rss();
    let fact = LoadedFact { inputs, outputs, load_nanos, warmup_nanos, peak_rss, build, on_device };
    Ok((engine, fact))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
