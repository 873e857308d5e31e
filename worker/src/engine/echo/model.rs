//! The engine: copies inputs to outputs, after it has done what it was told.

use proto::control::LoadSpec;
use shared::elements::Elements;
use shared::tensor::{Shape, TensorSpec};

use crate::engine::echo::command::{Attack, Command, DeviceCommand, Hang};
use crate::engine::echo::device::{Ahead, FakeDevice};
use crate::engine::echo::fault;
use crate::engine::echo::hoard::Hoard;
use crate::engine::echo::objects::{Damage, Object};
use crate::engine::echo::settings::Settings;
use crate::engine::{
    DeviceUse, Engine, EngineError, InputView, LoadError, Outputs, PlannedOutput, Request, Schema,
};

/// The input whose content is a command.
const COMMAND: &str = "COMMAND";

/// The [`Loader`](crate::engine::Loader) of this engine.
pub fn load(spec: &LoadSpec) -> Result<Box<dyn Engine>, LoadError> {
    let settings = Settings::read(&spec.parameters)?;
    fault::delay(settings.load_delay);
    if let Some(crash) = settings.load_crash {
        fault::crash(crash);
    }
    if let Some(failure) = settings.load_failure.clone() {
        return Err(failure);
    }
    let memory = fault::allocate(settings.allocate_bytes);
    let memory = memory.ok_or_else(|| LoadError::Transient("no memory for allocate_mb".into()))?;
    let device = FakeDevice::load(spec, &settings.device)?;
    Ok(Box::new(Echo::new(spec, settings, memory, device)?))
}

#[derive(Debug)]
struct Echo {
    schema: Schema,
    settings: Settings,
    /// The index of the input that is echoed as output *i*, for each *i*.
    sources: Vec<u32>,
    command: Option<u32>,
    /// What `allocate_mb` and `leak` hold.
    held: Vec<Vec<u8>>,
    hoard: Hoard,
    /// `None` on the CPU.
    device: Option<FakeDevice>,
}

impl Echo {
    fn new(
        spec: &LoadSpec,
        settings: Settings,
        memory: Vec<u8>,
        device: Option<FakeDevice>,
    ) -> Result<Self, LoadError> {
        let schema = complete(&spec.inputs, &spec.outputs);
        let (commands, sources): (Vec<_>, Vec<_>) =
            schema.inputs.iter().zip(0_u32..).partition(|(input, _)| input.name == COMMAND);
        if sources.len() != schema.outputs.len() {
            let (inputs, outputs) = (sources.len(), schema.outputs.len());
            return Err(LoadError::Permanent(format!(
                "the echo engine needs an output for each input, not {outputs} for {inputs}"
            )));
        }
        for ((input, _), output) in sources.iter().zip(&schema.outputs) {
            if input.dtype.is_some() && output.dtype.is_some() && input.dtype != output.dtype {
                let (input, output) = (&input.name, &output.name);
                return Err(LoadError::Permanent(format!(
                    "output {output:?} echoes {input:?} and must have its type"
                )));
            }
        }
        let command = commands.first().map(|&(_, index)| index);
        let sources = sources.iter().map(|&(_, index)| index).collect();
        let (held, hoard) = (vec![memory], Hoard::default());
        Ok(Self { settings, sources, command, held, hoard, device, schema })
    }

    fn command(&self, request: &Request<'_>) -> Result<Command, EngineError> {
        let given = request.inputs.iter().find(|input| Some(input.index) == self.command);
        let Some(input) = given else { return Ok(Command::Identity) };
        let mut elements = Elements::new(input.bytes);
        let (Some(Ok(text)), None) = (elements.next(), elements.next()) else {
            let message = format!("{COMMAND} must be one element of type BYTES");
            return Err(EngineError::InvalidInput(message));
        };
        Command::parse(text).map_err(|error| EngineError::InvalidInput(error.to_string()))
    }

    /// Does what is asked; returns how often the inputs stand in the outputs.
    fn obey(&mut self, command: Command, outputs: &mut dyn Outputs) -> Result<u32, EngineError> {
        match command {
            Command::Identity => {}
            Command::Grow(times) => return Ok(times),
            Command::Delay(time) => fault::delay(time),
            Command::Fail(message) => return Err(EngineError::Model(message)),
            Command::Invalid(message) => return Err(EngineError::InvalidInput(message)),
            Command::OutOfMemory => return Err(out_of_memory()),
            Command::Crash(how) => fault::crash(how),
            Command::Hang(how) => fault::hang(how),
            Command::Stop => fault::stop(),
            Command::Allocate(bytes) => drop(fault::allocate(bytes).ok_or_else(out_of_memory)?),
            Command::Leak(bytes) => {
                self.held.push(fault::allocate(bytes).ok_or_else(out_of_memory)?);
            }
            Command::Print(text) => fault::print(&text),
            Command::IgnoreTerm => fault::ignore_term(),
            Command::FloodStderr(lines) => fault::flood_stderr(lines),
            Command::Attack(attack) => strike(attack, outputs),
            Command::Damage(damage) => damage_objects(damage)?,
            Command::ForkBomb(most) => self.hoard.processes(most).map_err(EngineError::Model)?,
            Command::Orphan => self.hoard.orphan().map_err(EngineError::Model)?,
            Command::Threads(most) => self.hoard.threads(most).map_err(EngineError::Model)?,
            Command::Objects(bytes) => self.hoard.objects(bytes).map_err(EngineError::Model)?,
            Command::Descriptors => self.hoard.descriptors().map_err(EngineError::Model)?,
            Command::Fill(bytes, name) => {
                self.hoard.fill(bytes, name).map_err(EngineError::Model)?;
            }
            Command::Variable(name) => fault::print_variable(&name),
            Command::Device(command) => match &mut self.device {
                Some(device) => device.obey(&command)?,
                None => return Err(EngineError::InvalidInput("there is no device".into())),
            },
            Command::Probe(probe) => probe.attempt().map_err(EngineError::Model)?,
        }
        Ok(1)
    }

    /// The input that becomes output `i`.
    fn source<'a>(&self, request: &Request<'a>, i: u32) -> Result<InputView<'a>, EngineError> {
        let index = self.sources[i as usize];
        let given = request.inputs.iter().find(|input| input.index == index);
        given.copied().ok_or_else(|| {
            let input = &self.schema.inputs[index as usize].name;
            let output = &self.schema.outputs[i as usize].name;
            EngineError::InvalidInput(format!("output {output:?} needs input {input:?}"))
        })
    }
}

impl Engine for Echo {
    fn build(&self) -> String {
        concat!("echo ", env!("CARGO_PKG_VERSION")).into()
    }

    fn schema(&self) -> Schema {
        self.schema.clone()
    }

    fn infer(
        &mut self,
        request: &Request<'_>,
        outputs: &mut dyn Outputs,
    ) -> Result<(), EngineError> {
        let ahead = self.device.as_mut().and_then(|device| device.take_ahead(request.id));
        if let Some(device) = &mut self.device {
            device.begin(request)?;
        }
        let command = self.command(request)?;
        if ahead.is_none() && command == Command::Device(DeviceCommand::Ahead) {
            return Err(EngineError::Model("the inputs were not prefetched".into()));
        }
        let times = self.obey(command, outputs)?;
        fault::delay(self.settings.delay);
        let wanted = (0_u32..).take(self.sources.len()).filter(|&i| request.wants(i));
        let mut plan = Vec::with_capacity(self.sources.len());
        let mut sources = Vec::with_capacity(self.sources.len());
        for i in wanted {
            let source = self.source(request, i)?;
            plan.push(planned(i, &source, times)?);
            let prefetched = ahead.as_ref().and_then(|ahead: &Ahead| ahead.input(source.index));
            sources.push(prefetched.unwrap_or(source.bytes));
        }
        for (bytes, source) in outputs.place(&plan)?.bytes.into_iter().zip(sources) {
            for part in bytes.chunks_exact_mut(source.len().max(1)) {
                part.copy_from_slice(source);
            }
        }
        Ok(())
    }

    fn on_device(&self) -> Option<DeviceUse> {
        self.device.as_ref().map(FakeDevice::used)
    }

    fn trim(&mut self) {
        if let Some(device) = &mut self.device {
            device.trim();
        }
    }

    fn overlaps(&self) -> bool {
        self.device.as_ref().is_some_and(FakeDevice::overlaps)
    }

    fn prefetch(&mut self, request: &Request<'_>) {
        if let Some(device) = &mut self.device {
            device.prefetch(request);
        }
    }

    fn settle(&mut self) -> Result<(), EngineError> {
        self.device.as_mut().map_or(Ok(()), FakeDevice::settle)
    }
}

/// What the configuration left out: `INPUT0` of any type, and an output for each input.
fn complete(inputs: &[TensorSpec], outputs: &[TensorSpec]) -> Schema {
    let any =
        |name: &str| TensorSpec { name: name.into(), dtype: None, dims: None, optional: false };
    let inputs = if inputs.is_empty() { vec![any("INPUT0")] } else { inputs.to_vec() };
    if !outputs.is_empty() {
        return Schema { inputs, outputs: outputs.to_vec() };
    }
    let sources = inputs.iter().filter(|input| input.name != COMMAND);
    let echo = |(i, input): (usize, &TensorSpec)| TensorSpec {
        name: format!("OUTPUT{i}"),
        optional: false,
        ..input.clone()
    };
    let outputs = sources.enumerate().map(echo).collect();
    Schema { inputs, outputs }
}

/// An output that holds `source` a few times over, one after the other in its first dimension.
fn planned(index: u32, source: &InputView<'_>, times: u32) -> Result<PlannedOutput, EngineError> {
    let too_large = || EngineError::InvalidInput(format!("cannot grow an input {times} times"));
    let len = usize::try_from(times).ok().and_then(|times| source.bytes.len().checked_mul(times));
    let len = len.ok_or_else(too_large)?;
    let shape = if times == 1 {
        source.shape
    } else {
        let mut dims = source.shape.dims().to_vec();
        match dims.first_mut() {
            Some(first) => *first = first.checked_mul(times.into()).ok_or_else(too_large)?,
            None => dims.push(times.into()),
        }
        Shape::new(&dims).map_err(|_| too_large())?
    };
    Ok(PlannedOutput { index, dtype: source.dtype, shape, len })
}

fn strike(attack: Attack, outputs: &mut dyn Outputs) {
    let Some(mischief) = outputs.mischief() else { return };
    match attack {
        Attack::FloodBell(bells) => mischief.flood_bell(bells),
        Attack::MalformedFact => mischief.malformed_fact(),
        Attack::ConfinedAgain => mischief.confined_again(),
        Attack::Forge => mischief.forge(),
        Attack::Replay => mischief.replay(),
        Attack::Unread => mischief.stop_reading(),
        Attack::Scribble => {
            mischief.scribble();
            // An honest completion would now repair the ring's head before it is looked at.
            fault::hang(Hang::Sleep);
        }
        Attack::CloseSocket => {
            mischief.close_socket();
            // The pump of an honest worker ends when it finds that it cannot ring.
            fault::hang(Hang::Sleep);
        }
    }
}

fn damage_objects(damage: Damage) -> Result<(), EngineError> {
    damage.attempt().map_err(EngineError::Model)?;
    if damage == Damage::Hole(Object::Responses) {
        // As after a scribble.
        fault::hang(Hang::Sleep);
    }
    Ok(())
}

fn out_of_memory() -> EngineError {
    EngineError::OutOfMemory("out of memory".into())
}
