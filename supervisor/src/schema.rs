//! What a model takes and gives, as clients see it and as the model sees it; pure.
//!
//! Checks requests against it and names replies by it. What `config.pbtxt` says is fixed; what it
//! leaves open (a TorchScript file carries neither types nor shapes) is learned from the worker and
//! from the first reply.

use std::sync::Arc;

use shared::limits::{MAX_TENSOR_BYTES, MAX_TENSORS};
use shared::tensor::{DataType, InvalidShape, Shape, TensorDesc, TensorSpec};

use crate::lane::{Input, Outputs};
use crate::request::{InferHead, InputDecl, ReplyTensor, RequestError, What};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    pub model: String,
    /// 0: the model does not batch. Otherwise dimension 0 of every tensor is the batch.
    pub max_batch: u32,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

/// One input or output.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    pub name: Arc<str>,
    pub dtype: Option<DataType>,
    /// As clients see it, the batch in front where the model batches; -1 is any size.
    pub dims: Option<Vec<i64>>,
    /// As the model sees it, if that differs (`reshape`).
    pub model_dims: Option<Vec<i64>>,
    pub optional: bool,
    /// What requests and replies have shown of what is open: for metadata only. One client's
    /// request must not become a rule for the others.
    seen: Option<(DataType, usize)>,
}

impl Port {
    /// `client` and `model` are the two views of one tensor.
    pub fn new(client: TensorSpec, model: TensorSpec) -> Self {
        let model_dims = if client.dims == model.dims { None } else { model.dims };
        let TensorSpec { name, dtype, dims, optional } = client;
        Self { name: name.into(), dtype, dims, model_dims, optional, seen: None }
    }

    pub fn client_spec(&self) -> TensorSpec {
        TensorSpec {
            name: self.name.to_string(),
            dtype: self.dtype.or(self.seen.map(|(dtype, _)| dtype)),
            // Only the number of dimensions is certain: the next request may have other sizes.
            dims: self.dims.clone().or(self.seen.map(|(_, rank)| vec![-1; rank])),
            optional: self.optional,
        }
    }

    fn is_open(&self) -> bool {
        (self.dtype.is_none() || self.dims.is_none()) && self.seen.is_none()
    }

    /// Notes what is open; says whether anything was.
    fn learn(&mut self, dtype: DataType, shape: &Shape) -> bool {
        let open = self.is_open();
        self.seen.get_or_insert((dtype, shape.dims().len()));
        open
    }
}

/// A request that fits the model.
#[derive(Debug)]
pub struct Fitted {
    /// In the order of the request.
    pub inputs: Vec<Input>,
    pub outputs: Outputs,
}

impl Schema {
    /// Checks a request: names, types, shapes, batch, sizes.
    pub fn fit(&self, head: &InferHead) -> Result<Fitted, RequestError> {
        let mut inputs: Vec<Input> = Vec::with_capacity(head.inputs.len());
        let mut batch = None;
        let mut total = 0_usize;
        for decl in &head.inputs {
            let (index, port) = self.input(&decl.name)?;
            if inputs.iter().any(|input| input.index == index) {
                let message = format!("input '{}' already exists in request", decl.name);
                return Err(RequestError::invalid(message));
            }
            inputs.push(self.fit_input(decl, index, port, &mut batch)?);
            total = total.saturating_add(decl.len);
        }
        self.all_required(&inputs)?;
        if total > MAX_TENSOR_BYTES {
            let message = format!(
                "the inputs have {total} bytes, which exceeds the maximum allowed {MAX_TENSOR_BYTES}"
            );
            return Err(RequestError::new(What::TooLarge, message));
        }
        Ok(Fitted { inputs, outputs: self.wanted(head.outputs.as_deref())? })
    }

    /// How many rows a request that fits has; `None` if the model does not batch.
    pub fn rows(&self, head: &InferHead) -> Option<u64> {
        let first = head.inputs.first().filter(|_| self.max_batch > 0)?;
        first.shape.dims().first().copied()
    }

    fn input(&self, name: &str) -> Result<(u32, &Port), RequestError> {
        let found = (0..).zip(&self.inputs).find(|(_, port)| *port.name == *name);
        found.ok_or_else(|| {
            let message = format!("unexpected inference input '{name}' for model '{}'", self.model);
            RequestError::invalid(message)
        })
    }

    fn fit_input(
        &self,
        decl: &InputDecl,
        index: u32,
        port: &Port,
        batch: &mut Option<u64>,
    ) -> Result<Input, RequestError> {
        let InputDecl { name, dtype, shape, len } = decl;
        if let Some(expected) = port.dtype.filter(|expected| expected != dtype) {
            return Err(RequestError::invalid(format!(
                "inference input '{name}' data-type is '{dtype}', but model '{}' expects \
                 '{expected}'",
                self.model
            )));
        }
        self.fit_batch(decl, batch)?;
        if let Some(dims) = port.dims.as_deref().filter(|dims| !matches(dims, shape)) {
            return Err(RequestError::invalid(format!(
                "unexpected shape for input '{name}' for model '{}'. Expected {}, got {shape}",
                self.model,
                show(dims)
            )));
        }
        let bytes = shape.byte_len(*dtype).map_err(|e| too_large(name, e))?;
        if let Some(expected) = bytes.filter(|expected| expected != len) {
            return Err(RequestError::invalid(format!(
                "unexpected total byte size {len} for input '{name}', expecting {expected}"
            )));
        }
        let shape = match &port.model_dims {
            Some(dims) => reshape(shape, dims, name)?,
            None => *shape,
        };
        Ok(Input { index, dtype: *dtype, shape, len: *len })
    }

    fn fit_batch(&self, decl: &InputDecl, batch: &mut Option<u64>) -> Result<(), RequestError> {
        if self.max_batch == 0 {
            return Ok(());
        }
        let (name, model) = (&decl.name, &self.model);
        let Some(&rows) = decl.shape.dims().first() else {
            let message = format!("input '{name}' of model '{model}' has no batch dimension");
            return Err(RequestError::invalid(message));
        };
        if rows == 0 || rows > u64::from(self.max_batch) {
            return Err(RequestError::invalid(format!(
                "inference request batch-size must be from 1 to {} for '{model}', input '{name}' \
                 has {rows}",
                self.max_batch
            )));
        }
        if *batch.get_or_insert(rows) != rows {
            let message =
                format!("input '{name}' batch size does not match other inputs for '{model}'");
            return Err(RequestError::invalid(message));
        }
        Ok(())
    }

    fn all_required(&self, inputs: &[Input]) -> Result<(), RequestError> {
        let missing = (0_u32..).zip(&self.inputs).find(|(index, port)| {
            !port.optional && !inputs.iter().any(|input| input.index == *index)
        });
        match missing {
            None => Ok(()),
            Some((_, port)) => Err(RequestError::invalid(format!(
                "expected {} inputs but got {} inputs for model '{}': input '{}' is missing",
                self.inputs.len(),
                inputs.len(),
                self.model,
                port.name
            ))),
        }
    }

    fn wanted(&self, names: Option<&[String]>) -> Result<Outputs, RequestError> {
        let known = u32::try_from(self.outputs.len().min(MAX_TENSORS)).expect("at most 64");
        let all = if known == u64::BITS { u64::MAX } else { (1 << known) - 1 };
        let Some(names) = names else {
            return Ok(Outputs { known, wanted: all, order: Vec::new() });
        };
        let mut wanted = 0_u64;
        let mut order = Vec::with_capacity(names.len());
        for name in names {
            let index = self.outputs.iter().position(|port| *port.name == **name);
            let index = index.ok_or_else(|| {
                RequestError::invalid(format!(
                    "unexpected inference output '{name}' for model '{}'",
                    self.model
                ))
            })?;
            if wanted & (1 << index) != 0 {
                let message = format!("output '{name}' already exists in request");
                return Err(RequestError::invalid(message));
            }
            wanted |= 1 << index;
            order.push(u32::try_from(index).expect("at most MAX_TENSORS"));
        }
        Ok(Outputs { known, wanted, order })
    }

    /// Names an output of a reply and gives it the shape that clients see. What contradicts the
    /// configuration is the model's error.
    pub fn output(&self, desc: &TensorDesc) -> Result<ReplyTensor, RequestError> {
        let port = self.outputs.get(desc.index as usize);
        let port = port.ok_or_else(|| self.odd("an unknown output", "gives one", &desc.index))?;
        if let Some(dtype) = port.dtype.filter(|&dtype| dtype != desc.dtype) {
            return Err(self.odd(&port.name, dtype, &desc.dtype));
        }
        let model_dims = port.model_dims.as_ref().or(port.dims.as_ref());
        if let Some(dims) = model_dims.filter(|dims| !matches(dims, &desc.shape)) {
            return Err(self.odd(&port.name, show(dims), &desc.shape));
        }
        let shape = match (&port.model_dims, &port.dims) {
            (Some(_), Some(dims)) => reshape(&desc.shape, dims, &port.name)?,
            (None, _) | (_, None) => desc.shape,
        };
        let (dtype, len) = (desc.dtype, desc.len);
        Ok(ReplyTensor { name: Arc::clone(&port.name), dtype, shape, len })
    }

    fn odd(
        &self,
        output: &str,
        expected: impl std::fmt::Display,
        got: &dyn std::fmt::Display,
    ) -> RequestError {
        let message = format!(
            "model '{}' was configured to give {expected} for output '{output}', but gave {got}",
            self.model
        );
        RequestError::new(What::Model, message)
    }

    /// A schema that knows what this request and its reply showed, if that is more.
    pub fn learned(&self, inputs: &[Input], outputs: &[TensorDesc]) -> Option<Self> {
        if !self.inputs.iter().chain(&self.outputs).any(Port::is_open) {
            return None;
        }
        let mut schema = self.clone();
        let mut more = false;
        for input in inputs {
            let port = schema.inputs.get_mut(input.index as usize);
            more |= port.is_some_and(|port| port.learn(input.dtype, &input.shape));
        }
        for output in outputs {
            let port = schema.outputs.get_mut(output.index as usize);
            more |= port.is_some_and(|port| port.learn(output.dtype, &output.shape));
        }
        more.then_some(schema)
    }
}

fn matches(dims: &[i64], shape: &Shape) -> bool {
    let fits = |(&dim, &size): (&i64, &u64)| dim == -1 || u64::try_from(dim) == Ok(size);
    dims.len() == shape.dims().len() && dims.iter().zip(shape.dims()).all(fits)
}

/// `dims` with as many elements as `from`: the batch (if any) is taken over where `dims` starts
/// with -1 and `from` has a first dimension; one further -1 is worked out.
fn reshape(from: &Shape, dims: &[i64], name: &str) -> Result<Shape, RequestError> {
    let impossible = || {
        let message = format!("'{name}' of shape {from} cannot be reshaped to {}", show(dims));
        RequestError::invalid(message)
    };
    let mut sizes = Vec::with_capacity(dims.len());
    let mut open = Vec::new();
    for (i, &dim) in dims.iter().enumerate() {
        match (u64::try_from(dim), from.dims().first()) {
            (Ok(size), _) => sizes.push(size),
            (Err(_), Some(&batch)) if i == 0 => sizes.push(batch),
            (Err(_), _) => {
                open.push(i);
                sizes.push(1);
            }
        }
    }
    if let [at] = open[..] {
        let rest = sizes.iter().try_fold(1_u64, |all, &size| all.checked_mul(size));
        let rest = rest.ok_or_else(impossible)?;
        sizes[at] = from.elements().checked_div(rest).ok_or_else(impossible)?;
    }
    let shape = Shape::new(&sizes).map_err(|_| impossible())?;
    if shape.elements() == from.elements() && open.len() <= 1 {
        Ok(shape)
    } else {
        Err(impossible())
    }
}

fn too_large(name: &str, error: InvalidShape) -> RequestError {
    let what = match error {
        InvalidShape::TooLarge => What::TooLarge,
        InvalidShape::TooManyDims(_) | InvalidShape::Overflow => What::Invalid,
    };
    RequestError::new(what, format!("input '{name}': {error}"))
}

fn show(dims: &[i64]) -> String {
    let dims: Vec<String> = dims.iter().map(i64::to_string).collect();
    format!("[{}]", dims.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Repeat;

    fn port(name: &str, dtype: DataType, dims: &[i64]) -> Port {
        let dims = Some(dims.to_vec());
        Port {
            name: name.into(),
            dtype: Some(dtype),
            dims,
            model_dims: None,
            optional: false,
            seen: None,
        }
    }

    fn schema() -> Schema {
        Schema {
            model: "m".to_owned(),
            max_batch: 8,
            inputs: vec![
                port("a", DataType::Fp32, &[-1, 2]),
                Port { optional: true, ..port("b", DataType::Int64, &[-1, -1]) },
            ],
            outputs: vec![port("x", DataType::Fp32, &[-1, 2]), port("y", DataType::Fp32, &[-1])],
        }
    }

    fn decl(name: &str, dtype: DataType, dims: &[u64]) -> InputDecl {
        let shape = Shape::new(dims).unwrap();
        let len = shape.byte_len(dtype).unwrap().unwrap_or(0);
        InputDecl { name: name.to_owned(), dtype, shape, len }
    }

    fn head_of(inputs: Vec<InputDecl>) -> InferHead {
        head(inputs)
    }

    fn head(inputs: Vec<InputDecl>) -> InferHead {
        InferHead { client_id: None, inputs, outputs: None, timeout: None, repeat: Repeat::Allowed }
    }

    fn refusal(inputs: Vec<InputDecl>) -> String {
        schema().fit(&head(inputs)).unwrap_err().message
    }

    #[test]
    fn a_request_that_fits_is_taken_in_its_own_order() {
        let a = || decl("a", DataType::Fp32, &[3, 2]);
        let both = schema().fit(&head(vec![decl("b", DataType::Int64, &[3, 7]), a()])).unwrap();
        assert_eq!(both.inputs.iter().map(|i| i.index).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(both.outputs.wanted, 0b11);
        let mut one = head(vec![a()]);
        one.outputs = Some(vec!["y".to_owned()]);
        assert_eq!(schema().fit(&one).unwrap().outputs.wanted, 0b10);
        one.outputs = Some(vec!["y".to_owned(), "x".to_owned()]);
        assert_eq!(schema().fit(&one).unwrap().outputs.order, [1, 0]);
        one.outputs = Some(vec!["y".to_owned(), "y".to_owned()]);
        assert!(schema().fit(&one).unwrap_err().message.contains("already exists"));
    }

    #[test]
    fn each_contradiction_is_named() {
        let fp = DataType::Fp32;
        assert!(refusal(vec![]).contains("'a' is missing"));
        assert!(refusal(vec![decl("c", fp, &[1])]).contains("unexpected inference input 'c'"));
        let twice = vec![decl("a", fp, &[1, 2]), decl("a", fp, &[1, 2])];
        assert!(refusal(twice).contains("already exists"));
        assert!(refusal(vec![decl("a", DataType::Int32, &[1, 2])]).contains("expects 'FP32'"));
        let shape = refusal(vec![decl("a", fp, &[1, 3])]);
        assert!(shape.contains("Expected [-1,2], got [1,3]"), "{shape}");
        assert!(refusal(vec![decl("a", fp, &[9, 2])]).contains("from 1 to 8"));
        assert!(refusal(vec![decl("a", fp, &[0, 2])]).contains("from 1 to 8"));
        assert!(refusal(vec![decl("a", fp, &[])]).contains("no batch"));
        let odd = vec![decl("a", fp, &[1, 2]), decl("b", DataType::Int64, &[2, 1])];
        assert!(refusal(odd).contains("does not match"));
        let short = InputDecl { len: 7, ..decl("a", fp, &[1, 2]) };
        assert!(refusal(vec![short]).contains("byte size 7"));
        let mut unknown = head(vec![decl("a", fp, &[1, 2])]);
        unknown.outputs = Some(vec!["z".to_owned()]);
        assert!(schema().fit(&unknown).is_err());
    }

    #[test]
    fn reshape_keeps_the_elements_both_ways() {
        let mut schema = schema();
        schema.inputs[0].model_dims = Some(vec![-1, 1, 2]);
        schema.outputs[0].model_dims = Some(vec![-1, 1, 1, 2]);
        let fitted = schema.fit(&head(vec![decl("a", DataType::Fp32, &[3, 2])])).unwrap();
        assert_eq!(fitted.inputs[0].shape.dims(), [3, 1, 2]);
        let shape = Shape::new(&[3, 1, 1, 2]).unwrap();
        let desc = TensorDesc { index: 0, dtype: DataType::Fp32, shape, offset: 0, len: 24 };
        assert_eq!(schema.output(&desc).unwrap().shape.dims(), [3, 2]);
        let wrong = TensorDesc { shape: Shape::new(&[3, 2]).unwrap(), ..desc };
        assert_eq!(schema.output(&wrong).unwrap_err().what, What::Model);
    }

    #[test]
    fn what_is_open_is_learned_once() {
        let mut open = schema();
        open.max_batch = 0;
        open.inputs.truncate(1);
        (open.inputs[0].dtype, open.inputs[0].dims) = (None, None);
        let head = head(vec![decl("a", DataType::Int8, &[4, 4])]);
        let inputs = open.fit(&head).unwrap().inputs;
        let learned = open.learned(&inputs, &[]).unwrap();
        let shown = learned.inputs[0].client_spec();
        assert_eq!((shown.dtype, shown.dims), (Some(DataType::Int8), Some(vec![-1, -1])));
        let other = head_of(vec![decl("a", DataType::Fp64, &[2])]);
        assert!(learned.fit(&other).is_ok(), "it is no rule for others");
        assert_eq!(learned.learned(&inputs, &[]), None);
    }
}
