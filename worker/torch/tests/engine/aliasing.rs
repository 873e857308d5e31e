//! Models that write to their inputs, give them back or keep them, on pages that cannot be written.

use crate::support::{fp32, model};

#[test]
fn an_in_place_operation_on_an_input_does_not_reach_its_pages() {
    let mut model = model("def forward(self, x):\n    return x.add_(1)\n").load();
    let x = fp32(&[2], &[1.0, 2.0]);
    for _ in 0..3 {
        let answers = model.infer_views(&[x.view(0)], 1).unwrap();
        assert_eq!(answers[0].fp32(), [2.0, 3.0]);
    }
}

#[test]
fn nor_does_one_behind_a_view_a_branch_or_a_container() {
    let sources = [
        "def forward(self, x):\n    y = x[0:1]\n    y.zero_()\n    return x\n",
        "def forward(self, x):\n    if bool(x.sum() > 0):\n        x.mul_(0)\n    return x\n",
        "def forward(self, x):\n    l = [x, x]\n    l[1][0] = 0.0\n    return l[0]\n",
        "def f(self, x):\n    return x.relu_().sub_(x)\ndef forward(self, x):\n    return self.f(x)\n",
    ];
    for source in sources {
        let mut model = model(source).load();
        let answers = model.infer(&[fp32(&[1], &[3.0])]).unwrap();
        assert_eq!(answers[0].fp32(), [0.0], "{source}");
    }
}

#[test]
fn an_input_that_is_an_output_is_copied() {
    let mut model = model("def forward(self, x):\n    return x, x[1:]\n").load();
    let answers = model.infer(&[fp32(&[2], &[1.0, 2.0])]).unwrap();
    assert_eq!(answers[0].fp32(), [1.0, 2.0]);
    assert_eq!(answers[1].fp32(), [2.0]);
}

#[test]
fn an_input_that_is_kept_is_the_models_own() {
    let source =
        "def forward(self, x):\n    y = self.total\n    self.total = x\n    return y + x * 0\n";
    let mut model = model(source).load();
    // The pages of the first request are gone when the second one reads what was kept.
    assert_eq!(model.infer(&[fp32(&[1], &[5.0])]).unwrap()[0].fp32(), [0.0]);
    assert_eq!(model.infer(&[fp32(&[1], &[7.0])]).unwrap()[0].fp32(), [5.0]);
}

#[test]
fn models_are_run_in_evaluation_mode() {
    let source = "def forward(self, x):\n    if self.training:\n        self.total.add_(1)\n        \
                  return x * 100\n    return x\n";
    let mut model = model(source).load();
    assert_eq!(model.infer(&[fp32(&[1], &[1.0])]).unwrap()[0].fp32(), [1.0]);
}
