//! Another configuration for a server that runs: what follows from it for the models.
//!
//! ```text
//! plan (pure)      configurations, repositories ──► for each model what is wished for it
//! catalog          carries the wishes to the models' tasks
//! keeper           holds the wish against what it has (pure: `deed`), and does the rest
//! report           what came of it, model by model
//! ```
//!
//! Invariants: a model whose settings and folder are what they were is not touched; one that is
//! changed is served by its old workers until the new ones are ready, and goes on being served by
//! them if those fail; a repository that cannot be read unloads nothing.

mod apply;
pub(super) mod deed;
pub(super) mod plan;
mod report;

pub use apply::{Applied, Order, Outcomes};
pub use plan::{Found, Sighted, Survey};
pub use report::{ModelReport, Outcome, ReloadReport, Scope};
