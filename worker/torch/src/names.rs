//! Which configured tensor stands for which argument or result of `forward()`. Pure.
//!
//! Inputs, the first rule that all configured names follow:
//! 1. every name is an argument of `forward()`;
//! 2. every name ends in `__<index>`, the argument's position;
//! 3. otherwise the order of the configuration is that of the arguments.
//!
//! If `forward()` takes one dict of tensors, the names are its keys. If the configuration names no
//! inputs, the arguments' own names are taken.
//!
//! Outputs: names that all end in `__<index>` are positions, otherwise the order of the
//! configuration counts. A named tuple's fields and a dict's keys go by name. If the configuration
//! names no outputs, they are `OUTPUT__0`, `OUTPUT__1` and so on, or the named tuple's fields.

use shared::tensor::TensorSpec;

use crate::schema::{Argument, Class, Field, Returns};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inputs {
    pub(crate) specs: Vec<TensorSpec>,
    pub(crate) rule: InputRule,
}

impl Inputs {
    /// How many values a call takes.
    pub(crate) fn arity(&self) -> usize {
        match &self.rule {
            InputRule::Positions { arity, .. } => *arity,
            InputRule::DictKeys => self.specs.len(),
        }
    }

    /// Where input `index` stands among them; the index must be one of `specs`.
    pub(crate) fn position(&self, index: usize) -> usize {
        match &self.rule {
            InputRule::Positions { of_input, .. } => of_input[index],
            InputRule::DictKeys => index,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InputRule {
    /// The position of each input in `forward()`.
    Positions { of_input: Vec<usize>, arity: usize },
    /// Each input is the dict's entry of its name.
    DictKeys,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outputs {
    pub(crate) specs: Vec<TensorSpec>,
    pub(crate) rule: OutputRule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OutputRule {
    /// The position of each output in what `forward()` returns.
    Positions(Vec<usize>),
    /// Each output is the dict's entry of its name.
    DictKeys,
    /// Number and names show in a run only; the text is the type that says so.
    Unknown(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("forward() takes a dict, so its keys must be named as inputs in the configuration")]
    UnnamedDictInputs,
    #[error(
        "forward() argument {name:?} is a {type_name} without a default; only tensors can be given"
    )]
    NotATensor { name: String, type_name: String },
    #[error("forward() argument {0:?} has no default and no configured input stands for it")]
    Uncovered(String),
    #[error("input {input:?} is optional, but forward() argument {argument:?} has no default")]
    NotOptional { input: String, argument: String },
    #[error("{kind} {name:?} stands for number {index}, but the last one is {last}")]
    OutOfRange { kind: &'static str, name: String, index: usize, last: usize },
    #[error("{kind}s {first:?} and {second:?} stand for the same one")]
    Twice { kind: &'static str, first: String, second: String },
    #[error("{configured} {kind}s are configured, but forward() has {actual}")]
    TooMany { kind: &'static str, configured: usize, actual: usize },
    #[error("forward() returns {0}, which cannot be an output")]
    NotAnOutput(String),
    #[error(
        "element {position} of what forward() returns is a {type_name}, which cannot be an output"
    )]
    NotAnElement { position: usize, type_name: String },
}

pub(crate) fn resolve_inputs(
    arguments: &[Argument],
    configured: &[TensorSpec],
) -> Result<Inputs, NameError> {
    if let [only] = arguments
        && only.class == Class::DictOfTensors
    {
        return dict_inputs(configured);
    }
    let specs = if configured.is_empty() { unnamed_inputs(arguments) } else { configured.to_vec() };
    let of_input = input_positions(arguments, &specs)?;
    check_unique("input", &specs, &of_input)?;
    check_covered(arguments, &specs, &of_input)?;
    Ok(Inputs { specs, rule: InputRule::Positions { of_input, arity: arguments.len() } })
}

fn dict_inputs(configured: &[TensorSpec]) -> Result<Inputs, NameError> {
    if configured.is_empty() {
        return Err(NameError::UnnamedDictInputs);
    }
    Ok(Inputs { specs: configured.to_vec(), rule: InputRule::DictKeys })
}

fn unnamed_inputs(arguments: &[Argument]) -> Vec<TensorSpec> {
    let tensors = arguments.iter().filter(|argument| argument.class.takes_tensor());
    tensors.map(|argument| named(&argument.name, may_be_left_out(argument))).collect()
}

fn may_be_left_out(argument: &Argument) -> bool {
    argument.has_default || argument.class == Class::OptionalTensor
}

fn named(name: &str, optional: bool) -> TensorSpec {
    TensorSpec { name: name.to_owned(), dtype: None, dims: None, optional }
}

fn input_positions(arguments: &[Argument], specs: &[TensorSpec]) -> Result<Vec<usize>, NameError> {
    let by_name = |spec: &TensorSpec| arguments.iter().position(|a| a.name == spec.name);
    if let Some(positions) = specs.iter().map(by_name).collect() {
        return Ok(positions);
    }
    if let Some(positions) = suffixes(specs) {
        check_range("input", specs, &positions, arguments.len())?;
        return Ok(positions);
    }
    let tensors = arguments.iter().enumerate().filter(|(_, a)| a.class.takes_tensor());
    let positions: Vec<usize> = tensors.map(|(position, _)| position).take(specs.len()).collect();
    if positions.len() < specs.len() {
        let (configured, actual) = (specs.len(), positions.len());
        return Err(NameError::TooMany { kind: "input", configured, actual });
    }
    Ok(positions)
}

fn check_covered(
    arguments: &[Argument],
    specs: &[TensorSpec],
    of_input: &[usize],
) -> Result<(), NameError> {
    for (position, argument) in arguments.iter().enumerate() {
        let spec = of_input.iter().position(|&p| p == position).map(|index| &specs[index]);
        match spec {
            _ if !argument.class.takes_tensor() && (spec.is_some() || !argument.has_default) => {
                let (name, type_name) = (argument.name.clone(), argument.type_name.clone());
                return Err(NameError::NotATensor { name, type_name });
            }
            Some(spec) if spec.optional && !may_be_left_out(argument) => {
                let (input, argument) = (spec.name.clone(), argument.name.clone());
                return Err(NameError::NotOptional { input, argument });
            }
            None if !may_be_left_out(argument) => {
                return Err(NameError::Uncovered(argument.name.clone()));
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

pub(crate) fn resolve_outputs(
    returns: &Returns,
    configured: &[TensorSpec],
) -> Result<Outputs, NameError> {
    match returns {
        Returns::One => fixed_outputs(&[], 1, configured),
        Returns::Tuple(fields) => {
            check_elements(fields)?;
            fixed_outputs(fields, fields.len(), configured)
        }
        Returns::Dict if configured.is_empty() => Ok(unknown("a dict")),
        Returns::Dict => Ok(Outputs { specs: configured.to_vec(), rule: OutputRule::DictKeys }),
        Returns::Varying(type_name) if configured.is_empty() => Ok(unknown(type_name)),
        Returns::Varying(_) => {
            let positions = suffixes(configured).unwrap_or((0..configured.len()).collect());
            check_unique("output", configured, &positions)?;
            Ok(Outputs { specs: configured.to_vec(), rule: OutputRule::Positions(positions) })
        }
        Returns::Other(type_name) => Err(NameError::NotAnOutput(type_name.clone())),
    }
}

fn unknown(type_name: &str) -> Outputs {
    Outputs { specs: Vec::new(), rule: OutputRule::Unknown(type_name.to_owned()) }
}

/// The outputs of a model that has just been seen to return `keys`, `None` for an element without.
pub(crate) fn learn_outputs(keys: &[Option<String>]) -> Outputs {
    if keys.iter().all(Option::is_some) && !keys.is_empty() {
        let specs = keys.iter().flatten().map(|key| named(key, false)).collect();
        return Outputs { specs, rule: OutputRule::DictKeys };
    }
    let specs = (0..keys.len()).map(numbered).collect();
    Outputs { specs, rule: OutputRule::Positions((0..keys.len()).collect()) }
}

fn numbered(index: usize) -> TensorSpec {
    named(&format!("OUTPUT__{index}"), false)
}

fn check_elements(fields: &[Field]) -> Result<(), NameError> {
    match fields.iter().position(|field| !field.class.gives_tensor()) {
        None => Ok(()),
        Some(position) => {
            let type_name = fields[position].type_name.clone();
            Err(NameError::NotAnElement { position, type_name })
        }
    }
}

/// `fields` are a tuple's elements, empty for a single result.
fn fixed_outputs(
    fields: &[Field],
    count: usize,
    configured: &[TensorSpec],
) -> Result<Outputs, NameError> {
    let specs = if configured.is_empty() {
        (0..count)
            .map(|index| match fields.get(index) {
                Some(field) if !field.name.is_empty() => named(&field.name, false),
                Some(_) | None => numbered(index),
            })
            .collect()
    } else {
        configured.to_vec()
    };
    let by_field = |spec: &TensorSpec| fields.iter().position(|field| field.name == spec.name);
    let positions = if let Some(positions) = specs.iter().map(by_field).collect() {
        positions
    } else if let Some(positions) = suffixes(&specs) {
        check_range("output", &specs, &positions, count)?;
        positions
    } else if specs.len() <= count {
        (0..specs.len()).collect()
    } else {
        let configured = specs.len();
        return Err(NameError::TooMany { kind: "output", configured, actual: count });
    };
    check_unique("output", &specs, &positions)?;
    Ok(Outputs { specs, rule: OutputRule::Positions(positions) })
}

/// The indices of `NAME__<index>`, if all names are of that form.
fn suffixes(specs: &[TensorSpec]) -> Option<Vec<usize>> {
    specs.iter().map(|spec| suffix(&spec.name)).collect()
}

fn suffix(name: &str) -> Option<usize> {
    let (_, digits) = name.rsplit_once("__")?;
    // `parse` would take a sign as well.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn check_range(
    kind: &'static str,
    specs: &[TensorSpec],
    positions: &[usize],
    count: usize,
) -> Result<(), NameError> {
    match specs.iter().zip(positions).find(|&(_, &position)| position >= count) {
        None => Ok(()),
        Some((_, _)) if count == 0 => {
            Err(NameError::TooMany { kind, configured: specs.len(), actual: 0 })
        }
        Some((spec, &index)) => {
            Err(NameError::OutOfRange { kind, name: spec.name.clone(), index, last: count - 1 })
        }
    }
}

fn check_unique(
    kind: &'static str,
    specs: &[TensorSpec],
    positions: &[usize],
) -> Result<(), NameError> {
    for (later, position) in positions.iter().enumerate() {
        if let Some(earlier) = positions[..later].iter().position(|p| p == position) {
            let (first, second) = (specs[earlier].name.clone(), specs[later].name.clone());
            return Err(NameError::Twice { kind, first, second });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
