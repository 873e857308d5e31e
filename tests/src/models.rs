//! A model repository in a temporary folder.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The folder that a server of a test reads models from. Removed when dropped.
#[derive(Debug)]
pub struct Repository {
    folder: TempDir,
}

impl Default for Repository {
    fn default() -> Self {
        Self { folder: tempfile::tempdir().expect("there is a folder for temporary files") }
    }
}

impl Repository {
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a model of the echo engine, in place of one of the same name.
    pub fn echo(&self, name: &str, echo: &Echo) {
        self.config(name, &echo.config());
        for version in &echo.versions {
            self.version(name, *version);
        }
    }

    /// Writes a `config.pbtxt`, whatever it says.
    pub fn config(&self, name: &str, text: &str) {
        let folder = self.model(name);
        fs::create_dir_all(&folder).expect("the folder is ours");
        fs::write(folder.join("config.pbtxt"), text).expect("the folder is ours");
    }

    /// Makes the folder of a version, which may be there already.
    pub fn version(&self, name: &str, version: u64) -> PathBuf {
        let folder = self.model(name).join(version.to_string());
        fs::create_dir_all(&folder).expect("the folder is ours");
        folder
    }

    /// Copies a TorchScript file, as version 1 of a model without a configuration.
    pub fn torch(&self, name: &str, file: &Path) {
        let target = self.version(name, 1).join("model.pt");
        fs::copy(file, target).expect("the model file can be read");
    }

    /// Copies version 1 of a TorchScript model with its configuration.
    pub fn copy_of(&self, name: &str, model: &Path) {
        let text = fs::read_to_string(model.join("config.pbtxt")).expect("a model has one");
        self.config(name, &text);
        self.torch(name, &model.join("1/model.pt"));
    }

    pub fn remove(&self, name: &str) {
        fs::remove_dir_all(self.model(name)).expect("the model is there");
    }

    fn model(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// A model of the echo engine: one input of any length, and a COMMAND that may be left out.
#[derive(Clone, Debug)]
pub struct Echo {
    datatype: String,
    parameters: Vec<(String, String)>,
    versions: Vec<u64>,
    more: String,
}

impl Default for Echo {
    fn default() -> Self {
        Self {
            datatype: "TYPE_FP32".into(),
            parameters: Vec::new(),
            versions: vec![1],
            more: String::new(),
        }
    }
}

impl Echo {
    #[must_use]
    pub fn datatype(mut self, datatype: &str) -> Self {
        self.datatype = datatype.into();
        self
    }

    /// A parameter of the engine, as `load_delay_ms`.
    #[must_use]
    pub fn parameter(mut self, key: &str, value: &str) -> Self {
        self.parameters.push((key.into(), value.into()));
        self
    }

    #[must_use]
    pub fn versions(mut self, versions: &[u64]) -> Self {
        self.versions = versions.to_vec();
        self
    }

    /// Further fields of the configuration.
    #[must_use]
    pub fn with(mut self, text: &str) -> Self {
        self.more.push_str(text);
        self.more.push('\n');
        self
    }

    /// Its `config.pbtxt`.
    pub fn config(&self) -> String {
        let parameters = self.parameters.iter().map(|(key, value)| {
            format!("parameters {{ key: \"{key}\" value {{ string_value: \"{value}\" }} }}\n")
        });
        let (datatype, parameters, more) =
            (&self.datatype, parameters.collect::<String>(), &self.more);
        format!(
            r#"backend: "echo"
input [
  {{ name: "INPUT0" data_type: {datatype} dims: [ -1 ] }},
  {{ name: "COMMAND" data_type: TYPE_STRING dims: [ 1 ] optional: true }}
]
output [ {{ name: "OUTPUT0" data_type: {datatype} dims: [ -1 ] }} ]
{parameters}{more}"#
        )
    }
}
