//! Other answers as a person reads them; pure.

use proto::admin::reply::{
    Account, ConfigChanges, Configuration, Exits, InstanceExits, LogLine, LogLines, Quota,
};
use proto::admin::status::Exit;
use shared::text::clean;

use super::table::Table;
use super::units::{bytes, moment, time};

/// Longest line of others that is shown.
const MAX_LINE_BYTES: usize = 64 << 10;

/// The oldest first, so that the latest stands last.
pub(super) fn exits(exits: &Exits) -> String {
    let mut all: Vec<(&InstanceExits, &Exit)> = exits
        .instances
        .iter()
        .flat_map(|instance| instance.exits.iter().map(move |exit| (instance, exit)))
        .collect();
    all.sort_by_key(|(_, exit)| exit.at);
    if all.is_empty() {
        return "No worker of it has ended.\n".to_owned();
    }
    let mut text: String = all.iter().map(|(of, exit)| one_exit(of, exit)).collect();
    for instance in &exits.instances {
        let counts = instance.counts.iter().map(|(kind, count)| format!("{count} {kind}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        let (version, index) = (instance.version, instance.instance);
        text.extend([format!("In all, version {version}, instance {index}: {counts}\n")]);
    }
    text
}

fn one_exit(of: &InstanceExits, exit: &Exit) -> String {
    let mut text = format!(
        "{}  {}  version {}, instance {}, generation {}; {}, alive {}, healthy {}, {} in flight\n",
        moment(exit.at),
        exit.kind,
        of.version,
        of.instance,
        exit.generation,
        exit.during,
        time(exit.alive_ms),
        time(exit.healthy_ms),
        exit.in_flight,
    );
    text.extend([format!("    {}\n", clean(&exit.summary, MAX_LINE_BYTES))]);
    if !exit.fingerprints.is_empty() {
        text.extend([format!("    requests {}\n", exit.fingerprints.join(", "))]);
    }
    for line in &exit.lines {
        text.extend([format!("    | {}\n", clean(line, MAX_LINE_BYTES))]);
    }
    text
}

pub(super) fn logs(read: &LogLines, following: bool) -> String {
    let mut text = String::new();
    // Of what was written before, nobody has asked for all.
    if following && read.lost > 0 {
        text.extend([format!("... {} lines are lost\n", read.lost)]);
    }
    text.extend(read.lines.iter().map(log_line));
    text
}

fn log_line(line: &LogLine) -> String {
    let LogLine { at, version, instance, generation, level, text } = line;
    let at = moment(*at);
    let text = clean(text, MAX_LINE_BYTES);
    format!("{at} {level:5} {version}/{instance}/{generation}: {text}\n")
}

pub(super) fn quota(quota: &Quota) -> String {
    let mut table = Table::new(&["OF", "USED", "CAPACITY"]);
    let Account { used, capacity } = quota.workers;
    table.row(["workers".to_owned(), used.to_string(), capacity.to_string()]);
    let Account { used, capacity } = quota.arenas;
    table.row(["slots".to_owned(), bytes(used), bytes(capacity)]);
    for device in &quota.devices {
        let suspect = if device.suspect { " (suspect)" } else { "" };
        let named = format!("GPU {} {}{suspect}", device.index, device.name);
        table.row([named, bytes(device.account.used), bytes(device.account.capacity)]);
        for holder in &device.holders {
            let leaving = if holder.leaving { " (on its way back)" } else { "" };
            let named = format!("  {} {}{leaving}", holder.model, holder.version);
            table.row([named, bytes(holder.bytes), String::new()]);
        }
    }
    table.lines()
}

/// As it would stand in a file.
pub(super) fn configuration(configuration: &Configuration) -> String {
    let file = match &configuration.file {
        Some(file) => format!("# {}\n", clean(file, MAX_LINE_BYTES)),
        None => "# no file; these are the defaults, and what --set says\n".to_owned(),
    };
    let entries = configuration.entries.iter();
    let lines =
        entries.map(|entry| clean(&format!("{} = {}", entry.key, entry.value), MAX_LINE_BYTES));
    file + &lines.map(|line| line + "\n").collect::<String>()
}

pub(super) fn changes(changes: &ConfigChanges) -> String {
    let mut text: String =
        changes.notes.iter().map(|note| clean(note, MAX_LINE_BYTES) + "\n").collect();
    if changes.changes.is_empty() {
        if text.is_empty() {
            text.push_str("No difference.\n");
        }
        return text;
    }
    let mut table = Table::new(&["KEY", "OLD", "NEW", "TAKES"]);
    for change in &changes.changes {
        let takes = match change.takes.as_str() {
            "live" => "nothing more",
            "workers" => "new workers",
            "server" => "a restart of the server",
            other => other,
        };
        let cells = [&change.key, &change.old, &change.new];
        table.row(cells.into_iter().cloned().chain([takes.to_owned()]));
    }
    text.push_str(&table.lines());
    text
}

#[cfg(test)]
mod tests {
    use proto::admin::reply::{ConfigChange, DeviceAccount, Holder};

    use super::*;

    #[test]
    fn ends_have_their_last_lines_and_no_control_characters() {
        let exit = Exit {
            at: 0,
            generation: 4,
            kind: "SIGSEGV".into(),
            summary: "it was\nended".into(),
            during: "ready".into(),
            alive_ms: 1000,
            healthy_ms: 10,
            in_flight: 1,
            fingerprints: vec!["abc".into()],
            lines: vec!["last\u{1b}[2J words".into()],
        };
        let counts = [("SIGSEGV".to_owned(), 7)].into();
        let instance = InstanceExits { version: 1, instance: 0, counts, exits: vec![exit] };
        let text = exits(&Exits { instances: vec![instance] });
        let expected = "\
1970-01-01T00:00:00.000Z  SIGSEGV  version 1, instance 0, generation 4; ready, alive 1s, healthy 10ms, 1 in flight
    it was ended
    requests abc
    | last [2J words
In all, version 1, instance 0: 7 SIGSEGV
";
        assert_eq!(text, expected);
    }

    #[test]
    fn lines_tell_whose_they_are() {
        let line = LogLine {
            at: 0,
            version: 2,
            instance: 1,
            generation: 9,
            level: "warn".into(),
            text: "hot\t".into(),
        };
        let read = LogLines { lost: 3, lines: vec![line] };
        let line = "1970-01-01T00:00:00.000Z warn  2/1/9: hot\n";
        assert_eq!(logs(&read, true), format!("... 3 lines are lost\n{line}"));
        assert_eq!(logs(&read, false), line);
    }

    #[test]
    fn accounts_name_their_holders() {
        let account = Account { used: 1 << 30, capacity: 2 << 30 };
        let holder = Holder { model: "m".into(), version: 1, bytes: 1 << 30, leaving: true };
        let device = DeviceAccount {
            id: "GPU-a".into(),
            index: 0,
            name: "Fake".into(),
            account,
            suspect: true,
            holders: vec![holder],
        };
        let workers = Account { used: 1, capacity: 9 };
        let text = quota(&Quota { workers, arenas: account, devices: vec![device] });
        let expected = "\
OF                       USED     CAPACITY
workers                  1        9
slots                    1.0 GiB  2.0 GiB
GPU 0 Fake (suspect)     1.0 GiB  2.0 GiB
  m 1 (on its way back)  1.0 GiB
";
        assert_eq!(text, expected);
    }

    #[test]
    fn changes_say_what_they_take() {
        assert_eq!(changes(&ConfigChanges::default()), "No difference.\n");
        let change = ConfigChange {
            key: "worker.slots".into(),
            old: "16".into(),
            new: "9".into(),
            takes: "workers".into(),
        };
        let notes = vec!["done".into()];
        let text = changes(&ConfigChanges { changes: vec![change], notes, complete: true });
        assert_eq!(
            text,
            "done\nKEY           OLD  NEW  TAKES\nworker.slots  16   9    new workers\n"
        );
    }
}
