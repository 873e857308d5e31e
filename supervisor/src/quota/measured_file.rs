//! Where it is kept what models were seen to need, from one run of the server to the next.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::measured::Measured;

/// Most bytes that are read; a full file has about half of it.
const MOST_BYTES: u64 = 4 << 20;

/// Reads it; what is not there, or not what was written, is nothing.
pub(super) fn read(path: &Path) -> Measured {
    let text = match File::open(path).and_then(|file| {
        let mut text = String::new();
        file.take(MOST_BYTES).read_to_string(&mut text).map(|_| text)
    }) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Measured::default(),
        Err(error) => {
            warn!(file = %path.display(), %error, "cannot read what models need of devices");
            return Measured::default();
        }
    };
    serde_json::from_str(&text).map(Measured::bounded).unwrap_or_else(|error| {
        warn!(file = %path.display(), %error, "what models need of devices is measured anew");
        Measured::default()
    })
}

/// Puts it in place of what is there, in one step.
pub(super) fn write(path: &Path, measured: &Measured) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = File::create(&beside)?;
    serde_json::to_writer(&mut file, measured)?;
    file.flush()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use shared::id::{ModelName, ModelVersion};

    use super::super::measured::Subject;
    use super::*;

    #[test]
    fn what_was_written_is_read_and_anything_else_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/measured.json");
        assert_eq!(read(&path), Measured::default());
        let mut measured = Measured::default();
        let version = ModelVersion::new(1).unwrap();
        let subject = Subject::new(&ModelName::new("m").unwrap(), version, "fake");
        assert!(measured.note(subject, "echo", "echo 1", 5));
        write(&path, &measured).unwrap();
        assert_eq!(read(&path), measured);
        fs::write(&path, "[1, 2").unwrap();
        assert_eq!(read(&path), Measured::default());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(read(&path), Measured::default());
    }
}
