//! The text format of `config.pbtxt`, read against the real message definition: an unknown field or
//! a wrong type is an error that names its line.
//!
//! Two things that the library leaves open are done to the text before it gets it. It wants a colon
//! in `input [ {…} ]`, which the format does not need and most files do not have; and it follows
//! nesting by recursion, without an end.

use miette::Diagnostic;
use prost_reflect::DynamicMessage;
use prost_reflect::text_format::ParseError;
use proto::model_config;

/// The deepest message of the definition is at level six, but `[type/Name] {` expansions could go
/// on as long as the file does.
const MAX_DEPTH: u32 = 32;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PbtxtError {
    #[error("line {line}: {message} (in `{text}`)")]
    Syntax { line: usize, message: String, text: String },
    #[error("line {line}: more than {MAX_DEPTH} nested braces or brackets")]
    TooDeep { line: usize },
}

pub(super) fn parse(text: &str) -> Result<DynamicMessage, PbtxtError> {
    let parsed = with_colons(text)?;
    DynamicMessage::parse_text_format(model_config::descriptor(), &parsed)
        .map_err(|error| located(text, &parsed, &error))
}

/// The error with its line, which is the same in the `text` that was written and in the one that
/// was `parsed`.
fn located(text: &str, parsed: &str, error: &ParseError) -> PbtxtError {
    let label = error.labels().and_then(|mut labels| labels.next());
    let at = label.map_or(parsed.trim_end().len(), |label| label.offset());
    let line = line_number(parsed, at);
    let shown = text.lines().nth(line - 1).unwrap_or_default().trim();
    PbtxtError::Syntax {
        line,
        message: shorten(&error.to_string().replace("inference.", ""), 200),
        text: shorten(shown, 80),
    }
}

/// What stands in a file may be as long as the file, and ends up in every listing of models.
pub(super) fn shorten(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Counted in bytes, so that no offset can be inside a character.
fn line_number(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count()
}

/// The text with a colon between each name and a list that follows it; lines stay as they are.
fn with_colons(text: &str) -> Result<String, PbtxtError> {
    let mut result = String::with_capacity(text.len() + 16);
    let mut copied = 0;
    let mut depth = 0_u32;
    let mut last = Token::Other;
    for (at, token) in Tokens(text.bytes().enumerate().peekable()) {
        if last == Token::Name && token == Token::OpenList {
            result.push_str(&text[copied..at]);
            result.push(':');
            copied = at;
        }
        match token {
            Token::Open | Token::OpenList => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            Token::Name | Token::Other => {}
        }
        if depth > MAX_DEPTH {
            return Err(PbtxtError::TooDeep { line: line_number(text, at) });
        }
        last = token;
    }
    result.push_str(&text[copied..]);
    Ok(result)
}

/// As much of a token as [`with_colons`] needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Name,
    Open,
    OpenList,
    Close,
    Other,
}

/// Each token with where it begins; no spaces and no comments.
struct Tokens<I: Iterator<Item = (usize, u8)>>(std::iter::Peekable<I>);

impl<I: Iterator<Item = (usize, u8)>> Iterator for Tokens<I> {
    type Item = (usize, Token);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (at, byte) = self.0.next()?;
            let token = match byte {
                b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c => continue,
                b'#' => {
                    while self.0.next_if(|(_, byte)| *byte != b'\n').is_some() {}
                    continue;
                }
                b'"' | b'\'' => {
                    self.skip_string(byte);
                    Token::Other
                }
                b'{' | b'<' => Token::Open,
                b'[' => Token::OpenList,
                b'}' | b'>' | b']' => Token::Close,
                b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                    self.skip_word();
                    Token::Name
                }
                b'0'..=b'9' => {
                    self.skip_word();
                    Token::Other
                }
                _ => Token::Other,
            };
            return Some((at, token));
        }
    }
}

impl<I: Iterator<Item = (usize, u8)>> Tokens<I> {
    fn skip_word(&mut self) {
        let in_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        while self.0.next_if(|(_, byte)| in_word(*byte)).is_some() {}
    }

    /// To the closing quote, or to the end of the line, where the parser stops with an error.
    fn skip_string(&mut self, quote: u8) {
        while let Some((_, byte)) = self.0.next_if(|(_, byte)| *byte != b'\n') {
            if byte == quote {
                return;
            }
            if byte == b'\\' {
                self.0.next();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_line_the_field_and_what_was_expected() {
        assert_eq!(
            error("name: \"a\"\nmax_batchsize: 8\n"),
            "line 2: field 'max_batchsize' not found for message 'ModelConfig' \
             (in `max_batchsize: 8`)"
        );
        assert_eq!(
            error("input [\n  { name: \"x\" data_type: TYPE_FP31 dims: [ 1 ] }\n]"),
            "line 2: value 'TYPE_FP31' was not found for enum 'DataType' \
             (in `{ name: \"x\" data_type: TYPE_FP31 dims: [ 1 ] }`)"
        );
        let wrong_type = error("\n\nmax_batch_size: \"8\"");
        assert!(wrong_type.starts_with("line 3: expected an integer"), "{wrong_type}");
        assert!(wrong_type.ends_with("(in `max_batch_size: \"8\"`)"), "{wrong_type}");
        let range = error("max_batch_size: 99999999999");
        assert!(range.contains("99999999999 is out of range"), "{range}");
        assert!(error("input {\n name: \"x\"\n").starts_with("line 2: expected"));
        assert!(error("name: \"ä\n\"").starts_with("line 1: "));
        assert!(error("dynamic_batching {}\nensemble_scheduling {}").starts_with("line 2: "));
    }

    #[test]
    fn nesting_without_end_is_refused_before_it_is_followed() {
        let any = "[a/inference.ModelConfig] {".repeat(30_000);
        assert_eq!(error(&any), "line 1: more than 32 nested braces or brackets");
        assert!(parse(&format!("# {}\nname: \"{}\"", "{".repeat(99), "[".repeat(99))).is_ok());
        assert!(error(&format!("name: \"\n{}", "<".repeat(99_999))).contains("nested"));
        assert!(error(&format!("name: '\\'' {}", "{".repeat(99))).contains("nested"));
    }

    #[test]
    fn lists_may_follow_their_name_with_or_without_a_colon() {
        for list in ["input [", "input: [", "input\n[", "input[", "input # [\n [", "input : ["] {
            let message = parse(&format!("{list} {{ name: 'a' }}, {{ name: \"[\" }} ]")).unwrap();
            let inputs = message.get_field_by_name("input").unwrap().as_list().unwrap().len();
            assert_eq!(inputs, 2, "{list}");
        }
        assert_eq!(
            with_colons("a: 'b [' c [ 1 ] d1 <> # e [").unwrap(),
            "a: 'b [' c :[ 1 ] d1 <> # e ["
        );
        assert!(parse("input { name: \"x\" dims [ 1, 2 ] reshape { shape [ ] } }").is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_a_message_or_an_error(text in "(\\PC|\n){0,60}") {
            let _message_or_error = parse(&text);
        }

        #[test]
        fn any_tokens_are_a_message_or_an_error(
            tokens in proptest::collection::vec(
                prop_oneof![
                    Just("input"), Just("name"), Just(":"), Just("{"), Just("}"), Just("["),
                    Just("]"), Just(","), Just("\"x\""), Just("1"), Just("parameters"),
                    Just("key"), Just("value"), Just("-"), Just("a/inference.ModelConfig"),
                ],
                0..40,
            )
        ) {
            let _message_or_error = parse(&tokens.join(" "));
        }
    }
}
