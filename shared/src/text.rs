//! Text that somebody else wrote, or that leaves this process: bounded, without control characters.

/// Whether it does something to the text around it, or ends a line, without being a control character:
/// directions, separators, what has no width.
fn is_format(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// `text` with each control or format character replaced by a space, cut to at most `limit` bytes between
/// two characters.
pub fn clean(text: &str, limit: usize) -> String {
    let mut cleaned = String::with_capacity(text.len().min(limit));
    for character in text.trim_end().chars() {
        let harms = character.is_control() || is_format(character);
        let character = if harms { ' ' } else { character };
        if cleaned.len() + character.len_utf8() > limit {
            break;
        }
        cleaned.push(character);
    }
    cleaned
}

/// As [`clean`], with its line breaks kept: for messages of several lines, as of a stack trace.
pub fn clean_lines(text: &str, limit: usize) -> String {
    let mut cleaned = String::with_capacity(text.len().min(limit));
    for line in text.trim_end().split('\n') {
        if !cleaned.is_empty() && cleaned.len() < limit {
            cleaned.push('\n');
        }
        cleaned.push_str(&clean(line, limit - cleaned.len()));
    }
    cleaned
}

/// An error and its sources, as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line.push_str(": ");
        line.push_str(&error.to_string());
        source = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(clean("a\nb\u{7f}ä", 5), "a b ");
        assert_eq!(clean("a\nb\u{7f}ä", 6), "a b ä");
        assert_eq!(clean("trace\n", 100), "trace");
        assert_eq!(clean("a\u{202e}b\u{2028}c\u{200d}d\u{2069}e", 100), "a b c d e");
    }

    #[test]
    fn lines_can_be_kept() {
        assert_eq!(clean_lines("a\tb\r\n  c\u{1b}[1m\n", 100), "a b\n  c [1m");
        assert_eq!(clean_lines("ab\ncd", 3), "ab\n");
        assert_eq!(clean_lines("ab\ncd", 4), "ab\nc");
    }

    proptest! {
        #[test]
        fn cleaned_text_keeps_its_bounds(text in any::<String>(), limit in 0_usize..64) {
            let cleaned = clean(&text, limit);
            prop_assert!(cleaned.len() <= limit);
            prop_assert!(!cleaned.chars().any(char::is_control));
            let lines = clean_lines(&text, limit);
            prop_assert!(lines.len() <= limit);
            prop_assert!(!lines.chars().any(|c| c.is_control() && c != '\n'));
        }
    }
}
