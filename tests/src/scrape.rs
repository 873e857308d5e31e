//! Metrics as a scraper sees them: the text format, read strictly enough to trip over a bad line.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::client::Client;

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    pub text: String,
    /// By name and labels, as the line has them.
    pub samples: BTreeMap<String, f64>,
    /// The type of each family.
    pub types: BTreeMap<String, String>,
}

impl Scrape {
    #[track_caller]
    pub fn of(address: SocketAddr) -> Self {
        Self::with(&mut Client::new(address))
    }

    #[track_caller]
    pub fn with(client: &mut Client) -> Self {
        let answer = client.get("/metrics");
        answer.assert_status(200);
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Self::read(&answer.text())
    }

    #[track_caller]
    fn read(text: &str) -> Self {
        let mut scrape = Self { text: text.to_owned(), ..Self::default() };
        for line in text.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').expect("a name and a type");
                let known = scrape.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(known, None, "{name} comes twice");
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').expect("a sample");
                let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
                let known = scrape.samples.insert(series.to_owned(), value);
                assert_eq!(known, None, "{series} comes twice");
            }
        }
        scrape
    }

    /// The sum of all samples with this name that have all of these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let named = |series: &str| series.split('{').next() == Some(name);
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let fits = |series: &str| {
            named(series) && labels.iter().all(|label| series.contains(label.as_str()))
        };
        // Zero and not its negative, which an empty sum would be.
        self.samples.iter().filter(|(series, _)| fits(series)).fold(0.0, |sum, (_, v)| sum + v)
    }

    /// Counters that are lower here than in an earlier scrape, or gone.
    pub fn fallen_since(&self, earlier: &Self) -> Vec<String> {
        let is_counter = |series: &str| {
            let name = series.split('{').next().unwrap_or(series);
            let family =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let kind = |name: &str| self.types.get(name).map(String::as_str);
            kind(name) == Some("counter") || family.and_then(kind) == Some("histogram")
        };
        let fell = |(series, before): (&String, &f64)| {
            let now = self.samples.get(series).copied().unwrap_or(f64::NEG_INFINITY);
            (is_counter(series) && now < *before).then(|| format!("{series}: {before}, then {now}"))
        };
        earlier.samples.iter().filter_map(fell).collect()
    }
}
