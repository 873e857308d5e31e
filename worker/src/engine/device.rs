//! How much of a device the allocator of an engine may take, and what is said of a request that needs
//! more. Pure, and the same for every engine that has a device.

use crate::engine::EngineError;

/// What a process has of a device outside its engine's allocator: CUDA's context, the kernels that the
/// model's libraries load, the handles of cuBLAS and cuDNN. About what CUDA 13 takes on large devices. What
/// a process has beyond it is still seen by the supervisor's watchdog, and no allocator could hold it.
const OUTSIDE: u64 = 512 << 20;

/// Bytes for the allocator out of a quota for the whole process. A small quota is halved: then either part
/// may turn out to be too small, and the error says which.
#[must_use]
pub fn allocator_limit(quota: u64) -> u64 {
    quota - OUTSIDE.min(quota / 2)
}

/// The error of a request that needs more of the device than there is for it; `why` is the framework's own
/// text.
#[must_use]
pub fn needs_more(quota: Option<u64>, why: &str) -> EngineError {
    let quota = match quota {
        Some(bytes) => format!("{bytes} bytes, as gpu_memory_limit says at most"),
        None => "what the device has".to_owned(),
    };
    EngineError::DeviceOutOfMemory(format!(
        "the request needs more device memory than its model has ({quota}): {why}"
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_outside_is_left_out_but_never_more_than_half() {
        assert_eq!(allocator_limit(4 << 30), (4 << 30) - OUTSIDE);
        assert_eq!(allocator_limit(1 << 30), 512 << 20);
        assert_eq!(allocator_limit(64 << 20), 32 << 20);
        assert_eq!((allocator_limit(1), allocator_limit(0)), (1, 0));
    }

    #[test]
    fn the_quota_and_its_key_are_named() {
        let EngineError::DeviceOutOfMemory(text) = needs_more(Some(1024), "CUDA out of memory")
        else {
            panic!("not of the device");
        };
        assert!(text.contains("1024 bytes") && text.contains("gpu_memory_limit"), "{text}");
        assert!(text.ends_with(": CUDA out of memory"), "{text}");
    }

    proptest! {
        #[test]
        fn a_larger_quota_is_never_less_for_the_allocator(a in any::<u64>(), b in any::<u64>()) {
            prop_assert!(allocator_limit(a.min(b)) <= allocator_limit(a.max(b)));
            prop_assert!(allocator_limit(a) <= a && allocator_limit(a) >= a / 2);
        }
    }
}
