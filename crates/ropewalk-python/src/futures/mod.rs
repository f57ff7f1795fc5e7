//! Python's `concurrent.futures` over `ropewalk::futures`.

mod future;
#[cfg_attr(not(target_os = "linux"), path = "process_pool/absent.rs")]
mod process_pool;
mod thread_pool;
mod waiting;

pub(crate) use future::{Future, register};
#[cfg(target_os = "linux")]
pub(crate) use process_pool::{NotifierThread, ProcessPoolExecutor, SharedBuffer, copy_bytes, work};
pub(crate) use thread_pool::{ThreadPoolExecutor, WorkQueue};
pub(crate) use waiting::{AsCompleted, Waiter, wait};
