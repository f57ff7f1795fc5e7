//! The memory of a task: header, and then the future or its outcome.

use std::cell::UnsafeCell;
use std::future::Future;
use std::mem::{self, ManuallyDrop, offset_of};
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

use super::header::{Header, Methods, Stage};
use super::{AnyTask, LocalRef, Task, memory};
use crate::asyncio::current::TaskGuard;
use crate::asyncio::error::{Error, Result};
use crate::asyncio::event_loop::Inner;

#[repr(C)]
struct Cell<T, F> {
    header: Header,
    body: UnsafeCell<Body<T, F>>,
}

/// What the stage says.
union Body<T, F> {
    future: ManuallyDrop<F>,
    outcome: ManuallyDrop<Result<T>>,
}

/// Makes a task; the caller puts it among the loop's tasks, at `index`, and schedules it.
pub(in crate::asyncio) fn new<T, F>(inner: &Inner, index: u32, future: F) -> Task<T>
where
    T: 'static,
    F: Future<Output = Result<T>> + 'static,
{
    let methods = const { &Cell::<T, F>::METHODS };
    let cell: NonNull<Cell<T, F>> = inner.memory.allocate(methods.layout).cast();
    // SAFETY: memory of that layout, which nobody else uses. The header counts one handle, and this is the loop's thread,
    // which `inner` never leaves.
    unsafe {
        cell.write(Cell {
            header: Header::new(inner, index, methods),
            body: UnsafeCell::new(Body {
                future: ManuallyDrop::new(future),
            }),
        });
        Task::new(LocalRef::from_raw(cell.cast()))
    }
}

impl<T, F> Cell<T, F>
where
    T: 'static,
    F: Future<Output = Result<T>> + 'static,
{
    const METHODS: Methods = Methods {
        poll: Self::poll,
        fail: Self::fail,
        outcome: offset_of!(Self, body),
        layout: memory::layout::<Self>(),
    };

    /// # Safety
    /// As [`Methods::poll`] says.
    unsafe fn poll(task: NonNull<Header>, cx: &mut Context<'_>) {
        // SAFETY: a cell of this type; the loop's reference is there until the task ends.
        let this = unsafe { task.cast::<Self>().as_ref() };
        this.header.stage.set(Stage::Running);
        let polled = {
            // SAFETY: the loop has a handle until the task ends.
            let _current = unsafe { TaskGuard::enter(task) };
            // SAFETY: the future is there, by the contract, and RUNNING keeps everybody else from it. It never moves.
            let future = unsafe { Pin::new_unchecked(&mut *(*this.body.get()).future) };
            panic::catch_unwind(AssertUnwindSafe(|| future.poll(cx)))
        };
        let outcome = match polled {
            Ok(Poll::Pending) => return this.header.stage.set(Stage::Suspended),
            Ok(Poll::Ready(outcome)) => outcome,
            Err(payload) => Err(Error::panicked(payload)),
        };
        drop(this.end(outcome));
    }

    /// # Safety
    /// As [`Methods::fail`] says.
    unsafe fn fail(task: NonNull<Header>, error: Error) {
        // SAFETY: a cell of this type; the loop's reference is there until the task ends.
        let this = unsafe { task.cast::<Self>().as_ref() };
        drop(this.end(Err(error)));
    }

    /// Ends the task: drops the future, keeps the outcome, tells those who wait. Called once, where `poll` or `fail` may be.
    /// Gives the loop's handle back, with which the memory may go.
    #[inline]
    fn end(&self, outcome: Result<T>) -> LocalRef {
        let header = &self.header;
        // Still not DONE while the future's destructors run: they may come back to the task, and find it unfinished.
        header.stage.set(Stage::Running);
        if mem::needs_drop::<F>() {
            // SAFETY: only here is it dropped, and DONE, set below, keeps everybody from it afterwards; nobody polls
            // it now. A panic on the way is the hook's to report.
            let dropped = panic::catch_unwind(AssertUnwindSafe(|| unsafe {
                ManuallyDrop::drop(&mut (*self.body.get()).future);
            }));
            drop(dropped);
        }
        header.stage.set(Stage::Taken);
        let this = header.leave_loop(outcome.as_ref().err());
        if !header.detached.get() {
            // SAFETY: the future is gone; nobody looks for an outcome before DONE.
            unsafe { (*self.body.get()).outcome = ManuallyDrop::new(outcome) };
            header.stage.set(Stage::Done);
        } else {
            drop(panic::catch_unwind(AssertUnwindSafe(|| drop(outcome))));
            AnyTask::new(this.clone()).report();
        }
        header.tell_the_end(&this);
        this
    }
}

/// Takes the outcome of a task, if it is there.
///
/// # Safety
/// It is that of a task whose outcome is a `T`.
pub(super) unsafe fn take_outcome<T>(task: &LocalRef) -> Option<Result<T>> {
    if task.stage.get() != Stage::Done {
        return None;
    }
    task.stage.set(Stage::Taken);
    // SAFETY: DONE says that the outcome is there, at that place and, by the contract, of that type; TAKEN that it is gone.
    Some(unsafe { task.as_ptr().byte_add(task.methods().outcome).cast().read() })
}
