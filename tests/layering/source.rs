//! A source file as tokens, without comments and without the contents of literals.

use std::path::Path;

/// One file, named by its path from the root of the checkout.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) tokens: Vec<Token>,
}

/// An identifier, `::`, or one character of punctuation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) line: usize,
    pub(crate) text: String,
    /// Under `#[cfg(test)]`.
    pub(crate) test: bool,
}

impl Source {
    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let mut tokens = tokens(text);
        mark_tests(&mut tokens);
        Self { path: path.to_owned(), tokens }
    }

    /// Every Rust file under `folder`, deepest last; build outputs and hidden folders left out.
    pub(crate) fn tree(root: &Path, folder: &str) -> Vec<Self> {
        let mut found = Vec::new();
        let mut entries: Vec<_> = std::fs::read_dir(root.join(folder))
            .unwrap_or_else(|e| panic!("{folder}: {e}"))
            .map(|entry| entry.expect("a readable folder"))
            .collect();
        entries.sort_by_key(std::fs::DirEntry::path);
        for entry in entries {
            let name = entry.file_name().into_string().expect("names are plain");
            let path = format!("{folder}/{name}");
            if entry.file_type().expect("a readable folder").is_dir() {
                if name != "target" && !name.starts_with('.') {
                    found.extend(Self::tree(root, &path));
                }
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(entry.path()).expect("text");
                found.push(Self::parse(&path, &text));
            }
        }
        found
    }

    /// A file of tests only.
    pub(crate) fn is_test(&self) -> bool {
        let inside = |folder: &str| self.path.contains(&format!("/{folder}/"));
        inside("tests") || self.path.starts_with("tests/") || self.path.ends_with("tests.rs")
    }

    /// The lines on which the words of `path` (as in `thread::sleep`) stand in this order. Tests
    /// under `#[cfg(test)]` are looked at if `tests` says so.
    pub(crate) fn mentions(&self, path: &str, tests: Tests) -> Vec<usize> {
        let wanted: Vec<&str> = words_of(path);
        self.tokens
            .windows(wanted.len())
            .filter(|window| tests == Tests::Included || !window[0].test)
            .filter(|window| window.iter().zip(&wanted).all(|(token, word)| token.text == *word))
            .map(|window| window[0].line)
            .collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tests {
    Included,
    LeftOut,
}

fn words_of(path: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (i, word) in path.split("::").enumerate() {
        if i > 0 {
            words.push("::");
        }
        words.push(word);
    }
    words
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (len, kept) = match first {
            _ if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            _ if rest.starts_with("/*") => (block_comment(rest), false),
            _ if let Some(len) = string(rest) => (len, false),
            '\'' => (char_or_lifetime(rest), false),
            _ if rest.starts_with("::") => (2, true),
            c if c.is_alphanumeric() || c == '_' => (word(rest), true),
            c => (c.len_utf8(), !c.is_whitespace()),
        };
        let (piece, after) = rest.split_at(len);
        if kept {
            tokens.push(Token { line, text: piece.to_owned(), test: false });
        }
        line += piece.matches('\n').count();
        rest = after;
    }
    tokens
}

fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of the string literal that starts here, if one does.
fn string(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        text.strip_prefix(prefix).is_some_and(|rest| rest.trim_start_matches('#').starts_with('"'))
    })?;
    let rest = &text[prefix.len()..];
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    if prefix.ends_with('r') {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = &rest[hashes + 1..];
        return Some(text.len() - body.len() + body.find(&end)? + end.len());
    }
    if hashes > 0 {
        return None;
    }
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '"' if !escaped => return Some(prefix.len() + at + 1),
            _ => escaped = c == '\\' && !escaped,
        }
    }
    Some(text.len())
}

fn char_or_lifetime(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((after, _))) => {
            let tail = &text[after + 1..];
            after + 1 + tail.find('\'').map_or(tail.len(), |end| end + 1)
        }
        (Some(_), Some((end, '\''))) => end + 1,
        _ => 1 + word(&text[1..]),
    }
}

/// Marks the item that follows each `#[cfg(test)]`: to its closing brace, or to its semicolon.
fn mark_tests(tokens: &mut [Token]) {
    const CFG: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut at = 0;
    while at + CFG.len() <= tokens.len() {
        if tokens[at..].iter().zip(CFG).any(|(token, text)| token.text != text) {
            at += 1;
            continue;
        }
        let mut depth = 0_usize;
        while let Some(token) = tokens.get_mut(at) {
            token.test = true;
            at += 1;
            match token.text.as_str() {
                "{" => depth += 1,
                "}" if depth == 1 => break,
                "}" => depth = depth.saturating_sub(1),
                ";" if depth == 0 => break,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        tokens(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_are_no_tokens() {
        let source =
            "a /* b /* c */ d */ \"e \\\" f\" r#\"g \" h\"# 'i' '\\'' b\"j\" &'k l // m\nn";
        assert_eq!(texts(source), ["a", "&", "l", "n"]);
    }

    #[test]
    fn lines_are_counted_through_literals() {
        let last = tokens("\"a\nb\" /* \n */ c").pop().unwrap();
        assert_eq!((last.line, last.text.as_str()), (3, "c"));
    }

    #[test]
    fn what_is_under_cfg_test_is_marked() {
        let source =
            Source::parse("x.rs", "fn a() {} #[cfg(test)] mod t { fn b() { c() } } fn d() {}");
        let marked: Vec<_> = source.tokens.iter().filter(|t| t.test).map(|t| &t.text).collect();
        assert!(marked.iter().any(|t| *t == "c") && !marked.iter().any(|t| *t == "a" || *t == "d"));
    }
}
