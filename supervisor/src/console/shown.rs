//! The state of a server as a person reads it; pure but for the present, which is passed in.

use proto::admin::status::{
    Devices, Instance, Model, OnDevice, Server, ServerState, Status, Version, Worker,
};
use shared::text::{clean, clean_lines};

use super::table::Table;
use super::units::{ago, bytes, micros, or_dash, per_second, time};

/// Ends that nobody need look into.
const INTENDED: [&str; 2] = ["clean", "retired"];

/// Longest word about a driver or a model that is shown.
const MAX_LINE_BYTES: usize = 400;

/// All models, a row a version.
pub(super) fn status(status: &Status, now: u64) -> String {
    let mut text = server(&status.server, now);
    let headings = [
        "MODEL", "VERSION", "STATE", "READY", "RATE", "FAILED", "P99", "MEMORY", "DEVICE", "ENDS",
        "LAST END", "REASON",
    ];
    let mut table = Table::new(&headings);
    for model in &status.models {
        if model.versions.is_empty() {
            let state = if model.problem.is_empty() { "-" } else { "UNAVAILABLE" };
            let dash = || "-".to_owned();
            let row = [model.name.clone(), dash(), state.to_owned()];
            let nothing = std::iter::repeat_with(dash).take(8);
            table.row(row.into_iter().chain(nothing).chain([model.problem.clone()]));
        }
        for version in &model.versions {
            table.row(version_row(&model.name, version, now));
        }
    }
    if table.is_empty() {
        text.push_str("\nNo models.\n");
    } else {
        text.push('\n');
        text.push_str(&table.lines());
    }
    // Those without a version have it in their row.
    for model in status.models.iter().filter(|model| !model.versions.is_empty()) {
        if !model.problem.is_empty() {
            text.extend([format!("{}: {}\n", model.name, clean(&model.problem, MAX_LINE_BYTES))]);
        }
    }
    text
}

/// One model, with its instances and what holds their workers.
pub(super) fn model(status: &Status, now: u64) -> String {
    let mut text = self::status(status, now);
    for model in &status.models {
        text.push_str(&instances(model, now));
        for (version, instance) in all(model) {
            let Some(worker) = &instance.worker else { continue };
            let named = format!("version {}, instance {}", version.version, instance.index);
            text.push_str(&held(&named, worker));
        }
    }
    text
}

fn server(server: &Server, now: u64) -> String {
    let state = match server.state {
        ServerState::Starting => "starting",
        ServerState::Ready => "ready",
        ServerState::NotReady => "not ready",
        ServerState::Draining => "draining",
    };
    let up = time(now.saturating_sub(server.started_at));
    let memory = or_dash(server.memory, bytes);
    let mut text =
        format!("bulkhead {}, pid {}: {state}, up {up}, {memory}\n", server.version, server.pid);
    for (spoken, place) in &server.listens {
        text.extend([format!("{spoken} at {place}\n")]);
    }
    for zygote in server.zygotes.iter().filter(|zygote| zygote.state != "ready") {
        text.extend([format!("the zygote of {} is {}\n", zygote.program, zygote.state)]);
    }
    if !server.waits_for.is_empty() {
        text.extend([format!("waits for {}\n", server.waits_for.join(", "))]);
    }
    text
}

fn version_row(model: &str, version: &Version, now: u64) -> Vec<String> {
    let instances = &version.instances;
    let ready = instances.iter().filter(|instance| instance.state == "ready").count();
    let workers = || instances.iter().filter_map(|instance| instance.worker.as_ref());
    let memory = workers().filter_map(|worker| worker.private_memory).reduce(|a, b| a + b);
    let mut devices: Vec<&str> = workers()
        .filter_map(|worker| worker.device.as_ref())
        .flat_map(|device| device.devices.iter().map(String::as_str))
        .collect();
    devices.sort_unstable();
    devices.dedup();
    let device = if workers().next().is_none() { "-".to_owned() } else { devices.join(",") };
    let ends: u64 = instances.iter().map(ends).sum();
    let last = instances.iter().filter_map(|instance| instance.last_exit.as_ref());
    let last = last.max_by_key(|exit| exit.at);
    vec![
        model.to_owned(),
        version.version.to_string(),
        version.state.clone(),
        format!("{ready}/{}", instances.len()),
        or_dash(version.traffic.as_ref(), |traffic| per_second(traffic.rate)),
        or_dash(version.traffic.as_ref(), |traffic| per_second(traffic.failures)),
        or_dash(version.traffic.as_ref().and_then(|traffic| traffic.p99_us), micros),
        or_dash(memory, bytes),
        if device.is_empty() { "cpu".to_owned() } else { device },
        ends.to_string(),
        or_dash(last, |exit| format!("{} {}", exit.kind, ago(exit.at, now))),
        version.reason.clone(),
    ]
}

/// Of its own accord.
fn ends(instance: &Instance) -> u64 {
    let unintended = instance.exits.iter().filter(|(kind, _)| !INTENDED.contains(&kind.as_str()));
    unintended.map(|(_, count)| count).sum()
}

fn all(model: &Model) -> impl Iterator<Item = (&Version, &Instance)> {
    let of = |version| move |instance| (version, instance);
    model.versions.iter().flat_map(move |version| version.instances.iter().map(of(version)))
}

fn instances(model: &Model, now: u64) -> String {
    let headings = [
        "VERSION",
        "INSTANCE",
        "STATE",
        "PID",
        "GENERATION",
        "UP",
        "MEMORY",
        "DEVICE",
        "LAST END",
        "REASON",
    ];
    let mut table = Table::new(&headings);
    for (version, instance) in all(model) {
        let worker = instance.worker.as_ref();
        let memory = |worker: &Worker| {
            let limit = worker.memory_limit.map(|limit| format!(" of {}", bytes(limit)));
            format!("{}{}", or_dash(worker.private_memory, bytes), limit.unwrap_or_default())
        };
        table.row([
            version.version.to_string(),
            instance.index.to_string(),
            instance.state.clone(),
            or_dash(worker, |worker| worker.pid.to_string()),
            or_dash(worker, |worker| worker.generation.to_string()),
            or_dash(worker, |worker| time(now.saturating_sub(worker.started_at))),
            or_dash(worker, memory),
            or_dash(worker, |worker| worker.device.as_ref().map_or("cpu".to_owned(), on_device)),
            or_dash(instance.last_exit.as_ref(), |exit| {
                format!("{} {}", exit.kind, ago(exit.at, now))
            }),
            instance.reason.clone(),
        ]);
    }
    if table.is_empty() { String::new() } else { format!("\n{}", table.lines()) }
}

fn on_device(device: &OnDevice) -> String {
    let used = or_dash(device.used, bytes);
    let (devices, quota) = (device.devices.join(","), bytes(device.quota));
    format!("{devices}: {used} of {quota} ({})", device.enforcement)
}

/// Processors that are promised and shared out, with what the server holds against each.
pub(super) fn devices(devices: &Devices) -> String {
    let headings = ["DEVICE", "NAME", "STATE", "USED", "GRANTED", "BUSY", "ID"];
    let mut table = Table::new(&headings);
    for device in &devices.devices {
        let state = match (&device.lost, &device.blind) {
            (Some(why), _) => format!("lost: {why}"),
            (None, _) if device.suspect => {
                "suspect: memory of an ended worker has not come back".to_owned()
            }
            (None, Some(why)) => format!("usable; whose processes it has is unknown: {why}"),
            (None, None) => "usable".to_owned(),
        };
        let total = device.total.map(|total| format!(" of {}", bytes(total))).unwrap_or_default();
        table.row([
            device.index.to_string(),
            device.name.clone(),
            state,
            format!("{}{total}", or_dash(device.used, bytes)),
            format!("{} of {}", bytes(device.granted), bytes(device.grantable)),
            or_dash(device.busy_percent, |percent| format!("{percent} %")),
            match &device.slice_of {
                Some(whole) => format!("{}, of {whole}", device.id),
                None => device.id.clone(),
            },
        ]);
    }
    let driver = clean(&devices.driver, MAX_LINE_BYTES);
    match table.is_empty() {
        true => format!("The server has no GPU: {driver}.\n"),
        false => format!("{}\nThe GPU driver is {driver}.\n", table.lines()),
    }
}

/// What keeps a worker within its bounds, and what does not.
fn held(named: &str, worker: &Worker) -> String {
    let limits = worker.limits.iter().map(|(name, rung)| format!("{name}: {rung}"));
    let mut text = format!("{named} is held by {}\n", limits.collect::<Vec<_>>().join(", "));
    for measure in &worker.confinement {
        let holds = if measure.holds { "holds" } else { "MISSING" };
        let detail = if measure.detail.is_empty() { "" } else { ": " };
        text.extend([format!("  {}: {holds}{detail}{}\n", measure.name, measure.detail)]);
    }
    format!("\n{}\n", clean_lines(&text, usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Status {
        let worker = Worker {
            pid: 77,
            generation: 3,
            started_at: 4000,
            private_memory: Some(3 << 20),
            memory_limit: Some(1 << 30),
            memory_used: None,
            limits: [("memory".to_owned(), "cgroup v2".to_owned())].into(),
            confinement: vec![],
            device: None,
        };
        let instance = Instance {
            index: 0,
            state: "ready".into(),
            reason: String::new(),
            worker: Some(worker),
            loaded: None,
            exits: [("hang".to_owned(), 2), ("retired".to_owned(), 9)].into(),
            last_exit: None,
        };
        let version = Version {
            version: 1,
            state: "READY".into(),
            reason: "some\u{1b}[2Jthing".into(),
            platform: "echo".into(),
            instances: vec![instance],
            traffic: Some(proto::admin::status::Traffic {
                succeeded: 9,
                failed: [].into(),
                rate: 12.5,
                failures: 0.0,
                p50_us: None,
                p99_us: Some(1500),
                waiting: 0,
                in_flight: 0,
            }),
        };
        let broken = Model {
            name: "broken".into(),
            enabled: true,
            problem: "no config".into(),
            versions: vec![],
        };
        let good = Model { name: "m".into(), versions: vec![version], ..broken.clone() };
        Status { models: vec![broken, good], ..Status::default() }
    }

    #[test]
    fn a_row_for_each_version_or_what_is_wrong() {
        let text = status(&example(), 64_000);
        let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        let row = |name| rows.iter().find(|row| row.first() == Some(&name)).unwrap();
        assert_eq!(row("broken")[2], "UNAVAILABLE");
        assert_eq!(row("broken")[11..], ["no", "config"]);
        assert!(!text.contains("broken: "), "{text}");
        assert_eq!(row("m")[..4], ["m", "1", "READY", "1/1"]);
        assert_eq!(row("m")[4..7], ["12.5/s", "0/s", "1.5ms"]);
        assert_eq!(row("m")[7..11], ["3.0", "MiB", "cpu", "2"]);
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn devices_have_what_was_granted_of_them() {
        let device = proto::admin::status::Device {
            id: "GPU-a".into(),
            index: 0,
            name: "Fake".into(),
            slice_of: None,
            lost: Some("Xid 79".into()),
            total: Some(2 << 30),
            used: None,
            granted: 1 << 30,
            grantable: 2 << 30,
            suspect: false,
            busy_percent: Some(3),
            blind: None,
        };
        let text = devices(&Devices { driver: "580.1".into(), devices: vec![device] });
        assert_eq!(
            text,
            "\
DEVICE  NAME  STATE         USED          GRANTED             BUSY  ID
0       Fake  lost: Xid 79  - of 2.0 GiB  1.0 GiB of 2.0 GiB  3 %   GPU-a

The GPU driver is 580.1.
"
        );
        let none = Devices { driver: "no library\u{1b}".into(), devices: vec![] };
        assert_eq!(devices(&none), "The server has no GPU: no library .\n");
    }

    #[test]
    fn a_single_model_has_its_workers() {
        let text = model(&example(), 64_000);
        assert!(text.contains("3.0 MiB of 1.0 GiB") && text.contains("1m00s"), "{text}");
        assert!(text.contains("version 1, instance 0 is held by memory: cgroup v2"), "{text}");
    }
}
