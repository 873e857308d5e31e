//! Tensors through the whole path: every type, every size, many at a time, and clients that leave.

use tests::{Aside, Client, Echo, Infer, Response, Supervisor};

/// Bytes of an element, by datatype.
const SIZES: [(&str, usize); 13] = [
    ("BOOL", 1),
    ("UINT8", 1),
    ("UINT16", 2),
    ("UINT32", 4),
    ("UINT64", 8),
    ("INT8", 1),
    ("INT16", 2),
    ("INT32", 4),
    ("INT64", 8),
    ("FP16", 2),
    ("BF16", 2),
    ("FP32", 4),
    ("FP64", 8),
];

/// A model with an input and an output of every type.
fn every_type() -> String {
    let tensors = |prefix: &str| {
        let tensor = |name: &str| {
            let in_config = if name == "BYTES" { "STRING" } else { name };
            format!("{{ name: \"{prefix}{name}\" data_type: TYPE_{in_config} dims: [ -1 ] }}")
        };
        let all = SIZES.iter().map(|(name, _)| tensor(name)).chain([tensor("BYTES")]);
        all.collect::<Vec<_>>().join(",\n")
    };
    let (inputs, outputs) = (tensors("I_"), tensors("O_"));
    format!("backend: \"echo\"\ninput [ {inputs} ]\noutput [ {outputs} ]")
}

#[test]
fn every_datatype_comes_back_as_it_was() {
    let server = Supervisor::new().config("any", &every_type()).start();
    let fixed = SIZES.map(|(datatype, size)| {
        let bytes = if size == 1 { vec![0, 1, 1] } else { pattern(3 * size) };
        (datatype, bytes)
    });
    let strings = b"\x03\0\0\0abc\0\0\0\0\x02\0\0\0\xff\x00".to_vec();
    let all: Vec<_> = fixed.into_iter().chain([("BYTES", strings)]).collect();
    let infer = all.iter().fold(Infer::new("any"), |infer, (datatype, bytes)| {
        infer.tensor(&format!("I_{datatype}"), datatype, &[3], bytes)
    });
    let answer = server.infer(&infer);
    answer.assert_status(200);
    let sent: Vec<u8> = all.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(answer.data(), sent);
    let outputs = answer.json()["outputs"].clone();
    for (i, (datatype, _)) in all.iter().enumerate() {
        assert_eq!(outputs[i]["name"], format!("O_{datatype}"));
        assert_eq!(outputs[i]["datatype"], *datatype);
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from(i % 251).unwrap_or_default()).collect()
}

fn bytes(model: &str, length: usize) -> Infer {
    Infer::new(model).tensor("INPUT0", "UINT8", &[length], &pattern(length))
}

#[test]
fn tensors_around_the_size_of_a_slot_come_back() {
    let small = Echo::default().datatype("TYPE_UINT8");
    let server = Supervisor::new().echo("m", &small).set("worker.slot_size", "4KiB").start();
    let mut client = server.client();
    let around = [4095, 4096, 4097, 4160].into_iter();
    for length in around.chain([0, 1, 63, 64, 65, 100_000, 1 << 20, 20 << 20]) {
        let infer = bytes("m", length);
        let answer = client.infer(&infer);
        assert!(infer.is_echoed_by(&answer), "{length}: {}", answer.status);
    }
}

#[test]
fn outputs_larger_than_a_slot_come_back() {
    let small = Echo::default().datatype("TYPE_UINT8");
    let server = Supervisor::new().echo("m", &small).set("worker.slot_size", "4KiB").start();
    let mut client = server.client();
    for (length, times) in [(3000, 2), (3000, 500), (5000, 100), (4096, 1), (10, 0)] {
        let answer = client.infer(&bytes_and(length, &format!("grow {times}")));
        assert_eq!(answer.status, 200, "{length} {times}: {}", answer.text());
        assert!(answer.data() == pattern(length).repeat(times), "{length} {times}");
    }
}

fn bytes_and(length: usize, command: &str) -> Infer {
    let count = u32::try_from(command.len()).unwrap_or_default().to_le_bytes();
    let command = [&count, command.as_bytes()].concat();
    bytes("m", length).tensor("COMMAND", "BYTES", &[1], &command)
}

#[test]
fn large_inputs_and_outputs_come_back_from_many_at_a_time() {
    let small = Echo::default().datatype("TYPE_UINT8");
    let server = Supervisor::new()
        .echo("m", &small)
        .set("worker.slot_size", "4KiB")
        .set("worker.slots", "3")
        .start();
    let requests = (0..24).map(|i| (1000 + 9000 * i, 1 + i % 3));
    let send = |(length, times)| {
        let infer = bytes_and(length, &format!("grow {times}"));
        (length, times, server.infer_aside(infer))
    };
    for (length, times, aside) in requests.map(send).collect::<Vec<_>>() {
        let answer = aside.answer();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.data() == pattern(length).repeat(times), "{length} {times}");
    }
}

#[test]
fn many_clients_share_few_slots_and_get_their_own_answers() {
    let server = Supervisor::with_echo("m").set("worker.slots", "2").start();
    let client = |number: u16| {
        let mut client = server.client();
        std::thread::spawn(move || {
            let infers = (0..50_u16).map(|i| Infer::new("m").floats(&[number.into(), i.into()]));
            infers.filter(|infer: &Infer| !infer.is_echoed_by(&client.infer(infer))).count()
        })
    };
    let clients: Vec<_> = (0..16_u16).map(client).collect();
    let wrong: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert_eq!(wrong, 0);
}

/// Sends all but the last `missing` bytes of a request.
fn send_without_the_end(client: &mut Client, infer: &Infer, missing: usize) {
    let (length, body) = infer.binary();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\
         Inference-Header-Content-Length: {length}\r\n\r\n",
        infer.path(),
        body.len(),
    );
    let sent = &body[..body.len() - missing];
    client.send(&[head.as_bytes(), sent].concat()).expect("the server listens");
}

#[test]
fn a_client_that_leaves_in_its_body_gives_its_slot_back() {
    let server = Supervisor::with_echo("m").set("worker.slots", "2").start();
    for missing in [1, 16, 8] {
        let mut clients = [server.client(), server.client()];
        for client in &mut clients {
            send_without_the_end(client, &Infer::echo("m"), missing);
        }
        let others: Vec<Aside> = (0..6).map(|_| server.infer_aside(Infer::echo("m"))).collect();
        clients.iter_mut().for_each(Client::hang_up);
        for other in others {
            other.answer().assert_status(200);
        }
    }
}

#[test]
fn a_client_that_leaves_before_its_reply_gives_its_slot_back() {
    let slow = Echo::default().parameter("delay_us", "20000");
    let server = Supervisor::new().echo("m", &slow).set("worker.slots", "2").start();
    for round in 0..5 {
        for _ in 0..2 {
            let mut client = server.client();
            send_without_the_end(&mut client, &Infer::echo("m"), 0);
            client.hang_up();
        }
        for _ in 0..4 {
            let answer = server.infer(&Infer::echo("m"));
            assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
        }
    }
}

#[test]
fn a_full_queue_refuses_at_once_and_says_when_to_come_again() {
    let server =
        Supervisor::with_echo("m").set("worker.slots", "1").set("worker.queue", "1").start();
    let (worker, hanging) = (server.worker("m"), server.hang("m"));
    let others = [(); 2].map(|()| server.infer_aside(Infer::echo("m")));
    tests::wait::until_true("a refusal", || others.iter().any(Aside::is_finished));
    worker.kill(nix::sys::signal::Signal::SIGKILL);
    hanging.answer().assert_status(500);
    let mut answers: Vec<Response> = others.into_iter().map(Aside::answer).collect();
    answers.sort_by_key(|answer| answer.status);
    answers[0].assert_status(200);
    let refused = answers[1].assert_status(503);
    assert!(refused.error().contains("maximum queue size"), "{}", refused.text());
    assert_eq!(refused.header("retry-after"), Some("1"));
}

#[test]
fn errors_of_a_model_are_that_requests_alone() {
    let server = Supervisor::with_echo("m").start();
    let (worker, load) = (server.worker("m"), server.load_on("m"));
    for (command, status) in [("fail so it goes", 500), ("invalid so it goes", 400), ("oom", 507)] {
        let answer = server.infer(&Infer::command("m", command));
        assert_eq!(answer.status, status, "{command}: {}", answer.text());
        assert!(answer.error().contains("so it goes") || command == "oom", "{}", answer.text());
    }
    load.wait_for_more(5);
    load.assert_no_errors();
    assert!(worker.is_alive());
}

#[test]
fn json_numbers_come_back_as_json() {
    let server = Supervisor::with_echo("m").start();
    let body =
        r#"{"id":"7","inputs":[{"name":"INPUT0","datatype":"FP32","shape":[2],"data":[1.5,-2]}]}"#;
    let answer = server.client().post("/v2/models/m/infer", body);
    let json = answer.assert_status(200).json();
    assert_eq!(json["id"], "7");
    let output = &json["outputs"][0];
    assert_eq!(output["data"], serde_json::json!([1.5, -2.0]));
    assert_eq!((&output["name"], &output["datatype"]), (&"OUTPUT0".into(), &"FP32".into()));
}

#[test]
fn outputs_come_in_the_order_and_the_form_in_which_they_were_asked_for() {
    let two = "backend: \"echo\"\n\
        input [ { name: \"A\" data_type: TYPE_INT32 dims: [ 1 ] }, \
                { name: \"B\" data_type: TYPE_INT32 dims: [ 1 ] } ]\n\
        output [ { name: \"X\" data_type: TYPE_INT32 dims: [ 1 ] }, \
                 { name: \"Y\" data_type: TYPE_INT32 dims: [ 1 ] } ]";
    let server = Supervisor::new().config("two", two).start();
    let ask = |outputs: &str| {
        let body = format!(
            r#"{{"inputs":[{{"name":"A","datatype":"INT32","shape":[1],"data":[1]}},
                {{"name":"B","datatype":"INT32","shape":[1],"data":[2]}}],"outputs":{outputs}}}"#
        );
        server.client().post("/v2/models/two/infer", &body)
    };
    let answer = ask(r#"[{"name":"Y","parameters":{"binary_data":true}},{"name":"X"}]"#);
    assert_eq!(answer.assert_status(200).data(), 2_i32.to_le_bytes());
    let length = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    let head: serde_json::Value = serde_json::from_slice(&answer.body[..length]).unwrap();
    let names = [&head["outputs"][0]["name"], &head["outputs"][1]["name"]];
    assert_eq!(names, ["Y", "X"]);
    assert_eq!(head["outputs"][1]["data"], serde_json::json!([1]));
    ask(r#"[{"name":"Y"},{"name":"Y"}]"#).assert_status(400);
}

#[test]
fn a_reply_that_is_too_large_is_refused_before_it_is_copied() {
    let server = Supervisor::with_echo("m").set("limits.max_reply", "1KiB").start();
    let answer = server.infer(&Infer::command("m", "grow 1000"));
    assert!(answer.assert_status(400).error().contains("exceeds the maximum allowed"));
    server.infer(&Infer::echo("m")).assert_status(200);
}

#[test]
fn an_upload_that_stops_gives_its_slot_to_others() {
    let server = Supervisor::with_echo("m").set("worker.slots", "1").start();
    let (json, body) = Infer::new("m").floats(&[1.0; 20_000]).binary();
    let head = format!(
        "POST /v2/models/m/infer HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\
         Inference-Header-Content-Length: {json}\r\n\r\n",
        body.len()
    );
    let mut stopped = server.client();
    stopped.send(&[head.as_bytes(), &body[..70_000]].concat()).unwrap();
    server.infer(&Infer::echo("m")).assert_status(200);
    stopped.receive().unwrap().assert_status(408);
}

#[test]
fn bodies_that_wait_for_their_rest_share_a_bounded_room() {
    let server = Supervisor::with_echo("m").set("limits.buffer_memory", "1MiB").start();
    let large = format!(
        r#"{{"inputs":[{{"name":"INPUT0","datatype":"FP32","shape":[1000000],"data":[{}1]}}]}}"#,
        "1,".repeat(999_999)
    );
    for _ in 0..3 {
        let refused = server.client().post("/v2/models/m/infer", &large[..]);
        assert_eq!(refused.status, 503);
        assert!(refused.error().contains("too many request bodies"));
        let small = large.replace("1000000", "100000").replace(&"1,".repeat(900_000), "");
        assert_eq!(server.client().post("/v2/models/m/infer", &small).status, 200);
    }
}
