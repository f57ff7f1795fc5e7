//! Python's concurrency system in Rust: threads, processes and coroutines, laid into one rope.
//!
//! | module | what it holds |
//! |---|---|
//! | `asyncio` | the event loop: so far the engine under it |
//! | [`futures`] | `Future`, `Executor`, `ThreadPoolExecutor`, `wait`, `as_completed` (`concurrent.futures`) |
//! | [`gil`] | a global interpreter lock: one thread at a time, and none for too long |
//! | [`park`] | how a thread waits: the one place that spins and sleeps |
//! | [`threading`] | the event that threads and coroutines wait for |

#[cfg(target_os = "linux")]
pub mod asyncio;
pub mod futures;
pub mod gil;
pub mod park;
pub mod threading;

mod sync;
