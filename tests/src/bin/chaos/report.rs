//! What a run comes to: the table at the end, or what there is to know about a violation.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use tests::Supervisor;
use tests::logs::Logs;

use crate::census::Footprint;
use crate::fleet::{TORCH_WITNESS, WITNESS};
use crate::journal::{Pages, Tally};

const LAST_FAULTS: usize = 25;
const LAST_LINES: usize = 20;
const LAST_WARNINGS: usize = 60;

/// For the one who has to find out why.
pub(crate) fn violation(seed: u64, pages: &Pages, server: &Supervisor) -> Option<String> {
    let (at, what) = pages.violation.as_ref()?;
    let mut text = format!("chaos: VIOLATION with seed {seed} after {at:.1?}: {what}\n");
    text.push_str("the last faults:\n");
    let before: Vec<_> = pages.faults.iter().filter(|(when, _)| when <= at).collect();
    for (when, fault) in &before[before.len().saturating_sub(LAST_FAULTS)..] {
        line(&mut text, format_args!("    {when:>9.3?} {fault:?}"));
    }
    let lines = server.logs().lines();
    let grave = |line: &&String| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
    let warnings: Vec<&String> = lines.iter().filter(grave).collect();
    text.push_str("the last warnings and errors of the server:\n");
    for said in &warnings[warnings.len().saturating_sub(LAST_WARNINGS)..] {
        line(&mut text, format_args!("    {said}"));
    }
    text.push_str("its last lines:\n");
    for said in &lines[lines.len().saturating_sub(LAST_LINES)..] {
        line(&mut text, format_args!("    {said}"));
    }
    Some(text)
}

/// A line for each truce.
pub(crate) fn progress(pages: &Pages, elapsed: Duration, now: Footprint) -> String {
    let Footprint { kilobytes, descriptors, threads } = now;
    format!(
        "chaos: after {elapsed:.0?} and {} faults all is well; the server has {kilobytes} kB, \
         {descriptors} descriptors, {threads} threads",
        pages.faults.len()
    )
}

pub(crate) fn summary(pages: &Pages, logs: &Logs, memory: (Footprint, Footprint)) -> String {
    let mut text = String::new();
    counts(&mut text, "faults", &count(pages.faults.iter().map(|(_, fault)| fault.kind())));
    let events = logs.events();
    let exits = events.iter().filter(|event| event["message"] == "worker exited");
    let kinds = exits.map(|event| event["kind"].as_str().unwrap_or_default().to_owned());
    counts(&mut text, "exits of workers", &count(kinds));
    text.push_str("requests by model and status\n");
    for (model, tally) in &pages.tallies {
        line(&mut text, format_args!("    {model:<16} {}", tally.line()));
    }
    let (before, after) = memory;
    line(
        &mut text,
        format_args!(
            "server before and after: {} and {} kB, {} and {} descriptors, {} and {} threads",
            before.kilobytes,
            after.kilobytes,
            before.descriptors,
            after.descriptors,
            before.threads,
            after.threads,
        ),
    );
    text
}

fn line(text: &mut String, arguments: fmt::Arguments<'_>) {
    text.write_fmt(arguments).and_then(|()| text.write_char('\n')).expect("a string takes all");
}

fn count(names: impl Iterator<Item = String>) -> BTreeMap<String, u64> {
    names.fold(BTreeMap::new(), |mut counts, name| {
        *counts.entry(name).or_default() += 1;
        counts
    })
}

fn counts(text: &mut String, what: &str, counts: &BTreeMap<String, u64>) {
    line(text, format_args!("{what}: {}", counts.values().sum::<u64>()));
    for (name, number) in counts {
        line(text, format_args!("    {number:>6} {name}"));
    }
}

impl Tally {
    fn line(&self) -> String {
        let statuses = self.statuses.iter().map(|(status, number)| format!("{status}: {number}"));
        let statuses: Vec<String> = statuses.collect();
        let mut sorted = self.microseconds.clone();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
            Duration::from_micros(sorted.get(index).copied().unwrap_or_default())
        };
        let (p50, p99, all) = (at(50), at(99), at(100));
        format!("{}; p50 {p50:.1?}, p99 {p99:.1?}, slowest {all:.1?}", statuses.join(", "))
    }
}

/// The one line that says that it went well.
pub(crate) fn verdict(seed: u64, pages: &Pages) -> String {
    let requests = |tally: &Tally| tally.statuses.values().sum::<u64>();
    let all: u64 = pages.tallies.values().map(requests).sum();
    let witnessed: u64 = [WITNESS, TORCH_WITNESS]
        .iter()
        .filter_map(|name| pages.tallies.get(name))
        .map(requests)
        .sum();
    let faults = pages.faults.len();
    format!(
        "chaos: seed {seed}: {faults} faults, {all} requests, {witnessed} of them to witnesses \
         with no error"
    )
}
