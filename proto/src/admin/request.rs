//! What is asked over the admin socket: one JSON object a line.
//!
//! ```text
//! {"version":1,"command":"status"}
//! {"version":1,"command":"unload","model":"digits","wait":false}
//! ```
//! A key that a command does not have is an error, so that nothing that was meant is left undone in
//! silence. A line has at most [`MAX_LINE_BYTES`], and what is nested in it is bounded by the parser.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::id::ModelName;
use shared::text::clean;

/// Of requests and replies. A server refuses what it does not speak.
pub const VERSION: u32 = 1;
/// Longest line that a server reads.
pub const MAX_LINE_BYTES: usize = 64 << 10;
/// Most lines of output that can be asked for at once; a server may keep fewer.
pub const MAX_LOG_LINES: u32 = 10_000;
/// Longest part of an error of the parser that is passed on.
const MAX_WHY_BYTES: usize = 300;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// How the server does, or one model of it.
    Status {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<ModelName>,
    },
    /// The same as a stream: now, and whenever it has changed.
    Watch {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<ModelName>,
    },
    /// Load the model, or load it anew. Answered when it serves.
    Load {
        model: ModelName,
    },
    Unload {
        model: ModelName,
        /// Whether to answer only when its processes are gone.
        #[serde(default = "yes")]
        wait: bool,
    },
    /// Apply the configuration on disk, of all or of one model.
    Reload {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<ModelName>,
    },
    /// New workers for a model, of the versions that are loaded, without a failed request.
    Restart {
        model: ModelName,
    },
    /// End the server as SIGTERM does. Answered when that has begun.
    Drain {},
    /// Let a quarantined model try again, with a budget of restarts that is new. Answered when it serves.
    Reset {
        model: ModelName,
    },
    /// How the model's workers ended.
    Exits {
        model: ModelName,
    },
    /// What the model's workers wrote last; with `follow` a stream of what they write from now on, too.
    Logs {
        model: ModelName,
        #[serde(default = "last_lines")]
        lines: u32,
        #[serde(default)]
        follow: bool,
    },
    Devices {},
    /// Who holds what of what there is to give.
    Quota {},
    ConfigShow {},
    /// What the configuration on disk would change.
    ConfigDiff {},
    /// Apply the configuration on disk.
    ConfigReload {
        /// Whether to answer only when the models have come to what is wished of them.
        #[serde(default = "yes")]
        wait: bool,
    },
}

fn yes() -> bool {
    true
}

/// Without a number of lines.
#[must_use]
pub fn last_lines() -> u32 {
    100
}

/// Why a line is no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("version {0} is not spoken here, version {VERSION} is")]
    Version(String),
    #[error("not a request: {0}")]
    Malformed(String),
}

impl Command {
    /// Reads a line, with or without its end.
    pub fn parse(line: &[u8]) -> Result<Self, BadRequest> {
        let malformed = |error: serde_json::Error| {
            // The parser repeats what it was given.
            BadRequest::Malformed(clean(&error.to_string(), MAX_WHY_BYTES))
        };
        let mut object: Map<String, Value> = serde_json::from_slice(line).map_err(malformed)?;
        match object.remove("version") {
            Some(version) if version == VERSION => {}
            Some(version) => {
                return Err(BadRequest::Version(clean(&version.to_string(), MAX_WHY_BYTES)));
            }
            None => return Err(BadRequest::Malformed("the key \"version\" is missing".into())),
        }
        Self::deserialize(Value::Object(object)).map_err(malformed)
    }

    /// As a line, with its end.
    #[must_use]
    pub fn line(&self) -> String {
        let mut object = serde_json::to_value(self).expect("names and numbers only");
        object["version"] = VERSION.into();
        format!("{object}\n")
    }

    /// As it stands in the request.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Watch { .. } => "watch",
            Self::Load { .. } => "load",
            Self::Unload { .. } => "unload",
            Self::Reload { .. } => "reload",
            Self::Restart { .. } => "restart",
            Self::Drain {} => "drain",
            Self::Reset { .. } => "reset",
            Self::Exits { .. } => "exits",
            Self::Logs { .. } => "logs",
            Self::Devices {} => "devices",
            Self::Quota {} => "quota",
            Self::ConfigShow {} => "config_show",
            Self::ConfigDiff {} => "config_diff",
            Self::ConfigReload { .. } => "config_reload",
        }
    }

    #[must_use]
    pub fn model(&self) -> Option<&ModelName> {
        match self {
            Self::Status { model } | Self::Watch { model } | Self::Reload { model } => {
                model.as_ref()
            }
            Self::Load { model }
            | Self::Unload { model, .. }
            | Self::Restart { model }
            | Self::Reset { model }
            | Self::Exits { model }
            | Self::Logs { model, .. } => Some(model),
            Self::Drain {} | Self::Devices {} | Self::Quota {} => None,
            Self::ConfigShow {} | Self::ConfigDiff {} | Self::ConfigReload { .. } => None,
        }
    }

    /// Whether it changes anything, and so is written down.
    #[must_use]
    pub fn changes(&self) -> bool {
        match self {
            Self::Load { .. }
            | Self::Unload { .. }
            | Self::Reload { .. }
            | Self::Restart { .. }
            | Self::Drain {}
            | Self::Reset { .. }
            | Self::ConfigReload { .. } => true,
            Self::Status { .. } | Self::Watch { .. } | Self::Exits { .. } | Self::Logs { .. } => {
                false
            }
            Self::Devices {} | Self::Quota {} | Self::ConfigShow {} | Self::ConfigDiff {} => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(line: &str) -> Result<Command, BadRequest> {
        Command::parse(line.as_bytes())
    }

    fn name() -> impl Strategy<Value = ModelName> {
        "[a-zA-Z0-9][a-z0-9._@~=+-]{0,20}".prop_map(|name| ModelName::new(&name).unwrap())
    }

    fn command() -> impl Strategy<Value = Command> {
        prop_oneof![
            prop::option::of(name()).prop_map(|model| Command::Status { model }),
            prop::option::of(name()).prop_map(|model| Command::Watch { model }),
            prop::option::of(name()).prop_map(|model| Command::Reload { model }),
            name().prop_map(|model| Command::Load { model }),
            (name(), any::<bool>()).prop_map(|(model, wait)| Command::Unload { model, wait }),
            name().prop_map(|model| Command::Restart { model }),
            name().prop_map(|model| Command::Reset { model }),
            name().prop_map(|model| Command::Exits { model }),
            (name(), any::<u32>(), any::<bool>())
                .prop_map(|(model, lines, follow)| Command::Logs { model, lines, follow }),
            prop::sample::select(vec![
                Command::Drain {},
                Command::Devices {},
                Command::Quota {},
                Command::ConfigShow {},
                Command::ConfigDiff {},
            ]),
            any::<bool>().prop_map(|wait| Command::ConfigReload { wait }),
        ]
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let model = ModelName::new("m").unwrap();
        assert_eq!(
            parse(r#"{"version":1,"command":"unload","model":"m"}"#),
            Ok(Command::Unload { model: model.clone(), wait: true })
        );
        assert_eq!(
            parse(r#" {"command":"logs","model":"m","version":1} "#),
            Ok(Command::Logs { model, lines: 100, follow: false })
        );
        assert_eq!(parse(r#"{"version":1,"command":"drain"}"#), Ok(Command::Drain {}));
    }

    #[test]
    fn what_is_no_request_says_why() {
        for (line, part) in [
            ("", "EOF"),
            ("[]", "invalid type"),
            ("{}", "\"version\" is missing"),
            (r#"{"version":2,"command":"drain"}"#, "version 2 is not spoken here"),
            (r#"{"version":"1","command":"drain"}"#, "is not spoken here"),
            (r#"{"version":1}"#, "command"),
            (r#"{"version":1,"command":"sail"}"#, "unknown variant `sail`"),
            (r#"{"version":1,"command":"drain","now":true}"#, "now"),
            (r#"{"version":1,"command":"load"}"#, "model"),
            (r#"{"version":1,"command":"load","model":"../etc"}"#, "may hold ASCII letters"),
            (r#"{"version":1,"command":"logs","model":"m","lines":-1}"#, "-1"),
            (r#"{"version":1,"command":"drain"}{}"#, "trailing characters"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!("{}{}", r#"{"version":"#.repeat(20_000), "}".repeat(20_000));
        assert!(parse(&deep).unwrap_err().to_string().contains("recursion limit"));
    }

    proptest! {
        #[test]
        fn every_command_comes_back_from_its_line(command in command()) {
            let line = command.line();
            prop_assert!(line.ends_with('\n') && line.trim_end().lines().count() == 1);
            let named = format!("\"command\":\"{}\"", command.name());
            prop_assert!(line.contains(&named), "{line}");
            prop_assert_eq!(parse(&line), Ok(command));
        }

        #[test]
        fn any_bytes_are_read_or_refused_in_a_line(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Err(error) = Command::parse(&bytes) {
                prop_assert!(!error.to_string().chars().any(char::is_control));
            }
        }

        #[test]
        fn any_values_are_read_or_refused_in_a_line(key in "[a-z\u{1b}]{0,8}", value in any::<String>()) {
            let object = serde_json::json!({ "version": 1, "command": "logs", "model": value, key: value });
            if let Err(error) = parse(&object.to_string()) {
                prop_assert!(!error.to_string().chars().any(char::is_control));
            }
        }
    }
}
