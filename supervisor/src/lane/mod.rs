//! One worker's transport.

mod reply;

pub use reply::Reply;
