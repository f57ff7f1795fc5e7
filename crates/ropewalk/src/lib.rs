//! Python's concurrency system in Rust: threads, processes and coroutines, laid into one rope.
//!
//! | module | what it holds |
//! |---|---|
//! | [`park`] | how a thread waits: the one place that spins and sleeps |

pub mod park;

mod sync;
