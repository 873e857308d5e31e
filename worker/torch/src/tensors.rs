//! Slot bytes as tensors of libtorch, and back.
//!
//! An input is a view of the request's bytes, which this process may be unable to write: it must
//! not reach a graph that writes to its inputs or keeps them (see `Signature::keeps_inputs`). An
//! output is written once, by libtorch's own copy, from wherever it lies.

use std::ffi::c_int;
use std::marker::PhantomData;

use shared::tensor::{DataType, Shape};
use tch::Tensor;
use worker::engine::InputView;

/// `c10::ScalarType` of each type; `None` for those that libtorch lacks.
fn scalar_type(dtype: DataType) -> Option<c_int> {
    match dtype {
        DataType::Uint8 => Some(0),
        DataType::Int8 => Some(1),
        DataType::Int16 => Some(2),
        DataType::Int32 => Some(3),
        DataType::Int64 => Some(4),
        DataType::Fp16 => Some(5),
        DataType::Fp32 => Some(6),
        DataType::Fp64 => Some(7),
        DataType::Bool => Some(11),
        DataType::Bf16 => Some(15),
        DataType::Uint16 => Some(27),
        DataType::Uint32 => Some(28),
        DataType::Uint64 => Some(29),
        DataType::Bytes => None,
    }
}

/// Whether tensors of this type exist in libtorch.
pub(crate) fn supports(dtype: DataType) -> bool {
    scalar_type(dtype).is_some()
}

/// A tensor whose elements are somebody else's bytes; read only.
#[derive(Debug)]
pub(crate) struct View<'a> {
    tensor: Tensor,
    bytes: PhantomData<&'a [u8]>,
}

impl View<'_> {
    pub(crate) fn tensor(&self) -> &Tensor {
        &self.tensor
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ViewError {
    #[error("type {0} is not supported by TorchScript models")]
    Type(DataType),
    #[error("{actual} bytes do not make a tensor of {dtype} {shape}")]
    Length { actual: usize, dtype: DataType, shape: Shape },
    #[error("its bytes are not aligned to {0}")]
    Alignment(usize),
    #[error("a byte of type BOOL is neither 0 nor 1")]
    Bool,
    #[error("libtorch cannot take it: {0}")]
    Torch(String),
}

/// Views the bytes of an input without copying them.
pub(crate) fn view<'a>(input: &InputView<'a>) -> Result<View<'a>, ViewError> {
    let InputView { dtype, shape, bytes, .. } = *input;
    check_memory(dtype, shape, bytes)?;
    // Any other value in a C++ bool is undefined behaviour.
    if dtype == DataType::Bool && bytes.iter().any(|&byte| byte > 1) {
        return Err(ViewError::Bool);
    }
    // SAFETY: length and alignment were checked above; the bytes are borrowed for 'a, which the view carries;
    // the module's promise is that nothing writes through an input.
    let tensor = unsafe { from_raw(bytes.as_ptr().cast_mut(), dtype, shape) }?;
    Ok(View { tensor, bytes: PhantomData })
}

/// Writes `tensor` into `bytes`, row by row whatever its layout and device.
pub(crate) fn write(
    tensor: &Tensor,
    (dtype, shape): (DataType, Shape),
    bytes: &mut [u8],
) -> Result<(), ViewError> {
    // SAFETY: the bytes are borrowed exclusively until this function returns, and the tensor does not
    // outlive it.
    let place = unsafe { place((dtype, shape), bytes) }?;
    let Some(mut place) = place else { return Ok(()) };
    place.f_copy_(tensor).map_err(|error| ViewError::Torch(text_of(error)))
}

/// The bytes of an output as a tensor; `None` if there are none.
///
/// # Safety
/// The tensor is not written through for longer than the bytes may be written.
pub(crate) unsafe fn place(
    (dtype, shape): (DataType, Shape),
    bytes: &mut [u8],
) -> Result<Option<Tensor>, ViewError> {
    check_memory(dtype, shape, bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    // SAFETY: length and alignment were checked above; the rest is the caller's promise.
    unsafe { from_raw(bytes.as_mut_ptr(), dtype, shape) }.map(Some)
}

/// A CPU tensor of zeros with memory of its own; no dimension may be negative.
pub(crate) fn zeros(dtype: DataType, dims: &[i64]) -> Result<Tensor, ViewError> {
    let unsigned: Option<Vec<u64>> = dims.iter().map(|&dim| u64::try_from(dim).ok()).collect();
    let shape = unsigned.and_then(|dims| Shape::new(&dims).ok());
    let shape = shape.ok_or_else(|| ViewError::Torch(format!("{dims:?} is no shape")))?;
    let len = shape.byte_len(dtype).ok().flatten().ok_or(ViewError::Type(dtype))?;
    let bytes = vec![0_u8; len];
    let bytes = InputView { index: 0, dtype, shape, bytes: &bytes };
    view(&bytes)?.tensor().f_detach_copy().map_err(|error| ViewError::Torch(text_of(error)))
}

/// The protocol's type and shape of a tensor; the error says what it cannot carry.
pub(crate) fn describe(tensor: &Tensor) -> Result<(DataType, Shape), String> {
    // SAFETY: the tensor is alive and the function only reads its type.
    let code = unsafe { torch_sys::at_scalar_type(tensor.as_ptr().cast_mut()) };
    let dtype = DataType::ALL
        .into_iter()
        .find(|&dtype| scalar_type(dtype) == Some(code))
        .ok_or_else(|| match tensor.f_kind() {
            Ok(kind) => format!("it has type {kind:?}, which the protocol cannot carry"),
            Err(_) => format!("it has type number {code}, which the protocol cannot carry"),
        })?;
    let sizes = tensor.size();
    let dims: Option<Vec<u64>> = sizes.iter().map(|&dim| u64::try_from(dim).ok()).collect();
    let dims = dims.ok_or_else(|| format!("it has the impossible shape {sizes:?}"))?;
    let shape = Shape::new(&dims).map_err(|error| error.to_string())?;
    Ok((dtype, shape))
}

/// libtorch's own words, without tch's introduction.
pub(crate) fn text_of(error: tch::TchError) -> String {
    if let tch::TchError::Torch(text) = error { text } else { error.to_string() }
}

fn check_memory(dtype: DataType, shape: Shape, bytes: &[u8]) -> Result<(), ViewError> {
    if !supports(dtype) {
        return Err(ViewError::Type(dtype));
    }
    let actual = bytes.len();
    match shape.byte_len(dtype) {
        Ok(Some(expected)) if expected == actual => {}
        Ok(_) | Err(_) => return Err(ViewError::Length { actual, dtype, shape }),
    }
    let size = dtype.size().unwrap_or(1);
    if !bytes.is_empty() && !bytes.as_ptr().addr().is_multiple_of(size) {
        return Err(ViewError::Alignment(size));
    }
    Ok(())
}

/// A contiguous CPU tensor over memory that it does not own.
///
/// # Safety
/// - `data` points to the bytes of `dtype` × `shape`, aligned to the element's size if there are
///   any, and they outlive the tensor;
/// - while the tensor lives they are not written elsewhere, and written through it only if the
///   caller may write them.
unsafe fn from_raw(data: *mut u8, dtype: DataType, shape: Shape) -> Result<Tensor, ViewError> {
    let code = scalar_type(dtype).ok_or(ViewError::Type(dtype))?;
    let dims: Result<Vec<i64>, _> = shape.dims().iter().map(|&dim| i64::try_from(dim)).collect();
    let dims =
        dims.map_err(|_| ViewError::Torch(format!("a dimension of {shape} is too large")))?;
    // SAFETY: the caller answers for `data`; `dims` holds as many numbers as are named, and there
    // are no strides; -1 is the CPU.
    let raw = unsafe {
        torch_sys::at_tensor_of_blob(
            data.cast(),
            dims.as_ptr(),
            dims.len(),
            std::ptr::null(),
            0,
            code,
            CPU,
        )
    };
    if raw.is_null() {
        return Err(ViewError::Torch(last_error()));
    }
    // SAFETY: the pointer was just made for us by `at_tensor_of_blob` and is adopted once.
    Ok(unsafe { Tensor::from_ptr(raw) })
}

/// tch's number of the CPU.
const CPU: c_int = -1;

/// Takes the message that libtorch's C interface left behind on this thread.
fn last_error() -> String {
    // Every fallible call of tch reports and clears an error that was left before it.
    Tensor::f_zeros([0], (tch::Kind::Float, tch::Device::Cpu))
        .err()
        .map_or_else(|| "no reason was given".to_owned(), text_of)
}

#[cfg(test)]
mod tests;
