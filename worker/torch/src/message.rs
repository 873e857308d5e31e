//! What libtorch says when something fails, made fit for a client: what happened first, where it
//! happened after it, no C++ frames, bounded. Pure.

use shared::limits::MAX_ERROR_BYTES;
use worker::engine::EngineError;

/// Marks the line of source in a TorchScript traceback; the message stands after the last one.
const HERE: &str = "<--- HERE";
/// Where C++ frames begin.
const FRAMES: [&str; 3] = ["\nException raised from ", "\nframe #0", "\nC++ CapturedTraceback:"];
/// How libtorch's allocators say that memory ran out.
const OUT_OF_MEMORY: [&str; 3] = ["out of memory", "can't allocate memory", "std::bad_alloc"];
/// How CUDA and its libraries say that a device's did.
const OUT_OF_DEVICE_MEMORY: [&str; 6] = [
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "cudaErrorMemoryAllocation",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
];

/// Which memory ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    Host,
    Device,
}

/// The error of a request whose call raised `raw`.
pub(crate) fn engine_error(raw: &str) -> EngineError {
    let text = readable(raw);
    match ran_out(raw) {
        Some(Memory::Host) => EngineError::OutOfMemory(text),
        Some(Memory::Device) => EngineError::DeviceOutOfMemory(text),
        None => EngineError::Model(text),
    }
}

/// Looks only at the message, since a traceback quotes the model's source.
pub(crate) fn ran_out(raw: &str) -> Option<Memory> {
    let (message, _) = split(raw);
    let says = |signs: &[&str]| signs.iter().any(|sign| message.contains(sign));
    if says(&OUT_OF_DEVICE_MEMORY) {
        Some(Memory::Device)
    } else {
        says(&OUT_OF_MEMORY).then_some(Memory::Host)
    }
}

/// The message, then the traceback as far as [`MAX_ERROR_BYTES`] allow.
pub(crate) fn readable(raw: &str) -> String {
    let (message, traceback) = split(raw);
    let mut text = message.to_owned();
    if !traceback.is_empty() {
        text.push('\n');
        text.push_str(traceback);
    }
    cut(&mut text, MAX_ERROR_BYTES);
    text
}

/// Shortens to at most `most` bytes, between two characters.
fn cut(text: &mut String, most: usize) {
    let end = (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    text.truncate(end.unwrap_or(0));
}

/// The first line of the message alone, for a place that has room for one line.
pub(crate) fn headline(raw: &str) -> &str {
    split(raw).0.lines().next().unwrap_or_default()
}

fn split(raw: &str) -> (&str, &str) {
    let text = FRAMES.iter().filter_map(|mark| raw.find(mark)).min().map_or(raw, |end| &raw[..end]);
    let text = text.trim();
    let Some(at) = text.rfind(HERE) else { return (text, "") };
    let (trace, rest) = text.split_at(at + HERE.len());
    match start_of_message(rest) {
        Some(start) => (rest[start..].trim(), trace),
        None => (text, ""),
    }
}

/// Skips the source that a traceback may quote beyond the marked line: a message begins with the
/// name of its exception, or is the last line.
fn start_of_message(rest: &str) -> Option<usize> {
    let mut last = None;
    for line in rest.lines() {
        let name = line.split_once(": ").map_or("", |(name, _)| name);
        let start = line.as_ptr().addr() - rest.as_ptr().addr();
        if !name.contains(' ') && (name.ends_with("Error") || name.ends_with("Exception")) {
            return Some(start);
        }
        if !line.trim().is_empty() {
            last = Some(start);
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAISED: &str = "The following operation failed in the TorchScript interpreter.\n\
        Traceback of TorchScript, serialized code (most recent call last):\n\
        \x20 File \"code/__torch__.py\", line 9, in forward\n\
        \x20     ops.prim.RaiseException(\"out of memory is only quoted\")\n\
        \x20     ~~~~~~~~~~~~~~~~~~~~~~~ <--- HERE\n\
        \x20   return x\n\
        RuntimeError: the sum is negative\n";

    #[test]
    fn the_message_comes_before_the_traceback() {
        let text = readable(RAISED);
        assert!(text.starts_with("RuntimeError: the sum is negative\nThe following"), "{text}");
        assert!(text.ends_with(HERE), "{text}");
        assert_eq!(headline(RAISED), "RuntimeError: the sum is negative");
    }

    #[test]
    fn frames_are_left_out() {
        let raw = "expected 2 dims\nException raised from f at a.cpp:1 (most recent call first):\n\
                   frame #0: c10::Error::Error";
        assert_eq!(readable(raw), "expected 2 dims");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = readable(&"ä".repeat(MAX_ERROR_BYTES));
        assert_eq!(text.len(), MAX_ERROR_BYTES);
        let text = readable(&format!("x{}", "ä".repeat(MAX_ERROR_BYTES)));
        assert_eq!(text.len(), MAX_ERROR_BYTES - 1);
    }

    #[test]
    fn memory_errors_are_told_apart_by_the_message_alone() {
        let raw = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.";
        assert_eq!(engine_error(raw), EngineError::OutOfMemory(raw.to_owned()));
        assert!(matches!(engine_error(RAISED), EngineError::Model(_)));
        assert_eq!(ran_out("out of memory: std::bad_alloc"), Some(Memory::Host));
    }

    #[test]
    fn memory_of_a_device_is_told_apart_from_the_host_s() {
        let torch = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 \
                     GiB of which 70.20 GiB is free. 1.50 GiB allowed; Of the allocated memory 1.12 GiB";
        let raised = format!(
            "The following operation failed in the TorchScript interpreter.\n\
             Traceback of TorchScript (most recent call last):\n\
             \x20   return x.repeat(n)\n\x20          ~~~~~~~~ <--- HERE\nRuntimeError: {torch}\n"
        );
        for text in [
            torch,
            &raised,
            &format!("out of memory: {torch}"),
            "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        ] {
            let error = engine_error(text);
            assert!(matches!(error, EngineError::DeviceOutOfMemory(_)), "{text}: {error:?}");
        }
        for text in [
            "CUDA error: device-side assert triggered",
            "CUDA error: an illegal memory access was encountered",
            "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`",
        ] {
            assert!(matches!(engine_error(text), EngineError::Model(_)), "{text}");
        }
    }
}
