use std::time::UNIX_EPOCH;

use opentelemetry::trace::{TraceFlags, TraceId, TraceState};
use proptest::prelude::*;

use super::*;

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn answered() -> Finished {
    let state = TraceState::from_key_value([("a", "1")]).unwrap();
    let span = SpanId::from(u64::MAX);
    Finished {
        context: SpanContext::new(TraceId::from(7), span, TraceFlags::SAMPLED, false, state),
        parent: SpanId::from(9),
        model: "m".to_owned(),
        version: Some(3),
        rows: Some(4),
        began_at: UNIX_EPOCH,
        asked: Some(at(1)),
        leased: Some(at(2)),
        published: Some((at(3), at(3))),
        publications: 1,
        completed: Some(at(10)),
        compute: at(4),
        ended: at(12),
        error: None,
        status: Some(200),
    }
}

fn made(finished: &Finished) -> Vec<SpanData> {
    spans(finished, &InstrumentationScope::default())
}

fn shown(finished: &Finished) -> Vec<(String, u64, u64)> {
    let ms = |time: std::time::SystemTime| {
        u64::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
    };
    let spans = made(finished).into_iter();
    spans.map(|span| (span.name.into_owned(), ms(span.start_time), ms(span.end_time))).collect()
}

fn expected(list: &[(&str, u64, u64)]) -> Vec<(String, u64, u64)> {
    list.iter().map(|&(name, from, to)| (name.to_owned(), from, to)).collect()
}

#[test]
fn an_answer_has_a_span_for_each_part_of_its_way() {
    let list = [
        ("infer", 0, 12),
        ("admission", 0, 1),
        ("queue", 1, 2),
        ("receive", 2, 3),
        ("ring", 3, 6),
        ("compute", 6, 10),
        ("encode", 10, 12),
    ];
    assert_eq!(shown(&answered()), expected(&list));
}

#[test]
fn the_spans_are_one_trace() {
    let spans = made(&answered());
    let root = &spans[0];
    assert_eq!(root.parent_span_id, SpanId::from(9));
    assert!(root.parent_span_is_remote && root.span_kind == SpanKind::Server);
    let shown: Vec<String> =
        root.attributes.iter().map(|a| format!("{}={}", a.key, a.value)).collect();
    let http = [
        "http.request.method=POST",
        "url.scheme=http",
        "http.route=/v2/models/{model}/infer",
        "http.response.status_code=200",
    ];
    assert_eq!(shown, [&["model=m", "version=3", "batch=4"][..], &http].concat());
    let mut ids: Vec<SpanId> = spans.iter().map(|span| span.span_context.span_id()).collect();
    for span in &spans[1..] {
        assert_eq!(span.parent_span_id, root.span_context.span_id());
        assert_eq!(span.span_context.trace_id(), TraceId::from(7));
        assert_eq!(span.span_context.trace_state().get("a"), Some("1"));
    }
    ids.sort_by_key(|id| id.to_bytes());
    ids.dedup();
    assert!(ids.len() == spans.len() && ids.iter().all(|&id| id != SpanId::INVALID));
}

#[test]
fn a_failure_ends_the_part_that_it_came_in() {
    let error = failure(What::QueueTimeout);
    let failed = Finished {
        leased: None,
        published: None,
        publications: 0,
        completed: None,
        error,
        ..answered()
    };
    let list = [("infer", 0, 12), ("admission", 0, 1), ("queue", 1, 12)];
    assert_eq!(shown(&failed), expected(&list));
    assert_eq!(wrong(&failed), ["infer", "queue"]);
}

fn failure(what: What) -> Option<Failed> {
    Some(Failed { what: Some(what), message: "no luck".to_owned() })
}

/// The spans with an error.
fn wrong(finished: &Finished) -> Vec<String> {
    let spans = made(finished).into_iter();
    let wrong = spans.filter(|span| matches!(span.status, Status::Error { .. }));
    wrong.map(|span| span.name.into_owned()).collect()
}

#[test]
fn what_a_worker_has_answered_is_the_error_of_its_computation() {
    let of = |what| wrong(&Finished { error: failure(what), ..answered() });
    assert_eq!(of(What::Model), ["infer", "compute"]);
    assert_eq!(of(What::Invalid), ["compute"]);
    assert_eq!(of(What::Internal), ["infer", "encode"]);
    // Of its client's.
    assert_eq!(of(What::TooLarge), ["encode"]);
    let left = Some(Failed { what: None, message: LEFT.to_owned() });
    let left = Finished { error: left, completed: None, ..answered() };
    assert_eq!(wrong(&left), ["ring"]);
    let root = made(&left).swap_remove(0);
    assert!(root.attributes.contains(&KeyValue::new("error.type", LEFT)));
}

#[test]
fn a_second_worker_is_a_span_of_its_own() {
    let again = Finished { published: Some((at(3), at(5))), publications: 2, ..answered() };
    let list = [("receive", 2, 3), ("retry", 3, 5), ("ring", 5, 6)];
    assert_eq!(shown(&again)[3..6], expected(&list));
}

#[test]
fn a_worker_that_lies_about_its_time_moves_no_other_span() {
    let lies = Finished { compute: Duration::MAX, ..answered() };
    let list = [("ring", 3, 3), ("compute", 3, 10), ("encode", 10, 12)];
    assert_eq!(shown(&lies)[4..], expected(&list));
}

proptest! {
    #[test]
    fn any_trail_gives_spans_in_order(
        marks in prop::collection::vec(prop::option::of(0_u64..20), 5),
        publications in 0_u64..3,
        compute in 0_u64..30,
        ended in 0_u64..20,
    ) {
        let mark = |index: usize| marks[index].map(at);
        let trail = Finished {
            asked: mark(0),
            leased: mark(1),
            published: mark(2).zip(mark(3)),
            publications,
            completed: mark(4),
            compute: at(compute),
            ended: at(ended),
            ..answered()
        };
        let spans = made(&trail);
        prop_assert!(spans.len() <= MOST);
        let mut from = UNIX_EPOCH;
        for span in &spans[1..] {
            prop_assert!(span.start_time >= from && span.end_time >= span.start_time);
            from = span.end_time;
        }
    }
}
