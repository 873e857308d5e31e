use super::*;
use crate::schema::Signature;

unsafe extern "C" {
    fn bulkhead_test_define(source: *const c_char, path: *const c_char) -> *mut c_char;
}

fn signature(source: &str) -> Signature {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pt");
    let source = CString::new(source).unwrap();
    let text = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: both are live zero-terminated texts.
    let answer = unsafe { bulkhead_test_define(source.as_ptr(), text.as_ptr()) };
    // SAFETY: the answer is fresh from the shim.
    unsafe { ffi::check(answer) }.unwrap();
    let model = Model::load(&path, Some(tch::Device::Cpu)).unwrap();
    Signature::parse(&model.describe().unwrap()).unwrap()
}

#[test]
fn what_only_reads_its_inputs_is_given_views() {
    let bodies = [
        "return x",
        "return x.relu().add_(1)",
        "y = x * 2\n    y[0] = 0\n    return y",
        "l = [x]\n    l.append(x * 2)\n    return l",
        "d = {'a': x}\n    d['b'] = x\n    return d",
        "return x + self.total",
        "if self.training:\n        self.total.add_(1)\n    return x * 2",
        "y = x\n    for i in range(3):\n        y = y + i\n    return y",
    ];
    for body in bodies {
        assert!(!signature(&format!("def forward(self, x):\n    {body}\n")).keeps_inputs, "{body}");
    }
}

#[test]
fn what_may_write_to_its_inputs_or_keep_them_is_given_copies() {
    let bodies = [
        "return x.add_(1)",
        "y = x[0]\n    y.zero_()\n    return x",
        "y = x.t()\n    y[0] = 0\n    return y",
        "y = x if bool(x.sum() > 0) else x * 2\n    return y.zero_()",
        "l = [x]\n    return l[0].zero_()",
        "torch.add(x, 1, out=x)\n    return x",
        "self.total = x\n    return x",
        "self.total.copy_(x)\n    return x",
    ];
    for body in bodies {
        assert!(signature(&format!("def forward(self, x):\n    {body}\n")).keeps_inputs, "{body}");
    }
}

#[test]
fn a_signature_says_what_is_taken_and_returned() {
    let source = "def forward(self, x, n: int = 2, m: Optional[Tensor] = None):\n    return x, n\n";
    let signature = signature(source);
    let arguments: Vec<_> =
        signature.arguments.iter().map(|a| (a.name.as_str(), a.has_default)).collect();
    assert_eq!(arguments, [("x", false), ("n", true), ("m", true)]);
    let crate::schema::Returns::Tuple(fields) = signature.returns else { panic!("a tuple") };
    let types: Vec<_> = fields.iter().map(|field| field.type_name.as_str()).collect();
    assert_eq!(types, ["Tensor", "int"]);
}
