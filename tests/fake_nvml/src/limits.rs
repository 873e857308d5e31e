//! Memory limits of control groups, as drivers have them from R615 on.

use std::ffi::{CStr, c_char, c_ulonglong, c_void};

use crate::calls::code;
use crate::control::{Code, Limits};
use crate::machine::{INVALID_ARGUMENT, control, enter_for, log, memory};

#[repr(C)]
#[derive(Debug)]
pub struct SetLimits {
    name_space: *const c_char,
    soft: c_ulonglong,
    hard: c_ulonglong,
}

#[repr(C)]
#[derive(Debug)]
pub struct GetLimits {
    name_space: *const c_char,
    soft: c_ulonglong,
    hard: c_ulonglong,
    used: c_ulonglong,
}

/// # Safety
/// `name` is null or ends in a zero.
unsafe fn text(name: *const c_char) -> Result<String, Code> {
    if name.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and the caller's otherwise.
    Ok(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}

/// # Safety
/// `limits` may be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceSetMemoryLimits_v1(
    device: *mut c_void,
    limits: *mut SetLimits,
) -> Code {
    code(enter_for("nvmlDeviceSetMemoryLimits_v1", device).and_then(|device| {
        // SAFETY: the caller's.
        let SetLimits { name_space, soft, hard } = unsafe { limits.read() };
        // SAFETY: the caller's.
        let group = unsafe { text(name_space) }?;
        log(&format!("set {} {group} {soft} {hard}", device.uuid));
        if let Limits::Fail(code) = control().limits {
            return Err(code);
        }
        memory().limits.insert((device.uuid, group), (soft, hard));
        Ok(())
    }))
}

/// # Safety
/// `limits` may be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryLimits_v1(
    device: *mut c_void,
    limits: *mut GetLimits,
) -> Code {
    code(enter_for("nvmlDeviceGetMemoryLimits_v1", device).and_then(|device| {
        // SAFETY: the caller's; nobody else has it during this call.
        let limits = unsafe { limits.as_mut() }.ok_or(INVALID_ARGUMENT)?;
        // SAFETY: the caller's.
        let group = unsafe { text(limits.name_space) }?;
        let set = memory().limits.get(&(device.uuid, group)).copied().unwrap_or((0, u64::MAX));
        let (soft, hard) = match control().limits {
            Limits::Read(soft, hard) => (soft, hard),
            Limits::Kept | Limits::Fail(_) => set,
        };
        (limits.soft, limits.hard, limits.used) = (soft, hard, 0);
        Ok(())
    }))
}
