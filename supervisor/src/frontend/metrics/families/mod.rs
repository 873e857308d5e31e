//! The families of metrics. Names that begin with `nv_` are Triton's and mean what they mean there; what
//! has no meaning here is left out (response cache, pinned memory, power), and what is not known has no
//! sample. `bulkhead_…_state` and the like have one sample with the value 1, whose label says which. An
//! instance is told by the label `index`: Prometheus itself sets `instance` to the server's address.

pub(super) mod machine;
pub(super) mod requests;
pub(super) mod workers;
