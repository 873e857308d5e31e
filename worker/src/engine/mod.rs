//! What runs a model: the trait that every engine implements, and the engines that need no
//! framework. Frameworks live in packages of their own (`worker/torch`), so that a worker maps
//! only what its model needs.

mod api;
pub mod device;
pub mod echo;

pub use api::{
    Arenas, DeviceUse, Engine, EngineError, InputView, LoadError, Loader, Mischief, Outputs, Pages,
    PlaceError, Placed, PlannedOutput, Request, Schema,
};
