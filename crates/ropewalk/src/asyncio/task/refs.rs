//! Who may refer to a task, and where: [`LocalRef`], [`SharedRef`], which is a waker, and [`Due`].

use std::alloc;
use std::mem::{self, ManuallyDrop};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

use super::AnyTask;
use super::header::{Header, Shared, Stage};
use crate::asyncio::counts::Last;
use crate::asyncio::current;
use crate::asyncio::error::Cancelled;
use crate::asyncio::event_loop::{Entry, Mail, remotes};

/// Gives the memory of a task back. What is left in the header contains no part of the future or its outcome.
///
/// # Safety
/// `task` had its last reference.
#[inline]
unsafe fn free(task: NonNull<Header>) {
    // SAFETY: by the contract nobody else uses the memory, which was allocated with this layout.
    unsafe {
        let layout = task.as_ref().methods().layout;
        task.drop_in_place();
        // Whatever loop runs here: all have memory of the same layouts.
        match current::with_loop(|inner| inner.memory.give_back(task.cast(), layout)) {
            Some(()) => {}
            None => alloc::dealloc(task.as_ptr().cast(), layout),
        }
    }
}

/// A handle of a task, in its loop's thread.
pub(in crate::asyncio) struct LocalRef(NonNull<Header>);

impl LocalRef {
    /// # Safety
    /// The task counts one handle for this, and this thread is its loop's.
    pub(super) unsafe fn from_raw(task: NonNull<Header>) -> Self {
        Self(task)
    }

    #[inline]
    pub(in crate::asyncio) fn as_ptr(&self) -> NonNull<Header> {
        self.0
    }

    /// Another handle of a task that somebody else in this thread has one of.
    ///
    /// # Safety
    /// The task has a handle, and this thread is its loop's.
    pub(in crate::asyncio) unsafe fn of(task: NonNull<Header>) -> Self {
        // SAFETY: as the contract says.
        unsafe { task.as_ref() }.references.add_handle();
        Self(task)
    }

    /// Has the task polled, soon and once; by mail if its loop does not run.
    pub(super) fn wake(&self) {
        SharedRef::new(self).wake();
    }

    /// The task's place in the ready ring, unless it has one.
    #[inline]
    pub(in crate::asyncio) fn due(&self) -> Option<Due> {
        Due::new(self.0)
    }
}

impl Deref for LocalRef {
    type Target = Header;

    #[inline]
    fn deref(&self) -> &Header {
        // SAFETY: the reference counts, and never leaves the loop's thread: it is not `Send`.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for LocalRef {
    #[inline]
    fn clone(&self) -> Self {
        self.references.add_handle();
        Self(self.0)
    }
}

impl Drop for LocalRef {
    #[inline]
    fn drop(&mut self) {
        if let Last(true) = self.references.drop_handle(&self.shared.references) {
            // SAFETY: that was the last one.
            unsafe { free(self.0) };
        }
    }
}

/// A waker of a task, in any thread.
pub(in crate::asyncio) struct SharedRef(NonNull<Header>);

// SAFETY: but for `Shared`, which is `Sync`, the header is touched in the loop's thread alone: `here` sees to that. The
// memory may be given back in any thread; see `free`.
unsafe impl Send for SharedRef {}
// SAFETY: as for `Send`.
unsafe impl Sync for SharedRef {}

impl SharedRef {
    pub(super) fn new(task: &LocalRef) -> Self {
        task.references.add_waker(&task.shared.references);
        Self(task.0)
    }

    #[inline]
    fn shared(&self) -> &Shared {
        // SAFETY: the first field of what this counts a reference of. No reference to the rest is made, which may be in use.
        unsafe { self.0.cast::<Shared>().as_ref() }
    }

    /// The task, if this is its loop's thread and the loop runs.
    #[inline]
    fn here(&self) -> Option<&Header> {
        if current::loop_id() != self.shared().loop_id {
            return None;
        }
        // SAFETY: the loop with this number, which is no other's, runs in this thread and never leaves it.
        Some(unsafe { self.0.as_ref() })
    }

    /// A handle, if this is the loop's thread, the loop runs and the task is not done.
    pub(super) fn unfinished(&self) -> Option<LocalRef> {
        let header = self.here()?;
        // SAFETY: this is the loop's thread, and the loop has a handle of what is not done.
        (!header.done()).then(|| unsafe { LocalRef::of(self.0) })
    }

    #[inline]
    pub(super) fn wake(self) {
        match self.here() {
            Some(_) => self.push(),
            None => self.post(),
        }
    }

    #[inline]
    fn wake_by_ref(&self) {
        match self.here() {
            Some(_) => self.push(),
            None => self.clone().post(),
        }
    }

    /// In the loop's thread.
    #[inline]
    fn push(&self) {
        if let Some(due) = Due::new(self.0) {
            current::with_loop(|inner| inner.push(Entry::Task(due)));
        }
    }

    #[cold]
    fn post(self) {
        // Pairs with `received`. When the loop is gone so is the future: the mail comes back and is dropped.
        if !self.shared().posted.swap(true, Ordering::AcqRel)
            && let Some(remote) = remotes::get(self.shared().loop_id)
        {
            let _ = remote.send(Mail::Wake(self));
        }
    }

    /// Takes in mail that woke the task, in the loop's thread.
    pub(in crate::asyncio) fn received(self) -> Entry {
        // A swap, so that it reads from the last waker that found `posted` set: what that thread wrote before it
        // woke the task is seen by the poll to come.
        self.shared().posted.swap(false, Ordering::AcqRel);
        match Due::new(self.0) {
            Some(due) => Entry::Task(due),
            None => Entry::Stale(self),
        }
    }
}

impl Clone for SharedRef {
    #[inline]
    fn clone(&self) -> Self {
        match self.here() {
            Some(header) => header.references.add_waker(&header.shared.references),
            None => self.shared().references.add_waker(),
        }
        Self(self.0)
    }
}

impl Drop for SharedRef {
    #[inline]
    fn drop(&mut self) {
        let last = match self.here() {
            Some(header) => header.references.drop_waker(&header.shared.references),
            None => self.shared().references.drop_waker(),
        };
        if last.0 {
            // SAFETY: that was the last one.
            unsafe { free(self.0) };
        }
    }
}

static WAKER: RawWakerVTable = {
    type Data = *const ();

    /// # Safety
    /// `data` is that of a waker made with this table.
    unsafe fn of(data: Data) -> SharedRef {
        // SAFETY: such a waker's data is the pointer of a `SharedRef`, never null.
        SharedRef(unsafe { NonNull::new_unchecked(data.cast_mut().cast()) })
    }
    /// # Safety
    /// As for the others here: `data` is that of a waker made with this table, whose reference `wake` and `drop` take.
    unsafe fn clone(data: Data) -> RawWaker {
        // SAFETY: the contract.
        let this = ManuallyDrop::new(unsafe { of(data) });
        mem::forget(SharedRef::clone(&this));
        RawWaker::new(data, &WAKER)
    }
    unsafe fn wake(data: Data) {
        // SAFETY: the contract.
        unsafe { of(data) }.wake();
    }
    unsafe fn wake_by_ref(data: Data) {
        // SAFETY: the contract.
        ManuallyDrop::new(unsafe { of(data) }).wake_by_ref();
    }
    unsafe fn drop(data: Data) {
        // SAFETY: the contract.
        mem::drop(unsafe { of(data) });
    }
    RawWakerVTable::new(clone, wake, wake_by_ref, drop)
};

/// A task's place in the ready ring: there is one at most, and `scheduled` says whether there is.
///
/// It counts no reference, since the loop has one of every task that is not done. If the task ends while this is there,
/// the loop's reference becomes this one's.
pub(in crate::asyncio) struct Due(NonNull<Header>);

impl Due {
    /// In the loop's thread.
    #[inline]
    fn new(task: NonNull<Header>) -> Option<Self> {
        // SAFETY: the callers have a reference, in the loop's thread.
        let header = unsafe { task.as_ref() };
        (!header.done() && !header.scheduled.replace(true)).then(|| Self(task))
    }

    /// A handle of the task.
    pub(in crate::asyncio) fn task(&self) -> AnyTask {
        // SAFETY: the loop's handle is there, or its successor.
        AnyTask::new(unsafe { LocalRef::of(self.0) })
    }

    /// Gives the task its turn.
    #[inline]
    pub(in crate::asyncio) fn run(self) {
        let task = self.0;
        // SAFETY: a `Due` is only had in the loop's thread. The loop's reference is there until the task ends, and if it has
        // ended it is this one's.
        let header = unsafe { task.as_ref() };
        if header.done() {
            return;
        }
        mem::forget(self);
        header.scheduled.set(false);
        // SAFETY: this is a turn, in the loop's thread; the task is not done, so its future is there, and is not in use,
        // since what runs it is this alone.
        unsafe {
            if header.aborted.get() {
                return (header.methods().fail)(task, Cancelled::default().into());
            }
            if header.stage.get() == Stage::Created
                && let Some(cancelled) = header.take_request()
            {
                return (header.methods().fail)(task, cancelled.into());
            }
            // SAFETY: the data is a task's; the waker's reference is the loop's, which is there until the task ends,
            // and is not given back here.
            let waker = ManuallyDrop::new(Waker::from_raw(RawWaker::new(task.as_ptr().cast(), &WAKER)));
            (header.methods().poll)(task, &mut Context::from_waker(&waker));
        }
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        // SAFETY: as in `run`.
        let header = unsafe { self.0.as_ref() };
        header.scheduled.set(false);
        if header.done() {
            // SAFETY: the loop's reference, which is this one's.
            drop(unsafe { LocalRef::from_raw(self.0) });
        }
    }
}
