//! Inferences that succeed, in every form that the protocol has.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};
use tests::{Infer, Response, Supervisor};

use crate::{INFER, JSON_LENGTH, post};

fn infer_json(server: &Supervisor, request: &Value) -> Response {
    post(&mut server.client(), INFER, &[], request.to_string().as_bytes())
}

#[test]
fn json_goes_in_and_out() {
    let server = Supervisor::with_echo("echo").start();
    let output = json!({
        "name": "OUTPUT0", "datatype": "FP32", "shape": [4], "data": [1.0, -2.5, 0.1, 3e38],
    });
    for data in [json!([1, -2.5, 0.1, 3e38]), json!([[1, -2.5], [0.1, 3e38]])] {
        let input = json!({ "name": "INPUT0", "datatype": "FP32", "shape": [4], "data": data });
        let answer = infer_json(&server, &json!({ "id": "a \" b", "inputs": [input] }));
        let expected = json!({
            "id": "a \" b", "model_name": "echo", "model_version": "1", "outputs": [output],
        });
        assert_eq!(answer.assert_status(200).json(), expected);
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}

#[test]
fn empty_tensors_are_tensors() {
    let server = Supervisor::with_echo("echo").start();
    let input = json!({ "name": "INPUT0", "datatype": "FP32", "shape": [0], "data": [] });
    let answer = infer_json(&server, &json!({ "inputs": [input] }));
    let output = &answer.assert_status(200).json()["outputs"][0];
    assert_eq!((&output["shape"], &output["data"]), (&json!([0]), &json!([])));
    let empty = Infer::new("echo").floats(&[]);
    assert!(empty.is_echoed_by(&server.infer(&empty)));
}

/// Either side can be binary without the other, by request or by output.
#[test]
fn binary_and_json_mix() {
    let server = Supervisor::with_echo("echo").start();
    let values = [1.5_f32, -2.0];
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let json_input = json!({ "name": "INPUT0", "datatype": "FP32", "shape": [2], "data": values });
    let wanted = json!([{ "name": "OUTPUT0", "parameters": { "binary_data": true } }]);
    let all = json!({ "binary_data_output": true });
    for request in [
        json!({ "inputs": [json_input], "outputs": wanted }),
        json!({ "inputs": [json_input], "parameters": all }),
    ] {
        let answer = infer_json(&server, &request);
        assert_eq!(answer.assert_status(200).data(), bytes);
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert_eq!(answer.json()["outputs"][0]["parameters"]["binary_data_size"], 8);
    }
    let unwanted = json!([{ "name": "OUTPUT0", "parameters": { "binary_data": false } }]);
    let input = json!({
        "name": "INPUT0", "datatype": "FP32", "shape": [2],
        "parameters": { "binary_data_size": 8 },
    });
    let head = json!({ "inputs": [input], "parameters": all, "outputs": unwanted }).to_string();
    let body = [head.as_bytes(), &bytes].concat();
    let length = head.len().to_string();
    let answer = post(&mut server.client(), INFER, &[(JSON_LENGTH, &length)], &body);
    assert_eq!(answer.assert_status(200).json()["outputs"][0]["data"], json!(values));
}

const ALL_TYPES: &str = r#"
backend: "echo"
input [
  { name: "b" data_type: TYPE_BOOL dims: [ -1 ] }, { name: "u8" data_type: TYPE_UINT8 dims: [ -1 ] },
  { name: "u64" data_type: TYPE_UINT64 dims: [ -1 ] }, { name: "i8" data_type: TYPE_INT8 dims: [ -1 ] },
  { name: "i64" data_type: TYPE_INT64 dims: [ -1 ] }, { name: "f64" data_type: TYPE_FP64 dims: [ -1 ] },
  { name: "s" data_type: TYPE_STRING dims: [ -1 ] }, { name: "u16" data_type: TYPE_UINT16 dims: [ -1 ] },
  { name: "i32" data_type: TYPE_INT32 dims: [ 1, 2 ] }
]
output [
  { name: "b_" data_type: TYPE_BOOL dims: [ -1 ] }, { name: "u8_" data_type: TYPE_UINT8 dims: [ -1 ] },
  { name: "u64_" data_type: TYPE_UINT64 dims: [ -1 ] }, { name: "i8_" data_type: TYPE_INT8 dims: [ -1 ] },
  { name: "i64_" data_type: TYPE_INT64 dims: [ -1 ] }, { name: "f64_" data_type: TYPE_FP64 dims: [ -1 ] },
  { name: "s_" data_type: TYPE_STRING dims: [ -1 ] }, { name: "u16_" data_type: TYPE_UINT16 dims: [ -1 ] },
  { name: "i32_" data_type: TYPE_INT32 dims: [ 1, 2 ] }
]"#;

#[test]
fn every_type_keeps_its_extremes() {
    let server = Supervisor::new().config("echo", ALL_TYPES).start();
    let tensors = [
        ("b", "BOOL", json!([true, false])),
        ("u8", "UINT8", json!([0, 255])),
        ("u16", "UINT16", json!([0, 65535])),
        ("u64", "UINT64", json!([0, u64::MAX])),
        ("i8", "INT8", json!([-128, 127])),
        ("i32", "INT32", json!([i32::MIN, i32::MAX])),
        ("i64", "INT64", json!([i64::MIN, i64::MAX])),
        ("f64", "FP64", json!([5e-324, -1.797_693_134_862_315_7e308])),
        ("s", "BYTES", json!(["", "ä\u{0}\"\u{1f600}"])),
    ];
    let shape = |name: &str| if name == "i32" { json!([1, 2]) } else { json!([2]) };
    let inputs: Vec<Value> = tensors
        .iter()
        .map(|(name, datatype, data)| {
            json!({ "name": name, "datatype": datatype, "shape": shape(name), "data": data })
        })
        .collect();
    let answer = infer_json(&server, &json!({ "inputs": inputs }));
    let outputs = answer.assert_status(200).json()["outputs"].clone();
    for (name, datatype, data) in &tensors {
        let named = format!("{name}_");
        let output = outputs.as_array().unwrap().iter().find(|o| o["name"] == named).unwrap();
        let expected =
            json!({ "name": named, "datatype": datatype, "shape": shape(name), "data": data });
        assert_eq!(*output, expected);
    }
}

#[test]
fn only_the_outputs_that_are_asked_for_come_back() {
    let two = r#"
backend: "echo"
input [ { name: "A" data_type: TYPE_INT32 dims: [ 1 ] }, { name: "B" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "X" data_type: TYPE_INT32 dims: [ 1 ] }, { name: "Y" data_type: TYPE_INT32 dims: [ 1 ] } ]"#;
    let server = Supervisor::new().config("echo", two).start();
    let input = |name: &str, n: i32| json!({ "name": name, "datatype": "INT32", "shape": [1], "data": [n] });
    let request = json!({ "inputs": [input("B", 2), input("A", 1)], "outputs": [{ "name": "Y" }] });
    let answer = infer_json(&server, &request).assert_status(200).json();
    let output = json!([{ "name": "Y", "datatype": "INT32", "shape": [1], "data": [2] }]);
    assert_eq!(answer["outputs"], output);
}

#[test]
fn a_raw_body_is_the_only_input() {
    let one = r#"
backend: "echo"
input [ { name: "A" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "B" data_type: TYPE_FP32 dims: [ -1 ] } ]"#;
    let server = Supervisor::new().config("echo", one).start();
    let answer = post(&mut server.client(), INFER, &[(JSON_LENGTH, "0")], &[0; 12]);
    assert_eq!(answer.assert_status(200).data(), [0; 12]);
    assert_eq!(answer.json()["outputs"][0]["shape"], json!([3]));
}

#[test]
fn tensors_larger_than_a_slot_take_their_own_road() {
    let server = Supervisor::with_echo("echo").set("worker.slot_size", "4KiB").start();
    let values = vec![0.5_f32; 1 << 20];
    let large = Infer::new("echo").floats(&values);
    for _ in 0..3 {
        assert!(large.is_echoed_by(&server.infer(&large)));
    }
    crate::assert_unharmed(&server, "large tensors");
}

#[test]
fn bodies_are_compressed_both_ways() {
    let server = Supervisor::with_echo("echo").start();
    let infer = Infer::new("echo").floats(&[0.25; 10_000]);
    let (length, body) = infer.binary();
    let length = length.to_string();
    for coding in ["gzip", "deflate"] {
        let headers =
            [(JSON_LENGTH, &*length), ("Content-Encoding", coding), ("Accept-Encoding", coding)];
        let mut answer = post(&mut server.client(), INFER, &headers, &packed(coding, &body));
        assert_eq!(answer.assert_status(200).header("content-encoding"), Some(coding));
        assert!(answer.body.len() < 4000, "{} bytes", answer.body.len());
        answer.body = unpacked(coding, &answer.body);
        assert!(infer.is_echoed_by(&answer), "{coding}");
    }
}

pub(crate) fn packed(coding: &str, bytes: &[u8]) -> Vec<u8> {
    if coding == "gzip" {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("memory takes it");
        return encoder.finish().expect("memory takes it");
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn unpacked(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let read = match coding {
        "gzip" => GzDecoder::new(bytes).read_to_end(&mut out),
        _ => ZlibDecoder::new(bytes).read_to_end(&mut out),
    };
    read.expect("it was packed well");
    out
}
