//! What `bulkhead devices` prints: the machine's processors and accelerators, as the server would see them.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::thread::available_parallelism;

use serde_json::{Value, json};
use shared::text::clean;

use crate::config;
use crate::device::{Devices, Driver, Memory, Processes, Reading, Slice, Snapshot, State, Used};

#[derive(Clone, Debug)]
pub struct Inventory {
    cpu: Cpu,
    seen: Arc<Snapshot>,
}

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For a person.
    Table,
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Cpu {
    name: String,
    /// That this process may use.
    cores: usize,
    memory: Option<Memory>,
}

impl Inventory {
    /// Asks once, and waits no longer than for `devices.answer_timeout`.
    pub async fn take(settings: &config::Devices) -> Self {
        let devices = Devices::start(settings);
        devices.settled().await;
        let seen = Arc::clone(&devices.snapshots().borrow());
        Self { cpu: Cpu::read(), seen }
    }

    /// Ends with a line break.
    #[must_use]
    pub fn write(&self, form: Form) -> String {
        match form {
            Form::Table => self.table(),
            Form::Json => format!("{:#}\n", self.json()),
        }
    }

    fn table(&self) -> String {
        let headings = ["DEVICE", "NAME", "STATE", "MEMORY USED", "BUSY", "PROCESSES", "ID"];
        let mut rows = vec![headings.map(str::to_owned), self.cpu.row()];
        rows.extend(self.seen.readings.iter().map(row));
        let mut table = String::new();
        for row in &rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
                let _never = write!(line, "{cell:width$}  ");
            }
            table.push_str(line.trim_end());
            table.push('\n');
        }
        let driver = match &self.seen.driver {
            Driver::Answers(version) => format!("The GPU driver is {version}."),
            Driver::Absent(why) => format!("There is no GPU: {why}."),
            Driver::Silent => {
                "The GPU driver does not answer: it was asked, and devices.answer_timeout has passed."
                    .to_owned()
            }
        };
        format!("{table}\n{driver}\n")
    }

    fn json(&self) -> Value {
        let driver = match &self.seen.driver {
            Driver::Answers(version) => json!({ "state": "answers", "version": version }),
            Driver::Absent(why) => json!({ "state": "absent", "why": why }),
            Driver::Silent => json!({ "state": "silent" }),
        };
        let gpus = self.seen.readings.iter().map(gpu);
        let devices: Vec<Value> = std::iter::once(self.cpu.json()).chain(gpus).collect();
        json!({ "driver": driver, "devices": devices })
    }
}

impl Cpu {
    fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            name: name(&text("/proc/cpuinfo")),
            cores: available_parallelism().map_or(1, usize::from),
            memory: memory(&text("/proc/meminfo")),
        }
    }

    fn row(&self) -> [String; 7] {
        let Self { name, cores, memory } = self;
        let name = format!("{name}, {cores} cores");
        let none = || "-".to_owned();
        ["cpu".to_owned(), name, "usable".to_owned(), used(*memory), none(), none(), none()]
    }

    fn json(&self) -> Value {
        let Self { name, cores, memory } = self;
        let memory = memory.map(of_memory);
        json!({ "kind": "cpu", "name": name, "cores": cores, "memory": memory })
    }
}

fn row(reading: &Reading) -> [String; 7] {
    let Reading { device, state, memory, busy, processes } = reading;
    [
        device.index.to_string(),
        device.name.clone(),
        match state {
            State::Usable => "usable".to_owned(),
            State::Lost(why) => format!("lost: {why}"),
        },
        used(*memory),
        busy.map_or_else(|| "-".to_owned(), |percent| format!("{percent} %")),
        match processes {
            Processes::Seen(seen) => seen.len().to_string(),
            Processes::Blind(why) => format!("unknown: {why}"),
        },
        match &device.slice {
            Slice::Whole => device.id.to_string(),
            Slice::Of(whole) => format!("{}, of {whole}", device.id),
        },
    ]
}

fn gpu(reading: &Reading) -> Value {
    let Reading { device, state, memory, busy, processes } = reading;
    let (state, lost) = match state {
        State::Usable => ("usable", None),
        State::Lost(why) => ("lost", Some(why)),
    };
    let slice_of = match &device.slice {
        Slice::Whole => None,
        Slice::Of(whole) => Some(whole.as_str()),
    };
    let process = |(number, used): (&u32, &Used)| {
        let bytes = match used {
            Used::Bytes(bytes) => Some(bytes),
            Used::Unknown => None,
        };
        json!({ "number": number, "bytes": bytes })
    };
    let (processes, blind) = match processes {
        Processes::Seen(seen) => (Some(seen.iter().map(process).collect::<Vec<_>>()), None),
        Processes::Blind(why) => (None, Some(why)),
    };
    json!({
        "kind": "gpu",
        "index": device.index,
        "id": device.id.as_str(),
        "name": device.name,
        "slice_of": slice_of,
        "state": state,
        "lost": lost,
        "memory": memory.map(of_memory),
        "busy": busy,
        "processes": processes,
        "blind": blind,
    })
}

fn of_memory(Memory { total, used }: Memory) -> Value {
    json!({ "total": total, "used": used })
}

fn used(memory: Option<Memory>) -> String {
    match memory {
        Some(Memory { total, used }) => format!("{} of {} GiB", gib(used), gib(total)),
        None => "unknown".to_owned(),
    }
}

/// With one decimal.
fn gib(bytes: u64) -> String {
    let tenths = bytes / (1 << 20) * 10 / 1024;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Of `/proc/cpuinfo`; some processors have none there.
fn name(cpuinfo: &str) -> String {
    let values = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let mut names =
        values.filter(|(key, _)| key.trim() == "model name").map(|(_, name)| name.trim());
    clean(names.next().unwrap_or(std::env::consts::ARCH), 96)
}

/// Of `/proc/meminfo`. What the kernel could give at once is not used.
fn memory(meminfo: &str) -> Option<Memory> {
    let bytes = |key: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        let kibibytes: u64 = value.split_whitespace().next()?.parse().ok()?;
        kibibytes.checked_mul(1024)
    };
    let total = bytes("MemTotal:")?;
    Some(Memory { total, used: total.saturating_sub(bytes("MemAvailable:")?) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::device::{Device, DeviceId};

    const GIB: u64 = 1 << 30;

    fn inventory() -> Inventory {
        let id = |text| DeviceId::new(text).unwrap();
        let device =
            |index, text, slice| Device { id: id(text), index, name: "Fake".into(), slice };
        let seen = BTreeMap::from([(7, Used::Bytes(GIB)), (8, Used::Unknown)]);
        let readings = vec![
            Reading {
                device: device(0, "GPU-a", Slice::Whole),
                state: State::Usable,
                memory: Some(Memory { total: 10 * GIB, used: 3 * GIB / 2 }),
                busy: Some(12),
                processes: Processes::Seen(seen),
            },
            Reading {
                device: device(1, "MIG-b", Slice::Of(id("GPU-c"))),
                state: State::Lost("Xid 79".into()),
                memory: None,
                busy: None,
                processes: Processes::Blind("no right".into()),
            },
        ];
        let driver = Driver::Answers("615.1".into());
        let seen = Arc::new(Snapshot { driver, readings, ..Snapshot::absent("") });
        let memory = Some(Memory { total: 4 * GIB, used: GIB });
        Inventory { cpu: Cpu { name: "Some CPU".into(), cores: 2, memory }, seen }
    }

    #[test]
    fn the_table_can_be_read() {
        let expected = "\
DEVICE  NAME               STATE         MEMORY USED      BUSY  PROCESSES          ID
cpu     Some CPU, 2 cores  usable        1.0 of 4.0 GiB   -     -                  -
0       Fake               usable        1.5 of 10.0 GiB  12 %  2                  GPU-a
1       Fake               lost: Xid 79  unknown          -     unknown: no right  MIG-b, of GPU-c

The GPU driver is 615.1.
";
        assert_eq!(inventory().write(Form::Table), expected);
    }

    #[test]
    fn what_is_unknown_is_null_and_not_zero() {
        let json = inventory().json();
        assert_eq!(json["devices"][0]["cores"], 2);
        let processes = json!([{ "number": 7, "bytes": GIB }, { "number": 8, "bytes": null }]);
        assert_eq!(json["devices"][1]["processes"], processes);
        let lost = &json["devices"][2];
        assert_eq!((&lost["memory"], &lost["processes"]), (&Value::Null, &Value::Null));
        assert_eq!((&lost["blind"], &lost["slice_of"]), (&json!("no right"), &json!("GPU-c")));
    }

    #[test]
    fn the_processor_is_read_as_the_kernel_writes_it() {
        assert_eq!(name("processor : 0\nmodel name\t: A  B\nmodel name\t: C\n"), "A  B");
        assert_eq!(name("CPU part : 0xd40\n"), std::env::consts::ARCH);
        let read = memory("MemTotal:  100 kB\nMemFree:  1 kB\nMemAvailable:  40 kB\n");
        assert_eq!(read, Some(Memory { total: 100 * 1024, used: 60 * 1024 }));
        assert_eq!(memory("MemTotal: x"), None);
    }
}
