//! The W3C's `traceparent` and `tracestate`: whose part a request is; pure.

use std::str::FromStr as _;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// `00-` 32 digits `-` 16 digits `-` 2 digits.
const LENGTH: usize = 55;
/// Longer ones are dropped; the recommendation asks for 512.
const MOST_STATE: usize = 2048;

/// The span that a request is a part of; `None` if the header is none that this version knows.
pub(super) fn parent(traceparent: &str, tracestate: Option<&str>) -> Option<SpanContext> {
    let (head, more) = traceparent.trim().split_at_checked(LENGTH)?;
    let parts: Vec<&str> = head.split('-').collect();
    let &[version, trace, span, flags] = parts.as_slice() else { return None };
    let version = digits(version, 2)?;
    let known = match version {
        0 => more.is_empty(),
        0xff => false,
        // A later version may say more, behind what this one says.
        _ => more.is_empty() || more.starts_with('-'),
    };
    if !known {
        return None;
    }
    let trace = TraceId::from(digits(trace, 32)?);
    let span = SpanId::from(u64::try_from(digits(span, 16)?).ok()?);
    let flags = TraceFlags::new(u8::try_from(digits(flags, 2)?).ok()?) & TraceFlags::SAMPLED;
    let state = tracestate.filter(|text| text.len() <= MOST_STATE);
    // A bad one says nothing of whose part it is.
    let state = state.and_then(|text| TraceState::from_str(text).ok()).unwrap_or_default();
    Some(SpanContext::new(trace, span, flags, true, state)).filter(SpanContext::is_valid)
}

/// Exactly so many digits, in lower case.
fn digits(text: &str, count: usize) -> Option<u128> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != count || !text.bytes().all(lower) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_ids_the_flag_and_the_state_are_read() {
        let context = parent(GOOD, Some("a=1,b=2")).unwrap();
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
        assert!(context.is_sampled() && context.is_remote());
        assert_eq!(context.trace_state().get("b"), Some("2"));
        let quiet = parent(&GOOD.replace("-01", "-fe"), None).unwrap();
        assert!(!quiet.is_sampled());
        assert!(parent(GOOD, Some("no state")).unwrap().trace_state().header().is_empty());
        assert!(parent(&GOOD.replacen("00", "cc", 1), None).is_some());
        assert!(parent(&format!("cc{}-more", &GOOD[2..]), None).is_some());
    }

    #[test]
    fn what_is_no_header_is_no_parent() {
        let bad = [
            "",
            "00",
            &GOOD[1..],
            &GOOD.to_uppercase(),
            &format!("{GOOD}-more"),
            &format!("{GOOD}0"),
            &format!("cc{}0", &GOOD[2..]),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replace("0af7", "+af7"),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GOOD.replace('-', "_"),
        ];
        for text in bad {
            assert!(parent(text, None).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_parent_or_none(text in "\\PC{0,80}", state in "\\PC{0,80}") {
            let _some_or_none = parent(&text, Some(&state));
        }

        #[test]
        fn what_is_read_is_what_was_written(trace in 1_u128.., span in 1_u64.., sampled: bool) {
            let text = format!("00-{trace:032x}-{span:016x}-0{}", u8::from(sampled));
            let context = parent(&text, None).unwrap();
            prop_assert_eq!(u128::from_be_bytes(context.trace_id().to_bytes()), trace);
            prop_assert_eq!(u64::from_be_bytes(context.span_id().to_bytes()), span);
            prop_assert_eq!(context.is_sampled(), sampled);
        }
    }
}
