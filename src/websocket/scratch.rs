//! The buffer of a thread for reads and writes.

use std::cell::RefCell;

/// The most bytes that are read or written at once. A thread has one such buffer, and a connection has none: it owns
/// bytes only while a frame has been read or written in part.
const SCRATCH_BYTES: usize = 16 * 1024;

thread_local! {
    pub(super) static THREAD_SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}
