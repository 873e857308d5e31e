//! How deep JSON is nested, before anything parses it.

use crate::request::RequestError;

/// Counts open brackets outside strings. Whether the text is JSON at all is the parser's matter.
pub(crate) fn check_depth(json: &[u8], max: usize) -> Result<(), RequestError> {
    let mut depth = 0_usize;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > max {
                    return Err(RequestError::invalid(format!(
                        "the JSON is nested deeper than {max} levels"
                    )));
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    Ok(())
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_count_outside_strings_only() {
        let table = [("[[]]", 2), (r#"{"a":[{}]}"#, 3), (r#"["[[[\"[["]"#, 1), ("[],[],[]", 1)];
        for (json, depth) in table {
            assert!(check_depth(json.as_bytes(), depth).is_ok(), "{json}");
            assert!(check_depth(json.as_bytes(), depth - 1).is_err(), "{json}");
        }
        assert!(check_depth(b"]]]\"\\", 0).is_ok());
        assert!(check_depth(&b"[".repeat(1 << 20), 100).is_err());
    }
}
