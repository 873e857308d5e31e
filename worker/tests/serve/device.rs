//! Workers with a device that is only counted (`echo`'s).

use proto::control::{Command, Fact, LoadSpec, WarmupExtent, WorkerExit};
use shared::ring::layout::Status;
use shared::tensor::{DataType, TensorSpec};

use crate::harness::{handshake, on_device, serve_spec, spec};

const MIB: u64 = 1 << 20;

#[test]
fn what_was_learned_of_the_device_is_told() {
    let (mut worker, loaded) = serve_spec(on_device(&[("device_mb", "30")]));
    let told = loaded.on_device.unwrap();
    assert_eq!((told.allocator_limit, told.peak), (Some(100 * MIB), 30 * MIB));
    assert_eq!(told.warmup, WarmupExtent::Partial, "its input has any size");
    assert_eq!(worker.ask(&[7; 9], "").outputs[0].1, [7; 9]);
    let unlimited = on_device(&[("device_mb", "300"), ("device_limit", "none")]);
    assert_eq!(serve_spec(unlimited).1.on_device.unwrap().allocator_limit, None);
    assert_eq!(serve_spec(spec(&[("device_mb", "300")])).1.on_device, None, "on the CPU");
}

/// Rows of four bytes, in batches of up to eight.
fn in_batches(parameters: &[(&str, &str)]) -> LoadSpec {
    let tensor = |name: &str| TensorSpec {
        name: name.into(),
        dtype: Some(DataType::Uint8),
        dims: Some(vec![-1, 4]),
        optional: false,
    };
    let (inputs, outputs) = (vec![tensor("INPUT0")], vec![tensor("OUTPUT0")]);
    LoadSpec { max_batch_size: 8, inputs, outputs, ..on_device(parameters) }
}

#[test]
fn the_peak_is_that_of_the_largest_batch() {
    let (_worker, loaded) =
        serve_spec(in_batches(&[("device_mb", "10"), ("device_mb_per_row", "5")]));
    let told = loaded.on_device.unwrap();
    assert_eq!((told.peak, told.warmup), (50 * MIB, WarmupExtent::Largest));
    let (_worker, loaded) =
        serve_spec(in_batches(&[("device_mb", "10"), ("device_mb_per_row", "20")]));
    let told = loaded.on_device.unwrap();
    assert_eq!((told.peak, told.warmup), (30 * MIB, WarmupExtent::Partial), "eight do not fit");
}

#[test]
fn a_request_that_needs_too_much_fails_alone_and_names_the_quota() {
    let (mut worker, _) = serve_spec(on_device(&[("device_mb", "30")]));
    for _ in 0..9 {
        let refused = worker.ask(&[1], "device-allocate 71MiB");
        assert_eq!(refused.completion.status, Status::OutOfMemory);
        for part in ["209715200 bytes", "gpu_memory_limit"] {
            assert!(refused.message.contains(part), "{}", refused.message);
        }
        assert_eq!(worker.ask(&[1], "device-allocate 70MiB").completion.status, Status::Ok);
    }
    let none = spec(&[]);
    let refused = serve_spec(none).0.ask(&[1], "device-allocate 1MiB");
    assert_eq!(refused.completion.status, Status::InvalidInput);
}

#[test]
fn huge_requests_do_not_end_a_worker() {
    let (mut worker, _) = serve_spec(on_device(&[]));
    assert_eq!(worker.ask(&[1], "device-allocate 99MiB").completion.status, Status::Ok);
    for _ in 0..9 {
        let refused = worker.ask(&[1; 2], "device-allocate 101MiB");
        assert_eq!(refused.completion.status, Status::OutOfMemory);
    }
    assert_eq!(worker.ask(&[1], "device-allocate 99MiB").completion.status, Status::Ok);
}

#[test]
fn a_device_whose_memory_has_gone_ends_the_worker_after_its_answers() {
    let (mut worker, _) = serve_spec(on_device(&[]));
    assert_eq!(worker.ask(&[1], "device-allocate 50MiB").completion.status, Status::Ok);
    assert_eq!(worker.ask(&[1], "device-leak 60MiB").completion.status, Status::Ok);
    for _ in 0..3 {
        let refused = worker.ask(&[1], "device-allocate 50MiB");
        assert_eq!(refused.completion.status, Status::OutOfMemory);
    }
    assert_eq!(worker.process.ended_as(), WorkerExit::DeviceOutOfMemory);
}

#[test]
fn what_is_only_kept_goes_back_when_asked_for_and_when_it_is_short() {
    let (mut worker, _) = serve_spec(on_device(&[]));
    assert_eq!(worker.ask(&[1], "device-cache 90MiB").completion.status, Status::Ok);
    assert_eq!(worker.ask(&[1], "device-leak 90MiB").completion.status, Status::Ok);
    for count in 1..3 {
        worker.commands.send(Command::Trim).unwrap();
        assert_eq!(worker.fact().0, Fact::Trimmed { count });
    }
    assert_eq!(worker.ask(&[1], "").completion.status, Status::Ok);
}

#[test]
fn a_lost_device_ends_the_worker_without_an_answer() {
    let (mut worker, _) = serve_spec(on_device(&[]));
    worker.submit(&[1], "device-fault", u64::MAX);
    worker.submit(&[1], "", u64::MAX);
    assert_eq!(worker.process.ended_as(), WorkerExit::DeviceFault);
    assert!(worker.completions().is_empty());
}

#[test]
fn what_keeps_a_model_off_its_device_is_told_by_the_exit() {
    let cases = [
        (on_device(&[("device_mb", "101")]), WorkerExit::DeviceOutOfMemory),
        (on_device(&[("load_device_fault", "lost")]), WorkerExit::DeviceFault),
    ];
    for (spec, exit) in cases {
        let mut worker = handshake();
        worker.commands.send(Command::Load(spec)).unwrap();
        worker.confined();
        assert_eq!(worker.process.ended_as(), exit);
    }
}

#[test]
fn answers_are_right_and_in_order_while_the_next_request_is_prefetched() {
    let (mut worker, _) = serve_spec(on_device(&[("device_overlap", "true")]));
    for round in 0..50 {
        for i in 0..4 {
            worker.submit(&[round, i], "", u64::MAX);
        }
        for i in 0..4 {
            assert_eq!(worker.reply().outputs[0].1, [round, i]);
        }
    }
    let alone = worker.ask(&[1], "device-ahead");
    assert_eq!(
        (alone.completion.status, &*alone.message),
        (Status::Model, "the inputs were not prefetched")
    );
    worker.submit(&[1], "delay 300ms", u64::MAX);
    worker.submit(&[2; 3], "device-ahead", u64::MAX);
    assert_eq!(worker.reply().completion.status, Status::Ok);
    let second = worker.reply();
    assert_eq!((second.completion.status, &*second.message), (Status::Ok, ""));
    assert_eq!(second.outputs[0].1, [2; 3]);
}

#[test]
fn an_error_that_shows_late_is_that_request_s_own() {
    let (mut worker, _) = serve_spec(on_device(&[("device_overlap", "true")]));
    worker.submit(&[1], "device-late assert failed", u64::MAX);
    worker.submit(&[2], "", u64::MAX);
    let late = worker.reply();
    assert_eq!((late.completion.status, &*late.message), (Status::Model, "assert failed"));
    assert_eq!(worker.reply().outputs[0].1, [2]);
    // In memory of its own, which is held until the device is done with it.
    worker.submit(&[3; 9000], "", u64::MAX);
    assert_eq!(worker.reply().outputs[0].1, [3; 9000]);
}
