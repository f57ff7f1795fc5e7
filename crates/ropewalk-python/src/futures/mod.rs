//! Python's `concurrent.futures` over `ropewalk::futures`.

mod future;
mod thread_pool;
mod waiting;

pub(crate) use future::{Future, register};
pub(crate) use thread_pool::{ThreadPoolExecutor, WorkQueue};
pub(crate) use waiting::{AsCompleted, Waiter, wait};
