//! A real model on real data: the held-out handwritten digits are read as Python's torch reads them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::supervisor::binaries;
use tests::{Client, Infer, Supervisor, folder_or_skip, skipped};

const PIXELS: usize = 64;
const CLASSES: usize = 10;
const INFER: &str = "/v2/models/digits/infer";

/// What training held out, and what Python made of it.
struct HeldOut {
    images: Vec<f32>,
    labels: Vec<u8>,
    logits: Vec<f32>,
    python: Vec<u8>,
}

#[test]
fn one_by_one_in_binary() {
    with_digits("one_by_one_in_binary", |client, held_out| {
        let answer = |image: &[f32]| infer_binary(client, image);
        held_out.compare(held_out.images.chunks(PIXELS).flat_map(answer).collect());
    });
}

#[test]
fn one_by_one_in_json() {
    with_digits("one_by_one_in_json", |client, held_out| {
        let answer = |image: &[f32]| infer_json(client, image);
        held_out.compare(held_out.images.chunks(PIXELS).flat_map(answer).collect());
    });
}

#[test]
fn many_in_a_request() {
    with_digits("many_in_a_request", |client, held_out| {
        let answer = |images: &[f32]| infer_binary(client, images);
        held_out.compare(held_out.images.chunks(PIXELS * 32).flat_map(answer).collect());
    });
}

#[test]
fn a_batch_that_is_too_large_is_refused_and_does_no_harm() {
    with_digits("a_batch_that_is_too_large_is_refused_and_does_no_harm", |client, held_out| {
        let answer = client.infer(&request(&held_out.images[..PIXELS * 33]));
        assert!(answer.assert_status(400).error().contains("32"), "{}", answer.text());
        assert_eq!(infer_binary(client, &held_out.images[..PIXELS]).len(), CLASSES);
    });
}

fn with_digits(test: &str, run: impl FnOnce(&mut Client, &HeldOut)) {
    let Some(models) = folder_or_skip("BULKHEAD_MODELS", test) else { return };
    let Some(data) = folder_or_skip("BULKHEAD_MODELS_DATA", test) else { return };
    if !binaries().join("bulkhead-worker-torch").is_file() {
        skipped(test, "bulkhead-worker-torch is not built; use scripts/test");
        return;
    }
    let server = Supervisor::new()
        .set("repository.paths", &json!([models]).to_string())
        .set("repository.startup", r#"["digits"]"#)
        .start();
    let held_out = HeldOut::read(&data.join("digits"));
    run(&mut server.client(), &held_out);
    assert_eq!(server.worker("digits").generation, 1);
}

impl HeldOut {
    fn read(folder: &Path) -> Self {
        let read = |name: &str| -> Vec<u8> {
            let path: PathBuf = folder.join(name);
            std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let python: Value = serde_json::from_slice(&read("python.json")).expect("JSON");
        let digits = python["labels"].as_array().expect("a list").iter();
        Self {
            images: floats(&read("images.f32")),
            labels: read("labels.u8"),
            logits: floats(&read("logits.f32")),
            python: digits.map(|d| u8::try_from(d.as_u64().unwrap_or(99)).unwrap_or(99)).collect(),
        }
    }

    #[track_caller]
    fn compare(&self, logits: Vec<f32>) {
        let digits: Vec<u8> = logits.chunks(CLASSES).map(largest).collect();
        assert_eq!(digits, self.python, "not what Python reads");
        let right = digits.iter().zip(&self.labels).filter(|(a, b)| a == b).count();
        assert!(right * 100 >= self.labels.len() * 95, "{right} of {}", self.labels.len());
        let far = logits.iter().zip(&self.logits).find(|(a, b)| (*a - *b).abs() > 1e-3);
        assert_eq!(far, None, "these logits are not Python's");
    }
}

fn request(images: &[f32]) -> Infer {
    let bytes: Vec<u8> = images.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
    Infer::new("digits").tensor("image", "FP32", &[images.len() / PIXELS, 1, 8, 8], &bytes)
}

fn infer_binary(client: &mut Client, images: &[f32]) -> Vec<f32> {
    floats(client.infer(&request(images)).assert_status(200).data())
}

fn infer_json(client: &mut Client, image: &[f32]) -> Vec<f32> {
    let input =
        json!({ "name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": image });
    let answer = client.post(INFER, &json!({ "inputs": [input] }).to_string());
    let output = answer.assert_status(200).json()["outputs"][0].clone();
    assert_eq!((&output["name"], &output["shape"]), (&json!("logits"), &json!([1, CLASSES])));
    serde_json::from_value(output["data"].clone()).expect("a list of numbers")
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The index of the largest.
fn largest(logits: &[f32]) -> u8 {
    let best = (0_u8..).zip(logits).max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(99, |(digit, _)| digit)
}
