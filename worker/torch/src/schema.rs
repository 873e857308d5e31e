//! What a module's `forward()` takes and returns, parsed from the shim's lines
//! (`shim/signature.h`). Pure.

/// What `forward()` looks like from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) arguments: Vec<Argument>,
    pub(crate) returns: Returns,
    /// A call may write to its inputs or keep them, so that it needs copies of its own.
    pub(crate) keeps_inputs: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) name: String,
    pub(crate) class: Class,
    pub(crate) has_default: bool,
    /// As TorchScript spells it.
    pub(crate) type_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Returns {
    /// A tensor or a number.
    One,
    Tuple(Vec<Field>),
    /// A dict from strings to tensors; its keys show in a run.
    Dict,
    /// A list, or a type that shows in a run.
    Varying(String),
    /// Something that cannot be an output.
    Other(String),
}

/// One element of a returned tuple.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) class: Class,
    /// Empty unless the tuple is a named one.
    pub(crate) name: String,
    pub(crate) type_name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Tensor,
    OptionalTensor,
    Number,
    DictOfTensors,
    List,
    Tuple,
    Any,
    Other,
}

impl Class {
    fn from_word(word: &str) -> Self {
        match word {
            "tensor" => Self::Tensor,
            "optional" => Self::OptionalTensor,
            "number" => Self::Number,
            "dict" => Self::DictOfTensors,
            "list" => Self::List,
            "tuple" => Self::Tuple,
            "any" => Self::Any,
            _ => Self::Other,
        }
    }

    pub(crate) fn takes_tensor(self) -> bool {
        matches!(self, Self::Tensor | Self::OptionalTensor)
    }

    /// Whether a tuple's element of this class can be an output (if only in some runs).
    pub(crate) fn gives_tensor(self) -> bool {
        matches!(self, Self::Tensor | Self::OptionalTensor | Self::Number | Self::Any)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a line of the module's description makes no sense: {0:?}")]
pub(crate) struct Malformed(String);

impl Signature {
    pub(crate) fn parse(lines: &str) -> Result<Self, Malformed> {
        let mut arguments = Vec::new();
        let mut returns = Returns::Other("nothing".to_owned());
        let mut keeps_inputs = true;
        for line in lines.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields[..] {
                ["argument", name, class, default, type_name] => arguments.push(Argument {
                    name: name.to_owned(),
                    class: Class::from_word(class),
                    has_default: default == "default",
                    type_name: type_name.to_owned(),
                }),
                ["returns", class, type_name] => {
                    returns = Returns::new(Class::from_word(class), type_name);
                }
                ["field", class, name, type_name] => returns.add(Field {
                    class: Class::from_word(class),
                    name: name.to_owned(),
                    type_name: type_name.to_owned(),
                }),
                ["keeps", answer] => keeps_inputs = answer != "no",
                _ => return Err(Malformed(line.to_owned())),
            }
        }
        Ok(Self { arguments, returns, keeps_inputs })
    }
}

impl Returns {
    fn new(class: Class, type_name: &str) -> Self {
        match class {
            Class::Tensor | Class::OptionalTensor | Class::Number => Self::One,
            Class::Tuple => Self::Tuple(Vec::new()),
            Class::DictOfTensors => Self::Dict,
            Class::List | Class::Any => Self::Varying(type_name.to_owned()),
            Class::Other => Self::Other(type_name.to_owned()),
        }
    }

    fn add(&mut self, field: Field) {
        if let Self::Tuple(fields) = self {
            fields.push(field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_parsed() {
        let lines = "argument\tx\ttensor\trequired\tTensor\n\
                     argument\tscale\tnumber\tdefault\tfloat\n\
                     returns\ttuple\tTuple[Tensor, int]\n\
                     field\ttensor\ty\tTensor\n\
                     field\tnumber\t\tint\n\
                     keeps\tno\n";
        let signature = Signature::parse(lines).unwrap();
        assert_eq!(signature.arguments.len(), 2);
        assert!(signature.arguments[1].has_default && !signature.arguments[0].has_default);
        let Returns::Tuple(fields) = signature.returns else { panic!("a tuple was described") };
        assert_eq!((fields[0].name.as_str(), fields[1].class), ("y", Class::Number));
        assert!(!signature.keeps_inputs);
    }

    #[test]
    fn without_an_answer_inputs_are_copied() {
        assert!(Signature::parse("returns\ttensor\tTensor\n").unwrap().keeps_inputs);
    }

    #[test]
    fn an_unknown_line_is_an_error() {
        assert_eq!(Signature::parse("what"), Err(Malformed("what".to_owned())));
    }
}
