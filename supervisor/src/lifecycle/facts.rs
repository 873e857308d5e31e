//! Checks on what a worker says of its model; pure. A worker is not believed.

use std::collections::BTreeSet;

use proto::control::{LoadSpec, Loaded};
use shared::limits::{MAX_DIMS, MAX_TENSOR_NAME_BYTES, MAX_TENSORS};
use shared::tensor::TensorSpec;

/// Whether `loaded` can be what an honest worker says after `spec`.
pub(super) fn check(spec: &LoadSpec, loaded: &Loaded) -> Result<(), String> {
    check_tensors("input", &spec.inputs, &loaded.inputs)?;
    check_tensors("output", &spec.outputs, &loaded.outputs)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use proto::control::Device;
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
            threads: 1,
            max_batch_size: 0,
            inputs,
            outputs: vec![],
            parameters: BTreeMap::new(),
        }
    }

    fn told(inputs: Vec<TensorSpec>) -> Loaded {
        Loaded { inputs, outputs: vec![], load_nanos: 0, warmup_nanos: 0, peak_rss: 0 }
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
}
