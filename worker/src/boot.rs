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
use std::time::Duration;

use proto::control::{Confinement, Fact, HANDSHAKE_VERSION, LoadSpec, WorkerExit};
use shared::limits::MAX_ERROR_BYTES;
use shared::ring::consumer::{AttachError, RequestConsumer, attach};
use shared::ring::producer::ResponseProducer;
use shared::text::{chain, clean};

use crate::confine::{self, Separated};
use crate::control::{Control, ControlError};
use crate::engine::{Arenas, LoadError, Loader, Pages};
use crate::inherit::{InheritError, Inherited};
use crate::load::{Ready, load};
use crate::pump::{Pump, PumpError, Stop};
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
    #[error("cannot go on serving")]
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
            Self::Load(LoadError::Permanent(_) | LoadError::Transient(_)) => WorkerExit::LoadFailed,
            Self::Load(LoadError::DeviceOutOfMemory(_))
            | Self::Serve(PumpError::DeviceExhausted) => WorkerExit::DeviceOutOfMemory,
            Self::Load(LoadError::DeviceFault(_)) | Self::Serve(PumpError::DeviceFault(_)) => {
                WorkerExit::DeviceFault
            }
            Self::Report(_)
            | Self::Serve(
                PumpError::Handover(_)
                | PumpError::HandUp(_)
                | PumpError::Trimmed(_)
                | PumpError::Bell(_),
            ) => WorkerExit::Transport,
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
        let arenas = Arenas {
            requests: Pages { start: requests.map().start(), len: requests.map().len() },
            responses: Pages { start: responses.map().start(), len: responses.map().len() },
        };
        match load(&spec, engines, &arenas) {
            Ok(Ready { engine, exhaustion, fact }) => {
                control.report(&Fact::Loaded(fact), None).map_err(BootError::Report)?;
                let pump = Pump { engine, requests, responses, control, stop, exhaustion };
                Ok(Self { pump })
            }
            Err(error) => {
                if let Some(permanent) = told_as_failed(&error) {
                    let message = clean(&error.to_string(), MAX_ERROR_BYTES);
                    let fact = Fact::LoadFailed { message, permanent };
                    control.report(&fact, None).map_err(BootError::Report)?;
                }
                Err(error.into())
            }
        }
    }

    fn serve(self) -> Result<(), BootError> {
        Ok(self.pump.run()?)
    }
}

/// Whether a load failed for good; `None` where the exit says more than the fact could, and the policy for
/// that kind of exit is to be followed.
fn told_as_failed(error: &LoadError) -> Option<bool> {
    match error {
        LoadError::Permanent(_) => Some(true),
        LoadError::Transient(_) => Some(false),
        LoadError::DeviceOutOfMemory(_) | LoadError::DeviceFault(_) => None,
    }
}
