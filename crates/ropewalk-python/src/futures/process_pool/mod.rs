//! Python's `ProcessPoolExecutor` over `ropewalk::futures::process_pool`.
//!
//! | file | what it holds |
//! |---|---|
//! | `executor` | `_native.ProcessPoolExecutor`, in the program |
//! | `call` | what becomes of a call in a pool, told without the GIL |
//! | `notifier` | the thread that tells Python code of it |
//! | `pickling` | calls and answers as messages, large buffers beside the pickle |
//! | `worker` | `_native.work`, in the worker |

mod call;
mod executor;
mod notifier;
mod pickling;
mod worker;

pub(crate) use call::InPool;
pub(crate) use executor::ProcessPoolExecutor;
pub(crate) use notifier::NotifierThread;
pub(crate) use pickling::{SharedBuffer, copy_bytes};
pub(crate) use worker::work;
