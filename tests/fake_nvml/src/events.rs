//! Errors that devices report.

use std::ffi::{c_uint, c_ulonglong};

use crate::calls::{Handle, code, put};
use crate::control::Code;
use crate::machine::{INVALID_ARGUMENT, NOT_SUPPORTED, TIMEOUT, enter, enter_for, memory};

/// The only event that there is.
const XID_ERROR: c_ulonglong = 8;

#[repr(C)]
#[derive(Debug)]
pub struct Event {
    device: Handle,
    kind: c_ulonglong,
    data: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// # Safety
/// `to` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(
    device: Handle,
    to: *mut c_ulonglong,
) -> Code {
    code(enter_for("nvmlDeviceGetSupportedEventTypes", device).and_then(|_| {
        // SAFETY: the caller's.
        unsafe { put(to, XID_ERROR) }
    }))
}

/// # Safety
/// `to` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(to: *mut Handle) -> Code {
    code(enter("nvmlEventSetCreate").and_then(|_| {
        let mut memory = memory();
        memory.sets.push(Vec::new());
        // SAFETY: the caller's.
        unsafe { put(to, std::ptr::without_provenance_mut(memory.sets.len())) }
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(set: Handle) -> Code {
    match memory().sets.get_mut(set.addr().wrapping_sub(1)) {
        Some(set) => {
            set.clear();
            0
        }
        None => INVALID_ARGUMENT,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceRegisterEvents(
    device: Handle,
    events: c_ulonglong,
    set: Handle,
) -> Code {
    code(enter_for("nvmlDeviceRegisterEvents", device).and_then(|device| {
        if events != XID_ERROR {
            return Err(NOT_SUPPORTED);
        }
        let mut memory = memory();
        let set = memory.sets.get_mut(set.addr().wrapping_sub(1)).ok_or(INVALID_ARGUMENT)?;
        set.push(device.uuid);
        Ok(())
    }))
}

/// # Safety
/// `to` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    set: Handle,
    to: *mut Event,
    _timeout: c_uint,
) -> Code {
    code(enter("nvmlEventSetWait_v2").and_then(|control| {
        let mut memory = memory();
        let set = memory.sets.get(set.addr().wrapping_sub(1)).ok_or(INVALID_ARGUMENT)?;
        let devices = set.iter().filter_map(|uuid| control.device(uuid));
        let mut events = devices.flat_map(|device| &device.xids);
        let new = events.find(|(event, _)| !memory.reported.contains(event)).ok_or(TIMEOUT)?;
        memory.reported.insert(new.0.clone());
        let (device, kind, data) = (std::ptr::null_mut(), XID_ERROR, new.1);
        let event = Event { device, kind, data, gpu_instance: 0, compute_instance: 0 };
        // SAFETY: the caller's.
        unsafe { put(to, event) }
    }))
}
