//! What operators changed, written down: in the log, and in a file of its own if there is one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;
use serde_json::json;
use shared::text::clean;
use tokio::time::timeout;
use tracing::{info, warn};

use super::peer::Peer;

/// How long a line may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest part of an outcome that is written down.
const MAX_DETAIL_BYTES: usize = 1024;

#[derive(Clone, Debug)]
pub struct Audit {
    file: Option<PathBuf>,
}

/// Something that was asked, and what came of it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) peer: Peer,
    pub(super) command: &'static str,
    pub(super) model: Option<String>,
    /// `ok`, or the code of the failure.
    pub(super) outcome: String,
    /// In others' words.
    pub(super) detail: String,
}

impl Audit {
    /// The file is opened, and made if it is not there, so that it is known now whether that can be.
    pub fn new(file: Option<&Path>) -> io::Result<Self> {
        if let Some(file) = file {
            if let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let _opened = open(file)?;
        }
        Ok(Self { file: file.map(Path::to_owned) })
    }

    pub(super) async fn note(&self, entry: Entry) {
        let Entry { peer, command, model, outcome, detail } = entry;
        let (uid, gid, pid) = (peer.uid, peer.gid, peer.pid);
        let detail = clean(&detail, MAX_DETAIL_BYTES);
        let shown = model.as_deref();
        info!(
            target: "audit",
            uid, gid, pid, command, model = shown, outcome, detail, "operator command"
        );
        let Some(file) = self.file.clone() else { return };
        let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let line = json!({
            "at": at, "uid": uid, "gid": gid, "pid": pid, "command": command, "model": model,
            "outcome": outcome, "detail": detail,
        });
        let write = move || append(&file, &format!("{line}\n")).map_err(|error| (file, error));
        // Without a thread for it the log has to do, and nobody waits for a disk that does not answer.
        match timeout(PATIENCE, tokio::task::spawn_blocking(write)).await {
            Ok(Ok(Err((file, error)))) => {
                warn!(file = %file.display(), %error, "admin.audit_log cannot be written");
            }
            Ok(Ok(Ok(())) | Err(_)) => {}
            Err(_late) => warn!(patience = ?PATIENCE, "admin.audit_log is not waited for any more"),
        }
    }
}

/// Anew for each line: whoever rotates the file has to tell nobody.
fn append(file: &Path, line: &str) -> io::Result<()> {
    open(file)?.write_all(line.as_bytes())
}

fn open(file: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
    options.open(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_line_for_each_command_whatever_others_say() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("made/audit.jsonl");
        let audit = Audit::new(Some(&file)).unwrap();
        let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        for detail in ["fine", "no\n{\"uid\":0,\"command\":\"drain\"}\n\u{1b}[2K\u{202e}"] {
            let peer = Peer { uid: 7, gid: 8, pid: Some(9) };
            let (model, outcome) = (Some("m".to_owned()), "ok".to_owned());
            let detail = detail.to_owned();
            audit.note(Entry { peer, command: "load", model, outcome, detail }).await;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.chars().all(|c| c == '\n' || c.is_ascii_graphic() || c == ' '), "{text:?}");
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(
            (&line["uid"], &line["pid"], &line["command"]),
            (&7.into(), &9.into(), &"load".into())
        );
    }

    #[test]
    fn a_link_in_the_place_of_the_file_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("audit");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        assert!(Audit::new(Some(&link)).is_err());
    }
}
