//! From what went wrong to a status code: the one table.

use hyper::StatusCode;

use crate::request::What;

pub(super) fn status_of(what: What) -> StatusCode {
    match what {
        What::UnknownModel | What::UnknownVersion | What::NoVersion => StatusCode::NOT_FOUND,
        What::Invalid | What::TooLarge => StatusCode::BAD_REQUEST,
        What::SlowBody => StatusCode::REQUEST_TIMEOUT,
        What::Unsupported => StatusCode::NOT_IMPLEMENTED,
        What::NotReady | What::QueueFull | What::QueueTimeout | What::ShuttingDown => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        What::Poison => StatusCode::UNPROCESSABLE_ENTITY,
        What::Deadline => StatusCode::GATEWAY_TIMEOUT,
        What::OutOfMemory => StatusCode::INSUFFICIENT_STORAGE,
        What::WorkerDied | What::Model | What::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        What::Forbidden => StatusCode::FORBIDDEN,
    }
}

/// Seconds after which the client may well try again, as the header's value.
pub(super) fn retry_after(what: What) -> Option<&'static str> {
    match what {
        What::NotReady | What::QueueFull | What::QueueTimeout | What::ShuttingDown => Some("1"),
        What::UnknownModel
        | What::UnknownVersion
        | What::NoVersion
        | What::Invalid
        | What::TooLarge
        | What::SlowBody
        | What::Unsupported
        | What::Deadline
        | What::WorkerDied
        | What::Poison
        | What::Model
        | What::OutOfMemory
        | What::Forbidden
        | What::Internal => None,
    }
}

/// What happens to the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Keep,
    Close,
}

/// The body of a slow client is not worth waiting for, and a draining server wants to be left.
pub(super) fn after(what: What) -> After {
    match what {
        What::SlowBody | What::ShuttingDown => After::Close,
        What::UnknownModel
        | What::UnknownVersion
        | What::NoVersion
        | What::NotReady
        | What::Invalid
        | What::TooLarge
        | What::Unsupported
        | What::QueueFull
        | What::QueueTimeout
        | What::Deadline
        | What::WorkerDied
        | What::Poison
        | What::Model
        | What::OutOfMemory
        | What::Forbidden
        | What::Internal => After::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Retry;

    #[test]
    fn the_table_is_the_documented_one() {
        let table = [
            (What::UnknownModel, 404),
            (What::UnknownVersion, 404),
            (What::NoVersion, 404),
            (What::NotReady, 503),
            (What::Invalid, 400),
            (What::TooLarge, 400),
            (What::SlowBody, 408),
            (What::Unsupported, 501),
            (What::QueueFull, 503),
            (What::QueueTimeout, 503),
            (What::Deadline, 504),
            (What::WorkerDied, 500),
            (What::Poison, 422),
            (What::Model, 500),
            (What::OutOfMemory, 507),
            (What::ShuttingDown, 503),
            (What::Forbidden, 403),
            (What::Internal, 500),
        ];
        for (what, code) in table {
            assert_eq!(status_of(what).as_u16(), code, "{what:?}");
            assert_eq!(retry_after(what).is_some(), code == 503, "{what:?}");
            if retry_after(what).is_some() {
                assert_eq!(what.retry(), Retry::Safe, "{what:?}");
            }
        }
    }
}
