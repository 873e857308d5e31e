//! What is said to a service manager, and when; pure.

use std::time::Duration;

/// Names that a status has room for.
const MOST_NAMES: usize = 5;

/// What there is to see of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The repository has been read.
    pub started: bool,
    /// All that is required serves.
    pub ready: bool,
    pub draining: bool,
    /// Models that serve, of those that are known and were not unloaded on purpose.
    pub serving: usize,
    pub models: usize,
    /// Required models that do not serve.
    pub waits_for: Vec<String>,
    /// Requests that were not answered yet.
    pub requests: u64,
    /// How long the server has been there.
    pub since: Duration,
}

/// How the server stands with its service manager.
#[derive(Debug)]
pub struct Standing {
    said: Said,
    status: String,
    /// After so long a start counts as one, whatever it waits for.
    patience: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Ready,
    Stopping,
}

impl Standing {
    #[must_use]
    pub fn new(patience: Option<Duration>) -> Self {
        Self { said: Said::Nothing, status: String::new(), patience }
    }

    /// Whether the manager has not been told yet that the server has started.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        self.said == Said::Nothing
    }

    /// What to tell now, if that is anything new.
    pub fn next(&mut self, seen: &Seen) -> Option<String> {
        let mut lines = Vec::new();
        let late = self.patience.is_some_and(|patience| seen.since >= patience);
        match self.said {
            Said::Nothing | Said::Ready if seen.draining => {
                self.said = Said::Stopping;
                lines.push("STOPPING=1".to_owned());
            }
            Said::Nothing if seen.ready || (late && seen.started) => {
                self.said = Said::Ready;
                lines.push("READY=1".to_owned());
            }
            Said::Nothing | Said::Ready | Said::Stopping => {}
        }
        let status = status(seen);
        if status != self.status {
            lines.push(format!("STATUS={status}"));
            self.status = status;
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

fn status(seen: &Seen) -> String {
    let Seen { serving, models, requests, .. } = *seen;
    if seen.draining {
        let s = if requests == 1 { "" } else { "s" };
        return format!("draining: {requests} request{s}");
    }
    if !seen.started {
        return "reading the repository".to_owned();
    }
    let text = format!("{serving} of {models} models ready");
    if seen.waits_for.is_empty() {
        return text;
    }
    let shown: Vec<&str> = seen.waits_for.iter().take(MOST_NAMES).map(String::as_str).collect();
    let more = match seen.waits_for.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{text}; waits for: {}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(names: &[&str]) -> Seen {
        let waits_for = names.iter().map(ToString::to_string).collect();
        Seen { started: true, serving: 3, models: 4, waits_for, ..Seen::default() }
    }

    fn ready() -> Seen {
        Seen { ready: true, serving: 4, ..waiting(&[]) }
    }

    #[test]
    fn readiness_is_told_once_and_the_status_when_it_changes() {
        let mut standing = Standing::new(None);
        let mut next = |seen: &Seen| standing.next(seen).unwrap_or_default();
        assert_eq!(next(&Seen::default()), "STATUS=reading the repository");
        assert_eq!(next(&waiting(&["x"])), "STATUS=3 of 4 models ready; waits for: x");
        assert_eq!(next(&waiting(&["x"])), "");
        assert_eq!(next(&ready()), "READY=1\nSTATUS=4 of 4 models ready");
        assert_eq!(next(&waiting(&["x"])), "STATUS=3 of 4 models ready; waits for: x");
        assert_eq!(next(&ready()), "STATUS=4 of 4 models ready");
        let draining = |requests| Seen { draining: true, ready: false, requests, ..ready() };
        assert_eq!(next(&draining(12)), "STOPPING=1\nSTATUS=draining: 12 requests");
        assert_eq!(next(&draining(1)), "STATUS=draining: 1 request");
        assert_eq!(next(&ready()), "STATUS=4 of 4 models ready", "never ready again");
    }

    #[test]
    fn a_start_counts_as_one_after_a_while_if_it_may() {
        let late = |secs| Seen { since: Duration::from_secs(secs), ..waiting(&["x"]) };
        let mut limited = Standing::new(Some(Duration::from_secs(300)));
        assert!(!limited.next(&late(299)).unwrap().contains("READY"));
        assert!(limited.is_starting());
        assert_eq!(limited.next(&late(300)).unwrap(), "READY=1");
        assert!(!limited.is_starting());
        let mut strict = Standing::new(None);
        assert!(!strict.next(&late(1_000_000)).unwrap().contains("READY"));
    }

    #[test]
    fn an_end_before_the_start_is_told_as_one() {
        let mut standing = Standing::new(None);
        let seen = Seen { draining: true, ..Seen::default() };
        assert_eq!(standing.next(&seen).unwrap(), "STOPPING=1\nSTATUS=draining: 0 requests");
    }

    #[test]
    fn a_long_list_of_names_is_cut() {
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        let text = status(&waiting(&names));
        assert_eq!(text, "3 of 4 models ready; waits for: a, b, c, d, e and 2 more");
        assert!(!status(&waiting(&names[..5])).contains("more"));
    }
}
