//! [`Header`]: what every task has, whatever its future.

use std::alloc::Layout;
use std::cell::{Cell, OnceCell, RefCell};
use std::mem;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Waker};

use super::{AnyTask, LocalRef};
use crate::asyncio::cancel::Requests;
use crate::asyncio::counts::{Elsewhere, Here};
use crate::asyncio::current;
use crate::asyncio::error::{Cancelled, Error};
use crate::asyncio::event_loop::Inner;
use crate::asyncio::handle::Call;

/// Where a task stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    /// Its future has never been polled.
    Created,
    Suspended,
    /// Its future is polled or dropped just now.
    Running,
    /// The future is gone, the outcome is in its place.
    Done,
    /// So is the outcome.
    Taken,
}

/// What the loop does with a task whatever its types are.
pub(super) struct Methods {
    /// Polls the future once; ends the task if it is ready.
    ///
    /// # Safety
    /// The loop's thread, from a turn, and the future is there and not in use.
    pub(super) poll: unsafe fn(NonNull<Header>, &mut Context<'_>),
    /// Drops the future and ends the task with a failure.
    ///
    /// # Safety
    /// As for `poll`.
    pub(super) fail: unsafe fn(NonNull<Header>, Error),
    /// Where the outcome is.
    pub(super) outcome: usize,
    pub(super) layout: Layout,
}

/// What every thread may see.
pub(super) struct Shared {
    pub(super) loop_id: u64,
    pub(super) methods: &'static Methods,
    pub(super) references: Elsewhere,
    /// Mail from another thread is under way.
    pub(super) posted: AtomicBool,
}

/// What every task has. A reference to it is only had in the loop's thread.
#[repr(C)] // a `SharedRef` points to the first field
pub(in crate::asyncio) struct Header {
    pub(super) shared: Shared,
    pub(super) references: Here,
    pub(super) stage: Cell<Stage>,
    /// A `Due` is there.
    pub(super) scheduled: Cell<bool>,
    pub(super) aborted: Cell<bool>,
    /// Ended as cancelled.
    pub(super) cancelled: Cell<bool>,
    /// Nobody will ask for the outcome.
    pub(super) detached: Cell<bool>,
    /// A failure has been looked at.
    pub(super) retrieved: Cell<bool>,
    /// Who awaits the task has begun to wait.
    pub(super) waited: Cell<bool>,
    /// Not one of the program's tasks.
    pub(in crate::asyncio) hidden: Cell<bool>,
    pub(super) requests: Requests,
    /// The place among the loop's tasks.
    index: u32,
    pub(super) number: u64,
    waiter: Cell<Option<Waker>>,
    extra: OnceCell<Box<Extra>>,
}

/// What few tasks have.
#[derive(Default)]
pub(super) struct Extra {
    pub(super) name: RefCell<Option<Arc<str>>>,
    /// Of the last request.
    message: Cell<Option<Arc<str>>>,
    pub(super) callbacks: RefCell<Vec<Callback>>,
    /// The index and number of the task to which a request was passed on.
    asked: Cell<Option<(u32, u64)>>,
    /// What the task failed with: no future's or outcome's part, so that it may be dropped anywhere.
    pub(super) failure: OnceCell<Error>,
}

/// Who is told that a task is over.
pub(super) enum Callback {
    /// User code, in a turn of its own.
    Function(Box<dyn FnOnce(&AnyTask)>),
    /// Ours, at once.
    Watch(Rc<dyn Watch>, usize),
}

/// Somebody of ours who waits for tasks: keeps the number and wakes, and calls no user code.
pub(in crate::asyncio) trait Watch {
    fn done(&self, number: usize);
}

impl Header {
    /// The header of a task with one handle.
    pub(super) fn new(inner: &Inner, index: u32, methods: &'static Methods) -> Self {
        let (here, elsewhere) = Here::new(1);
        Self {
            shared: Shared {
                loop_id: inner.id,
                methods,
                references: elsewhere,
                posted: AtomicBool::new(false),
            },
            references: here,
            stage: Cell::new(Stage::Created),
            scheduled: Cell::new(false),
            aborted: Cell::new(false),
            cancelled: Cell::new(false),
            detached: Cell::new(false),
            retrieved: Cell::new(false),
            waited: Cell::new(false),
            hidden: Cell::new(false),
            requests: Requests::default(),
            index,
            number: inner.task_number(),
            waiter: Cell::new(None),
            extra: OnceCell::new(),
        }
    }

    pub(super) fn loop_id(&self) -> u64 {
        self.shared.loop_id
    }

    pub(super) fn methods(&self) -> &'static Methods {
        self.shared.methods
    }

    #[inline]
    pub(super) fn done(&self) -> bool {
        self.stage.get() >= Stage::Done
    }

    pub(super) fn extra(&self) -> &Extra {
        self.extra.get_or_init(Box::default)
    }

    pub(super) fn failure(&self) -> Option<&Error> {
        self.extra.get()?.failure.get()
    }

    pub(super) fn request(&self, message: Option<Arc<str>>) {
        self.requests.add();
        if message.is_some() || self.extra.get().is_some() {
            self.extra().message.set(message);
        }
    }

    /// Notes that a request is passed on to a task, which this one awaits. False if it would come round to this one.
    pub(super) fn ask(&self, other: &Header) -> bool {
        // It ends: no task has asked one from which this leads back to it.
        let mut next = Some((other.index, other.number));
        while let Some((index, number)) = next {
            if number == self.number {
                return false;
            }
            let task = current::with_loop(|inner| inner.task_at(index)).flatten();
            let task = task.filter(|task| task.number == number);
            next = task.and_then(|task| task.extra.get()?.asked.get());
        }
        self.extra().asked.set(Some((other.index, other.number)));
        true
    }

    /// Takes the request that is to be delivered.
    #[inline]
    pub(in crate::asyncio) fn take_request(&self) -> Option<Cancelled> {
        self.requests.take().then(|| {
            let message = self.extra.get().and_then(|extra| extra.message.take());
            Cancelled::new(message)
        })
    }

    pub(super) fn set_waiter(&self, waker: &Waker) {
        match self.waiter.take() {
            Some(old) if old.will_wake(waker) => self.waiter.set(Some(old)),
            old => {
                self.waiter.set(Some(waker.clone()));
                drop(old);
            }
        }
    }

    /// Takes the task, which has just come to its end, from among those of the loop.
    pub(super) fn leave_loop(&self, failure: Option<&Error>) -> LocalRef {
        if let Some(failure) = failure {
            self.cancelled.set(failure.is_cancelled());
            let _ = self.extra().failure.set(failure.clone());
        }
        let this = current::with_loop(|inner| inner.forget_task(self.index)).flatten();
        let this = this.expect("a task ends on its loop, which has it until then");
        if self.scheduled.get() {
            mem::forget(this.clone()); // the loop's reference; see `Due`
        }
        this
    }

    /// Tells those who wait for the end of the task.
    #[inline]
    pub(super) fn tell_the_end(&self, this: &LocalRef) {
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
        let Some(extra) = self.extra.get() else { return };
        for callback in extra.callbacks.take() {
            match callback {
                Callback::Watch(who, number) => who.done(number),
                Callback::Function(function) => {
                    let this = AnyTask::new(this.clone());
                    let call = Call::Function(Box::new(move || function(&this)));
                    current::with_loop(|inner| inner.call_soon(call));
                }
            }
        }
    }
}
