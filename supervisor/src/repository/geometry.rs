//! How large the slots of a model's workers are; pure.

use shared::limits::{MAX_SLOT_BYTES, TENSOR_ALIGN};

use crate::config::{SlotSize, WorkerSettings};

use super::manifest::{Manifest, Tensor, View};

/// The slots of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of the data area of one request slot; a multiple of [`PAGE`].
    pub request_bytes: usize,
    /// As above, of one response slot.
    pub response_bytes: usize,
    pub slots: u16,
}

/// Data areas are whole pages.
pub const PAGE: usize = 4096;
/// An `auto` size is at least and at most this; what does not fit travels in memory of its own.
const AUTO_MIN: usize = 64 << 10;
const AUTO_MAX: usize = 16 << 20;
/// If the shapes leave it open.
const AUTO_UNKNOWN: usize = 1 << 20;

impl Geometry {
    pub fn of(manifest: &Manifest, settings: &WorkerSettings) -> Self {
        let rows = usize::try_from(manifest.max_batch_size).unwrap_or(usize::MAX).max(1);
        let bytes = |tensors: &[Tensor]| match settings.slot_size {
            SlotSize::Bytes(bytes) => bytes.next_multiple_of(PAGE).min(MAX_SLOT_BYTES),
            SlotSize::Auto => auto(tensors, rows),
        };
        Self {
            request_bytes: bytes(&manifest.inputs),
            response_bytes: bytes(&manifest.outputs),
            slots: settings.slots,
        }
    }
}

fn auto(tensors: &[Tensor], rows: usize) -> usize {
    let mut sizes = tensors.iter().map(|tensor| row_bytes(tensor).map(|row| aligned(row, rows)));
    let total = sizes.try_fold(0_usize, |sum, size| size.map(|size| sum.saturating_add(size)));
    match total {
        None | Some(0) => AUTO_UNKNOWN,
        // Clamped first: rounding up a number near the end of the range would overflow.
        Some(bytes) => bytes.clamp(AUTO_MIN, AUTO_MAX).next_multiple_of(PAGE),
    }
}

/// A tensor of so many rows, with the gap to the next one.
fn aligned(row: usize, rows: usize) -> usize {
    let bytes = row.saturating_mul(rows);
    bytes.checked_next_multiple_of(TENSOR_ALIGN).unwrap_or(usize::MAX)
}

/// `None` if type or shape leave it open.
fn row_bytes(tensor: &Tensor) -> Option<usize> {
    let size = tensor.dtype?.size()?;
    let dims = tensor.dims(View::Client)?.iter().map(|&dim| usize::try_from(dim).ok());
    let elements = dims.into_iter().try_fold(1_usize, |all, dim| Some(all.saturating_mul(dim?)))?;
    Some(elements.saturating_mul(size))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::tensor::DataType;

    use super::*;

    fn manifest(max_batch_size: u32, inputs: Vec<Tensor>) -> Manifest {
        let mut manifest = Manifest::of_torch_file();
        manifest.max_batch_size = max_batch_size;
        manifest.inputs = inputs;
        manifest
    }

    fn tensor(dtype: DataType, dims: &[i64]) -> Tensor {
        Tensor {
            name: "x".to_owned(),
            dtype: Some(dtype),
            dims: Some(dims.to_vec()),
            reshape: None,
            optional: false,
            label_filename: None,
        }
    }

    fn request_bytes(max_batch_size: u32, inputs: Vec<Tensor>) -> usize {
        let settings = WorkerSettings::default();
        Geometry::of(&manifest(max_batch_size, inputs), &settings).request_bytes
    }

    #[test]
    fn an_automatic_size_holds_the_largest_batch() {
        let image = || tensor(DataType::Fp32, &[3, 224, 224]);
        assert_eq!(request_bytes(0, vec![image()]), 602_112_usize.next_multiple_of(PAGE));
        assert_eq!(request_bytes(8, vec![image()]), (8 * 602_112_usize).next_multiple_of(PAGE));
        assert_eq!(request_bytes(1024, vec![image()]), AUTO_MAX);
        assert_eq!(request_bytes(0, vec![tensor(DataType::Fp32, &[16])]), AUTO_MIN);
    }

    #[test]
    fn open_shapes_types_and_lists_have_a_size_of_their_own() {
        assert_eq!(request_bytes(8, vec![]), AUTO_UNKNOWN);
        assert_eq!(request_bytes(8, vec![tensor(DataType::Fp32, &[-1, 4])]), AUTO_UNKNOWN);
        assert_eq!(request_bytes(8, vec![tensor(DataType::Bytes, &[4])]), AUTO_UNKNOWN);
    }

    #[test]
    fn a_configured_size_is_rounded_up_to_pages() {
        let settings = WorkerSettings {
            slot_size: SlotSize::Bytes(5000),
            slots: 4,
            ..WorkerSettings::default()
        };
        let geometry = Geometry::of(&manifest(0, vec![]), &settings);
        assert_eq!((geometry.request_bytes, geometry.response_bytes), (8192, 8192));
    }

    proptest! {
        #[test]
        fn any_shape_has_a_size_within_the_bounds(
            dims in proptest::collection::vec(-1..i64::MAX, 0..12),
            rows in any::<u32>(),
        ) {
            let bytes = request_bytes(rows, vec![tensor(DataType::Fp64, &dims); 3]);
            prop_assert!((AUTO_MIN..=AUTO_MAX).contains(&bytes) && bytes.is_multiple_of(PAGE));
        }
    }
}
