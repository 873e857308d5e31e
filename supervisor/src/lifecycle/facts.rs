//! Checks on what a worker says of its model and of its confinement; pure. A worker is not believed.

use std::collections::BTreeSet;

use proto::control::{
    Device, DeviceMemory, LoadSpec, Loaded, MAX_BUILD_BYTES, Measure, OnDevice, Taken,
};
use shared::limits::{MAX_DIMS, MAX_TENSOR_NAME_BYTES, MAX_TENSORS};
use shared::tensor::TensorSpec;
use shared::text::clean;

/// Whether `loaded` can be what an honest worker says after `spec`, which is the one that it was given.
pub(super) fn check(spec: &LoadSpec, loaded: &Loaded) -> Result<(), String> {
    check_tensors("input", &spec.inputs, &loaded.inputs)?;
    check_tensors("output", &spec.outputs, &loaded.outputs)?;
    check_build(&loaded.build)?;
    match (spec.device, &loaded.on_device) {
        (_, None) => Ok(()),
        (Device::Cpu, Some(_)) => Err("it was given no device and tells of one".into()),
        (Device::Cuda(_) | Device::Spread(_), Some(told)) => {
            check_device(spec.device_memory, *told)
        }
    }
}

/// It becomes part of a file's lines and of the log's.
fn check_build(build: &str) -> Result<(), String> {
    let harmless = build.len() <= MAX_BUILD_BYTES && !build.chars().any(char::is_control);
    if harmless { Ok(()) } else { Err("the build of its engine is too long or odd".into()) }
}

/// More than any device has; the configuration takes no larger quota.
const MAX_DEVICE_BYTES: u64 = 16 << 40;

/// A limit that is told is relied on, and a peak decides what the next worker is granted.
fn check_device(memory: Option<DeviceMemory>, told: OnDevice) -> Result<(), String> {
    let most = memory.map_or(MAX_DEVICE_BYTES, |memory| memory.quota);
    let OnDevice { allocator_limit, peak, .. } = told;
    match allocator_limit {
        Some(limit) if limit > most => {
            Err(format!("its allocator's limit of {limit} bytes is beyond its quota of {most}"))
        }
        Some(_) if peak > most => {
            Err(format!("its allocator held {peak} bytes, beyond its own limit and {most}"))
        }
        None if peak > MAX_DEVICE_BYTES => Err(format!("no device has the {peak} bytes it held")),
        Some(_) | None => Ok(()),
    }
}

fn check_tensors(what: &str, asked: &[TensorSpec], told: &[TensorSpec]) -> Result<(), String> {
    if told.len() > MAX_TENSORS {
        return Err(format!("{} {what}s are more than {MAX_TENSORS}", told.len()));
    }
    let mut names = BTreeSet::new();
    for tensor in told {
        let name = &tensor.name;
        let harmless = !name.is_empty() && !name.chars().any(char::is_control);
        if !harmless || name.len() > MAX_TENSOR_NAME_BYTES || !names.insert(name) {
            return Err(format!("an {what} has an empty, odd, long or repeated name"));
        }
        let sizes = |dims: &Vec<i64>| dims.len() <= MAX_DIMS && dims.iter().all(|&d| d >= -1);
        if !tensor.dims.as_ref().is_none_or(sizes) {
            return Err(format!("{what} '{name}' has impossible dimensions"));
        }
    }
    let kept = |asked: &TensorSpec, told: &TensorSpec| {
        asked.name == told.name
            && (asked.dtype.is_none() || asked.dtype == told.dtype)
            && (asked.dims.is_none() || asked.dims == told.dims)
    };
    let unchanged = asked.is_empty()
        || asked.len() == told.len() && asked.iter().zip(told).all(|(a, t)| kept(a, t));
    if unchanged { Ok(()) } else { Err(format!("the configured {what}s came back changed")) }
}

/// Most measures that a confinement has, and bytes of a name and of a text.
const MAX_MEASURES: usize = 32;
const MAX_MEASURE_NAME_BYTES: usize = 32;
const MAX_MEASURE_TEXT_BYTES: usize = 256;

/// What an honest worker can say of its confinement, with harmless texts.
pub(super) fn measures(told: Vec<Measure>) -> Result<Vec<Measure>, String> {
    if told.len() > MAX_MEASURES {
        return Err(format!("{} measures are more than {MAX_MEASURES}", told.len()));
    }
    let mut names = BTreeSet::new();
    for Measure { name, .. } in &told {
        let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == ' ');
        let short = (1..=MAX_MEASURE_NAME_BYTES).contains(&name.len());
        if !plain || !short || !names.insert(name.clone()) {
            return Err("a measure has an empty, odd, long or repeated name".into());
        }
    }
    let cleaned = |Measure { name, outcome }| {
        let outcome = match outcome {
            Taken::Holds(text) => Taken::Holds(bounded(&text)),
            Taken::Missing(text) => Taken::Missing(bounded(&text)),
        };
        Measure { name, outcome }
    };
    Ok(told.into_iter().map(cleaned).collect())
}

fn bounded(text: &str) -> String {
    clean(text, MAX_MEASURE_TEXT_BYTES)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use proto::control::{Segments, WarmupExtent};
    use shared::tensor::DataType;

    use super::*;

    fn tensor(name: &str) -> TensorSpec {
        TensorSpec { name: name.to_owned(), dtype: None, dims: None, optional: false }
    }

    fn spec(inputs: Vec<TensorSpec>) -> LoadSpec {
        LoadSpec {
            engine: "echo".to_owned(),
            folder: PathBuf::from("/m"),
            filename: String::new(),
            device: Device::Cpu,
            device_memory: None,
            threads: 1,
            max_batch_size: 0,
            inputs,
            outputs: vec![],
            parameters: BTreeMap::new(),
        }
    }

    fn told(inputs: Vec<TensorSpec>) -> Loaded {
        Loaded {
            inputs,
            outputs: vec![],
            load_nanos: 0,
            warmup_nanos: 0,
            peak_rss: 0,
            build: String::new(),
            on_device: None,
        }
    }

    #[test]
    fn what_was_open_may_be_filled_and_what_was_given_may_not_change() {
        let fp32 = TensorSpec { dtype: Some(DataType::Fp32), ..tensor("a") };
        let int8 = TensorSpec { dtype: Some(DataType::Int8), ..tensor("a") };
        assert!(check(&spec(vec![]), &told(vec![tensor("x")])).is_ok());
        assert!(check(&spec(vec![tensor("a")]), &told(vec![fp32.clone()])).is_ok());
        assert!(check(&spec(vec![fp32]), &told(vec![int8])).is_err());
        assert!(check(&spec(vec![tensor("a")]), &told(vec![tensor("b")])).is_err());
        assert!(check(&spec(vec![tensor("a")]), &told(vec![])).is_err());
    }

    #[test]
    fn the_build_of_an_engine_is_short_and_printable() {
        let said = |build: &str| {
            check(&spec(vec![]), &Loaded { build: build.to_owned(), ..told(vec![]) }).is_ok()
        };
        assert!(said("libtorch 2.11.0") && said(""));
        assert!(!said("a\nb") && !said(&"a".repeat(65)));
    }

    #[test]
    fn what_is_said_of_a_device_is_held_against_what_was_given() {
        let memory = DeviceMemory { quota: 100, segments: Segments::Fixed };
        let given = |device, device_memory| LoadSpec { device, device_memory, ..spec(vec![]) };
        let gpu = given(Device::Cuda(0), Some(memory));
        let said = |spec: &LoadSpec, allocator_limit, peak| {
            let warmup = WarmupExtent::Largest;
            let on_device = Some(OnDevice { allocator_limit, peak, warmup });
            check(spec, &Loaded { on_device, ..told(vec![]) }).is_ok()
        };
        assert!(said(&gpu, Some(50), 50) && said(&gpu, Some(100), 0));
        assert!(said(&gpu, None, 5000), "nothing holds it");
        assert!(said(&given(Device::Spread(2), Some(memory)), Some(50), 50));
        assert!(!said(&gpu, Some(101), 0) && !said(&gpu, Some(50), 101));
        assert!(!said(&gpu, None, u64::MAX) && !said(&gpu, Some(u64::MAX), 0));
        assert!(!said(&given(Device::Cpu, None), None, 0), "it has no device");
        assert!(!said(&given(Device::Cuda(0), None), Some(u64::MAX), 0));
        assert!(check(&gpu, &told(vec![])).is_ok(), "it may say nothing");
    }

    #[test]
    fn odd_names_and_numbers_are_refused() {
        let refused = |inputs| check(&spec(vec![]), &told(inputs)).is_err();
        assert!(refused(vec![tensor("")]));
        assert!(refused(vec![tensor("a\n")]));
        assert!(refused(vec![tensor(&"a".repeat(257))]));
        assert!(refused(vec![tensor("a"), tensor("a")]));
        assert!(refused((0..65).map(|i| tensor(&format!("t{i}"))).collect()));
        assert!(refused(vec![TensorSpec { dims: Some(vec![-2]), ..tensor("a") }]));
        assert!(refused(vec![TensorSpec { dims: Some(vec![1; 13]), ..tensor("a") }]));
    }

    fn measure(name: &str, outcome: Taken) -> Measure {
        Measure { name: name.to_owned(), outcome }
    }

    #[test]
    fn measures_are_bounded_and_harmless() {
        let long = Taken::Missing("ä\n".repeat(1000));
        let told =
            vec![measure("seccomp", Taken::Holds("9\nrules".into())), measure("a b 2", long)];
        let heard = measures(told).unwrap();
        assert_eq!(heard[0].outcome, Taken::Holds("9 rules".into()));
        let Taken::Missing(text) = &heard[1].outcome else { panic!("{heard:?}") };
        assert!(text.len() <= MAX_MEASURE_TEXT_BYTES && !text.contains('\n'), "{text}");
    }

    #[test]
    fn odd_measures_are_refused() {
        let holds = |name: &str| measure(name, Taken::Holds(String::new()));
        assert!(measures((0..33).map(|i| holds(&format!("m{i}"))).collect()).is_err());
        for name in ["", "a\n", "Ä", &"a".repeat(33)] {
            assert!(measures(vec![holds(name)]).is_err(), "{name:?}");
        }
        assert!(measures(vec![holds("a"), holds("a")]).is_err());
    }
}
