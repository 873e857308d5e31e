//! Limits on the device memory of a control group: two functions of NVIDIA's management library, which
//! came with driver R615, and what they need around them.
//!
//! What is taken for granted of them, from NVIDIA's reference of NVML
//! (`nvmlDeviceSetMemoryLimits_v1`, `nvmlSetMemoryLimits_v1_t`, `nvmlGetMemoryLimits_v1_t`), and not from
//! a header: both take the device and a pointer to a structure without a version. To set, that is
//! `{ const char *nameSpace; unsigned long long softLimit, hardLimit; }`; to get, the same and
//! `currentUsed` behind it. `nameSpace` is the folder of the control group, version 2, under `/sys`. No
//! limit is a soft one of 0 and a hard one of `NVML_DEVICE_MEMORY_LIMIT_MAX`, taken to be all ones. To set
//! takes root; MIG instances have no such limits.
//!
//! The structures lie in a larger block of zeros, so that one that has grown finds zeros and room. Whether
//! a limit holds is for the caller to see with [`MemoryLimits::get`].

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr::{NonNull, null_mut};

use nix::libc;

/// What the processes of a group may have of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub soft: u64,
    pub hard: u64,
}

impl Limits {
    pub const NONE: Self = Self { soft: 0, hard: u64::MAX };
}

#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    #[error("the driver's library cannot be loaded: {0}")]
    Library(String),
    #[error("the driver has no {0}: device memory limits came with R615")]
    Missing(&'static str),
    #[error("the name of the device or the group has a zero in it")]
    Name,
    #[error("{function} gave {code}{}", meaning(*code))]
    Call { function: &'static str, code: u32 },
}

/// The library, initialised for as long as this lives.
#[derive(Debug)]
pub struct MemoryLimits {
    set: LimitsCall,
    get: LimitsCall,
    handle: HandleByUuid,
    shutdown: Plain,
    _library: Library,
}

type NvmlDevice = *mut c_void;
type Plain = unsafe extern "C" fn() -> c_uint;
type HandleByUuid = unsafe extern "C" fn(*const c_char, *mut NvmlDevice) -> c_uint;
type LimitsCall = unsafe extern "C" fn(NvmlDevice, *mut Block) -> c_uint;

/// Room for either structure, and for one that has grown.
#[repr(C)]
struct Block {
    name_space: *const c_char,
    soft: u64,
    hard: u64,
    rest: [u64; 29],
}

const _: () = assert!(size_of::<Block>() == 256);

impl MemoryLimits {
    /// `library` is a path, or a name that the loader looks for.
    pub fn open(library: &Path) -> Result<Self, LimitsError> {
        let library = Library::open(library)?;
        let symbol =
            |name: &'static CStr, text| library.symbol(name).ok_or(LimitsError::Missing(text));
        let set = symbol(c"nvmlDeviceSetMemoryLimits_v1", SET)?;
        let get = symbol(c"nvmlDeviceGetMemoryLimits_v1", GET)?;
        let handle = symbol(c"nvmlDeviceGetHandleByUUID", HANDLE)?;
        let init = symbol(c"nvmlInit_v2", INIT)?;
        let shutdown = symbol(c"nvmlShutdown", "nvmlShutdown")?;
        // SAFETY: a function of this name in this library has this type, as the module says.
        let set = unsafe { std::mem::transmute::<NonNull<c_void>, LimitsCall>(set) };
        // SAFETY: as above.
        let get = unsafe { std::mem::transmute::<NonNull<c_void>, LimitsCall>(get) };
        // SAFETY: as NVIDIA's reference has it since the first release.
        let handle = unsafe { std::mem::transmute::<NonNull<c_void>, HandleByUuid>(handle) };
        // SAFETY: as above.
        let init = unsafe { std::mem::transmute::<NonNull<c_void>, Plain>(init) };
        // SAFETY: as above.
        let shutdown = unsafe { std::mem::transmute::<NonNull<c_void>, Plain>(shutdown) };
        // SAFETY: takes nothing, may be called at any time and any number of times.
        done(INIT, unsafe { init() })?;
        Ok(Self { set, get, handle, shutdown, _library: library })
    }

    /// `group` is the folder of a control group.
    pub fn set(&self, device: &str, group: &Path, limits: Limits) -> Result<(), LimitsError> {
        self.call((SET, self.set), device, group, limits).map(drop)
    }

    pub fn get(&self, device: &str, group: &Path) -> Result<Limits, LimitsError> {
        self.call((GET, self.get), device, group, Limits { soft: 0, hard: 0 })
    }

    fn call(
        &self,
        (function, call): (&'static str, LimitsCall),
        device: &str,
        group: &Path,
        limits: Limits,
    ) -> Result<Limits, LimitsError> {
        let name_space =
            CString::new(group.as_os_str().as_bytes()).map_err(|_| LimitsError::Name)?;
        let device = self.device(device)?;
        let Limits { soft, hard } = limits;
        let mut block = Block { name_space: name_space.as_ptr(), soft, hard, rest: [0; 29] };
        // SAFETY: the library is initialised, has just given out the device, and gets a structure with
        // room to spare whose name ends in a zero and outlives the call.
        done(function, unsafe { call(device, &raw mut block) })?;
        Ok(Limits { soft: block.soft, hard: block.hard })
    }

    fn device(&self, uuid: &str) -> Result<NvmlDevice, LimitsError> {
        let uuid = CString::new(uuid).map_err(|_| LimitsError::Name)?;
        let mut device = null_mut();
        // SAFETY: the library is initialised; the name ends in a zero, and both outlive the call.
        done(HANDLE, unsafe { (self.handle)(uuid.as_ptr(), &raw mut device) })?;
        Ok(device)
    }
}

impl Drop for MemoryLimits {
    fn drop(&mut self) {
        // SAFETY: it was initialised once for this, and is still loaded.
        let _code = unsafe { (self.shutdown)() };
    }
}

const SET: &str = "nvmlDeviceSetMemoryLimits_v1";
const GET: &str = "nvmlDeviceGetMemoryLimits_v1";
const HANDLE: &str = "nvmlDeviceGetHandleByUUID";
const INIT: &str = "nvmlInit_v2";

fn done(function: &'static str, code: c_uint) -> Result<(), LimitsError> {
    if code == 0 { Ok(()) } else { Err(LimitsError::Call { function, code }) }
}

/// Of the numbers that are likely here.
fn meaning(code: u32) -> &'static str {
    match code {
        2 => " (it does not take these values)",
        3 => " (this device or machine has no such limits)",
        4 => " (it takes root)",
        6 | 28 => " (there is no such device or group)",
        9 => " (the driver is not loaded)",
        13 => " (the driver has no such function)",
        15 => " (the device is lost)",
        _ => "",
    }
}

#[derive(Debug)]
struct Library(NonNull<c_void>);

impl Library {
    fn open(path: &Path) -> Result<Self, LimitsError> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| LimitsError::Name)?;
        let flags: c_int = libc::RTLD_NOW | libc::RTLD_LOCAL;
        // SAFETY: the name ends in a zero. What the library does as it is loaded is its own affair: the
        // operator has named it, or it is the driver's.
        let opened = unsafe { libc::dlopen(name.as_ptr(), flags) };
        NonNull::new(opened).map(Self).ok_or_else(|| LimitsError::Library(last_error()))
    }

    fn symbol(&self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: the library is open for as long as `self` lives, and the name ends in a zero.
        NonNull::new(unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) })
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: it was opened once, and nothing that was found in it is used any more.
        let _code = unsafe { libc::dlclose(self.0.as_ptr()) };
    }
}

/// Why the loader failed last on this thread.
fn last_error() -> String {
    // SAFETY: always callable.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "no reason".to_owned();
    }
    // SAFETY: ends in a zero, and lives until this thread calls the loader again.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_said() {
        let missing = MemoryLimits::open(Path::new("/nonexistent/libnvidia-ml.so"));
        assert!(matches!(missing, Err(LimitsError::Library(why)) if why.contains("nonexistent")));
    }

    #[test]
    fn a_library_without_these_functions_is_an_older_driver() {
        let missing = MemoryLimits::open(Path::new("libc.so.6"));
        assert!(matches!(missing, Err(LimitsError::Missing(SET))), "{missing:?}");
    }
}
