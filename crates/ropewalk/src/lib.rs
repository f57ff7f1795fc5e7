//! Python's concurrency system in Rust: threads, processes and coroutines, laid into one rope.
//!
//! | module | what it holds |
//! |---|---|
//! | `asyncio` | the event loop: so far the engine under it |
//! | [`coroutine`] | classic coroutines: `next`, `send`, `throw`, `close`, `yield_from` (PEP 342, PEP 380) |
//! | [`futures`] | `Future`, `Executor`, `ThreadPoolExecutor`, `wait`, `as_completed` (`concurrent.futures`) |
//! | [`gil`] | a global interpreter lock: one thread at a time, and none for too long |
//! | [`park`] | how a thread waits: the one place that spins and sleeps |

#[cfg(target_os = "linux")]
pub mod asyncio;
pub mod coroutine;
pub mod futures;
pub mod gil;
pub mod park;

mod sync;
