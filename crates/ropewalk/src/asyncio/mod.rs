//! The event loop: what Python calls `asyncio`.
//!
//! A coroutine is an `async` block whose outcome is a [`Result`]. [`run`] runs one, [`create_task`] has another run beside it.
//! Cancelling a task delivers an error where the task waits, so that it can clean up, and even wait for that.
//!
//! | | |
//! |---|---|
//! | run | [`run`], [`Runner`], [`EventLoop`], [`Remote`], [`get_running_loop`] |
//! | tasks | [`create_task`], [`ensure_future`], [`Task`], [`AnyTask`], [`Future`], [`current_task`], [`all_tasks`] |
//! | failures | [`Result`], [`Error`], [`Cancelled`], [`cancellable`] |
//! | together | [`TaskGroup`], [`gather`], [`wait`], [`as_completed`] |
//! | time | [`sleep`], [`timeout`], [`timeout_at`], [`wait_for`]; [`shield`] |
//! | between tasks | [`Lock`], [`Event`], [`Condition`], [`Semaphore`], [`BoundedSemaphore`], [`Barrier`], [`Queue`], [`LifoQueue`], [`PriorityQueue`] |
//! | outside | [`net`]: sockets; [`signal`]; [`subprocess`]: [`create_subprocess_exec`], [`create_subprocess_shell`] |
//! | threads | [`to_thread`], [`wrap_future`], [`Remote::run_coroutine_threadsafe`] |
//! | tests | [`testing`] |
//! | beneath | [`engine`], the loop without a language: the crate's own tasks and Python's handles both run on it |

#[cfg(any(test, not(loom)))]
mod counts;
pub mod engine;

#[cfg(not(loom))]
mod barrier;
#[cfg(not(loom))]
mod cancel;
#[cfg(not(loom))]
mod completions;
#[cfg(not(loom))]
mod condition;
#[cfg(not(loom))]
mod current;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod event;
#[cfg(not(loom))]
mod event_loop;
#[cfg(not(loom))]
mod future;
#[cfg(not(loom))]
mod gather;
#[cfg(not(loom))]
mod handle;
#[cfg(not(loom))]
mod interrupt;
#[cfg(not(loom))]
mod lock;
#[cfg(not(loom))]
pub mod net;
#[cfg(not(loom))]
mod queue;
#[cfg(not(loom))]
mod runner;
#[cfg(not(loom))]
mod semaphore;
#[cfg(not(loom))]
mod shield;
#[cfg(not(loom))]
pub mod signal;
#[cfg(not(loom))]
mod sleep;
#[cfg(not(loom))]
mod source;
#[cfg(not(loom))]
pub mod subprocess;
#[cfg(not(loom))]
mod task;
#[cfg(not(loom))]
mod task_group;
#[cfg(not(loom))]
pub mod testing;
#[cfg(not(loom))]
mod threads;
#[cfg(not(loom))]
mod timeouts;
#[cfg(not(loom))]
mod waiters;
#[cfg(not(loom))]
mod waiting;

#[cfg(not(loom))]
pub use self::{
    barrier::{Barrier, BrokenBarrier},
    cancel::{Cancellable, cancellable},
    condition::{Condition, ConditionGuard},
    current::{all_tasks, current_task, get_running_loop},
    error::{Cancelled, Error, Result},
    event::Event,
    event_loop::{EventLoop, ExceptionContext, Remote},
    future::Future,
    gather::{Gather, GatherOutcomes, Gatherable, gather},
    handle::{Handle, TimerHandle},
    lock::{Lock, LockGuard},
    queue::{
        AnyQueue, GetNowaitError, LifoQueue, Order, PriorityQueue, PutNowaitError, Queue, QueueShutDown,
    },
    runner::{Runner, create_task, ensure_future, run},
    semaphore::{BoundedSemaphore, Permit, Semaphore},
    shield::shield,
    sleep::{Sleep, sleep},
    subprocess::{create_subprocess_exec, create_subprocess_shell},
    task::{AnyTask, Task},
    task_group::TaskGroup,
    threads::{to_thread, wrap_future},
    timeouts::{Timeout, timeout, timeout_at, wait_for},
    waiting::{AsCompleted, as_completed, wait},
};
#[cfg(not(loom))]
pub use crate::futures::ReturnWhen;

#[cfg(all(test, not(loom)))]
mod tests;
