//! Models from source, inputs in read-only pages, a reply that keeps what it is given.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use memmap2::{Mmap, MmapMut};
use proto::control::{Device, LoadSpec};
use shared::id::RequestId;
use shared::tensor::{DataType, Shape, TensorSpec};
use tempfile::TempDir;
use worker::engine::{
    Engine, EngineError, InputView, LoadError, Outputs, PlaceError, Placed, PlannedOutput, Request,
};

unsafe extern "C" {
    fn bulkhead_test_define(source: *const c_char, path: *const c_char) -> *mut c_char;
}

/// Some settings of libtorch can be made once in a process, which a worker does and tests do not.
static LOADING: Mutex<()> = Mutex::new(());

/// A model under construction.
pub(crate) struct Draft {
    folder: TempDir,
    pub(crate) spec: LoadSpec,
}

/// A loaded model and the folder that its file lies in.
pub(crate) struct Loaded {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) warnings: Vec<String>,
    _folder: TempDir,
}

/// A model with the methods of `source`, an attribute `total` (a scalar buffer) and `training`.
pub(crate) fn model(source: &str) -> Draft {
    let draft = Draft::empty();
    let path = draft.spec.folder.join(&draft.spec.filename);
    let path = CString::new(path.to_str().unwrap()).unwrap();
    let source = CString::new(source).unwrap();
    // SAFETY: both are live zero-terminated texts.
    let error = unsafe { bulkhead_test_define(source.as_ptr(), path.as_ptr()) };
    if !error.is_null() {
        // SAFETY: an error is a zero-terminated text, which is leaked here.
        panic!("{}", unsafe { CStr::from_ptr(error) }.to_string_lossy());
    }
    draft
}

impl Draft {
    /// A folder without a model file.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spec = LoadSpec {
            engine: "pytorch".to_owned(),
            folder: folder.path().to_owned(),
            filename: "model.pt".to_owned(),
            device: Device::Cpu,
            device_memory: None,
            threads: 1,
            max_batch_size: 0,
            inputs: Vec::new(),
            outputs: Vec::new(),
            parameters: BTreeMap::new(),
        };
        Self { folder, spec }
    }

    pub(crate) fn of_file(file: &Path) -> Self {
        let mut draft = Self::empty();
        draft.spec.folder = file.parent().unwrap().to_owned();
        draft.spec.filename = file.file_name().unwrap().to_str().unwrap().to_owned();
        draft
    }

    pub(crate) fn input(mut self, name: &str) -> Self {
        self.spec.inputs.push(named(name));
        self
    }

    pub(crate) fn typed_input(mut self, name: &str, dtype: DataType, dims: &[i64]) -> Self {
        let (dtype, dims) = (Some(dtype), Some(dims.to_vec()));
        self.spec.inputs.push(TensorSpec { dtype, dims, ..named(name) });
        self
    }

    pub(crate) fn output(mut self, name: &str) -> Self {
        self.spec.outputs.push(named(name));
        self
    }

    pub(crate) fn typed_output(mut self, name: &str, dtype: DataType) -> Self {
        self.spec.outputs.push(TensorSpec { dtype: Some(dtype), ..named(name) });
        self
    }

    pub(crate) fn parameter(mut self, key: &str, value: &str) -> Self {
        self.spec.parameters.insert(key.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn try_load(self) -> Result<Loaded, LoadError> {
        let _alone = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut warnings = Vec::new();
        let warn = &mut |warning: &str| warnings.push(warning.to_owned());
        let engine = engine_torch::load_with(&self.spec, warn)?;
        Ok(Loaded { engine, warnings, _folder: self.folder })
    }

    pub(crate) fn load(self) -> Loaded {
        self.try_load().unwrap()
    }

    /// The message of the error that will not go away.
    pub(crate) fn refused(self) -> String {
        match self.try_load().map(drop) {
            Err(LoadError::Permanent(message)) => message,
            other => panic!("a permanent error was expected, not {other:?}"),
        }
    }
}

fn named(name: &str) -> TensorSpec {
    TensorSpec { name: name.to_owned(), dtype: None, dims: None, optional: false }
}

/// A tensor in pages of its own that can only be read.
pub(crate) struct Given {
    dtype: DataType,
    shape: Shape,
    pages: Mmap,
    len: usize,
}

pub(crate) fn given(dtype: DataType, dims: &[u64], bytes: &[u8]) -> Given {
    let mut pages = MmapMut::map_anon(bytes.len().max(1)).unwrap();
    pages[..bytes.len()].copy_from_slice(bytes);
    let shape = Shape::new(dims).unwrap();
    Given { dtype, shape, pages: pages.make_read_only().unwrap(), len: bytes.len() }
}

pub(crate) fn fp32(dims: &[u64], values: &[f32]) -> Given {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    given(DataType::Fp32, dims, &bytes)
}

impl Given {
    pub(crate) fn view(&self, index: u32) -> InputView<'_> {
        let bytes = &self.pages[..self.len];
        InputView { index, dtype: self.dtype, shape: self.shape, bytes }
    }
}

/// An output as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) index: u32,
    pub(crate) dtype: DataType,
    pub(crate) dims: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn fp32(&self) -> Vec<f32> {
        assert_eq!(self.dtype, DataType::Fp32);
        self.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

#[derive(Default)]
pub(crate) struct Reply {
    plan: Vec<PlannedOutput>,
    bytes: Vec<Vec<u8>>,
}

impl Outputs for Reply {
    fn place(&mut self, plan: &[PlannedOutput]) -> Result<Placed<'_>, PlaceError> {
        assert!(self.plan.is_empty(), "outputs are placed once");
        self.plan = plan.to_vec();
        self.bytes = plan.iter().map(|output| vec![0xAA; output.len]).collect();
        Ok(Placed { bytes: self.bytes.iter_mut().map(Vec::as_mut_slice).collect() })
    }
}

impl Reply {
    fn answers(self) -> Vec<Answer> {
        let answer = |(plan, bytes): (PlannedOutput, Vec<u8>)| Answer {
            index: plan.index,
            dtype: plan.dtype,
            dims: plan.shape.dims().to_vec(),
            bytes,
        };
        self.plan.into_iter().zip(self.bytes).map(answer).collect()
    }
}

impl Loaded {
    /// Runs with the inputs in the order of the schema and asks for all outputs.
    pub(crate) fn infer(&mut self, inputs: &[Given]) -> Result<Vec<Answer>, EngineError> {
        let views: Vec<InputView<'_>> =
            (0..).zip(inputs).map(|(index, input)| input.view(index)).collect();
        self.infer_views(&views, u64::MAX)
    }

    pub(crate) fn infer_views(
        &mut self,
        inputs: &[InputView<'_>],
        wanted: u64,
    ) -> Result<Vec<Answer>, EngineError> {
        let mut reply = Reply::default();
        self.engine.infer(&Request { id: RequestId(0), inputs, wanted }, &mut reply)?;
        Ok(reply.answers())
    }

    pub(crate) fn output_names(&self) -> Vec<String> {
        self.engine.schema().outputs.into_iter().map(|spec| spec.name).collect()
    }

    pub(crate) fn input_names(&self) -> Vec<String> {
        self.engine.schema().inputs.into_iter().map(|spec| spec.name).collect()
    }
}

/// Writes a line that shows although the test passes.
pub(crate) fn say(line: &str) {
    io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

pub(crate) const DOUBLE: &str = "def forward(self, x):\n    return x * 2\n";
