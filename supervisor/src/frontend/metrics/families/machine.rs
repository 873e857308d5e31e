//! The server, the machine and its devices.

use std::fmt;

use proto::admin::status::{Device, ServerState};

use crate::device::Driver;
use crate::frontend::metrics::text::Kind::{Counter, Gauge};
use crate::frontend::metrics::text::Out;
use crate::overview::Overview;

pub(in crate::frontend::metrics) fn write(
    out: &mut Out<'_, '_>,
    overview: &Overview,
) -> fmt::Result {
    server(out, overview)?;
    host(out, overview)?;
    devices(out, overview)
}

fn server(out: &mut Out<'_, '_>, overview: &Overview) -> fmt::Result {
    let server = overview.server();
    let build = [([("version", server.version.as_str())], 1_u64)];
    out.family((Gauge, "bulkhead_build_info", "The version of the server."), build)?;
    let ready = u64::from(server.state == ServerState::Ready);
    let help = "Whether every required model serves and the server is not draining.";
    out.one((Gauge, "bulkhead_ready", help), Some(ready))?;
    let state = match server.state {
        ServerState::Starting => "starting",
        ServerState::Ready => "ready",
        ServerState::NotReady => "not_ready",
        ServerState::Draining => "draining",
    };
    let help = "What the server does: starting, ready, not_ready, draining.";
    out.family((Gauge, "bulkhead_server_state", help), [([("state", state)], 1_u64)])?;
    let missing = u64::try_from(server.waits_for.len()).ok();
    out.one(
        (Gauge, "bulkhead_required_models_missing", "Required models that do not serve."),
        missing,
    )?;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970")]
    let started = server.started_at as f64 / 1000.0;
    out.one(
        (Gauge, "bulkhead_start_time_seconds", "When the server started, since 1970."),
        Some(started),
    )?;
    let help = "Memory of the supervisor that is resident, without its workers.";
    out.one((Gauge, "bulkhead_supervisor_memory_bytes", help), server.memory)?;
    let help = "Requests whose traces no collector has taken.";
    out.one((Counter, "bulkhead_traces_lost", help), Some(overview.lost_traces()))?;
    let zygotes = server.zygotes.iter();
    let zygotes =
        zygotes.map(|z| ([("program", z.program.as_str()), ("state", z.state.as_str())], 1_u64));
    let help = "How each zygote does, by worker program: starting, ready, down.";
    out.family((Gauge, "bulkhead_zygote_state", help), zygotes)
}

fn host(out: &mut Out<'_, '_>, overview: &Overview) -> fmt::Result {
    let host = overview.host();
    out.one((Gauge, "nv_cpu_utilization", "CPU utilization rate [0.0 - 1.0]"), host.busy)?;
    let help = "CPU total memory (RAM), in bytes";
    out.one((Gauge, "nv_cpu_memory_total_bytes", help), host.memory_total)?;
    let help = "CPU used memory (RAM), in bytes";
    out.one((Gauge, "nv_cpu_memory_used_bytes", help), host.memory_used)
}

fn devices(out: &mut Out<'_, '_>, overview: &Overview) -> fmt::Result {
    let devices = overview.devices().devices;
    let silent = u64::from(matches!(overview.snapshot().driver, Driver::Silent));
    let help = "Whether the GPU driver has been asked and does not answer.";
    out.one((Gauge, "bulkhead_device_driver_silent", help), Some(silent))?;
    let mut family = |name: &str, help: &str, of: &dyn Fn(&Device) -> Option<u64>| {
        let sample = |device: &'_ Device| Some((device.id.clone(), of(device)?));
        let samples: Vec<(String, u64)> = devices.iter().filter_map(sample).collect();
        let samples = samples.iter().map(|(id, value)| ([("gpu_uuid", id.as_str())], *value));
        out.family((Gauge, name, help), samples)
    };
    family("nv_gpu_memory_total_bytes", "GPU total memory, in bytes", &|d| d.total)?;
    family("nv_gpu_memory_used_bytes", "GPU used memory, in bytes", &|d| d.used)?;
    let help = "Memory of the GPU that workers were granted.";
    family("bulkhead_device_granted_bytes", help, &|d| Some(d.granted))?;
    let help = "Memory of the GPU that can be granted at all.";
    family("bulkhead_device_grantable_bytes", help, &|d| Some(d.grantable))?;
    let help = "Whether the GPU has fallen off its bus or failed for good.";
    family("bulkhead_device_lost", help, &|d| Some(u64::from(d.lost.is_some())))?;
    let help = "Whether the driver does not say who uses the GPU, which is not lost.";
    let blind = |d: &Device| u64::from(d.blind.is_some() && d.lost.is_none());
    family("bulkhead_device_blind", help, &|d| Some(blind(d)))?;
    let help =
        "Whether memory of an ended worker has not come back, so that nothing is placed there.";
    family("bulkhead_device_suspect", help, &|d| Some(u64::from(d.suspect)))?;
    let busy = devices.iter().filter_map(|device| {
        let busy = f64::from(device.busy_percent?) / 100.0;
        Some(([("gpu_uuid", device.id.as_str())], busy))
    });
    out.family((Gauge, "nv_gpu_utilization", "GPU utilization rate [0.0 - 1.0)"), busy)
}
