//! The library itself, and devices.

use std::ffi::{CStr, c_char, c_uint, c_ulonglong, c_void};

use crate::control::{Code, Device};
use crate::machine::{
    INSUFFICIENT_SIZE, INVALID_ARGUMENT, NOT_FOUND, control, enter, enter_for, handle_of, log,
};

pub(crate) type Handle = *mut c_void;

#[repr(C)]
#[derive(Debug)]
pub struct MemoryInfo {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

#[repr(C)]
#[derive(Debug)]
pub struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

pub(crate) fn code(result: Result<(), Code>) -> Code {
    result.err().unwrap_or_default()
}

/// # Safety
/// `to` is null, or a `T` may be written there.
pub(crate) unsafe fn put<T>(to: *mut T, value: T) -> Result<(), Code> {
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and the caller's otherwise.
    unsafe { to.write(value) };
    Ok(())
}

/// # Safety
/// As for [`put`], with room for `length` characters.
unsafe fn put_text(to: *mut c_char, length: c_uint, text: &str) -> Result<(), Code> {
    let length = usize::try_from(length).map_err(|_| INVALID_ARGUMENT)?;
    if text.len() >= length {
        return Err(INSUFFICIENT_SIZE);
    }
    for (at, byte) in text.bytes().chain([0]).enumerate() {
        // SAFETY: within the length that was given.
        let to = unsafe { to.add(at) };
        // SAFETY: as above.
        unsafe { put(to, byte.cast_signed()) }?;
    }
    Ok(())
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> Code {
    let init = || match enter("nvmlInit_v2")?.init {
        0 => {
            log("init");
            Ok(())
        }
        code => Err(code),
    };
    code(init())
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> Code {
    log("shutdown");
    0
}

/// # Safety
/// `to` has room for `length` characters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(to: *mut c_char, length: c_uint) -> Code {
    code(enter("nvmlSystemGetDriverVersion").and_then(|control| {
        // SAFETY: the caller's.
        unsafe { put_text(to, length, &control.driver) }
    }))
}

/// # Safety
/// `to` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(to: *mut c_uint) -> Code {
    code(enter("nvmlDeviceGetCount_v2").and_then(|control| {
        let there = u32::try_from(control.wholes().count()).unwrap_or(u32::MAX);
        // SAFETY: the caller's.
        unsafe { put(to, control.count.unwrap_or(there)) }
    }))
}

/// # Safety
/// `to` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, to: *mut Handle) -> Code {
    code(enter("nvmlDeviceGetHandleByIndex_v2").and_then(|control| {
        let device = control.wholes().nth(usize::try_from(index).unwrap_or(usize::MAX));
        let device = device.ok_or(INVALID_ARGUMENT)?;
        match device.lost {
            Some(code) => Err(code),
            // SAFETY: the caller's.
            None => unsafe { put(to, handle_of(&device.uuid)) },
        }
    }))
}

/// # Safety
/// `uuid` ends in a zero; `to` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, to: *mut Handle) -> Code {
    code(enter("nvmlDeviceGetHandleByUUID").and_then(|control| {
        // SAFETY: the caller's.
        let uuid = unsafe { CStr::from_ptr(uuid) }.to_string_lossy();
        let device = control.device(&uuid).ok_or(NOT_FOUND)?;
        match device.lost {
            Some(code) => Err(code),
            // SAFETY: the caller's.
            None => unsafe { put(to, handle_of(&device.uuid)) },
        }
    }))
}

/// # Safety
/// `to` has room for `length` characters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(
    device: Handle,
    to: *mut c_char,
    length: c_uint,
) -> Code {
    code(enter_for("nvmlDeviceGetUUID", device).and_then(|device| {
        // SAFETY: the caller's.
        unsafe { put_text(to, length, &device.uuid) }
    }))
}

/// # Safety
/// `to` has room for `length` characters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(
    device: Handle,
    to: *mut c_char,
    length: c_uint,
) -> Code {
    code(enter_for("nvmlDeviceGetName", device).and_then(|device| {
        // SAFETY: the caller's.
        unsafe { put_text(to, length, &device.name) }
    }))
}

/// # Safety
/// `to` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: Handle, to: *mut MemoryInfo) -> Code {
    code(enter_for("nvmlDeviceGetMemoryInfo_v2", device).and_then(|device| {
        let [total, reserved, used] = device.memory;
        let free = total.saturating_sub(reserved).saturating_sub(used);
        let version = 0x0200_0028;
        // SAFETY: the caller's.
        unsafe { put(to, MemoryInfo { version, total, reserved, free, used }) }
    }))
}

/// # Safety
/// `to` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    device: Handle,
    to: *mut Utilization,
) -> Code {
    code(enter_for("nvmlDeviceGetUtilizationRates", device).and_then(|device| {
        // SAFETY: the caller's.
        unsafe { put(to, Utilization { gpu: device.busy, memory: 0 }) }
    }))
}

/// # Safety
/// Both may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: Handle,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> Code {
    code(enter_for("nvmlDeviceGetMigMode", device).and_then(|device| {
        let mode = u32::from(device.mig);
        // SAFETY: the caller's.
        unsafe { put(current, mode) }?;
        // SAFETY: the caller's.
        unsafe { put(pending, mode) }
    }))
}

/// # Safety
/// `to` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(device: Handle, to: *mut c_uint) -> Code {
    code(enter_for("nvmlDeviceGetMaxMigDeviceCount", device).and_then(|_| {
        // SAFETY: the caller's.
        unsafe { put(to, 7) }
    }))
}

/// # Safety
/// `to` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: Handle,
    index: c_uint,
    to: *mut Handle,
) -> Code {
    code(enter_for("nvmlDeviceGetMigDeviceHandleByIndex", device).and_then(|device| {
        let control = control();
        let of = |slice: &&Device| slice.parent.as_ref() == Some(&device.uuid);
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let slice = control.devices.iter().filter(of).nth(index).ok_or(NOT_FOUND)?;
        // SAFETY: the caller's.
        unsafe { put(to, handle_of(&slice.uuid)) }
    }))
}
