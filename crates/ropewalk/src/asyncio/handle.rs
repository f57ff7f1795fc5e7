//! Callbacks that are due: [`Handle`] and [`TimerHandle`].

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use super::current;

/// What a handle calls.
pub(super) enum Call {
    Function(Box<dyn FnOnce()>),
    Wake(Waker),
}

/// A callback until it is called or cancelled; then nothing.
pub(super) struct Scheduled {
    cancelled: Cell<bool>,
    call: RefCell<Option<Call>>,
}

impl Scheduled {
    pub(super) fn new(call: Call) -> Rc<Self> {
        Rc::new(Self {
            cancelled: Cell::new(false),
            call: RefCell::new(Some(call)),
        })
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }

    /// Whether the call is yet to be made.
    pub(super) fn is_due(&self) -> bool {
        self.call.borrow().is_some()
    }

    pub(super) fn take(&self) -> Option<Call> {
        self.call.take()
    }

    /// Puts another waker in, if the call is yet to be made.
    pub(super) fn set_waker(&self, waker: &Waker) {
        let old = match &mut *self.call.borrow_mut() {
            Some(Call::Wake(old)) if !old.will_wake(waker) => Some(std::mem::replace(old, waker.clone())),
            _ => None,
        };
        drop(old); // outside the borrow
    }

    /// Cancels what waits for a time.
    pub(super) fn cancel_timer(&self) {
        if self.cancel() {
            current::with_loop(|inner| inner.timer_cancelled());
        }
    }

    fn cancel(&self) -> bool {
        let call = self.take();
        call.is_some() && !self.cancelled.replace(true)
    }
}

/// A callback that was given to [`call_soon`](super::EventLoop::call_soon) (Python: `asyncio.Handle`).
///
/// Clones are the same callback. Dropping it changes nothing.
#[derive(Clone)]
pub struct Handle(pub(super) Rc<Scheduled>);

impl Handle {
    /// Keeps the callback from being called, and drops it. Without effect once it was called.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Whether it was cancelled before it was called.
    pub fn cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.cancelled() {
            "<Handle cancelled>"
        } else {
            "<Handle>"
        })
    }
}

/// A callback that is due at a time (Python: `asyncio.TimerHandle`).
#[derive(Clone)]
pub struct TimerHandle {
    pub(super) handle: Handle,
    pub(super) when: Duration,
}

impl TimerHandle {
    /// The time on the loop's clock at which it is due.
    pub fn when(&self) -> Duration {
        self.when
    }

    /// Keeps the callback from being called, and drops it. Without effect once it was called.
    pub fn cancel(&self) {
        self.handle.0.cancel_timer();
    }
}

impl Deref for TimerHandle {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl fmt::Debug for TimerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cancelled = if self.cancelled() { " cancelled" } else { "" };
        write!(f, "<TimerHandle{cancelled} when={:?}>", self.when)
    }
}
