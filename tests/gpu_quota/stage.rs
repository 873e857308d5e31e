//! A server, the GPUs that it is told of, and models for them.

use serde_json::Value;
use tests::supervisor::Builder;
use tests::{Echo, FakeDevice, FakeNvml, Infer, Machine, Release, Supervisor, skipped};

pub(crate) const GIB: u64 = 1 << 30;

/// What each device has.
const TOTAL: u64 = 10 * GIB;

/// A driver, before a server asks it.
pub(crate) struct Gpus {
    pub(crate) fake: FakeNvml,
    names: Vec<&'static str>,
}

/// Who has how much of one device: the driver's number of the process, and bytes.
pub(crate) type Holders<'a> = &'a [(i32, u64)];

impl Gpus {
    pub(crate) fn new(names: &[&'static str]) -> Self {
        Self::of(Release::Older, names)
    }

    /// One device, where a driver's numbers of processes mean the same as this machine's `/proc`; elsewhere,
    /// as in most containers, nobody is known by them, and `test` is skipped.
    pub(crate) fn by_number_or_skip(test: &str) -> Option<Self> {
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        if namespace == std::path::Path::new("pid:[4026531836]") {
            return Some(Self::new(&["GPU-a"]));
        }
        skipped(test, "this is not the initial namespace of processes");
        None
    }

    pub(crate) fn of(release: Release, names: &[&'static str]) -> Self {
        let gpus = Self { fake: FakeNvml::new(release), names: names.to_vec() };
        gpus.say(&gpus.idle());
        gpus
    }

    /// Devices that nobody uses.
    pub(crate) fn idle(&self) -> Machine {
        Machine::of(&self.names.iter().map(|name| holding(name, &[])).collect::<Vec<_>>())
    }

    pub(crate) fn say(&self, machine: &Machine) {
        self.fake.say(machine);
    }

    /// From now on the first device is used by these.
    pub(crate) fn hold(&self, holders: Holders<'_>) {
        let mut devices = vec![holding(self.names[0], holders)];
        devices.extend(self.names[1..].iter().map(|name| holding(name, &[])));
        self.say(&Machine::of(&devices));
    }

    /// A server that asks often and keeps nothing back.
    pub(crate) fn server(&self) -> Builder {
        Supervisor::new()
            .gpus(&self.fake)
            .set("devices.poll_interval", "50ms")
            .set("devices.answer_timeout", "500ms")
            .set("devices.headroom", "0B")
            .set("worker.stop_timeout", "200ms")
            .set("restart.backoff.initial", "20ms")
            .set("restart.backoff.factor", "1.0")
    }
}

/// A device that these use.
pub(crate) fn holding(name: &str, holders: Holders<'_>) -> FakeDevice {
    let used = holders.iter().map(|(_, bytes)| bytes).sum();
    let device = FakeDevice::new(name).memory(TOTAL, 0, used);
    holders.iter().fold(device, |device, &(pid, bytes)| device.compute(number(pid), bytes))
}

pub(crate) fn number(pid: i32) -> u32 {
    u32::try_from(pid).unwrap()
}

/// A model for any one GPU.
pub(crate) fn on_gpu() -> Echo {
    Echo::default().with("instance_group [ { kind: KIND_GPU count: 1 } ]")
}

/// What the log says of the newest worker of `model` on its devices.
pub(crate) fn seat(server: &Supervisor, model: &str, workers: usize) -> Value {
    server.logs().wait_for_number(workers, model, "worker on devices").pop().unwrap()
}

pub(crate) fn assert_exits(server: &Supervisor, model: &str, kinds: &[&str]) {
    let exits = server.logs().wait_for_number(kinds.len(), model, "worker exited");
    let seen: Vec<_> = exits.iter().filter_map(|exit| exit["kind"].as_str()).collect();
    assert_eq!(seen, kinds, "{exits:?}");
}

pub(crate) fn assert_serves(server: &Supervisor, model: &str) {
    server.infer(&Infer::echo(model)).assert_status(200);
}
