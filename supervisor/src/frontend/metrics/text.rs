//! All metrics as text, in the format that Prometheus reads (version 0.0.4).

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::families;
use crate::overview::Overview;

pub(super) use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

/// Makes the text anew for each scrape.
#[derive(Debug)]
pub(super) struct Text(Registry);

impl Text {
    pub(super) fn new(overview: Overview) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Everything(overview)));
        Self(registry)
    }

    pub(super) fn write(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(as_counters(text))
    }
}

#[derive(Debug)]
struct Everything(Overview);

impl Collector for Everything {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut Out(&mut encoder);
        families::machine::write(out, &self.0)?;
        families::requests::write(out, &self.0)?;
        families::workers::write(out, &self.0)
    }
}

/// What a family is, beside its samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The library adds `_total` to the name.
    Counter,
    /// A counter of Triton's, whose name has no `_total`.
    PlainCounter,
    Gauge,
}

/// Where families are written to.
#[derive(Debug)]
pub(super) struct Out<'a, 'e>(pub(super) &'a mut DescriptorEncoder<'e>);

pub(super) type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

impl Out<'_, '_> {
    pub(super) fn family<'a, const N: usize, V: EncodeGaugeValue>(
        &mut self,
        (kind, name, help): (Kind, &str, &str),
        samples: impl IntoIterator<Item = (Labels<'a, N>, V)>,
    ) -> fmt::Result {
        let kind = match kind {
            Kind::Counter => MetricType::Counter,
            Kind::PlainCounter => MetricType::Unknown,
            Kind::Gauge => MetricType::Gauge,
        };
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            // Writes the number, whatever the kind.
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    pub(super) fn one<V: EncodeGaugeValue>(
        &mut self,
        described: (Kind, &str, &str),
        value: Option<V>,
    ) -> fmt::Result {
        self.family(described, value.map(|value| ([], value)))
    }
}

/// The library has no counters without `_total`, as Triton names its own, and calls them untyped.
fn as_counters(text: String) -> String {
    const UNTYPED: &str = " untyped\n";
    if !text.contains(UNTYPED) {
        return text;
    }
    let mut fixed = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        // No value of a label begins a line: a line's end in one is written as `\n`.
        match line.strip_suffix(UNTYPED).filter(|start| start.starts_with("# TYPE ")) {
            Some(start) => {
                fixed.push_str(start);
                fixed.push_str(" counter\n");
            }
            None => fixed.push_str(line),
        }
    }
    fixed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Some_;

    impl Collector for Some_ {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let out = &mut Out(&mut encoder);
            let samples = [([("a", "x\n# TYPE y untyped\n\"")], 1_u64)];
            out.family((Kind::PlainCounter, "nv_plain", "Plain."), samples)?;
            out.one((Kind::Counter, "new", "New."), Some(2_u64))?;
            out.one((Kind::Gauge, "unknown", "Not there."), None::<f64>)
        }
    }

    #[test]
    fn names_are_as_they_should_be_and_labels_cannot_break_out() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Some_));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let expected = "# HELP nv_plain Plain.\n# TYPE nv_plain counter\n\
             nv_plain{a=\"x\\n# TYPE y untyped\\n\\\"\"} 1\n\
             # HELP new_total New.\n# TYPE new_total counter\nnew_total 2\n\
             # HELP unknown Not there.\n# TYPE unknown gauge\n";
        assert_eq!(as_counters(text), expected);
    }
}
