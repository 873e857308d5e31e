//! A file that says where the running server can be reached, so that nothing needs a fixed port.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

#[derive(Serialize)]
struct Content {
    pid: u32,
    version: &'static str,
    http: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<String>,
}

/// The file, removed when this value is dropped.
#[derive(Debug)]
pub struct RuntimeFile(PathBuf);

impl RuntimeFile {
    /// Writes it whole or not at all: a reader never sees half of it.
    pub fn write(path: &Path, http: SocketAddr, metrics: Option<SocketAddr>) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let version = env!("CARGO_PKG_VERSION");
        let content = Content {
            pid: std::process::id(),
            version,
            http: http.to_string(),
            metrics: metrics.map(|address| address.to_string()),
        };
        let text = serde_json::to_string(&content).map_err(io::Error::other)?;
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}", std::process::id()));
        std::fs::write(&fresh, text + "\n")?;
        std::fs::rename(&fresh, path)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for RuntimeFile {
    fn drop(&mut self) {
        // Another server may have taken the path over; its file is not ours to remove.
        let ours = format!("\"pid\":{},", std::process::id());
        if std::fs::read_to_string(&self.0).is_ok_and(|text| text.contains(&ours)) {
            let _gone = std::fs::remove_file(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_whole_and_goes_with_its_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/b.json");
        let file = RuntimeFile::write(&path, "127.0.0.1:8000".parse().unwrap(), None).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["http"], "127.0.0.1:8000");
        drop(file);
        assert!(!path.exists());
    }
}
