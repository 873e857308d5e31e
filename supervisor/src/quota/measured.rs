//! What models were seen to need of a device; pure.
//!
//! Kept by model, version, kind of device and build of the engine: each of them changes the figure.
//! Which build will run is known only once it has loaded, so the latest one is taken to be the next. A
//! figure that proves too small is refuted, and the configured limit holds again.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use shared::id::{ModelName, ModelVersion};

/// Figures that are kept; the oldest goes first.
const MOST: usize = 4096;
/// What is granted beyond the figure, as a part of it and at least in bytes: allocators cut memory
/// differently from run to run, and libraries take work space of their own later.
const MARGIN: u64 = 10;
const LEAST_MARGIN: u64 = 256 << 20;

/// What a figure is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    pub model: String,
    pub version: u64,
    /// The device's name, as `NVIDIA H200`.
    pub device: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Figure {
    subject: Subject,
    build: String,
    /// Most bytes that were seen, the context included.
    peak: u64,
}

/// All figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// The oldest first.
    figures: VecDeque<Figure>,
    /// By engine: what it was when it loaded last.
    builds: BTreeMap<String, String>,
}

impl Subject {
    #[must_use]
    pub fn new(model: &ModelName, version: ModelVersion, device: &str) -> Self {
        Self { model: model.to_string(), version: version.get(), device: device.to_owned() }
    }
}

impl Measured {
    /// Bytes to grant for a model that the configuration allows `limit`.
    #[must_use]
    pub fn need(&self, subject: &Subject, engine: &str, limit: u64) -> u64 {
        let Some(build) = self.builds.get(engine) else { return limit };
        let figure = self.figures.iter().find(|f| f.subject == *subject && f.build == *build);
        figure.map_or(limit, |figure| with_margin(figure.peak).min(limit))
    }

    /// Takes note of a peak. Says whether that changed anything.
    pub fn note(&mut self, subject: Subject, engine: &str, build: &str, peak: u64) -> bool {
        let newer = self.builds.insert(engine.to_owned(), build.to_owned());
        let figure = Figure { subject, build: build.to_owned(), peak };
        let same =
            self.figures.iter().position(|f| f.subject == figure.subject && f.build == build);
        if let Some(at) = same {
            // It has been seen to need more before, which it may need again.
            let larger = figure.peak.max(self.figures[at].peak);
            let changed = larger != self.figures[at].peak;
            self.figures[at].peak = larger;
            return changed || newer.as_deref() != Some(build);
        }
        if self.figures.len() >= MOST {
            self.figures.pop_front();
        }
        self.figures.push_back(figure);
        true
    }

    /// It was not enough: from now on the limit holds, until another build is measured. Says whether that
    /// changed anything.
    pub fn refute(&mut self, subject: &Subject) -> bool {
        let mut changed = false;
        for figure in self.figures.iter_mut().filter(|figure| figure.subject == *subject) {
            changed |= std::mem::replace(&mut figure.peak, u64::MAX) != u64::MAX;
        }
        changed
    }

    /// What somebody else may have written, cut to what is kept.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.figures.truncate(MOST);
        self
    }
}

fn with_margin(peak: u64) -> u64 {
    peak.saturating_add((peak / MARGIN).max(LEAST_MARGIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn subject(model: &str) -> Subject {
        let version = ModelVersion::new(1).unwrap();
        Subject::new(&ModelName::new(model).unwrap(), version, "NVIDIA H200")
    }

    #[test]
    fn the_first_load_has_the_limit_and_later_ones_what_was_seen() {
        let mut measured = Measured::default();
        assert_eq!(measured.need(&subject("m"), "pytorch", 4 * GIB), 4 * GIB);
        assert!(measured.note(subject("m"), "pytorch", "libtorch 2", GIB));
        assert_eq!(measured.need(&subject("m"), "pytorch", 4 * GIB), GIB + LEAST_MARGIN);
        assert_eq!(measured.need(&subject("m"), "pytorch", GIB), GIB);
        assert_eq!(measured.need(&subject("other"), "pytorch", 4 * GIB), 4 * GIB);
        let elsewhere = Subject { device: "NVIDIA T4".into(), ..subject("m") };
        assert_eq!(measured.need(&elsewhere, "pytorch", 4 * GIB), 4 * GIB);
        assert!(measured.note(subject("m"), "pytorch", "libtorch 2", 20 * GIB));
        assert_eq!(measured.need(&subject("m"), "pytorch", 40 * GIB), 22 * GIB);
    }

    #[test]
    fn a_figure_is_of_one_build_and_the_latest_build_counts() {
        let mut measured = Measured::default();
        assert!(measured.note(subject("m"), "pytorch", "libtorch 2", GIB));
        assert!(measured.note(subject("n"), "pytorch", "libtorch 3", GIB));
        assert_eq!(measured.need(&subject("m"), "pytorch", 4 * GIB), 4 * GIB);
        assert!(measured.note(subject("m"), "pytorch", "libtorch 3", 2 * GIB));
        assert_eq!(measured.need(&subject("m"), "pytorch", 4 * GIB), 2 * GIB + LEAST_MARGIN);
    }

    #[test]
    fn a_peak_only_grows_until_it_is_refuted() {
        let mut measured = Measured::default();
        assert!(measured.note(subject("m"), "e", "b", GIB));
        assert!(!measured.note(subject("m"), "e", "b", GIB / 2));
        assert_eq!(measured.need(&subject("m"), "e", 4 * GIB), GIB + LEAST_MARGIN);
        assert!(measured.refute(&subject("m")));
        assert!(!measured.refute(&subject("m")));
        // Not measured to the same, to fail alike, by turns.
        assert!(!measured.note(subject("m"), "e", "b", GIB));
        assert_eq!(measured.need(&subject("m"), "e", 4 * GIB), 4 * GIB);
        assert!(measured.note(subject("m"), "e", "c", GIB));
        assert_eq!(measured.need(&subject("m"), "e", 4 * GIB), GIB + LEAST_MARGIN);
    }

    #[test]
    fn old_figures_make_room_and_the_largest_does_not_overflow() {
        let mut measured = Measured::default();
        for n in 0..MOST + 10 {
            assert!(measured.note(subject(&format!("m{n}")), "e", "b", u64::MAX));
        }
        assert_eq!(measured.figures.len(), MOST);
        assert_eq!(measured.need(&subject("m0"), "e", 7), 7);
        assert_eq!(measured.need(&subject(&format!("m{MOST}")), "e", u64::MAX), u64::MAX);
    }

    #[test]
    fn it_survives_its_own_text() {
        let mut measured = Measured::default();
        assert!(measured.note(subject("m"), "e", "b", GIB));
        let text = serde_json::to_string(&measured).unwrap();
        assert_eq!(serde_json::from_str::<Measured>(&text).unwrap().bounded(), measured);
        assert_eq!(serde_json::from_str::<Measured>("{}").unwrap(), Measured::default());
    }
}
