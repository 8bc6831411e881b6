//! The atomics that cells are made of. Tests put loom's in their place, and try every interleaving.

pub(super) use std::sync::atomic::{AtomicI64, Ordering};
