//! Which room may use which: a room uses only rooms of a strictly lower level.
//!
//! A room is a module directly under a package's crate root. The numbers are those of the design
//! where the code agrees with it; each departure says why.

use crate::source::{Source, Token};
use crate::violation::Violation;

#[derive(Debug)]
struct Package {
    folder: &'static str,
    /// The name by which its own binary calls the library.
    library: &'static str,
    rooms: &'static [(&'static str, u8)],
}

const PACKAGES: &[Package] = &[
    Package {
        folder: "supervisor/src/",
        library: "supervisor",
        rooms: &[
            // A vocabulary: the configuration speaks it too.
            ("exit_kind", 0),
            ("config", 1),
            ("request", 1),
            // Both ends of a lane judge by it; it uses nothing of theirs.
            ("health", 1),
            ("heavy", 1),
            // Numbers and names only; `app` and `main` return them.
            ("exit", 1),
            ("cli", 1),
            // What others hang up and show; it uses nothing of theirs.
            ("status", 1),
            // Takes its settings as the configuration has them.
            ("telemetry", 2),
            // Holds what the configuration says.
            ("enclosure", 2),
            // Asks what the configuration says where to ask.
            ("device", 2),
            ("lane", 2),
            ("process", 2),
            ("repository", 2),
            ("system", 2),
            // Counts by what `request` calls things.
            ("stats", 2),
            // Gives out what devices have.
            ("quota", 3),
            // Writes down what devices say.
            ("inventory", 3),
            // Talks to a server from outside.
            ("console", 3),
            ("schedule", 3),
            // Checks a request against a model, in the words of `request`.
            ("schema", 3),
            ("route", 4),
            ("admission", 5),
            ("lifecycle", 5),
            // Asks whoever knows a part of it, for whoever shows it.
            ("overview", 5),
            ("admin", 6),
            ("frontend", 6),
            ("app", 7),
            ("main", 8),
        ],
    },
    Package {
        folder: "worker/src/",
        library: "worker",
        rooms: &[
            // Its errors are chained by `shared::text`.
            ("confine", 2),
            ("telemetry", 2),
            ("control", 2),
            ("engine", 2),
            // Enters namespaces before it takes the control socket over.
            ("inherit", 3),
            ("pump", 3),
            ("load", 4),
            ("session", 4),
            ("zygote", 4),
            ("boot", 5),
            ("main", 6),
        ],
    },
    Package {
        folder: "worker/torch/src/",
        library: "engine_torch",
        rooms: &[
            ("cap", 1),
            ("ffi", 1),
            ("message", 1),
            ("schema", 1),
            ("cuda", 2),
            ("streams", 2),
            ("model", 2),
            ("names", 2),
            ("tensors", 2),
            ("options", 3),
            ("road", 3),
            ("engine", 4),
            ("warm", 2),
            ("load", 5),
            ("main", 6),
        ],
    },
    Package {
        folder: "shared/src/",
        library: "shared",
        rooms: &[
            ("clock", 1),
            ("elements", 1),
            ("fault", 1),
            ("limits", 1),
            ("sync", 1),
            ("text", 1),
            // The lengths of names are limits; a futex waits on an atomic.
            ("id", 2),
            ("sys", 2),
            ("tensor", 2),
            ("memory", 3),
            ("ring", 4),
        ],
    },
    Package {
        folder: "proto/src/",
        library: "proto",
        rooms: &[
            ("admin", 1),
            ("control", 1),
            ("inference", 1),
            ("model_config", 1),
            ("zygote", 1),
            ("codec", 2),
        ],
    },
];

/// The rooms that `source` uses and must not.
pub(crate) fn check(source: &Source) -> Vec<Violation> {
    let Some(package) = PACKAGES.iter().find(|p| source.path.starts_with(p.folder)) else {
        return Vec::new();
    };
    // A binary beside its library is a room as well; the library's list of modules is none.
    let inner = &source.path[package.folder.len()..];
    let first = inner.split('/').next().unwrap_or(inner).trim_end_matches(".rs");
    if first == "lib" {
        return Vec::new();
    }
    let Some(own) = package.level(first) else {
        let message = format!("room `{first}` has no level: add it to the table of this test");
        return vec![Violation::new(source, 1, message)];
    };
    let reached = |token: &&Token| token.text != first;
    uses(source, package, depth(inner))
        .iter()
        .filter(reached)
        .filter_map(|token| {
            let message = match package.level(&token.text) {
                Some(level) if level < own => return None,
                Some(level) => format!(
                    "`{first}` (level {own}) uses `{}` (level {level}): a room uses only rooms of \
                     a lower level",
                    token.text
                ),
                // An item that the crate root re-exports, or a typo that the compiler finds.
                None => return None,
            };
            Some(Violation::new(source, token.line, message))
        })
        .collect()
}

impl Package {
    fn level(&self, room: &str) -> Option<u8> {
        self.rooms.iter().find(|(name, _)| *name == room).map(|(_, level)| *level)
    }
}

/// How many `super::` lead from this file to the crate root.
fn depth(inner: &str) -> usize {
    let components = inner.split('/').count();
    if inner.ends_with("/mod.rs") { components - 1 } else { components }
}

/// The names that follow `crate::`, the library's own name, or enough `super::`, braces included.
fn uses(source: &Source, package: &Package, depth: usize) -> Vec<Token> {
    let tokens = &source.tokens;
    let mut found = Vec::new();
    let mut supers = 0;
    for at in 0..tokens.len() {
        let text = tokens[at].text.as_str();
        let joined = tokens.get(at + 1).is_some_and(|next| next.text == "::");
        supers = match text {
            "super" if joined => supers + 1,
            "::" => supers,
            _ => 0,
        };
        let leads_to_root = match text {
            "crate" => true,
            "super" => supers >= depth,
            _ => text == package.library && (at == 0 || tokens[at - 1].text != "::"),
        };
        if joined && leads_to_root {
            found.extend(names(&tokens[at + 2..]));
        }
    }
    found
}

/// The first names of a path or of each path in a group.
fn names(tokens: &[Token]) -> Vec<Token> {
    if tokens.first().is_none_or(|token| token.text != "{") {
        return tokens.first().cloned().into_iter().collect();
    }
    let mut names = Vec::new();
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ if depth == 1 && matches!(tokens[i - 1].text.as_str(), "{" | ",") => {
                names.push(token.clone());
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}
