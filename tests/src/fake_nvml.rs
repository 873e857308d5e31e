//! GPUs that are not there: a copy of the fake library for each test, and what it says.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::supervisor::binaries;

/// Which functions the library has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// None for memory limits.
    Older,
    R615,
}

/// A copy of the library, which is a machine of its own.
#[derive(Debug)]
pub struct FakeNvml {
    folder: TempDir,
    library: PathBuf,
}

impl FakeNvml {
    pub fn new(release: Release) -> Self {
        let name = match release {
            Release::Older => "libfake_nvml.so",
            Release::R615 => "libfake_nvml_r615.so",
        };
        let built = binaries().join(name);
        assert!(
            built.is_file(),
            "there is no {name} in {}: use scripts/test, or build it with `cargo build \
             -p bulkhead-fake-nvml -p bulkhead-fake-nvml-r615`",
            binaries().display()
        );
        let folder = tempfile::tempdir().expect("there is a folder for temporary files");
        let library = folder.path().join("libnvidia-ml.so");
        fs::copy(built, &library).expect("a library can be copied");
        Self { folder, library }
    }

    /// With this machine behind it.
    pub fn with(release: Release, machine: &Machine) -> Self {
        let fake = Self::new(release);
        fake.say(machine);
        fake
    }

    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Where what it needs may be put.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `--set` with this lets a server use it.
    pub fn setting(&self) -> String {
        format!("devices.nvml={}", self.library.display())
    }

    /// What it says from now on.
    pub fn say(&self, machine: &Machine) {
        let next = self.folder.path().join("next");
        fs::write(&next, machine.text()).expect("the folder is ours");
        fs::rename(&next, self.beside("control")).expect("the folder is ours");
    }

    /// What it was told so far.
    pub fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.beside("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn beside(&self, what: &str) -> PathBuf {
        PathBuf::from(format!("{}.{what}", self.library.display()))
    }
}

/// What the driver of a machine says.
#[derive(Clone, Debug)]
pub struct Machine {
    lines: String,
    devices: Vec<FakeDevice>,
}

impl Default for Machine {
    fn default() -> Self {
        Self { lines: "driver 580.82\n".to_owned(), devices: Vec::new() }
    }
}

impl Machine {
    #[must_use]
    pub fn of(devices: &[FakeDevice]) -> Self {
        Self { devices: devices.to_vec(), ..Self::default() }
    }

    #[must_use]
    pub fn device(mut self, device: FakeDevice) -> Self {
        self.devices.push(device);
        self
    }

    #[must_use]
    pub fn fails_to_initialise(self, code: u32) -> Self {
        self.line(&format!("init {code}"))
    }

    /// Whatever it has.
    #[must_use]
    pub fn counts(self, devices: u32) -> Self {
        self.line(&format!("count {devices}"))
    }

    #[must_use]
    pub fn delays(self, milliseconds: u64) -> Self {
        self.line(&format!("delay {milliseconds}"))
    }

    /// Until something else is said.
    #[must_use]
    pub fn hangs(self, function: &str) -> Self {
        self.line(&format!("hang {function}"))
    }

    #[must_use]
    pub fn answers(self, function: &str, code: u32) -> Self {
        self.line(&format!("answer {function} {code}"))
    }

    #[must_use]
    pub fn refuses_limits(self, code: u32) -> Self {
        self.line(&format!("limits fail {code}"))
    }

    /// Whatever was set.
    #[must_use]
    pub fn reads_limits(self, soft: u64, hard: u64) -> Self {
        self.line(&format!("limits read {soft} {hard}"))
    }

    fn line(mut self, line: &str) -> Self {
        let _never = writeln!(self.lines, "{line}");
        self
    }

    fn text(&self) -> String {
        let devices = self.devices.iter().map(|device| device.0.as_str());
        std::iter::once(self.lines.as_str()).chain(devices).collect()
    }
}

/// One device of it.
#[derive(Clone, Debug)]
pub struct FakeDevice(String);

impl FakeDevice {
    /// Idle, with 10 GB, none of which is used.
    pub fn new(uuid: &str) -> Self {
        Self(format!("device {uuid}\n")).line("name NVIDIA Fake").memory(10_000_000_000, 0, 0)
    }

    #[must_use]
    pub fn name(self, name: &str) -> Self {
        self.line(&format!("name {name}"))
    }

    #[must_use]
    pub fn memory(self, total: u64, reserved: u64, used: u64) -> Self {
        self.line(&format!("memory {total} {reserved} {used}"))
    }

    #[must_use]
    pub fn busy(self, percent: u32) -> Self {
        self.line(&format!("busy {percent}"))
    }

    #[must_use]
    pub fn compute(self, process: u32, bytes: u64) -> Self {
        self.line(&format!("compute {process} {bytes}"))
    }

    /// How much it has is not said.
    #[must_use]
    pub fn compute_unknown(self, process: u32) -> Self {
        self.line(&format!("compute {process} unknown"))
    }

    #[must_use]
    pub fn graphics(self, process: u32, bytes: u64) -> Self {
        self.line(&format!("graphics {process} {bytes}"))
    }

    /// Whatever the lists hold.
    #[must_use]
    pub fn counts_processes(self, count: u32) -> Self {
        self.line(&format!("processes {count}"))
    }

    /// In the newer form of its lists.
    #[must_use]
    pub fn garbled(self) -> Self {
        self.line("garbled")
    }

    #[must_use]
    pub fn lost(self, code: u32) -> Self {
        self.line(&format!("lost {code}"))
    }

    #[must_use]
    pub fn answers(self, function: &str, code: u32) -> Self {
        self.line(&format!("answer {function} {code}"))
    }

    /// Reported once for each name of an event.
    #[must_use]
    pub fn xid(self, event: &str, number: u64) -> Self {
        self.line(&format!("xid {event} {number}"))
    }

    /// In MIG mode, with these instances.
    #[must_use]
    pub fn cut_into(self, slices: &[Self]) -> Self {
        let text = |slice: &Self| slice.0.replacen("device", "slice", 1);
        let slices: String = slices.iter().map(text).collect();
        Self(format!("{}mig\n{slices}", self.0))
    }

    fn line(mut self, line: &str) -> Self {
        let _never = writeln!(self.0, "{line}");
        self
    }
}
