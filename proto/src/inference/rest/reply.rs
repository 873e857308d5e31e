//! The body of an inference reply, or the JSON in front of its binary tensors.

use serde::{Serialize, Serializer};
use shared::id::ModelVersion;
use shared::tensor::{DataType, Shape};

use super::TensorData;

#[derive(Debug, Serialize)]
pub struct InferReply<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    pub model_name: &'a str,
    #[serde(serialize_with = "as_text")]
    pub model_version: ModelVersion,
    pub outputs: &'a [OutputTensor<'a>],
}

/// Exactly one of `parameters` and `data` is set.
#[derive(Debug, Serialize)]
pub struct OutputTensor<'a> {
    pub name: &'a str,
    #[serde(serialize_with = "by_name")]
    pub datatype: DataType,
    pub shape: Shape,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<OutputParameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<TensorData<'a>>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct OutputParameters {
    pub binary_data_size: usize,
}

pub(super) fn as_text<S: Serializer>(version: &ModelVersion, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(version)
}

fn by_name<S: Serializer>(dtype: &DataType, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(dtype.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_has_the_documented_members() {
        let shape = Shape::new(&[1, 2]).unwrap();
        let binary = OutputTensor {
            name: "a",
            datatype: DataType::Fp32,
            shape,
            parameters: Some(OutputParameters { binary_data_size: 8 }),
            data: None,
        };
        let data = Some(TensorData { dtype: DataType::Uint8, bytes: &[1, 2] });
        let json =
            OutputTensor { name: "b", datatype: DataType::Uint8, parameters: None, data, ..binary };
        let reply = InferReply {
            id: Some("x\""),
            model_name: "m",
            model_version: ModelVersion::new(3).unwrap(),
            outputs: &[binary, json],
        };
        let expected = concat!(
            r#"{"id":"x\"","model_name":"m","model_version":"3","outputs":["#,
            r#"{"name":"a","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}},"#,
            r#"{"name":"b","datatype":"UINT8","shape":[1,2],"data":[1,2]}]}"#,
        );
        assert_eq!(serde_json::to_string(&reply).unwrap(), expected);
    }
}
