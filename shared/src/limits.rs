//! Every bound that crosses a process, in one place.
//!
//! What an operator may choose is in `config.toml`; these are the hard edges that both processes
//! agree on at build time, so that neither can be made to size anything from the other's bytes.

/// Longest model name. With `/`, version and suffixes it stays within a file name and `ps` line.
pub const MAX_MODEL_NAME_BYTES: usize = 128;
/// Longest tensor name.
pub const MAX_TENSOR_NAME_BYTES: usize = 256;
/// Most dimensions of one tensor. Twelve make a table entry exactly two cache lines.
pub const MAX_DIMS: usize = 12;
/// Most tensors in one direction of one request.
pub const MAX_TENSORS: usize = 64;
/// Most bytes of one request's tensors in one direction, inside or outside a slot.
pub const MAX_TENSOR_BYTES: usize = 1 << 32;
/// Longest error message that a worker can hand to a client.
pub const MAX_ERROR_BYTES: usize = 2048;
/// Largest packet on the control socket, in either direction.
pub const MAX_PACKET_BYTES: usize = 64 * 1024;
/// Most slots of one worker.
pub const MAX_SLOTS: usize = 256;
/// Smallest and largest size of a slot's data area.
pub const MIN_SLOT_BYTES: usize = 4096;
pub const MAX_SLOT_BYTES: usize = 1 << 30;
/// Most reads of the control socket for one wake-up of the supervisor.
pub const MAX_PACKETS_PER_WAKE: usize = 64;
/// Alignment of every tensor inside a slot: a cache line, which every element type divides.
pub const TENSOR_ALIGN: usize = 64;
