//! A supervisor of one worker, as small as it can be: real process, real memory, real sockets.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that uses it")]

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc_channel::ipc::{IpcOneShotServer, IpcSender};
use proto::codec;
use proto::control::{
    Attach, Command, Confinement, Device, DeviceMemory, Fact, HANDSHAKE_VERSION, Handover, Hello,
    Level, LoadSpec, Loaded, Measure, Segments, WorkerExit,
};
use shared::id::{Generation, InstanceId, ModelName, ModelVersion, RequestId, WorkerId};
use shared::ring::consumer::{ResponseArena, ResponseConsumer};
use shared::ring::layout::{Geometry, Place, RequestDescriptor, ResponseDescriptor};
use shared::ring::producer::{RequestArena, RequestProducer, SlotBytes, Wake};
use shared::sys::socket::{self, Wait};
use shared::tensor::{DataType, Shape, TensorDesc, TensorSpec};

/// Nothing honest takes so long; a test that waits for it fails.
const WATCHDOG: Duration = Duration::from_secs(30);
const SLOT: usize = 4096;

/// A process that has been started, with the supervisor's end of its control socket.
pub(crate) struct Spawned {
    pub(crate) child: Child,
    pub(crate) socket: OwnedFd,
}

pub(crate) fn spawn(arguments: &[&str]) -> Spawned {
    let (socket, theirs) = socket::pair().unwrap();
    socket::set_receive_timeout(socket.as_fd(), WATCHDOG).unwrap();
    let mut process = Process::new(env!("CARGO_BIN_EXE_bulkhead-worker"));
    process.arg0("bulkhead-worker").args(arguments).env_clear().stdin(Stdio::from(theirs));
    Spawned { child: process.spawn().unwrap(), socket }
}

pub(crate) fn spawn_mine() -> Spawned {
    spawn(&["echo", "version=1", &format!("supervisor={}", std::process::id())])
}

impl Spawned {
    /// How the process ended: its exit code, or minus the signal.
    pub(crate) fn ended(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or_else(|| -status.signal().unwrap());
            }
            assert!(start.elapsed() < WATCHDOG, "the worker does not end");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    pub(crate) fn ended_as(&mut self) -> WorkerExit {
        let code = self.ended();
        WorkerExit::from_code(code).unwrap_or_else(|| panic!("ended with {code}"))
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A worker after its handshake.
pub(crate) struct Worker {
    pub(crate) process: Spawned,
    pub(crate) commands: IpcSender<Command>,
    arena: Arc<RequestArena>,
    responses: ResponseArena,
    down: RequestProducer,
    up: ResponseConsumer,
    next: u64,
    held: Vec<(u64, SlotBytes)>,
}

/// A completion with its outputs, or its message.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) completion: ResponseDescriptor,
    pub(crate) outputs: Vec<(TensorDesc, Vec<u8>)>,
    pub(crate) message: String,
}

pub(crate) fn handshake() -> Worker {
    handshake_for(unconfined())
}

pub(crate) fn handshake_for(confinement: Confinement) -> Worker {
    let process = spawn_mine();
    let geometry = Geometry::new(4, SLOT, SLOT).unwrap();
    let generation = Generation(3);
    let arena = RequestArena::create(geometry, generation).unwrap();
    let responses = ResponseArena::create(geometry).unwrap();
    let (server, command_server) = IpcOneShotServer::<Attach>::new().unwrap();
    let (model, version) = (ModelName::new("echo").unwrap(), ModelVersion::new(1).unwrap());
    let worker = WorkerId { instance: InstanceId { model, version, index: 0 }, generation };
    let hello =
        Hello { version: HANDSHAKE_VERSION, worker, nonce: 77, command_server, confinement };
    let packet = codec::encode(&hello).unwrap();
    let fds = [arena.fd(), responses.fd()];
    socket::send(process.socket.as_fd(), &packet, &fds, Wait::Never).unwrap();
    let (_, attach) = server.accept().unwrap();
    assert_eq!(attach.nonce, 77);
    let down = RequestProducer::new(Arc::clone(&arena));
    let up = ResponseConsumer::new(generation);
    let commands = attach.commands;
    Worker { process, commands, arena, responses, down, up, next: 0, held: Vec::new() }
}

/// INPUT0 → OUTPUT0 with these parameters, and COMMAND.
pub(crate) fn spec(parameters: &[(&str, &str)]) -> LoadSpec {
    let tensor = |name: &str, dtype, optional| TensorSpec {
        name: name.into(),
        dtype: Some(dtype),
        dims: Some(vec![-1]),
        optional,
    };
    LoadSpec {
        engine: "echo".into(),
        folder: "/".into(),
        filename: String::new(),
        device: Device::Cpu,
        device_memory: None,
        threads: 1,
        max_batch_size: 0,
        inputs: vec![
            tensor("INPUT0", DataType::Uint8, false),
            tensor("COMMAND", DataType::Bytes, true),
        ],
        outputs: vec![tensor("OUTPUT0", DataType::Uint8, false)],
        parameters: parameters.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
    }
}

/// The model of [`spec`] on a device, of which it may have 200 MiB and its allocator 100.
pub(crate) fn on_device(parameters: &[(&str, &str)]) -> LoadSpec {
    let memory = DeviceMemory { quota: 200 << 20, segments: Segments::Fixed };
    LoadSpec { device: Device::Cuda(0), device_memory: Some(memory), ..spec(parameters) }
}

/// A worker that serves the model of [`spec`].
pub(crate) fn serve() -> Worker {
    serve_spec(spec(&[])).0
}

/// A worker that serves a model, and what it said of it.
pub(crate) fn serve_spec(spec: LoadSpec) -> (Worker, Loaded) {
    let mut worker = handshake();
    worker.commands.send(Command::Load(spec)).unwrap();
    worker.confined();
    let (fact, _) = worker.fact();
    let Fact::Loaded(loaded) = fact else { panic!("{fact:?}") };
    (worker, loaded)
}

impl Worker {
    /// What it gave up, which it says before anything about its model.
    pub(crate) fn confined(&mut self) -> Vec<Measure> {
        let (fact, _) = self.fact();
        let Fact::Confined(measures) = fact else { panic!("{fact:?}") };
        measures
    }

    /// The next fact; doorbells are passed over.
    pub(crate) fn fact(&mut self) -> (Fact, Vec<OwnedFd>) {
        let mut inbox = socket::Inbox::new(65536);
        loop {
            let packet = inbox.receive(self.process.socket.as_fd(), Wait::Block);
            let packet = packet.expect("a fact in time").expect("an open socket");
            if packet.len > 1 {
                return (codec::decode(inbox.bytes(&packet)).unwrap(), packet.fds);
            }
        }
    }

    /// Publishes INPUT0 and a command; the answer must be waited for. Returns the request's id.
    pub(crate) fn submit(&mut self, input: &[u8], command: &str, deadline: u64) -> u64 {
        let mut element = u32::try_from(command.len()).unwrap().to_le_bytes().to_vec();
        element.extend_from_slice(command.as_bytes());
        let command_at = input.len().next_multiple_of(64);
        let desc = |index, dtype, elements, offset, len| {
            let shape = Shape::new(&[elements]).unwrap();
            TensorDesc { index, dtype, shape, offset, len }
        };
        let tensors = [
            desc(0, DataType::Uint8, input.len() as u64, 0, input.len()),
            desc(1, DataType::Bytes, 1, command_at, element.len()),
        ];
        let total = command_at + element.len();
        let (request, slot) = (self.next, u32::try_from(self.next % 4).unwrap());
        self.next += 1;
        self.held.retain(|(_, held)| held.slot() != slot);
        let mut bytes = self.arena.take(slot).unwrap();
        bytes.write_table(tensors.iter());
        let fill = |memory: &mut [u8]| {
            memory[..input.len()].copy_from_slice(input);
            memory[command_at..total].copy_from_slice(&element);
        };
        let place = if total <= SLOT {
            fill(bytes.data_mut());
            Place::Slot
        } else {
            let mut object = shared::memory::OwnObject::create(total).unwrap();
            fill(object.bytes_mut());
            let packet = codec::encode(&Handover { request }).unwrap();
            let socket = self.process.socket.as_fd();
            socket::send(socket, &packet, &[object.fd()], Wait::Never).unwrap();
            Place::Own(total)
        };
        self.held.push((request, bytes));
        let id = RequestId(request);
        let request =
            RequestDescriptor { request: id, slot, tensors: 2, wanted: 1, deadline, place };
        if self.down.publish(&request, self.responses.map()) == Wake::Needed {
            self.arena.ring();
        }
        id.0
    }

    pub(crate) fn ask(&mut self, input: &[u8], command: &str) -> Reply {
        let request = self.submit(input, command, u64::MAX);
        let reply = self.reply();
        assert_eq!(reply.completion.request.0, request);
        reply
    }

    /// What a worker that has ended has left to be read.
    pub(crate) fn completions(&mut self) -> Vec<ResponseDescriptor> {
        std::iter::from_fn(|| self.up.next(&self.responses).unwrap()).collect()
    }

    /// The next completion; nobody rings here, it is looked for.
    pub(crate) fn reply(&mut self) -> Reply {
        let start = Instant::now();
        let completion = loop {
            match self.up.next(&self.responses).unwrap() {
                Some(completion) => break completion,
                None => std::thread::park_timeout(Duration::from_micros(100)),
            }
            assert!(start.elapsed() < WATCHDOG, "no completion");
        };
        let object = match completion.place {
            Place::Slot => None,
            Place::Own(len) => {
                let (fact, mut fds) = self.fact();
                assert_eq!(fact, Fact::LargeOutput { request: completion.request.0 });
                Some(shared::memory::TrustedObject::map(&fds.remove(0), len).unwrap())
            }
        };
        let mut data = Vec::new();
        self.responses.append(completion.slot, 0, SLOT, &mut data);
        let memory = object.as_ref().map_or(&data[..], |object| object.bytes());
        let outputs = (0..completion.tensors).map(|i| {
            let entry = self.responses.entry(completion.slot, i, memory.len()).unwrap();
            (entry, memory[entry.offset..entry.offset + entry.len].to_vec())
        });
        let outputs = outputs.collect();
        let message = &data[..completion.message_len as usize];
        let message = String::from_utf8(message.to_vec()).unwrap();
        Reply { completion, outputs, message }
    }
}

pub(crate) fn unconfined() -> Confinement {
    Confinement {
        level: Level::None,
        scratch: PathBuf::new(),
        data_limit: None,
        max_descriptors: 1024,
        max_processes: 256,
    }
}
