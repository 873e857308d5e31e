//! What is answered over the admin socket: one JSON object a line.
//!
//! ```text
//! {"version":1,"ok":…}                                        the answer
//! {"version":1,"error":{"code":"unknown_model","message":…}}  why there is none
//! {"version":1,"item":…}                                      one of a stream's
//! {"version":1,"end":{"why":…}}                               the last line of a stream
//! ```
//! What stands behind `ok` and `item` depends on the command; each has a type here or in
//! [`status`](super::status). A reader must not mind keys that it does not know.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::request::VERSION;
use super::status::Exit;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply<T> {
    Ok(T),
    Error(Failure),
    Item(T),
    End(End),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub code: Code,
    /// For a person.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The line is no request of a version that is spoken here.
    BadRequest,
    /// Whoever asks may not.
    Refused,
    /// Too many ask at a time.
    Busy,
    UnknownModel,
    /// This server does not do it.
    Unsupported,
    /// It was tried, and did not come about.
    Failed,
    /// The server ends.
    ShuttingDown,
    /// Of a newer server.
    #[serde(other)]
    Unknown,
}

/// Why a stream is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub why: String,
}

#[derive(Serialize)]
struct Written<'a, T> {
    version: u32,
    #[serde(flatten)]
    reply: &'a Reply<T>,
}

#[derive(Deserialize)]
struct Read<T> {
    #[serde(flatten)]
    reply: Reply<T>,
}

/// A line that is no reply.
#[derive(Debug, thiserror::Error)]
#[error("the server's answer cannot be read")]
pub struct Unreadable(#[from] serde_json::Error);

impl<T: Serialize> Reply<T> {
    /// As a line, with its end.
    #[must_use]
    pub fn line(&self) -> String {
        let line = serde_json::to_string(&Written { version: VERSION, reply: self });
        let mut line = line.expect("all keys are texts");
        line.push('\n');
        line
    }
}

impl<T: DeserializeOwned> Reply<T> {
    pub fn parse(line: &str) -> Result<Self, Unreadable> {
        let Read { reply } = serde_json::from_str(line)?;
        Ok(reply)
    }
}

impl<T> Reply<T> {
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self::Error(Failure { code, message: message.into() })
    }
}

/// Of commands that change something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What has been done, as `unloaded`.
    pub did: String,
}

/// Of `exits`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exits {
    pub instances: Vec<InstanceExits>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceExits {
    pub version: u64,
    pub instance: u16,
    /// How often each kind has occurred.
    pub counts: BTreeMap<String, u64>,
    /// The latest ones, oldest first.
    pub exits: Vec<Exit>,
}

/// Of `logs`: what there is now, oldest first. A stream has one for each item.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLines {
    /// Lines before these that there were and that are kept no more, or that the reader was too slow for.
    pub lost: u64,
    pub lines: Vec<LogLine>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Milliseconds since 1970, UTC.
    pub at: u64,
    pub version: u64,
    pub instance: u16,
    pub generation: u64,
    /// `error`, `warn`, `info` or `debug`.
    pub level: String,
    pub text: String,
}

/// Of `quota`. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Processes.
    pub workers: Account,
    /// The slots of all workers.
    pub arenas: Account,
    pub devices: Vec<DeviceAccount>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub used: u64,
    pub capacity: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAccount {
    pub id: String,
    pub index: u16,
    pub name: String,
    #[serde(flatten)]
    pub account: Account,
    /// It keeps memory of a worker that is gone, and nothing more is placed there.
    pub suspect: bool,
    pub holders: Vec<Holder>,
}

/// A worker that was granted a part of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub model: String,
    pub version: u64,
    pub bytes: u64,
    /// Its process has ended, and what it had is not yet seen to be free.
    pub leaving: bool,
}

/// Of `config_show`: each key with its value as it would stand in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// `None` if there is none.
    pub file: Option<String>,
    pub entries: Vec<ConfigEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigEntry {
    pub key: String,
    pub value: String,
}

/// Of `config_diff`, `config_reload` and `reload`: what would change, or has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChanges {
    pub changes: Vec<ConfigChange>,
    /// In words, what came of the changes; empty where nothing was done.
    pub notes: Vec<String>,
    /// Whether all models have come to what is wished of them. What differs holds either way.
    pub complete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChange {
    pub key: String,
    pub old: String,
    pub new: String,
    /// What it takes to hold: `live`, `workers` or `server`.
    pub takes: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reply_is_one_line_that_can_be_read_again() {
        let did = || Done { did: "a\nb\u{1b}".into() };
        let replies = [
            (Reply::Ok(did()), r#"{"version":1,"ok":{"did":"a\nb\u001b"}}"#),
            (Reply::Item(did()), r#"{"version":1,"item":{"did":"a\nb\u001b"}}"#),
            (
                Reply::error(Code::UnknownModel, "no"),
                r#"{"version":1,"error":{"code":"unknown_model","message":"no"}}"#,
            ),
            (Reply::End(End { why: "x".into() }), r#"{"version":1,"end":{"why":"x"}}"#),
        ];
        for (reply, line) in replies {
            assert_eq!(reply.line(), format!("{line}\n"));
            assert_eq!(Reply::<Done>::parse(line).unwrap(), reply);
        }
    }

    #[test]
    fn what_a_newer_server_says_can_be_read() {
        let line = r#"{"version":1,"error":{"code":"tired","message":"x","until":3},"load":0.5}"#;
        let Reply::Error(failure) = Reply::<Done>::parse(line).unwrap() else { panic!("{line}") };
        assert_eq!((failure.code, failure.message.as_str()), (Code::Unknown, "x"));
        assert!(Reply::<Done>::parse("{}").is_err());
    }
}
