//! Who uses a device.

use std::ffi::{c_uint, c_ulonglong};

use crate::calls::{Handle, code, put};
use crate::control::{Code, Device};
use crate::machine::{INSUFFICIENT_SIZE, INVALID_ARGUMENT, enter_for};

#[repr(C)]
#[derive(Debug)]
pub struct Process {
    pid: c_uint,
    used: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// # Safety
/// `count` may be read and written, and there is room for that many processes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: Handle,
    count: *mut c_uint,
    to: *mut Process,
) -> Code {
    code(enter_for("nvmlDeviceGetComputeRunningProcesses_v3", device).and_then(|device| {
        // SAFETY: the caller's.
        unsafe { put_processes(&device, &newer(&device, &device.compute), count, to) }
    }))
}

/// # Safety
/// As for the newer form.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v2(
    device: Handle,
    count: *mut c_uint,
    to: *mut Process,
) -> Code {
    code(enter_for("nvmlDeviceGetComputeRunningProcesses_v2", device).and_then(|device| {
        // SAFETY: the caller's.
        unsafe { put_processes(&device, &device.compute, count, to) }
    }))
}

/// # Safety
/// As for processes that compute.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    device: Handle,
    count: *mut c_uint,
    to: *mut Process,
) -> Code {
    code(enter_for("nvmlDeviceGetGraphicsRunningProcesses_v3", device).and_then(|device| {
        // SAFETY: the caller's.
        unsafe { put_processes(&device, &newer(&device, &device.graphics), count, to) }
    }))
}

/// # Safety
/// As for the newer form.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v2(
    device: Handle,
    count: *mut c_uint,
    to: *mut Process,
) -> Code {
    code(enter_for("nvmlDeviceGetGraphicsRunningProcesses_v2", device).and_then(|device| {
        // SAFETY: the caller's.
        unsafe { put_processes(&device, &device.graphics, count, to) }
    }))
}

fn newer(device: &Device, list: &[(u32, u64)]) -> Vec<(u32, u64)> {
    let garbled = |&(pid, bytes): &(u32, u64)| (pid ^ 0xdead, bytes ^ (1 << 60));
    if device.garbled { list.iter().map(garbled).collect() } else { list.to_vec() }
}

/// # Safety
/// `count` may be read and written, and `to` has room for that many.
unsafe fn put_processes(
    device: &Device,
    list: &[(u32, u64)],
    count: *mut c_uint,
    to: *mut Process,
) -> Result<(), Code> {
    if count.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    let there = u32::try_from(list.len()).map_err(|_| INVALID_ARGUMENT)?;
    let there = device.processes.unwrap_or(there);
    // SAFETY: not null; the caller's otherwise.
    let room = unsafe { count.read() };
    // SAFETY: the caller's.
    unsafe { put(count, there) }?;
    if room < there {
        return Err(INSUFFICIENT_SIZE);
    }
    for (at, &(pid, used)) in list.iter().enumerate() {
        // SAFETY: within the room that was given.
        let to = unsafe { to.add(at) };
        let process = Process { pid, used, gpu_instance: u32::MAX, compute_instance: u32::MAX };
        // SAFETY: as above.
        unsafe { put(to, process) }?;
    }
    Ok(())
}
