//! Names of inputs and outputs on real modules; the rules themselves are tested where they are.

use crate::support::{fp32, model};

const MINUS: &str = "def forward(self, a, b):\n    return a - b\n";

#[test]
fn inputs_go_by_name_index_or_order() {
    let cases = [(["b", "a"], 1.0), (["IN__1", "IN__0"], 1.0), (["first", "second"], -1.0)];
    for (names, expected) in cases {
        let mut model = model(MINUS).input(names[0]).input(names[1]).load();
        assert_eq!(model.input_names(), names);
        let answers = model.infer(&[fp32(&[1], &[2.0]), fp32(&[1], &[3.0])]).unwrap();
        assert_eq!(answers[0].fp32(), [expected], "{names:?}");
    }
}

#[test]
fn without_names_the_arguments_give_them() {
    let model = model(MINUS).load();
    assert_eq!(model.input_names(), ["a", "b"]);
    assert_eq!(model.output_names(), ["OUTPUT__0"]);
}

#[test]
fn names_that_do_not_fit_are_refused() {
    let message = model(MINUS).input("a").refused();
    assert_eq!(
        message,
        "forward() argument \"b\" has no default and no configured input stands for it"
    );
    let message = model(MINUS).input("x").input("y").input("z").refused();
    assert_eq!(message, "3 inputs are configured, but forward() has 2");
    let message = model(MINUS).output("x").output("y").refused();
    assert_eq!(message, "2 outputs are configured, but forward() has 1");
}

#[test]
fn arguments_keep_their_defaults() {
    let source = "def forward(self, x, scale: float = 3.0, bias: Optional[Tensor] = None):\n    \
                  if bias is not None:\n        x = x + bias\n    return x * scale\n";
    let mut model = model(source).load();
    assert_eq!(model.input_names(), ["x", "bias"]);
    let (x, bias) = (fp32(&[1], &[2.0]), fp32(&[1], &[1.0]));
    assert_eq!(model.infer_views(&[x.view(0)], 1).unwrap()[0].fp32(), [6.0]);
    assert_eq!(model.infer_views(&[x.view(0), bias.view(1)], 1).unwrap()[0].fp32(), [9.0]);
}

#[test]
fn an_argument_that_cannot_be_given_is_named() {
    let message = model("def forward(self, x, scale: float):\n    return x * scale\n").refused();
    assert_eq!(
        message,
        "forward() argument \"scale\" is a float without a default; only tensors can be given"
    );
}

#[test]
fn a_dict_of_inputs_goes_by_its_keys() {
    let source = "def forward(self, d: Dict[str, Tensor]):\n    return d['ids'] - d['mask']\n";
    let mut model = model(source).input("mask").input("ids").load();
    let answers = model.infer(&[fp32(&[1], &[1.0]), fp32(&[1], &[5.0])]).unwrap();
    assert_eq!(answers[0].fp32(), [4.0]);
}
