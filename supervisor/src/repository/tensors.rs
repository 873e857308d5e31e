//! `input` and `output` of a `config.pbtxt`, checked.

use std::collections::BTreeSet;

use proto::model_config as wire;
use shared::limits::{MAX_DIMS, MAX_TENSOR_NAME_BYTES, MAX_TENSORS};
use shared::tensor::{DataType, Shape};

use super::error::ManifestError;
use super::manifest::Tensor;

pub(super) fn inputs(
    inputs: &[wire::ModelInput],
    max_batch_size: u32,
) -> Result<Vec<Tensor>, ManifestError> {
    let tensors = inputs.iter().map(|input| Fields {
        side: "input",
        name: &input.name,
        data_type: input.data_type,
        dims: &input.dims,
        reshape: input.reshape.as_ref(),
        optional: input.optional,
        label_filename: "",
    });
    all("input", tensors, max_batch_size)
}

pub(super) fn outputs(
    outputs: &[wire::ModelOutput],
    max_batch_size: u32,
) -> Result<Vec<Tensor>, ManifestError> {
    let tensors = outputs.iter().map(|output| Fields {
        side: "output",
        name: &output.name,
        data_type: output.data_type,
        dims: &output.dims,
        reshape: output.reshape.as_ref(),
        optional: false,
        label_filename: &output.label_filename,
    });
    all("output", tensors, max_batch_size)
}

/// What inputs and outputs have in common.
struct Fields<'a> {
    side: &'static str,
    name: &'a str,
    data_type: i32,
    dims: &'a [i64],
    reshape: Option<&'a wire::ModelTensorReshape>,
    optional: bool,
    label_filename: &'a str,
}

fn all<'a>(
    side: &str,
    fields: impl ExactSizeIterator<Item = Fields<'a>>,
    max_batch_size: u32,
) -> Result<Vec<Tensor>, ManifestError> {
    if fields.len() > MAX_TENSORS {
        let reason = format!("{} tensors; at most {MAX_TENSORS} are possible", fields.len());
        return Err(ManifestError::field(side, reason));
    }
    let mut names = BTreeSet::new();
    let mut tensors = Vec::new();
    for field in fields {
        check_name(&field)?;
        if !names.insert(field.name) {
            return Err(field.wrong("name", "two tensors have this name"));
        }
        tensors.push(tensor(&field, max_batch_size)?);
    }
    Ok(tensors)
}

fn tensor(field: &Fields<'_>, max_batch_size: u32) -> Result<Tensor, ManifestError> {
    // Without a shape of its own a tensor is described by the first run.
    let dims = (!field.dims.is_empty()).then(|| field.dims.to_vec());
    let max_dims = if max_batch_size > 0 { MAX_DIMS - 1 } else { MAX_DIMS };
    check_dims(field, "dims", field.dims, max_dims)?;
    let reshape = field.reshape.map(|reshape| reshape.shape.clone());
    if let Some(shape) = &reshape {
        check_dims(field, "reshape", shape, max_dims)?;
        if volumes(field.dims) != volumes(shape) || dims.is_none() {
            let reason = format!("{shape:?} does not hold as many elements as {:?}", field.dims);
            return Err(field.wrong("reshape", reason));
        }
    }
    let labels = (!field.label_filename.is_empty()).then(|| field.label_filename.to_owned());
    Ok(Tensor {
        name: field.name.to_owned(),
        dtype: data_type(field)?,
        dims,
        reshape,
        optional: field.optional,
        label_filename: labels,
    })
}

fn check_name(field: &Fields<'_>) -> Result<(), ManifestError> {
    let name = field.name;
    if name.is_empty() {
        return Err(ManifestError::field(format!("{}.name", field.side), "it is missing"));
    }
    if name.len() > MAX_TENSOR_NAME_BYTES {
        let reason = format!("a name may have at most {MAX_TENSOR_NAME_BYTES} bytes");
        return Err(ManifestError::field(format!("{}.name", field.side), reason));
    }
    if name.chars().any(char::is_control) {
        return Err(field.wrong("name", "a name may not hold control characters"));
    }
    Ok(())
}

fn check_dims(
    field: &Fields<'_>,
    what: &str,
    dims: &[i64],
    max_dims: usize,
) -> Result<(), ManifestError> {
    if let Some(bad) = dims.iter().find(|&&dim| dim < 1 && dim != -1) {
        return Err(field.wrong(what, format!("{bad} is neither a size of at least 1 nor -1")));
    }
    if dims.len() > max_dims {
        let reason = format!("{} dimensions; at most {max_dims} are possible", dims.len());
        return Err(field.wrong(what, reason));
    }
    let fixed: Vec<u64> = dims.iter().filter_map(|&dim| u64::try_from(dim).ok()).collect();
    let narrowest = DataType::Uint8;
    let dtype = data_type(field)?.unwrap_or(narrowest);
    let sized = Shape::new(&fixed).and_then(|shape| shape.byte_len(dtype));
    sized.map(drop).map_err(|invalid| field.wrong(what, invalid.to_string()))
}

/// The element counts between the dimensions of any size: equal for two shapes whenever one can be
/// seen as the other whatever those sizes are.
fn volumes(dims: &[i64]) -> Vec<i64> {
    dims.split(|&dim| dim == -1).map(|fixed| fixed.iter().product()).collect()
}

fn data_type(field: &Fields<'_>) -> Result<Option<DataType>, ManifestError> {
    use wire::DataType as Wire;
    let wire = Wire::try_from(field.data_type)
        .map_err(|_| field.wrong("data_type", format!("{} is not a type", field.data_type)))?;
    Ok(match wire {
        Wire::TypeInvalid => None,
        Wire::TypeBool => Some(DataType::Bool),
        Wire::TypeUint8 => Some(DataType::Uint8),
        Wire::TypeUint16 => Some(DataType::Uint16),
        Wire::TypeUint32 => Some(DataType::Uint32),
        Wire::TypeUint64 => Some(DataType::Uint64),
        Wire::TypeInt8 => Some(DataType::Int8),
        Wire::TypeInt16 => Some(DataType::Int16),
        Wire::TypeInt32 => Some(DataType::Int32),
        Wire::TypeInt64 => Some(DataType::Int64),
        Wire::TypeFp16 => Some(DataType::Fp16),
        Wire::TypeFp32 => Some(DataType::Fp32),
        Wire::TypeFp64 => Some(DataType::Fp64),
        Wire::TypeString => Some(DataType::Bytes),
        Wire::TypeBf16 => Some(DataType::Bf16),
    })
}

impl Fields<'_> {
    /// An error of this tensor, by name.
    fn wrong(&self, what: &str, reason: impl Into<String>) -> ManifestError {
        ManifestError::field(format!("{} {:?}: {what}", self.side, self.name), reason)
    }
}
