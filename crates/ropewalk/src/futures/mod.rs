//! Calls that run elsewhere and the futures that stand for them (Python: `concurrent.futures`).
//!
//! An [`Executor`] makes calls; a [`Future`] stands for one call's outcome, whatever runs it; [`wait`] and
//! [`as_completed`] wait for many.
//!
//! ```
//! use ropewalk::futures::{Executor, ThreadPoolExecutor, as_completed};
//!
//! let pool = ThreadPoolExecutor::builder().max_workers(4).build();
//! let squares: Vec<_> = (1..=3).map(|n| pool.submit(move || n * n)).collect::<Result<_, _>>()?;
//! let mut sum = 0;
//! for future in as_completed(squares, None) {
//!     sum += future?.result()?;
//! }
//! assert_eq!(sum, 14);
//! # Ok::<(), ropewalk::futures::Error>(())
//! ```

mod error;
mod executor;
mod future;
#[cfg(target_os = "linux")]
pub mod process_pool;
pub mod state;
pub mod thread_pool;
mod waiting;

pub use error::Error;
pub use executor::{Executor, Map, MapOptions};
pub use future::{Future, Promise, Task};
#[cfg(all(target_os = "linux", not(loom)))]
pub use process_pool::ProcessPoolExecutor;
pub use state::State;
pub use thread_pool::ThreadPoolExecutor;
pub use waiting::{AsCompleted, Completions, DoneAndNotDone, ReturnWhen, as_completed, wait};
