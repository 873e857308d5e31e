//! What operators see: metrics for Prometheus, and a page that shows how everything does.
//!
//! | path | |
//! |---|---|
//! | `/metrics` | all metrics, in the text format |
//! | `/` | the page, with `/page.css`, `/page.js` and `/favicon.svg` |
//! | `/events` | the whole status as server-sent events, for the page |
//!
//! It shows and changes nothing. All that it shows is known already: a scrape reads counters, and nobody
//! on the way of a request waits for it. Whoever reaches the port sees it, so that what workers write and
//! what requests look like is left out.

mod assets;
mod events;
mod families;
mod server;
mod text;

pub use server::{MetricsDeps, serve};
