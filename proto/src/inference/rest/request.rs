//! The body of an inference request, or the JSON in front of its binary tensors.

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::tensor::Shape;

use super::{Parameters, Text};

/// Members that are not listed are ignored, listed ones must not stand twice.
#[derive(Debug, Deserialize)]
pub struct InferRequest<'a> {
    #[serde(borrow, default)]
    pub id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub parameters: Parameters<'a>,
    #[serde(borrow)]
    pub inputs: Vec<InferInput<'a>>,
    #[serde(borrow, default)]
    pub outputs: Vec<InferOutput<'a>>,
}

#[derive(Debug, Deserialize)]
pub struct InferInput<'a> {
    #[serde(borrow)]
    pub name: Text<'a>,
    pub shape: Shape,
    #[serde(borrow)]
    pub datatype: Text<'a>,
    #[serde(borrow, default)]
    pub parameters: Parameters<'a>,
    /// Well-formed JSON, not looked at any further.
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
pub struct InferOutput<'a> {
    #[serde(borrow)]
    pub name: Text<'a>,
    #[serde(borrow, default)]
    pub parameters: Parameters<'a>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"id":"7","x":{},"inputs":[{"name":"a","shape":[2],"datatype":"FP32",
        "data":[1,2]}],"outputs":[{"name":"b","parameters":{"binary_data":true}}]}"#;

    #[test]
    fn data_stays_text() {
        let read: InferRequest<'_> = serde_json::from_str(GOOD).unwrap();
        assert_eq!(read.inputs[0].data.map(RawValue::get), Some("[1,2]"));
        assert_eq!(read.inputs[0].shape.dims(), [2]);
        assert_eq!(read.id.as_deref(), Some("7"));
        assert_eq!(&*read.outputs[0].name, "b");
    }

    #[test]
    fn malformed_requests_are_refused() {
        let bad = [
            "",
            "{}",
            "null",
            r#"{"inputs":[]"#,
            r#"{"inputs":[],"inputs":[]}"#,
            r#"{"inputs":[]} x"#,
            r#"{"id":7,"inputs":[]}"#,
            r#"{"inputs":[{"name":"a","shape":[-1],"datatype":"FP32"}]}"#,
            r#"{"inputs":[{"name":"a","shape":[1.5],"datatype":"FP32"}]}"#,
            r#"{"inputs":[{"name":"a","shape":[9223372036854775807,2],"datatype":"FP32"}]}"#,
            r#"{"inputs":[{"name":"a","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1],"datatype":"FP32"}]}"#,
            r#"{"inputs":[{"name":"a","shape":[1],"datatype":"FP32","data":[1}]}"#,
        ];
        for text in bad {
            assert!(serde_json::from_str::<InferRequest<'_>>(text).is_err(), "{text}");
        }
    }
}
