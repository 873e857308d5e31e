use super::*;

fn input(dtype: DataType, dims: &[u64], bytes: &'static [u8]) -> InputView<'static> {
    InputView { index: 0, dtype, shape: Shape::new(dims).unwrap(), bytes }
}

#[test]
fn a_view_shares_the_bytes() {
    let bytes: &'static [u8] = Box::leak(vec![7_u8; 16].into_boxed_slice());
    let view = view(&input(DataType::Uint8, &[4, 4], bytes)).unwrap();
    assert_eq!(view.tensor().size(), [4, 4]);
    assert_eq!(view.tensor().data_ptr().cast_const().cast::<u8>(), bytes.as_ptr());
}

#[test]
fn every_type_but_bytes_survives_the_round_trip() {
    for dtype in DataType::ALL {
        let shape = Shape::new(&[2, 3]).unwrap();
        let Some(len) = shape.byte_len(dtype).unwrap() else { continue };
        let bytes: Vec<u8> = (0..len).map(|i| u8::from(i % 2 == 1)).collect();
        let viewed = view(&InputView { index: 0, dtype, shape, bytes: &bytes }).unwrap();
        assert_eq!(describe(viewed.tensor()), Ok((dtype, shape)));
        let mut written = vec![9; len];
        write(viewed.tensor(), (dtype, shape), &mut written).unwrap();
        assert_eq!(written, bytes, "{dtype}");
        let zeros = zeros(dtype, &[2, 3]).unwrap();
        write(&zeros, (dtype, shape), &mut written).unwrap();
        assert!(written.iter().all(|&byte| byte == 0), "{dtype}");
    }
}

#[test]
fn what_cannot_be_viewed_is_refused() {
    let error = view(&input(DataType::Bytes, &[1], &[0; 4])).unwrap_err();
    assert_eq!(error, ViewError::Type(DataType::Bytes));
    let error = view(&input(DataType::Fp32, &[2], &[0; 4])).unwrap_err();
    assert!(matches!(error, ViewError::Length { actual: 4, .. }), "{error}");
    let error = view(&input(DataType::Bool, &[2], &[1, 2])).unwrap_err();
    assert_eq!(error, ViewError::Bool);
}

#[test]
fn a_type_that_the_protocol_lacks_is_named() {
    let complex = Tensor::f_zeros([1], (tch::Kind::ComplexFloat, tch::Device::Cpu)).unwrap();
    assert_eq!(
        describe(&complex).unwrap_err(),
        "it has type ComplexFloat, which the protocol cannot carry"
    );
}

#[test]
fn strided_and_empty_tensors_are_written_in_rows() {
    let tensor = Tensor::from_slice(&[1_u8, 2, 3, 4, 5, 6]).reshape([2, 3]).transpose(0, 1);
    let mut written = [0; 6];
    let described = describe(&tensor).unwrap();
    write(&tensor, described, &mut written).unwrap();
    assert_eq!(written, [1, 4, 2, 5, 3, 6]);
    let empty = Tensor::f_zeros([0, 3], (tch::Kind::Float, tch::Device::Cpu)).unwrap();
    write(&empty, describe(&empty).unwrap(), &mut []).unwrap();
}
