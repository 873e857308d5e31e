//! The body of an inference response.

use proto::inference::rest::{InferReply, OutputParameters, OutputTensor, TensorData};
use shared::id::ModelVersion;

use crate::frontend::http::decode::{Form, Wanted};
use crate::lane::Reply;
use crate::request::{ReplyTensor, RequestError, What};

/// What a reply repeats of its request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echo<'a> {
    pub(crate) id: Option<&'a str>,
    pub(crate) model: &'a str,
    pub(crate) version: ModelVersion,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) body: Vec<u8>,
    /// Bytes of JSON in front of the tensors; `None` if there is nothing but JSON.
    pub(crate) json_length: Option<usize>,
}

/// A finished request's outputs; tests can stand in.
pub(crate) trait Outputs {
    fn tensors(&self) -> &[ReplyTensor];
    fn append(&self, i: usize, out: &mut Vec<u8>) -> Result<(), RequestError>;
}

impl Outputs for Reply {
    fn tensors(&self) -> &[ReplyTensor] {
        Reply::tensors(self)
    }

    fn append(&self, i: usize, out: &mut Vec<u8>) -> Result<(), RequestError> {
        Reply::append(self, i, out)
    }
}

/// Room for an output in the JSON beside its name and, in JSON, its data.
const OUTPUT_JSON_BYTES: usize = 160;
/// Room for the rest of the JSON beside id and model name.
const REPLY_JSON_BYTES: usize = 128;

/// `max_json` bounds the bytes of the tensors that are written as JSON.
pub(crate) fn encode(
    echo: Echo<'_>,
    wanted: &Wanted,
    outputs: &impl Outputs,
    max_json: usize,
) -> Result<Encoded, RequestError> {
    let tensors = outputs.tensors();
    let total = |form| {
        let of_form = tensors.iter().enumerate().filter(|(i, _)| wanted.form(*i) == form);
        of_form.map(|(_, tensor)| tensor.len).sum::<usize>()
    };
    let (binary, as_json) = (total(Form::Binary), total(Form::Json));
    if as_json > max_json {
        let message = format!(
            "the outputs exceed the maximum allowed of {max_json} bytes for JSON; ask for them in \
             the binary data format"
        );
        return Err(RequestError::new(What::TooLarge, message));
    }
    let names: usize = tensors.iter().map(|t| OUTPUT_JSON_BYTES + t.name.len()).sum();
    let echoed = REPLY_JSON_BYTES + echo.id.map_or(0, str::len) + echo.model.len();
    let mut body = Vec::with_capacity(echoed + names + as_json.saturating_mul(2) + binary);

    write_json(&mut body, echo, wanted, outputs)?;
    let json_length = body.len();
    for (i, tensor) in tensors.iter().enumerate() {
        if wanted.form(i) == Form::Binary && tensor.len > 0 {
            outputs.append(i, &mut body)?;
        }
    }
    if body.len() != json_length + binary {
        return Err(RequestError::new(What::Internal, "an output is not as long as it says"));
    }
    Ok(Encoded { body, json_length: (binary > 0).then_some(json_length) })
}

fn write_json(
    body: &mut Vec<u8>,
    echo: Echo<'_>,
    wanted: &Wanted,
    outputs: &impl Outputs,
) -> Result<(), RequestError> {
    let tensors = outputs.tensors();
    let mut bytes = Vec::new();
    for i in (0..tensors.len()).filter(|&i| wanted.form(i) == Form::Json) {
        outputs.append(i, &mut bytes)?;
    }
    let mut rest = bytes.as_slice();
    let described = tensors
        .iter()
        .enumerate()
        .map(|(i, tensor)| describe(tensor, wanted.form(i), &mut rest))
        .collect::<Option<Vec<OutputTensor<'_>>>>()
        .ok_or_else(|| RequestError::new(What::Internal, "an output is shorter than it says"))?;
    let reply = InferReply {
        id: echo.id,
        model_name: echo.model,
        model_version: echo.version,
        outputs: &described,
    };
    serde_json::to_writer(body, &reply)
        .map_err(|e| RequestError::invalid(format!("an output cannot be written as JSON: {e}")))
}

/// Takes the data of a tensor in JSON from the front of `rest`.
fn describe<'a>(
    tensor: &'a ReplyTensor,
    form: Form,
    rest: &mut &'a [u8],
) -> Option<OutputTensor<'a>> {
    let (parameters, data) = match form {
        Form::Binary => (Some(OutputParameters { binary_data_size: tensor.len }), None),
        Form::Json => {
            let (bytes, after) = rest.split_at_checked(tensor.len)?;
            *rest = after;
            (None, Some(TensorData { dtype: tensor.dtype, bytes }))
        }
    };
    let (name, datatype, shape) = (&*tensor.name, tensor.dtype, tensor.shape);
    Some(OutputTensor { name, datatype, shape, parameters, data })
}

#[cfg(test)]
mod tests {
    use shared::tensor::{DataType, Shape};

    use super::*;

    struct Fake(Vec<ReplyTensor>, Vec<Vec<u8>>);

    impl Outputs for Fake {
        fn tensors(&self) -> &[ReplyTensor] {
            &self.0
        }

        fn append(&self, i: usize, out: &mut Vec<u8>) -> Result<(), RequestError> {
            out.extend_from_slice(&self.1[i]);
            Ok(())
        }
    }

    fn outputs(of: &[(DataType, &[u64], &[u8])]) -> Fake {
        let tensor = |(i, (dtype, dims, bytes)): (usize, &(DataType, &[u64], &[u8]))| ReplyTensor {
            name: format!("o{i}").into(),
            dtype: *dtype,
            shape: Shape::new(dims).unwrap(),
            len: bytes.len(),
        };
        let tensors = of.iter().enumerate().map(tensor).collect();
        Fake(tensors, of.iter().map(|(_, _, bytes)| bytes.to_vec()).collect())
    }

    fn encoded(wanted: &Wanted, of: &[(DataType, &[u64], &[u8])]) -> Result<Encoded, RequestError> {
        let echo = Echo { id: Some("7"), model: "m", version: ModelVersion::new(1).unwrap() };
        encode(echo, wanted, &outputs(of), 1000)
    }

    fn all(form: Form) -> Wanted {
        Wanted { default: form, named: vec![] }
    }

    const HEAD: &str = r#"{"id":"7","model_name":"m","model_version":"1","outputs":["#;

    #[test]
    fn binary_tensors_follow_the_json() {
        let done = encoded(
            &Wanted { default: Form::Json, named: vec![Form::Binary, Form::Json, Form::Binary] },
            &[
                (DataType::Uint8, &[2], &[1, 2]),
                (DataType::Int8, &[1], &[0xff]),
                (DataType::Bytes, &[1], b"\x01\0\0\0a"),
            ],
        )
        .unwrap();
        let json = [
            HEAD,
            r#"{"name":"o0","datatype":"UINT8","shape":[2],"parameters":{"binary_data_size":2}},"#,
            r#"{"name":"o1","datatype":"INT8","shape":[1],"data":[-1]},"#,
            r#"{"name":"o2","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}]}"#,
        ]
        .concat();
        let (front, back) = done.body.split_at(done.json_length.unwrap());
        assert_eq!(std::str::from_utf8(front).unwrap(), json);
        assert_eq!(back, b"\x01\x02\x01\0\0\0a");
        assert!(done.body.capacity() < done.body.len() + 600);
    }

    #[test]
    fn empty_binary_outputs_alone_make_a_reply_without_binary_part() {
        let done = encoded(&all(Form::Binary), &[(DataType::Fp32, &[0], &[])]).unwrap();
        assert_eq!(done.json_length, None);
        let end =
            r#"{"name":"o0","datatype":"FP32","shape":[0],"parameters":{"binary_data_size":0}}]}"#;
        assert_eq!(String::from_utf8(done.body).unwrap(), format!("{HEAD}{end}"));
    }

    #[test]
    fn json_that_cannot_be_is_an_error_that_names_the_way_out() {
        let nan = f32::NAN.to_le_bytes();
        let table: [(DataType, &[u8]); 3] = [
            (DataType::Fp32, &nan),
            (DataType::Fp16, &[0, 0]),
            (DataType::Bytes, b"\x01\0\0\0\xff"),
        ];
        for (dtype, bytes) in table {
            let error = encoded(&all(Form::Json), &[(dtype, &[1], bytes)]).unwrap_err();
            assert_eq!(error.what, What::Invalid);
            assert!(error.message.contains("binary data format"), "{error}");
            assert!(encoded(&all(Form::Binary), &[(dtype, &[1], bytes)]).is_ok());
        }
        let large = encoded(&all(Form::Json), &[(DataType::Uint8, &[1001], &[0; 1001])]);
        assert_eq!(large.unwrap_err().what, What::TooLarge);
    }

    #[test]
    fn outputs_that_lie_about_their_length_are_our_fault() {
        let mut lying = outputs(&[(DataType::Uint8, &[2], &[1, 2])]);
        lying.1[0].pop();
        let echo = Echo { id: None, model: "m", version: ModelVersion::new(1).unwrap() };
        for form in [Form::Binary, Form::Json] {
            let error = encode(echo, &all(form), &lying, 1000).unwrap_err();
            assert_eq!(error.what, What::Internal);
        }
    }
}
