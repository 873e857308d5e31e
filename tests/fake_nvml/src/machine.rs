//! What stands behind every call: the control file, the log, and what is remembered between calls.

use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use crate::control::{Code, Control, Device};

pub(crate) const INVALID_ARGUMENT: Code = 2;
pub(crate) const NOT_FOUND: Code = 6;
pub(crate) const INSUFFICIENT_SIZE: Code = 7;
pub(crate) const TIMEOUT: Code = 10;
pub(crate) const NOT_SUPPORTED: Code = 3;

/// How often it is looked whether a call may go on.
const LOOK: Duration = Duration::from_millis(3);

#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// A handle is the place of the device's number in here, from 1 on.
    uuids: Vec<String>,
    /// An event set is its place in here, from 1 on; the devices that report to it.
    pub(crate) sets: Vec<Vec<String>>,
    /// Events that were reported.
    pub(crate) reported: HashSet<String>,
    /// Limits by device and group.
    #[cfg_attr(not(feature = "r615"), expect(dead_code, reason = "R615 brought them"))]
    pub(crate) limits: HashMap<(String, String), (u64, u64)>,
}

pub(crate) fn memory() -> MutexGuard<'static, Memory> {
    static MEMORY: OnceLock<Mutex<Memory>> = OnceLock::new();
    MEMORY.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// What every call begins with: it waits as long as it should, and fails if it should.
pub(crate) fn enter(function: &str) -> Result<Control, Code> {
    let began = Instant::now();
    loop {
        let control = control();
        let hangs = control.hangs.iter().any(|name| name == function || name == "*");
        if !hangs && began.elapsed() >= Duration::from_millis(control.delay) {
            return match code_of(function, &control.answers) {
                Some(code) => Err(code),
                None => Ok(control),
            };
        }
        park_timeout(LOOK);
    }
}

/// As [`enter`], for a call about a device.
pub(crate) fn enter_for(function: &str, handle: *mut c_void) -> Result<Device, Code> {
    let control = enter(function)?;
    let place = handle.addr().checked_sub(1).ok_or(INVALID_ARGUMENT)?;
    let uuid = memory().uuids.get(place).cloned().ok_or(INVALID_ARGUMENT)?;
    let device = control.device(&uuid).ok_or(NOT_FOUND)?;
    match device.lost.or(code_of(function, &device.answers)) {
        Some(code) => Err(code),
        None => Ok(device.clone()),
    }
}

fn code_of(function: &str, answers: &[(String, Code)]) -> Option<Code> {
    answers.iter().find(|(name, _)| name == function).map(|(_, code)| *code)
}

pub(crate) fn handle_of(uuid: &str) -> *mut c_void {
    let mut memory = memory();
    let known = memory.uuids.iter().position(|known| known == uuid);
    let place = known.unwrap_or_else(|| {
        memory.uuids.push(uuid.to_owned());
        memory.uuids.len() - 1
    });
    std::ptr::without_provenance_mut(place + 1)
}

pub(crate) fn control() -> Control {
    Control::parse(&fs::read_to_string(beside("control")).unwrap_or_default())
}

pub(crate) fn log(line: &str) {
    let file = File::options().append(true).create(true).open(beside("log"));
    // The test may have ended, and its folder with it.
    let _gone = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
}

/// The file beside this library with something more behind its name.
fn beside(what: &str) -> PathBuf {
    static OWN: OnceLock<String> = OnceLock::new();
    PathBuf::from(format!("{}.{what}", OWN.get_or_init(own_path)))
}

/// Where this library was loaded from: the file that is mapped where this function is.
fn own_path() -> String {
    let here = (own_path as fn() -> String as *const ()).addr();
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let holds = |line: &&str| {
        let ends = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        let address = |text| usize::from_str_radix(text, 16).unwrap_or_default();
        ends.is_some_and(|(from, to)| (address(from)..address(to)).contains(&here))
    };
    let path = maps.lines().find(holds).and_then(|line| line.find('/').map(|at| &line[at..]));
    path.expect("this function is in a file").to_owned()
}
