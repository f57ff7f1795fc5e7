//! Python's concurrency system in Rust: threads, processes and coroutines, laid into one rope.
//!
//! | module | what it holds |
//! |---|---|
//! | `asyncio` | the event loop: `run`, `create_task`, `TaskGroup`, `gather`, `timeout`, cancellation that lets clean-up await (`asyncio`) |
//! | [`coroutine`] | classic coroutines: `next`, `send`, `throw`, `close`, `yield_from` (PEP 342, PEP 380) |
//! | [`futures`] | `Future`, `Executor`, `ThreadPoolExecutor`, `ProcessPoolExecutor`, `wait`, `as_completed` (`concurrent.futures`) |
//! | [`gil`] | a global interpreter lock: one thread at a time, and none for too long |
//! | [`park`] | how a thread waits: the one place that spins and sleeps |
//! | [`threading`] | the event that threads and coroutines wait for |

#[cfg(target_os = "linux")]
pub mod asyncio;
pub mod coroutine;
pub mod futures;
pub mod gil;
pub mod park;
pub mod threading;

#[cfg(all(target_os = "linux", not(loom)))]
#[doc(hidden)]
pub mod signals;
mod sync;

/// Makes a function one that the worker processes of a
/// [`ProcessPoolExecutor`](futures::ProcessPoolExecutor) can run.
///
/// What it makes is a static of the function's name: call it as before, and pass a reference to it to
/// [`submit`](futures::ProcessPoolExecutor::submit). Arguments (owned, up to eight) and result must be serialisable
/// with serde. Methods, generic, async and unsafe functions are refused.
///
/// ```
/// #[ropewalk::remote]
/// fn cube(n: i64) -> i64 {
///     n * n * n
/// }
///
/// assert_eq!(cube(3), 27);
/// ```
///
/// A function that is not one and the same in both processes does not compile:
///
/// ```compile_fail
/// #[ropewalk::remote]
/// fn first<T: serde::Serialize + serde::de::DeserializeOwned>(items: Vec<T>) -> Option<T> {
///     items.into_iter().next()
/// }
/// ```
///
/// Nor does one that borrows what only the program has:
///
/// ```compile_fail
/// #[ropewalk::remote]
/// fn len(text: &str) -> usize {
///     text.len()
/// }
/// ```
#[cfg(all(target_os = "linux", not(loom)))]
pub use ropewalk_macros::remote;

/// Makes an async `main` the program's: [`asyncio::run`] runs it.
///
/// It takes no arguments and returns an [`asyncio::Result`].
///
/// ```
/// use ropewalk::asyncio;
/// use std::time::Duration;
///
/// #[ropewalk::main]
/// async fn main() -> asyncio::Result<()> {
///     asyncio::sleep(Duration::from_millis(1)).await?;
///     Ok(())
/// }
/// ```
#[cfg(all(target_os = "linux", not(loom)))]
pub use ropewalk_macros::main;

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
