//! The same answers as Python's, bit for bit, on the models that `scripts/models/testing.py` writes.

use std::path::{Path, PathBuf};

use serde_json::Value;
use shared::tensor::DataType;
use worker::engine::EngineError;

use crate::support::{Answer, Draft, Given, Loaded, given, say};

#[test]
fn answers_equal_pythons() {
    let Some(folder) = std::env::var_os("BULKHEAD_TEST_MODELS").map(PathBuf::from) else {
        say("skipped: answers_equal_pythons needs BULKHEAD_TEST_MODELS");
        return;
    };
    let text = std::fs::read_to_string(folder.join("testing.json")).unwrap();
    let listed: Value = serde_json::from_str(&text).unwrap();
    for model in listed["models"].as_array().unwrap() {
        check_model(&folder, model);
    }
}

fn check_model(folder: &Path, model: &Value) {
    let name = model["name"].as_str().unwrap();
    let cases = model["cases"].as_array().unwrap();
    let mut loaded = load(&folder.join(model["file"].as_str().unwrap()), model);
    for case in cases {
        let inputs: Vec<Given> =
            case["inputs"].as_array().unwrap().iter().map(|input| tensor(input).into()).collect();
        let answer = loaded.infer(&inputs);
        match case["error"].as_str() {
            Some(expected) => {
                let error = answer.unwrap_err();
                assert!(matches!(&error, EngineError::Model(m) if m.contains(expected)), "{error}");
            }
            None => check_answer(name, &loaded, answer, &case["outputs"]),
        }
    }
}

/// Lists and dicts name their outputs in the configuration; the others go by themselves.
fn load(file: &Path, model: &Value) -> Loaded {
    let mut draft = Draft::of_file(file);
    if matches!(model["returns"].as_str().unwrap(), "list" | "dict") {
        for output in model["cases"][0]["outputs"].as_array().unwrap() {
            draft = draft.output(output["name"].as_str().unwrap());
        }
    }
    draft.load()
}

fn check_answer(
    model: &str,
    loaded: &Loaded,
    answer: Result<Vec<Answer>, EngineError>,
    expected: &Value,
) {
    let expected = expected.as_array().unwrap();
    let names: Vec<&str> = expected.iter().map(|output| output["name"].as_str().unwrap()).collect();
    assert_eq!(loaded.output_names(), names, "{model}");
    let answer = answer.unwrap_or_else(|error| panic!("{model}: {error}"));
    for (answer, expected) in answer.iter().zip(expected) {
        let expected = tensor(expected);
        assert_eq!(answer.dtype, expected.dtype, "{model}");
        assert_eq!(answer.dims, expected.dims, "{model}");
        assert_eq!(answer.bytes, expected.bytes, "{model}");
    }
}

struct Listed {
    dtype: DataType,
    dims: Vec<u64>,
    bytes: Vec<u8>,
}

impl From<Listed> for Given {
    fn from(listed: Listed) -> Self {
        given(listed.dtype, &listed.dims, &listed.bytes)
    }
}

fn tensor(listed: &Value) -> Listed {
    let dtype = DataType::from_name(listed["datatype"].as_str().unwrap()).unwrap();
    let dims = listed["shape"].as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap());
    let elements = listed["data"].as_array().unwrap().iter();
    let bytes = elements.flat_map(|value| element(dtype, value)).collect();
    Listed { dtype, dims: dims.collect(), bytes }
}

/// The little-endian bytes of one number; JSON's doubles hold every value of the shorter types.
fn element(dtype: DataType, value: &Value) -> Vec<u8> {
    let whole =
        || value.as_i64().map_or_else(|| value.as_u64().unwrap().to_le_bytes(), i64::to_le_bytes);
    match dtype {
        DataType::Bool => vec![u8::from(value.as_bool().unwrap())],
        DataType::Fp64 => value.as_f64().unwrap().to_le_bytes().to_vec(),
        DataType::Fp32 | DataType::Bf16 | DataType::Fp16 => {
            short_float(dtype, value.as_f64().unwrap())
        }
        DataType::Uint8
        | DataType::Uint16
        | DataType::Uint32
        | DataType::Uint64
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64 => whole()[..dtype.size().unwrap()].to_vec(),
        DataType::Bytes => panic!("no model of these takes texts"),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the value came from a tensor of this type")]
fn short_float(dtype: DataType, value: f64) -> Vec<u8> {
    if dtype == DataType::Fp32 {
        return (value as f32).to_le_bytes().to_vec();
    }
    let kind = if dtype == DataType::Fp16 { tch::Kind::Half } else { tch::Kind::BFloat16 };
    let tensor = tch::Tensor::from(value).to_kind(kind);
    let mut bytes = vec![0; 2];
    tensor.f_copy_data_u8(&mut bytes, 1).unwrap();
    bytes
}
