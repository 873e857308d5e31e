//! Every type that libtorch has goes through a model unchanged.

use shared::tensor::{DataType, Shape};

use crate::support::{given, model};

#[test]
fn every_type_but_bytes_passes() {
    let mut model = model("def forward(self, x):\n    return x.clone()\n").load();
    for dtype in DataType::ALL.into_iter().filter(|&dtype| dtype != DataType::Bytes) {
        let len = Shape::new(&[4]).unwrap().byte_len(dtype).unwrap().unwrap();
        // A BOOL may be 0 or 1 only.
        let first = if dtype == DataType::Bool { 0 } else { 200 };
        let step = usize::from(dtype != DataType::Bool);
        let bytes: Vec<u8> = (0..len).map(|i| u8::try_from(first + i * step).unwrap()).collect();
        let answers = model.infer(&[given(dtype, &[4], &bytes)]).unwrap();
        assert_eq!((answers[0].dtype, &answers[0].bytes), (dtype, &bytes));
    }
}

#[test]
fn bytes_in_the_configuration_are_refused_by_name() {
    let draft = model("def forward(self, x):\n    return x\n");
    let message = draft.typed_input("x", DataType::Bytes, &[1]).refused();
    assert_eq!(message, "tensor \"x\": type BYTES is not supported by TorchScript models");
}
