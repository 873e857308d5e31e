use super::*;

fn argument(name: &str, class: Class, has_default: bool) -> Argument {
    Argument { name: name.to_owned(), class, has_default, type_name: format!("{class:?}") }
}

fn tensors(names: &[&str]) -> Vec<Argument> {
    names.iter().map(|name| argument(name, Class::Tensor, false)).collect()
}

fn specs(names: &[&str]) -> Vec<TensorSpec> {
    names.iter().map(|name| named(name, false)).collect()
}

fn positions(arguments: &[Argument], names: &[&str]) -> Result<Vec<usize>, NameError> {
    match resolve_inputs(arguments, &specs(names))?.rule {
        InputRule::Positions { of_input, .. } => Ok(of_input),
        InputRule::DictKeys => panic!("no dict was given"),
    }
}

fn field(name: &str, class: Class) -> Field {
    Field { class, name: name.to_owned(), type_name: format!("{class:?}") }
}

fn output_positions(returns: &Returns, names: &[&str]) -> Result<Vec<usize>, NameError> {
    match resolve_outputs(returns, &specs(names))?.rule {
        OutputRule::Positions(positions) => Ok(positions),
        other @ (OutputRule::DictKeys | OutputRule::Unknown(_)) => {
            panic!("positions were expected, not {other:?}")
        }
    }
}

fn names_of(specs: &[TensorSpec]) -> Vec<&str> {
    specs.iter().map(|spec| spec.name.as_str()).collect()
}

#[test]
fn inputs_go_by_argument_name_first() {
    assert_eq!(positions(&tensors(&["a", "b"]), &["b", "a"]), Ok(vec![1, 0]));
    // Argument names win although they look like indices.
    assert_eq!(positions(&tensors(&["x__1", "x__0"]), &["x__0", "x__1"]), Ok(vec![1, 0]));
}

#[test]
fn then_by_index() {
    assert_eq!(positions(&tensors(&["a", "b"]), &["IN__1", "OTHER__0"]), Ok(vec![1, 0]));
    assert_eq!(positions(&tensors(&["a", "b"]), &["my__own__0", "b__1"]), Ok(vec![0, 1]));
}

#[test]
fn then_by_order() {
    assert_eq!(positions(&tensors(&["a", "b"]), &["b", "IN__0"]), Ok(vec![0, 1]));
    assert_eq!(positions(&tensors(&["a", "b"]), &["first", "second"]), Ok(vec![0, 1]));
    assert_eq!(positions(&tensors(&["a"]), &["x__"]), Ok(vec![0]));
    assert_eq!(positions(&tensors(&["a"]), &["x__+0"]), Ok(vec![0]));
}

#[test]
fn order_passes_over_arguments_that_take_no_tensor() {
    let arguments =
        [tensors(&["a"]), vec![argument("scale", Class::Number, true)], tensors(&["b"])].concat();
    assert_eq!(positions(&arguments, &["first", "second"]), Ok(vec![0, 2]));
    // An index counts all arguments.
    assert_eq!(positions(&arguments, &["IN__0", "IN__2"]), Ok(vec![0, 2]));
    let refused = NameError::NotATensor { name: "scale".into(), type_name: "Number".into() };
    assert_eq!(positions(&arguments, &["IN__0", "IN__1"]), Err(refused));
}

#[test]
fn wrong_inputs_are_refused_by_name() {
    let arguments = tensors(&["a", "b"]);
    let range = NameError::OutOfRange { kind: "input", name: "IN__2".into(), index: 2, last: 1 };
    assert_eq!(positions(&arguments, &["IN__1", "IN__2"]), Err(range));
    let twice = NameError::Twice { kind: "input", first: "A__0".into(), second: "B__0".into() };
    assert_eq!(positions(&arguments, &["A__0", "B__0"]), Err(twice));
    let many = NameError::TooMany { kind: "input", configured: 3, actual: 2 };
    assert_eq!(positions(&arguments, &["x", "y", "z"]), Err(many));
    assert_eq!(positions(&arguments, &["a"]), Err(NameError::Uncovered("b".into())));
    let none = NameError::TooMany { kind: "input", configured: 1, actual: 0 };
    assert_eq!(positions(&[], &["IN__0"]), Err(none));
    let scale = [argument("scale", Class::Number, false)];
    let refused = NameError::NotATensor { name: "scale".into(), type_name: "Number".into() };
    assert_eq!(resolve_inputs(&scale, &[]), Err(refused));
}

#[test]
fn arguments_with_defaults_may_be_left_out() {
    let arguments = [
        tensors(&["x"]),
        vec![argument("mask", Class::OptionalTensor, false), argument("w", Class::Tensor, true)],
    ]
    .concat();
    assert_eq!(positions(&arguments, &["x"]), Ok(vec![0]));
    let inputs = resolve_inputs(&arguments, &[]).unwrap();
    assert_eq!(names_of(&inputs.specs), ["x", "mask", "w"]);
    assert_eq!(inputs.specs.iter().map(|s| s.optional).collect::<Vec<_>>(), [false, true, true]);
    let refused = NameError::NotOptional { input: "x".into(), argument: "x".into() };
    assert_eq!(resolve_inputs(&arguments, &[named("x", true)]), Err(refused));
}

#[test]
fn a_dict_takes_its_keys_from_the_configuration() {
    let dict = [argument("batch", Class::DictOfTensors, false)];
    let inputs = resolve_inputs(&dict, &specs(&["ids", "mask"])).unwrap();
    assert_eq!(inputs.rule, InputRule::DictKeys);
    assert_eq!(resolve_inputs(&dict, &[]), Err(NameError::UnnamedDictInputs));
    // Beside another argument a dict is no input.
    let two = [tensors(&["x"]), dict.to_vec()].concat();
    assert!(matches!(resolve_inputs(&two, &[]), Err(NameError::NotATensor { .. })));
}

#[test]
fn outputs_go_by_index_then_by_order() {
    let pair = Returns::Tuple(vec![field("", Class::Tensor), field("", Class::Number)]);
    assert_eq!(output_positions(&pair, &["OUT__1", "OUT__0"]), Ok(vec![1, 0]));
    assert_eq!(output_positions(&pair, &["logits", "count"]), Ok(vec![0, 1]));
    assert_eq!(output_positions(&pair, &["logits"]), Ok(vec![0]));
    assert_eq!(output_positions(&pair, &["OUT__1"]), Ok(vec![1]));
    let many = NameError::TooMany { kind: "output", configured: 2, actual: 1 };
    assert_eq!(output_positions(&Returns::One, &["a", "b"]), Err(many));
    let range = NameError::OutOfRange { kind: "output", name: "OUT__1".into(), index: 1, last: 0 };
    assert_eq!(output_positions(&Returns::One, &["OUT__1"]), Err(range));
}

#[test]
fn a_named_tuple_goes_by_its_fields() {
    let named = Returns::Tuple(vec![field("boxes", Class::Tensor), field("scores", Class::Tensor)]);
    assert_eq!(output_positions(&named, &["scores", "boxes"]), Ok(vec![1, 0]));
    assert_eq!(output_positions(&named, &["y", "z"]), Ok(vec![0, 1]));
    let outputs = resolve_outputs(&named, &[]).unwrap();
    assert_eq!(names_of(&outputs.specs), ["boxes", "scores"]);
}

#[test]
fn unnamed_outputs_are_numbered() {
    let outputs = resolve_outputs(&Returns::One, &[]).unwrap();
    assert_eq!(names_of(&outputs.specs), ["OUTPUT__0"]);
    let unnamed = Returns::Tuple(vec![field("", Class::Tensor), field("", Class::Tensor)]);
    let outputs = resolve_outputs(&unnamed, &[]).unwrap();
    assert_eq!(names_of(&outputs.specs), ["OUTPUT__0", "OUTPUT__1"]);
}

#[test]
fn what_a_run_must_show_is_learned() {
    let list = Returns::Varying("List[Tensor]".into());
    let outputs = resolve_outputs(&list, &[]).unwrap();
    assert_eq!(outputs.rule, OutputRule::Unknown("List[Tensor]".into()));
    assert_eq!(names_of(&learn_outputs(&[None, None]).specs), ["OUTPUT__0", "OUTPUT__1"]);
    let learned = learn_outputs(&[Some("a".into()), Some("b".into())]);
    assert_eq!((names_of(&learned.specs), learned.rule), (vec!["a", "b"], OutputRule::DictKeys));
    assert_eq!(output_positions(&list, &["first", "second"]), Ok(vec![0, 1]));
    let dict = resolve_outputs(&Returns::Dict, &specs(&["a"])).unwrap();
    assert_eq!(dict.rule, OutputRule::DictKeys);
}

#[test]
fn what_cannot_be_an_output_is_refused() {
    let text = Returns::Other("str".into());
    assert_eq!(resolve_outputs(&text, &[]), Err(NameError::NotAnOutput("str".into())));
    let nested = Returns::Tuple(vec![field("", Class::Tensor), field("", Class::Tuple)]);
    let refused = NameError::NotAnElement { position: 1, type_name: "Tuple".into() };
    assert_eq!(resolve_outputs(&nested, &[]), Err(refused));
}
