//! Inferences that are broken, each in one way.

use serde_json::{Value, json};
use tests::Supervisor;

use crate::inference::packed;
use crate::{INFER, JSON_LENGTH, assert_error, assert_unharmed, post};

/// A good input but for the fields of `change`; null takes a field away.
fn input(change: Value) -> Value {
    let mut input = json!({ "name": "INPUT0", "datatype": "FP32", "shape": [2], "data": [1, 2] });
    let Value::Object(change) = change else { panic!("fields") };
    for (name, value) in change {
        let fields = input.as_object_mut().expect("an object");
        if value.is_null() {
            fields.remove(&name);
        } else {
            fields.insert(name, value);
        }
    }
    input
}

fn one(change: Value) -> String {
    json!({ "inputs": [input(change)] }).to_string()
}

/// Sends each body as JSON and expects 400 with the words beside it.
fn assert_refused(table: &[(impl AsRef<[u8]>, &str)]) {
    let server = Supervisor::with_echo("echo").start();
    for (body, says) in table {
        let body = body.as_ref();
        let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        let answer = post(&mut server.client(), INFER, &[], body);
        assert_eq!(answer.status, 400, "{shown}: {}", answer.text());
        assert_error(&answer, 400, says);
        assert_unharmed(&server, &shown);
    }
}

#[test]
fn what_is_no_json_is_refused() {
    let deep = |n: usize| one(json!({})).replace("[1,2]", &("[".repeat(n) + &"]".repeat(n)));
    assert_refused(&[
        (b"".to_vec(), "parse"),
        (b"{".to_vec(), "parse"),
        (b"null".to_vec(), "parse"),
        (b"[1,2]".to_vec(), "parse"),
        (b"{}".to_vec(), "inputs"),
        (b"{\"inputs\":[{\"name\":\"\xff\xfe\"}]}".to_vec(), "parse"),
        (b"\xef\xbb\xbf{}".to_vec(), "parse"),
        ([one(json!({})).as_bytes(), b"x"].concat(), "parse"),
        (deep(200).into_bytes(), "nest"),
        (deep(100_000).into_bytes(), "nest"),
        (one(json!({})).replace("FP32", "FP32\u{1}").into_bytes(), "parse"),
    ]);
}

#[test]
fn shapes_and_data_that_do_not_fit_are_refused() {
    assert_refused(&[
        (one(json!({ "shape": [3] })), "INPUT0"),
        (one(json!({ "shape": [1] })), "INPUT0"),
        (one(json!({ "shape": [2, 1] })), "INPUT0"),
        (one(json!({ "shape": [] })), "INPUT0"),
        (one(json!({ "shape": [-2] })), ""),
        (one(json!({ "shape": [1.5] })), ""),
        (one(json!({ "shape": "2" })), ""),
        (one(json!({ "shape": [1_u64 << 62] })), ""),
        (one(json!({ "shape": [1_u64 << 32, 1_u64 << 32] })), "overflow"),
        (one(json!({ "shape": [u64::MAX, u64::MAX, 0] })), "overflow"),
        (one(json!({ "shape": vec![1; 13] })), ""),
        (one(json!({})).replace("[2]", "[99999999999999999999999]"), ""),
        (one(json!({ "data": [1, "2"] })), "INPUT0"),
        (one(json!({ "data": [1, null] })), "INPUT0"),
        (one(json!({ "data": [1, { "2": 3 }] })), "INPUT0"),
        (one(json!({ "data": [[1], 2, [3]] })), "INPUT0"),
        (one(json!({})).replace("[1,2]", "[1,1e400]"), ""),
        (one(json!({})).replace("[1,2]", "[1,NaN]"), "parse"),
    ]);
}

#[test]
fn names_and_types_that_the_model_lacks_are_refused() {
    let many: Vec<Value> = (0..65).map(|i| input(json!({ "name": format!("I{i}") }))).collect();
    let command = json!({ "name": "COMMAND", "datatype": "BYTES", "shape": [1], "data": [7] });
    let outputs = |outputs: Value| json!({ "inputs": [input(json!({}))], "outputs": outputs });
    assert_refused(&[
        (one(json!({ "name": "ghost" })), "ghost"),
        (one(json!({ "name": null })), "name"),
        (one(json!({ "name": "n".repeat(300) })), "name"),
        (json!({ "inputs": [] }).to_string(), "input"),
        (json!({ "inputs": [input(json!({})), input(json!({}))] }).to_string(), "INPUT0"),
        (json!({ "inputs": [input(json!({})), command] }).to_string(), "COMMAND"),
        (json!({ "inputs": many }).to_string(), "64"),
        (one(json!({ "datatype": "INT32" })), "INPUT0"),
        (one(json!({ "datatype": "FLOAT" })), "FLOAT"),
        (one(json!({ "datatype": "FP16" })), "FP16"),
        (one(json!({ "datatype": "BF16" })), "BF16"),
        (outputs(json!([{ "name": "ghost" }])).to_string(), "ghost"),
        (outputs(json!([{ "name": "OUTPUT0" }, { "name": "OUTPUT0" }])).to_string(), "OUTPUT0"),
        (outputs(json!([7])).to_string(), "parse"),
        (one(json!({ "data": null })), "INPUT0"),
        (one(json!({ "parameters": { "binary_data_size": 8 } })), "INPUT0"),
        (
            one(json!({ "data": null, "parameters": { "binary_data_size": -1 } })),
            "binary_data_size",
        ),
        (one(json!({ "data": null, "parameters": { "binary_data_size": 8 } })), "INPUT0"),
        (
            json!({ "inputs": [input(json!({}))], "parameters": { "triton_x": 1 } }).to_string(),
            "triton_x",
        ),
    ]);
}

/// The JSON of a body whose tensor has so many bytes, and what follows it.
fn binary(announced: u64, elements: u64, bytes: &[u8]) -> (usize, Vec<u8>) {
    let change = json!({
        "data": null, "shape": [elements], "parameters": { "binary_data_size": announced },
    });
    let head = one(change);
    (head.len(), [head.as_bytes(), bytes].concat())
}

#[test]
fn lengths_that_do_not_add_up_are_refused() {
    let server = Supervisor::with_echo("echo").start();
    let bodies = [
        ("short", binary(8, 2, &[0; 7])),
        ("long", binary(8, 2, &[0; 9])),
        ("none", binary(8, 2, &[])),
        ("less than the shape", binary(4, 2, &[0; 4])),
        ("more than the shape", binary(12, 2, &[0; 12])),
        ("an announcement of everything", binary(u64::MAX, 2, &[0; 8])),
        ("a shape of everything", binary(8, u64::MAX / 4, &[0; 8])),
    ];
    for (what, (length, body)) in bodies {
        let headers = [(JSON_LENGTH, &*length.to_string())];
        assert_error(&post(&mut server.client(), INFER, &headers, &body), 400, "");
        assert_unharmed(&server, what);
    }
    let (length, body) = binary(8, 2, &[0; 8]);
    for header in ["-1", "1.0", "x", "99999999999999999999", "1", "100000", "0"] {
        let answer = post(&mut server.client(), INFER, &[(JSON_LENGTH, header)], &body);
        assert_error(&answer, 400, "");
        assert_unharmed(&server, header);
    }
    // Elements of BYTES that are cut, too many, or none.
    for bytes in [&b"\x05\0\0\0abc"[..], b"\xff\xff\xff\xffabc", b"ab", b"\0\0\0\0\0\0\0\0"] {
        let good = input(json!({}));
        let size = bytes.len();
        let command = json!({
            "name": "COMMAND", "datatype": "BYTES", "shape": [1],
            "parameters": { "binary_data_size": size },
        });
        let head = json!({ "inputs": [good, command] }).to_string();
        let headers = [(JSON_LENGTH, &*head.len().to_string())];
        let body = [head.as_bytes(), bytes].concat();
        assert_error(&post(&mut server.client(), INFER, &headers, &body), 400, "COMMAND");
        assert_unharmed(&server, "elements");
    }
    assert!(length > 0);
}

#[test]
fn what_the_server_does_not_do_is_501() {
    let server = Supervisor::with_echo("echo").start();
    let shared = json!({ "data": null, "parameters": { "shared_memory_region": "a" } });
    let answer = post(&mut server.client(), INFER, &[], one(shared).as_bytes());
    assert_error(&answer, 501, "shared");
    let headers = [("Content-Encoding", "br")];
    let answer = post(&mut server.client(), INFER, &headers, one(json!({})).as_bytes());
    assert_error(&answer, 501, "Content-Encoding");
    assert_eq!(answer.header("accept-encoding"), Some("gzip, deflate"));
    assert_unharmed(&server, "what is not supported");
}

#[test]
fn compressed_bodies_that_are_broken_or_bombs_are_refused() {
    let server = Supervisor::with_echo("echo").set("limits.max_decompressed", "1MiB").start();
    let good = one(json!({})).into_bytes();
    let bomb = packed("gzip", &vec![b' '; 64 << 20]);
    assert!(bomb.len() < 1 << 20, "it must pass the limit of what arrives");
    let gzip = packed("gzip", &good);
    let cases = [
        ("no gzip", "gzip", good.clone(), ""),
        ("the other one", "deflate", gzip.clone(), ""),
        ("cut", "gzip", gzip[..gzip.len() - 4].to_vec(), ""),
        ("cut early", "gzip", gzip[..12].to_vec(), ""),
        ("something behind it", "gzip", [&gzip[..], b"xx"].concat(), ""),
        ("a bomb", "gzip", bomb, "exceeds the maximum allowed"),
        ("a deflated bomb", "deflate", packed("deflate", &vec![0; 64 << 20]), "exceeds"),
    ];
    for (what, coding, body, says) in cases {
        let answer = post(&mut server.client(), INFER, &[("Content-Encoding", coding)], &body);
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert_error(&answer, 400, says);
        assert_unharmed(&server, what);
    }
}
