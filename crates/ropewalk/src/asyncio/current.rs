//! Which loop and which task run in this thread.
//!
//! Both are pointers that whoever runs them sets and takes back: they are valid while they are set. They never leave
//! the thread.

use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use super::error::Cancelled;
use super::event_loop::{EventLoop, Inner};
use super::task::{AnyTask, Header, LocalRef};

struct Current {
    /// The loop's number; 0 if there is none.
    id: Cell<u64>,
    inner: Cell<*const Inner>,
    task: Cell<Option<NonNull<Header>>>,
}

thread_local! {
    static CURRENT: Current = const {
        Current { id: Cell::new(0), inner: Cell::new(ptr::null()), task: Cell::new(None) }
    };
}

/// Makes a loop the one that runs in this thread, outside of any task, until dropped; then puts back what was.
pub(super) struct LoopGuard<'a> {
    before: (u64, *const Inner, Option<NonNull<Header>>),
    _inner: &'a Rc<Inner>,
}

impl<'a> LoopGuard<'a> {
    pub(super) fn enter(inner: &'a Rc<Inner>) -> Self {
        let now = (inner.id, Rc::as_ptr(inner), None);
        let before = CURRENT.with(|current| current.replace(now));
        Self {
            before,
            _inner: inner,
        }
    }
}

impl Drop for LoopGuard<'_> {
    fn drop(&mut self) {
        CURRENT.with(|current| current.replace(self.before));
    }
}

impl Current {
    fn replace(
        &self,
        (id, inner, task): (u64, *const Inner, Option<NonNull<Header>>),
    ) -> (u64, *const Inner, Option<NonNull<Header>>) {
        (
            self.id.replace(id),
            self.inner.replace(inner),
            self.task.replace(task),
        )
    }
}

/// Makes a task the one that runs in this thread, until dropped.
pub(super) struct TaskGuard(());

impl TaskGuard {
    /// # Safety
    /// The loop has a handle of the task until this is dropped.
    #[inline]
    pub(super) unsafe fn enter(task: NonNull<Header>) -> Self {
        CURRENT.with(|current| current.task.set(Some(task)));
        Self(())
    }
}

impl Drop for TaskGuard {
    #[inline]
    fn drop(&mut self) {
        CURRENT.with(|current| current.task.set(None));
    }
}

/// The number of the loop that runs in this thread; 0 if there is none, or the thread is ending.
#[inline]
pub(super) fn loop_id() -> u64 {
    CURRENT.try_with(|current| current.id.get()).unwrap_or(0)
}

/// Calls `f` with the loop that runs in this thread.
#[inline]
pub(super) fn with_loop<R>(f: impl FnOnce(&Inner) -> R) -> Option<R> {
    let inner = CURRENT.try_with(|current| current.inner.get()).ok()?;
    // SAFETY: a pointer that is set comes from a `LoopGuard`, which borrows the loop; `f` ends before the guard can,
    // since both are in this thread and the guard's scope encloses this call.
    unsafe { inner.as_ref() }.map(f)
}

/// Takes the request for cancellation that the running task has got.
#[inline]
pub(super) fn take_request() -> Option<Cancelled> {
    let task = CURRENT.try_with(|current| current.task.get()).ok()??;
    // SAFETY: as in `with_loop`, by the contract of `TaskGuard::enter`.
    unsafe { task.as_ref() }.take_request()
}

/// The loop that runs in this thread.
///
/// # Errors
/// There is none (Python: `RuntimeError: no running event loop`).
///
/// ```
/// use ropewalk::asyncio;
///
/// assert!(asyncio::get_running_loop().is_err());
/// asyncio::run(async {
///     assert!(asyncio::get_running_loop()?.is_running());
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub fn get_running_loop() -> super::Result<EventLoop> {
    let inner = CURRENT
        .try_with(|current| current.inner.get())
        .unwrap_or(ptr::null());
    if inner.is_null() {
        return Err(super::Error::misuse(
            "no running event loop: call it inside `asyncio::run`",
        ));
    }
    // SAFETY: the pointer is that of an `Rc` which a `LoopGuard` borrows, so the count is at least one.
    Ok(EventLoop(unsafe {
        Rc::increment_strong_count(inner);
        Rc::from_raw(inner)
    }))
}

/// The task that runs in this thread (Python: `asyncio.current_task`); none in a callback or outside a loop.
pub fn current_task() -> Option<AnyTask> {
    let task = CURRENT.try_with(|current| current.task.get()).ok()??;
    // SAFETY: by the contract of `TaskGuard::enter` the task has a handle, and this is its loop's thread.
    Some(AnyTask::new(unsafe { LocalRef::of(task) }))
}

/// Whether `task` runs in this thread.
pub(super) fn is_current(task: &LocalRef) -> bool {
    CURRENT.try_with(|current| current.task.get()) == Ok(Some(task.as_ptr()))
}

/// The tasks of the running loop that are not done (Python: `asyncio.all_tasks`); none outside a loop.
pub fn all_tasks() -> Vec<AnyTask> {
    with_loop(Inner::all_tasks).unwrap_or_default()
}
