//! What a request's JSON asks for, checked as far as that needs no knowledge of the model.

use proto::inference::rest::{InferInput, InferOutput, InferRequest};
use serde_json::value::RawValue;
use shared::limits::{MAX_TENSOR_NAME_BYTES, MAX_TENSORS};
use shared::tensor::{DataType, InvalidShape};

use super::scatter::Segment;
use super::{cells, depth, parameters};
use crate::request::{InferHead, InputDecl, RequestError};

/// A head for admission, and where each input's bytes come from.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) head: InferHead,
    pub(super) sources: Vec<Source<'a>>,
    pub(super) wanted: Wanted,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    /// The bytes that follow the JSON.
    Binary,
    /// The whole body is one BYTES element, whose length is ours to write.
    OneElement,
    Json(&'a RawValue),
}

/// How tensors are written in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Binary,
    Json,
}

impl Form {
    pub(super) fn from_binary(binary: bool) -> Self {
        if binary { Self::Binary } else { Self::Json }
    }
}

/// The form of each output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) default: Form,
    /// In the order of the outputs that the client named, if it named any.
    pub(crate) named: Vec<Form>,
}

impl Wanted {
    pub(crate) fn form(&self, output: usize) -> Form {
        self.named.get(output).copied().unwrap_or(self.default)
    }

    /// Whether any of so many outputs is to be JSON.
    pub(crate) fn any_json(&self, outputs: usize) -> bool {
        (0..outputs).any(|output| self.form(output) == Form::Json)
    }
}

impl Plan<'_> {
    /// Where the bytes that follow the JSON go, in their order.
    pub(super) fn segments(&self) -> Vec<Segment> {
        let parts = self.sources.iter().zip(&self.head.inputs).enumerate();
        let segment = |(input, (source, decl)): (usize, (&Source<'_>, &InputDecl))| match source {
            Source::Binary => Some(Segment { input, from: 0, to: decl.len }),
            Source::OneElement => Some(Segment {
                input,
                from: decl.len.min(shared::elements::LENGTH_BYTES),
                to: decl.len,
            }),
            Source::Json(_) => None,
        };
        parts.filter_map(segment).collect()
    }
}

/// Reads the JSON of a request.
pub(super) fn parse(json: &[u8], max_depth: usize) -> Result<Plan<'_>, RequestError> {
    depth::check_depth(json, max_depth)?;
    let request: InferRequest<'_> = serde_json::from_slice(json).map_err(|e| {
        RequestError::invalid(format!("failed to parse the request JSON buffer: {e}"))
    })?;
    let asked = parameters::of_request(&request.parameters)?;
    check_names("input", &request.inputs, |input| &input.name)?;
    check_names("output", &request.outputs, |output| &output.name)?;

    let mut inputs = Vec::with_capacity(request.inputs.len());
    let mut sources = Vec::with_capacity(request.inputs.len());
    for input in request.inputs {
        let (decl, source) = declared(input)?;
        inputs.push(decl);
        sources.push(source);
    }
    let named = request
        .outputs
        .iter()
        .map(|output| Ok(parameters::form_of(&output.parameters)?.unwrap_or(asked.default_form)))
        .collect::<Result<Vec<Form>, RequestError>>()?;
    Ok(Plan {
        head: InferHead {
            client_id: request.id.map(|id| id.into_string()),
            inputs,
            outputs: output_names(request.outputs),
            timeout: asked.timeout,
            repeat: asked.repeat,
        },
        sources,
        wanted: Wanted { default: asked.default_form, named },
    })
}

/// No names is all outputs.
fn output_names(outputs: Vec<InferOutput<'_>>) -> Option<Vec<String>> {
    if outputs.is_empty() {
        return None;
    }
    Some(outputs.into_iter().map(|output| output.name.into_string()).collect())
}

/// The number of tensors is checked first: the search for duplicates is quadratic.
fn check_names<T>(
    kind: &str,
    tensors: &[T],
    name_of: impl Fn(&T) -> &str,
) -> Result<(), RequestError> {
    if tensors.len() > MAX_TENSORS {
        let message = format!("there are more than {MAX_TENSORS} {kind}s");
        return Err(RequestError::invalid(message));
    }
    for (i, tensor) in tensors.iter().enumerate() {
        let name = name_of(tensor);
        if name.len() > MAX_TENSOR_NAME_BYTES {
            let message = format!("an {kind}'s name is longer than {MAX_TENSOR_NAME_BYTES} bytes");
            return Err(RequestError::invalid(message));
        }
        if tensors.iter().take(i).any(|earlier| name_of(earlier) == name) {
            return Err(RequestError::invalid(format!("duplicate {kind} '{name}'")));
        }
    }
    Ok(())
}

fn declared(input: InferInput<'_>) -> Result<(InputDecl, Source<'_>), RequestError> {
    let of_input = |problem: &dyn std::fmt::Display| {
        RequestError::invalid(format!("input '{}': {problem}", &*input.name))
    };
    let dtype = DataType::from_name(&input.datatype)
        .ok_or_else(|| of_input(&format_args!("unknown datatype '{}'", &*input.datatype)))?;
    let (source, announced) = parameters::source_of(&input)?;
    let len = match (source, announced) {
        (Source::Json(data), _) => json_len(&input, dtype, data).map_err(|e| of_input(&e))?,
        (Source::Binary | Source::OneElement, len) => len.unwrap_or_default(),
    };
    let shape = input.shape;
    Ok((InputDecl { name: input.name.into_string(), dtype, shape, len }, source))
}

/// Bytes that JSON data will take. An element has at least two characters, so that a short text
/// cannot ask for a large slot.
fn json_len(input: &InferInput<'_>, dtype: DataType, data: &RawValue) -> Result<usize, String> {
    let elements = input.shape.elements();
    let mismatch = || format!("the shape {} does not match the data", input.shape);
    match dtype {
        DataType::Bytes => {
            let (strings, bytes) = cells::measure_strings(data)?;
            if strings == elements { Ok(bytes) } else { Err(mismatch()) }
        }
        DataType::Fp16 | DataType::Bf16 => {
            Err(format!("JSON has no {dtype}; use the binary data format for this input"))
        }
        DataType::Bool
        | DataType::Uint8
        | DataType::Uint16
        | DataType::Uint32
        | DataType::Uint64
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Fp32
        | DataType::Fp64 => {
            if usize::try_from(elements).map_or(true, |n| n > data.get().len() / 2) {
                return Err(mismatch());
            }
            let len = input.shape.byte_len(dtype).map_err(|e: InvalidShape| e.to_string())?;
            Ok(len.unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::request::What;

    fn input(rest: &str) -> String {
        format!(r#"{{"inputs":[{{"name":"a","shape":[2],{rest}}}]}}"#)
    }

    #[test]
    fn a_plan_has_what_the_request_says() {
        let json = r#"{"id":"7","parameters":{"timeout":9,"binary_data_output":true},"inputs":[
            {"name":"a","shape":[2],"datatype":"FP32","data":[1,2]},
            {"name":"b","shape":[1,2],"datatype":"FP16","parameters":{"binary_data_size":4}},
            {"name":"c","shape":[1],"datatype":"BYTES","data":["xyz"]}],
            "outputs":[{"name":"p"},{"name":"q","parameters":{"binary_data":false}}]}"#;
        let plan = parse(json.as_bytes(), 100).unwrap();
        assert_eq!(plan.head.client_id.as_deref(), Some("7"));
        assert_eq!(plan.head.timeout, Some(Duration::from_micros(9)));
        assert_eq!(plan.head.outputs, Some(vec!["p".to_owned(), "q".to_owned()]));
        let lens: Vec<usize> = plan.head.inputs.iter().map(|i| i.len).collect();
        assert_eq!(lens, [8, 4, 7]);
        assert_eq!(plan.segments(), [Segment { input: 1, from: 0, to: 4 }]);
        assert_eq!(plan.wanted.named, [Form::Binary, Form::Json]);
    }

    #[test]
    fn no_outputs_are_all_outputs() {
        for json in [r#"{"inputs":[]}"#, r#"{"inputs":[],"outputs":[]}"#] {
            let plan = parse(json.as_bytes(), 100).unwrap();
            assert_eq!(plan.head.outputs, None);
            assert_eq!(plan.wanted, Wanted { default: Form::Json, named: vec![] });
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let two = r#"{"name":"a","shape":[1],"datatype":"INT8","data":[1]}"#;
        let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
        let table = [
            String::from("nothing"),
            String::from("{\"inputs\":[]}\u{ff}"),
            input(r#""datatype":"FP32","data":[1]"#),
            input(r#""datatype":"FP8","data":[1,2]"#),
            input(r#""datatype":"FP16","data":[1,2]"#),
            input(r#""datatype":"BF16","data":[1,2]"#),
            input(r#""datatype":"BYTES","data":["a"]"#),
            input(r#""datatype":"BYTES","data":[1,2]"#),
            input(r#""datatype":"FP32""#),
            input(r#""datatype":"FP32","data":[1,2],"data":[1,2]"#),
            input(&format!(r#""datatype":"FP32","data":{deep}"#)),
            format!(r#"{{"inputs":[{two},{two}]}}"#),
            format!(r#"{{"inputs":[{}]}}"#, [two; MAX_TENSORS + 1].join(",")),
            format!(r#"{{"inputs":[],"outputs":[{}]}}"#, [r#"{"name":"a"}"#; 2].join(",")),
            format!(r#"{{"inputs":[],"outputs":[{{"name":"{}"}}]}}"#, "n".repeat(257)),
            String::from(
                r#"{"inputs":[{"name":"a","shape":[1073741824],"datatype":"FP32","data":[]}]}"#,
            ),
        ];
        for json in table {
            let what = parse(json.as_bytes(), 32).map(|p| p.head).map_err(|e| e.what);
            assert_eq!(what.err(), Some(What::Invalid), "{json}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        let id = b"{\"id\":\"\xff\",\"inputs\":[]}";
        let data = b"{\"inputs\":[{\"name\":\"a\",\"shape\":[1],\"datatype\":\"BYTES\",\"data\":[\"\xff\"]}]}";
        assert!(parse(id, 100).is_err());
        assert!(parse(data, 100).is_err());
    }
}
