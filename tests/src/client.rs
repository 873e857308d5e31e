//! A small HTTP/1.1 client: one connection that is kept, and everything it sends in plain sight.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Map, Value, json};

use crate::wait::WATCHDOG;

/// A connection to a server, made when it is needed and again after it was closed.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, connection: None }
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, &[], b"").expect("the server answers")
    }

    pub fn post(&mut self, path: &str, body: &str) -> Response {
        self.request("POST", path, &[], body.as_bytes()).expect("the server answers")
    }

    pub fn load(&mut self, model: &str) -> Response {
        self.post(&format!("/v2/repository/models/{model}/load"), "")
    }

    pub fn unload(&mut self, model: &str) -> Response {
        self.post(&format!("/v2/repository/models/{model}/unload"), "")
    }

    pub fn is_ready(&mut self, model: &str) -> bool {
        self.get(&format!("/v2/models/{model}/ready")).status == 200
    }

    /// The state of a model in the repository index and the reason for it, by version.
    pub fn index(&mut self, model: &str) -> Vec<Listed> {
        let all = self.post("/v2/repository/index", "").json();
        let lines = all.as_array().cloned().unwrap_or_default().into_iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let of_model = lines.filter(|line| line["name"] == model);
        of_model
            .map(|line| Listed {
                version: text(&line["version"]),
                state: text(&line["state"]),
                reason: text(&line["reason"]),
            })
            .collect()
    }

    /// Sends an inference with binary tensors, as most clients do.
    pub fn infer(&mut self, infer: &Infer) -> Response {
        self.try_infer(infer).expect("the server answers")
    }

    pub fn try_infer(&mut self, infer: &Infer) -> io::Result<Response> {
        self.send_infer(infer)?;
        self.receive()
    }

    pub(crate) fn send_infer(&mut self, infer: &Infer) -> io::Result<()> {
        let (length, body) = infer.binary();
        let length = length.to_string();
        let headers = [("Inference-Header-Content-Length", length.as_str())];
        self.send_request("POST", &infer.path(), &headers, &body)
    }

    /// One request and its answer. Only an answer that breaks off is an error.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        self.send_request(method, path, headers, body)?;
        self.receive()
    }

    pub(crate) fn send_request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<()> {
        let more: String = headers.iter().map(|(k, v)| format!("{k}: {v}\r\n")).collect();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n{more}\r\n"
        );
        self.send(&[head.as_bytes(), body].concat())
    }

    /// The server's end of the connection that there is, and this one.
    pub(crate) fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let stream = self.connection.as_ref()?.get_ref();
        Some((stream.peer_addr().ok()?, stream.local_addr().ok()?))
    }

    /// Sends bytes, which need be no whole request.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(self.address)?,
        };
        // A server that refuses a body early may have closed its side; its answer is there.
        match connection.get_mut().write_all(bytes) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            Err(e) => return Err(e),
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Reads the next answer.
    pub fn receive(&mut self) -> io::Result<Response> {
        let mut connection = self.connection.take().ok_or(io::ErrorKind::NotConnected)?;
        let response = read(&mut connection)?;
        if response.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        Ok(response)
    }

    /// Reads a head that has no body, as that of `100 Continue`.
    pub fn receive_head(&mut self) -> io::Result<Response> {
        let mut connection = self.connection.take().ok_or(io::ErrorKind::NotConnected)?;
        let head = read_head(&mut connection)?;
        self.connection = Some(connection);
        Ok(head)
    }

    /// Closes the connection, in the middle of whatever it is.
    pub fn hang_up(&mut self) {
        self.connection = None;
    }
}

/// One line of the repository index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub version: String,
    pub state: String,
    pub reason: String,
}

fn connect(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(WATCHDOG))?;
    stream.set_write_timeout(Some(WATCHDOG))?;
    Ok(BufReader::new(stream))
}

fn read(connection: &mut BufReader<TcpStream>) -> io::Result<Response> {
    let mut response = read_head(connection)?;
    let length = response.header("content-length").and_then(|length| length.parse().ok());
    response.body = vec![0; length.ok_or_else(|| bad("no length"))?];
    connection.read_exact(&mut response.body)?;
    Ok(response)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn read_head(connection: &mut BufReader<TcpStream>) -> io::Result<Response> {
    let status = line(connection)?;
    let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| bad("no status"))?;
    let mut headers = Vec::new();
    loop {
        let line = line(connection)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad("no header"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Response { status, headers, body: Vec::new() })
}

fn line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The JSON of it, which may stand before binary tensors.
    pub fn json(&self) -> Value {
        let length = self.header("inference-header-content-length");
        let end = length.and_then(|length| length.parse().ok()).unwrap_or(self.body.len());
        serde_json::from_slice(&self.body[..end]).unwrap_or_default()
    }

    /// The binary outputs, one after the other.
    pub fn data(&self) -> &[u8] {
        let length = self.header("inference-header-content-length");
        length.and_then(|length| self.body.get(length.parse::<usize>().ok()?..)).unwrap_or_default()
    }

    /// The message of an error.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn assert_status(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

/// An inference.
#[derive(Clone, Debug)]
pub struct Infer {
    model: String,
    version: Option<u64>,
    tensors: Vec<Tensor>,
    parameters: Map<String, Value>,
}

/// One input, with its elements as they are on the wire.
#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    datatype: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Infer {
    pub fn new(model: &str) -> Self {
        let parameters = Map::from_iter([("binary_data_output".to_owned(), Value::Bool(true))]);
        Self { model: model.into(), version: None, tensors: Vec::new(), parameters }
    }

    /// What a model of the echo engine gives back: a few numbers.
    pub fn echo(model: &str) -> Self {
        Self::new(model).floats(&[1.0, -2.5, 3.25, 0.0])
    }

    /// An echo that does something else first.
    pub fn command(model: &str, command: &str) -> Self {
        Self::echo(model).and_command(command)
    }

    #[must_use]
    pub fn and_command(self, command: &str) -> Self {
        let length = u32::try_from(command.len()).expect("commands are short");
        let bytes = [&length.to_le_bytes(), command.as_bytes()].concat();
        self.tensor("COMMAND", "BYTES", &[1], &bytes)
    }

    #[must_use]
    pub fn version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    /// A parameter of the request, as `timeout`.
    #[must_use]
    pub fn parameter(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.parameters.insert(name.into(), value.into());
        self
    }

    /// It must not be given to a second worker when the first one ends.
    #[must_use]
    pub fn once(self) -> Self {
        self.parameter("retry", false)
    }

    #[must_use]
    pub fn floats(self, values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor("INPUT0", "FP32", &[values.len()], &bytes)
    }

    #[must_use]
    pub fn tensor(mut self, name: &str, datatype: &str, shape: &[usize], bytes: &[u8]) -> Self {
        let (name, datatype) = (name.to_owned(), datatype.to_owned());
        self.tensors.push(Tensor { name, datatype, shape: shape.to_vec(), bytes: bytes.to_vec() });
        self
    }

    pub fn path(&self) -> String {
        let version = self.version.map(|version| format!("/versions/{version}"));
        format!("/v2/models/{}{}/infer", self.model, version.unwrap_or_default())
    }

    /// The length of the JSON, and the whole body.
    pub fn binary(&self) -> (usize, Vec<u8>) {
        let inputs = self.tensors.iter().map(|tensor| {
            json!({
                "name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape,
                "parameters": { "binary_data_size": tensor.bytes.len() },
            })
        });
        let inputs: Vec<Value> = inputs.collect();
        let head = json!({ "inputs": inputs, "parameters": self.parameters });
        let mut body = head.to_string().into_bytes();
        let length = body.len();
        for tensor in &self.tensors {
            body.extend(&tensor.bytes);
        }
        (length, body)
    }

    /// The bytes of the first input: what an echo gives back.
    pub fn first(&self) -> &[u8] {
        self.tensors.first().map(|tensor| tensor.bytes.as_slice()).unwrap_or_default()
    }

    /// Whether `response` is what an echo gives back for this.
    pub fn is_echoed_by(&self, response: &Response) -> bool {
        response.status == 200 && response.data() == self.first()
    }
}
