//! A slot's table and bytes as the engine's inputs.
//!
//! The supervisor has checked all of it; it is checked again because an engine hands these bytes
//! to foreign code by pointer and length.

use shared::elements;
use shared::limits::MAX_TENSORS;
use shared::ring::consumer::Published;
use shared::tensor::DataType;

use crate::engine::{EngineError, InputView};

/// The inputs of a request, as views of `memory`, which is its slot or its own object.
pub(super) fn views<'a>(
    published: &Published<'_>,
    memory: &'a [u8],
) -> Result<Vec<InputView<'a>>, EngineError> {
    let count = published.request.tensors;
    if count as usize > MAX_TENSORS {
        return Err(EngineError::InvalidInput(format!("{count} inputs are too many")));
    }
    (0..count).map(|i| view(published, i, memory)).collect()
}

fn view<'a>(
    published: &Published<'_>,
    i: u32,
    memory: &'a [u8],
) -> Result<InputView<'a>, EngineError> {
    let invalid = |what: String| EngineError::InvalidInput(format!("input {i}: {what}"));
    let tensor = published.entry(i, memory.len()).map_err(|e| invalid(e.to_string()))?;
    // `entry` has checked that the range lies in `memory`.
    let bytes = &memory[tensor.offset..tensor.offset + tensor.len];
    if tensor.dtype == DataType::Bytes {
        elements::check(bytes, tensor.shape.elements()).map_err(|e| invalid(e.to_string()))?;
    }
    Ok(InputView { index: tensor.index, dtype: tensor.dtype, shape: tensor.shape, bytes })
}
