//! The plan of a body without JSON: all of it is the data of the model's only input.

use shared::tensor::{DataType, Shape, TensorSpec};

use super::plan::{Form, Plan, Source, Wanted};
use crate::request::{InferHead, InputDecl, Repeat, RequestError};
use shared::elements::LENGTH_BYTES;

/// `length` is the body's. The model must say enough for the shape to follow from it.
pub(super) fn plan(inputs: &[TensorSpec], length: usize) -> Result<Plan<'static>, RequestError> {
    let [input] = inputs else {
        return Err(refused(&format!("one input, and it has {}", inputs.len())));
    };
    let (Some(dtype), Some(dims)) = (input.dtype, input.dims.as_deref()) else {
        return Err(refused("an input of known datatype and shape"));
    };
    let (dims, len, source) = match dtype.size() {
        None => (one_element(dims)?, LENGTH_BYTES.saturating_add(length), Source::OneElement),
        Some(size) => (fitting(dims, length / size)?, length, Source::Binary),
    };
    check_element(dtype, length)?;
    let shape = Shape::new(&dims).map_err(|e| RequestError::invalid(e.to_string()))?;
    Ok(Plan {
        head: InferHead {
            client_id: None,
            inputs: vec![InputDecl { name: input.name.clone(), dtype, shape, len }],
            outputs: None,
            timeout: None,
            repeat: Repeat::Allowed,
        },
        sources: vec![source],
        wanted: Wanted { default: Form::Binary, named: Vec::new() },
    })
}

/// A BYTES element has a 32-bit length.
fn check_element(dtype: DataType, length: usize) -> Result<(), RequestError> {
    if dtype == DataType::Bytes && u32::try_from(length).is_err() {
        return Err(RequestError::invalid("a BYTES element is longer than 4 GiB"));
    }
    Ok(())
}

fn one_element(dims: &[i64]) -> Result<Vec<u64>, RequestError> {
    if dims.iter().all(|&d| d == 1 || d < 0) {
        Ok(vec![1; dims.len()])
    } else {
        Err(refused("an input of one BYTES element"))
    }
}

/// One variable dimension takes what is there. Of two, the first is the batch, which is of one.
fn fitting(dims: &[i64], elements: usize) -> Result<Vec<u64>, RequestError> {
    let variable = dims.iter().filter(|&&d| d < 0).count();
    if variable > 2 || (variable == 2 && dims.first().is_none_or(|&d| d >= 0)) {
        return Err(refused("an input with at most one variable dimension beside the batch"));
    }
    let fixed: Vec<u64> = dims.iter().filter_map(|&d| u64::try_from(d).ok()).collect();
    let each = Shape::new(&fixed).map_err(|e| RequestError::invalid(e.to_string()))?.elements();
    let elements = u64::try_from(elements).unwrap_or(u64::MAX);
    let free = elements.checked_div(each).unwrap_or(0);
    let batched = variable == 2;
    Ok(dims
        .iter()
        .enumerate()
        .map(|(i, &dim)| match u64::try_from(dim) {
            Ok(dim) => dim,
            Err(_) if batched && i == 0 => 1,
            Err(_) => free,
        })
        .collect())
}

fn refused(needs: &str) -> RequestError {
    RequestError::invalid(format!("a raw binary request needs a model with {needs}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dtype: DataType, dims: &[i64]) -> TensorSpec {
        let name = String::from("a");
        TensorSpec { name, dtype: Some(dtype), dims: Some(dims.to_vec()), optional: false }
    }

    fn shape(dtype: DataType, dims: &[i64], length: usize) -> Result<Vec<u64>, RequestError> {
        let plan = plan(&[spec(dtype, dims)], length)?;
        assert_eq!(plan.wanted.form(0), Form::Binary);
        Ok(plan.head.inputs[0].shape.dims().to_vec())
    }

    #[test]
    fn the_shape_follows_from_the_length() {
        let table: [(DataType, &[i64], usize, &[u64]); 8] = [
            (DataType::Fp32, &[4], 16, &[4]),
            (DataType::Fp32, &[-1, 4], 16, &[1, 4]),
            (DataType::Fp32, &[-1, 4], 32, &[2, 4]),
            (DataType::Fp32, &[-1, -1], 32, &[1, 8]),
            (DataType::Fp32, &[2, -1], 32, &[2, 4]),
            (DataType::Fp32, &[0, -1], 0, &[0, 0]),
            (DataType::Bytes, &[1], 5, &[1]),
            (DataType::Bytes, &[-1, 1], 5, &[1, 1]),
        ];
        for (dtype, dims, length, expected) in table {
            assert_eq!(shape(dtype, dims, length).as_deref(), Ok(expected), "{dims:?}");
        }
    }

    #[test]
    fn models_that_say_too_little_are_refused() {
        assert!(shape(DataType::Fp32, &[-1, -1, -1], 4).is_err());
        assert!(shape(DataType::Fp32, &[2, -1, -1], 4).is_err());
        assert!(shape(DataType::Bytes, &[2], 4).is_err());
        assert!(shape(DataType::Fp32, &[i64::MAX, 2], 4).is_err());
        assert!(plan(&[], 4).is_err());
        assert!(plan(&[spec(DataType::Fp32, &[1]), spec(DataType::Fp32, &[1])], 4).is_err());
        let unknown = TensorSpec { dtype: None, ..spec(DataType::Fp32, &[1]) };
        assert!(plan(&[unknown], 4).is_err());
    }
}
