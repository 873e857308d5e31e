//! What models may return, and what is learned of it.

use shared::tensor::DataType;
use worker::engine::EngineError;

use crate::support::{DOUBLE, fp32, model};

const PAIR: &str = "def forward(self, x):\n    return x + 1, x.sum()\n";
const LIST: &str = "def forward(self, x):\n    return [x, x * 2]\n";
const DICT: &str = "def forward(self, x):\n    return {'twice': x * 2, 'same': x}\n";

#[test]
fn a_tuple_is_several_outputs() {
    let mut model = model(PAIR).load();
    assert_eq!(model.output_names(), ["OUTPUT__0", "OUTPUT__1"]);
    let answers = model.infer(&[fp32(&[2], &[1.0, 2.0])]).unwrap();
    assert_eq!((answers[0].dims.as_slice(), answers[0].fp32()), (&[2][..], vec![2.0, 3.0]));
    assert_eq!((answers[1].dims.as_slice(), answers[1].fp32()), (&[][..], vec![3.0]));
}

#[test]
fn only_wanted_outputs_are_placed() {
    let mut model = model(PAIR).output("grown__0").output("sum__1").load();
    let x = fp32(&[1], &[1.0]);
    let answers = model.infer_views(&[x.view(0)], 0b10).unwrap();
    assert_eq!(answers.iter().map(|answer| answer.index).collect::<Vec<_>>(), [1]);
    assert!(model.infer_views(&[x.view(0)], 0).unwrap().is_empty());
}

#[test]
fn an_output_that_is_left_out_is_warned_about() {
    let mut model = model(PAIR).output("sum__1").load();
    let expected = "forward() returns 2 outputs, of which the configuration names 1";
    assert_eq!(model.warnings, [expected]);
    assert_eq!(model.infer(&[fp32(&[2], &[1.0, 2.0])]).unwrap()[0].fp32(), [3.0]);
}

#[test]
fn a_list_goes_by_the_order_of_the_configuration() {
    let mut configured = model(LIST).output("one").output("two").load();
    assert_eq!(configured.infer(&[fp32(&[1], &[3.0])]).unwrap()[1].fp32(), [6.0]);
    let mut more = model(LIST).output("one").output("two").output("three").load();
    let error = more.infer(&[fp32(&[1], &[3.0])]).unwrap_err();
    let expected = "output \"three\" is not among the 2 that the model returned";
    assert_eq!(error, EngineError::Model(expected.to_owned()));
}

#[test]
fn a_dict_goes_by_its_keys() {
    let mut configured = model(DICT).output("same").output("twice").load();
    let answers = configured.infer(&[fp32(&[1], &[3.0])]).unwrap();
    assert_eq!((answers[0].fp32(), answers[1].fp32()), (vec![3.0], vec![6.0]));
    let mut wrong = model(DICT).output("thrice").load();
    let error = wrong.infer(&[fp32(&[1], &[3.0])]).unwrap_err();
    let expected = "the model returned no output \"thrice\"; it returned twice, same";
    assert_eq!(error, EngineError::Model(expected.to_owned()));
}

#[test]
fn outputs_that_only_a_run_shows_are_learned_while_loading() {
    let mut dict = model(DICT).typed_input("x", DataType::Fp32, &[-1, 2]).load();
    assert_eq!(dict.output_names(), ["twice", "same"]);
    assert_eq!(dict.infer(&[fp32(&[1, 2], &[3.0, 4.0])]).unwrap()[0].fp32(), [6.0, 8.0]);
    let list = model(LIST).typed_input("x", DataType::Uint32, &[2]).load();
    assert_eq!(list.output_names(), ["OUTPUT__0", "OUTPUT__1"]);
    let message = model(LIST).input("x").refused();
    let expected = "forward() returns List[Tensor], so its outputs must be named in the \
                    configuration: type and shape of input \"x\" are not known";
    assert_eq!(message, expected);
}

#[test]
fn numbers_are_tensors_without_dimensions() {
    let source = "def forward(self, x):\n    return x.size(0), float(x[0]), bool(x[0] > 0)\n";
    let mut model = model(source).load();
    let answers = model.infer(&[fp32(&[2], &[1.5, 2.0])]).unwrap();
    let types: Vec<_> = answers.iter().map(|answer| (answer.dtype, answer.dims.len())).collect();
    assert_eq!(types, [(DataType::Int64, 0), (DataType::Fp64, 0), (DataType::Bool, 0)]);
    assert_eq!(answers[0].bytes, 2_i64.to_le_bytes());
    assert_eq!(answers[1].bytes, 1.5_f64.to_le_bytes());
    assert_eq!(answers[2].bytes, [1]);
}

#[test]
fn strides_and_empty_tensors_are_all_right() {
    let mut model =
        model("def forward(self, x):\n    return x.t(), x[:, :0], x.expand(2, 2)\n").load();
    let answers = model.infer(&[fp32(&[1, 2], &[1.0, 2.0])]).unwrap();
    assert_eq!((answers[0].dims.as_slice(), answers[0].fp32()), (&[2, 1][..], vec![1.0, 2.0]));
    assert_eq!((answers[1].dims.as_slice(), answers[1].bytes.len()), (&[1, 0][..], 0));
    assert_eq!(answers[2].fp32(), [1.0, 2.0, 1.0, 2.0]);
    let answers = model.infer(&[fp32(&[1, 0], &[])]).map(drop);
    assert!(matches!(answers, Err(EngineError::Model(_))), "{answers:?}");
}

#[test]
fn what_cannot_be_an_output_is_refused() {
    let nested = model("def forward(self, x):\n    return x, (x, x)\n").refused();
    assert!(nested.starts_with("element 1 of what forward() returns is a Tuple"), "{nested}");
    let text = model("def forward(self, x):\n    return 'text'\n").refused();
    assert_eq!(text, "forward() returns str, which cannot be an output");
    let source = "def forward(self, x):\n    return [[x]]\n";
    let mut list = model(source).output("y").load();
    let error = list.infer(&[fp32(&[1], &[1.0])]).unwrap_err();
    let EngineError::Model(message) = error else { panic!("{error:?}") };
    assert!(message.contains("output 0 of forward() has type List[Tensor]"), "{message}");
    let mut sparse = model("def forward(self, x):\n    return x.to_sparse()\n").load();
    let error = sparse.infer(&[fp32(&[1], &[1.0])]).unwrap_err();
    assert!(error.to_string().contains("has type Sparse Tensor"), "{error}");
    let mut complex = model("def forward(self, x):\n    return torch.complex(x, x)\n").load();
    let error = complex.infer(&[fp32(&[1], &[1.0])]).unwrap_err();
    assert!(error.to_string().contains("type ComplexFloat"), "{error}");
}

#[test]
fn a_type_that_was_not_promised_is_an_error() {
    let mut model = model(DOUBLE).typed_output("y", DataType::Fp64).load();
    let error = model.infer(&[fp32(&[1], &[1.0])]).unwrap_err();
    let expected = "output \"y\": the model returned FP32, the configuration says FP64";
    assert_eq!(error, EngineError::Model(expected.to_owned()));
}

#[test]
fn types_and_ranks_are_learned_from_the_first_run() {
    let mut model = model(DOUBLE).load();
    assert_eq!(model.engine.schema().outputs[0].dtype, None);
    model.infer(&[fp32(&[1, 2], &[1.0, 2.0])]).unwrap();
    let learned = &model.engine.schema().outputs[0];
    assert_eq!((learned.dtype, learned.dims.clone()), (Some(DataType::Fp32), Some(vec![-1, -1])));
}
