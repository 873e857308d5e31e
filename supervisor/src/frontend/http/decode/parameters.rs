//! What the `parameters` objects of a request ask for. Unknown ones are ignored, as Triton does.

use std::time::Duration;

use proto::inference::rest::{InferInput, ParameterValue, Parameters};

use super::plan::{Form, Source};
use crate::request::{Repeat, RequestError, What};

pub(super) struct RequestParameters {
    pub(super) timeout: Option<Duration>,
    pub(super) default_form: Form,
    pub(super) repeat: Repeat,
}

pub(super) fn of_request(parameters: &Parameters<'_>) -> Result<RequestParameters, RequestError> {
    let mut found =
        RequestParameters { timeout: None, default_form: Form::Json, repeat: Repeat::Allowed };
    for (name, value) in parameters.iter() {
        match (name, value) {
            ("timeout", ParameterValue::Uint(0)) => {}
            ("timeout", &ParameterValue::Uint(us)) => {
                found.timeout = Some(Duration::from_micros(us));
            }
            ("timeout", _) => return Err(mistyped(name, "a number of microseconds")),
            ("binary_data_output", &ParameterValue::Bool(binary)) => {
                found.default_form = Form::from_binary(binary);
            }
            ("binary_data_output", _) => return Err(mistyped(name, "a boolean")),
            ("retry", ParameterValue::Bool(true)) => found.repeat = Repeat::Allowed,
            ("retry", ParameterValue::Bool(false)) => found.repeat = Repeat::Forbidden,
            ("retry", _) => return Err(mistyped(name, "a boolean")),
            ("sequence_id", ParameterValue::Uint(0)) => {}
            ("sequence_id", ParameterValue::Text(id)) if id.is_empty() => {}
            ("sequence_id", _) => return Err(unsupported("sequences of requests are not")),
            _ if name.starts_with("triton_") => {
                let message = format!("the parameter '{name}' is reserved");
                return Err(RequestError::invalid(message));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Where the bytes of an input come from, and how many are announced if they are binary.
pub(super) fn source_of<'a>(
    input: &InferInput<'a>,
) -> Result<(Source<'a>, Option<usize>), RequestError> {
    let shared = input.parameters.get("shared_memory_region").is_some();
    match (input.data, input.parameters.get("binary_data_size"), shared) {
        (Some(data), None, false) => Ok((Source::Json(data), None)),
        (None, Some(ParameterValue::Uint(size)), false) => match usize::try_from(*size) {
            Ok(size) => Ok((Source::Binary, Some(size))),
            Err(_) => Err(mistyped("binary_data_size", "a number of bytes")),
        },
        (None, Some(_), false) => Err(mistyped("binary_data_size", "a number of bytes")),
        (None, None, true) => Err(unsupported("client shared memory is not")),
        _ => Err(RequestError::invalid(format!(
            "Input must set only one of the following fields: 'data', 'binary_data_size' in \
             'parameters', 'shared_memory_region' in 'parameters'; this is not so for input '{}'",
            &*input.name
        ))),
    }
}

/// The form in which one output is wanted, if the output says so itself.
pub(super) fn form_of(parameters: &Parameters<'_>) -> Result<Option<Form>, RequestError> {
    if parameters.get("classification").is_some() {
        return Err(unsupported("the classification extension is not"));
    }
    if parameters.get("shared_memory_region").is_some() {
        return Err(unsupported("client shared memory is not"));
    }
    match parameters.get("binary_data") {
        None => Ok(None),
        Some(&ParameterValue::Bool(binary)) => Ok(Some(Form::from_binary(binary))),
        Some(_) => Err(mistyped("binary_data", "a boolean")),
    }
}

fn mistyped(name: &str, expected: &str) -> RequestError {
    RequestError::invalid(format!("the parameter '{name}' must be {expected}"))
}

fn unsupported(subject: &str) -> RequestError {
    RequestError::new(What::Unsupported, format!("{subject} supported by this server"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: &str) -> Result<RequestParameters, What> {
        of_request(&serde_json::from_str(json).unwrap()).map_err(|e| e.what)
    }

    #[test]
    fn request_parameters_are_understood_or_refused() {
        let found = request(r#"{"timeout":1500,"binary_data_output":true,"x":1}"#).unwrap();
        assert_eq!(found.timeout, Some(Duration::from_micros(1500)));
        assert_eq!(found.default_form, Form::Binary);
        assert_eq!(found.repeat, Repeat::Allowed);
        assert_eq!(request(r#"{"timeout":0,"sequence_id":0}"#).unwrap().timeout, None);
        assert_eq!(request(r#"{"retry":true}"#).unwrap().repeat, Repeat::Allowed);
        assert_eq!(request(r#"{"retry":false}"#).unwrap().repeat, Repeat::Forbidden);
        let table = [
            (r#"{"timeout":-1}"#, What::Invalid),
            (r#"{"timeout":"1s"}"#, What::Invalid),
            (r#"{"binary_data_output":1}"#, What::Invalid),
            (r#"{"retry":0}"#, What::Invalid),
            (r#"{"triton_anything":1}"#, What::Invalid),
            (r#"{"sequence_id":"a"}"#, What::Unsupported),
        ];
        for (json, what) in table {
            assert_eq!(request(json).err(), Some(what), "{json}");
        }
    }

    #[test]
    fn output_parameters_are_understood_or_refused() {
        let form = |json| form_of(&serde_json::from_str(json).unwrap()).map_err(|e| e.what);
        assert_eq!(form("{}"), Ok(None));
        assert_eq!(form(r#"{"binary_data":true}"#), Ok(Some(Form::Binary)));
        assert_eq!(form(r#"{"binary_data":1}"#), Err(What::Invalid));
        assert_eq!(form(r#"{"classification":3}"#), Err(What::Unsupported));
        assert_eq!(form(r#"{"shared_memory_region":"a"}"#), Err(What::Unsupported));
    }

    #[test]
    fn an_input_has_exactly_one_source() {
        let source = |rest: &str| {
            let json = format!(r#"{{"name":"a","shape":[1],"datatype":"INT8"{rest}}}"#);
            let input: InferInput<'_> = serde_json::from_str(&json).unwrap();
            source_of(&input).map(|(_, size)| size).map_err(|e| e.what)
        };
        let table = [
            (r#","data":[1]"#, Ok(None)),
            (r#","parameters":{"binary_data_size":0}"#, Ok(Some(0))),
            ("", Err(What::Invalid)),
            (r#","data":null"#, Err(What::Invalid)),
            (r#","data":[1],"parameters":{"binary_data_size":1}"#, Err(What::Invalid)),
            (r#","parameters":{"binary_data_size":-1}"#, Err(What::Invalid)),
            (r#","parameters":{"binary_data_size":"1"}"#, Err(What::Invalid)),
            (r#","parameters":{"shared_memory_region":"r"}"#, Err(What::Unsupported)),
            (r#","data":[1],"parameters":{"shared_memory_region":"r"}"#, Err(What::Invalid)),
        ];
        for (rest, expected) in table {
            assert_eq!(source(rest), expected, "{rest}");
        }
    }
}
