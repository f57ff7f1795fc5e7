//! [`Task`]: a coroutine that the loop runs.
//!
//! # What a task is made of
//!
//! One allocation, `Cell<T, F>`: what every task has (`Header`), the outcome and the future. Handles and the loop see it as
//! `dyn Run`. It is counted atomically, since its wakers may be in any thread.
//!
//! # Access rules
//! - `Header::posted` and `loop_id` belong to every thread.
//! - All else (`Header::local`, the outcome, the future) belongs to the loop's thread. Handles cannot leave it, and a waker
//!   touches these parts only where the loop with the task's number runs in its own thread.
//! - The future is polled and dropped by the loop alone, while `stage` says so, and is gone when the stage is DONE.
//! - Whatever thread drops the last reference drops neither future, nor outcome, nor callbacks: the loop refers to every
//!   task that is not done, and [`Task`], which cannot leave the thread either, empties the outcome. The future's place
//!   is `ManuallyDrop`, so that even a mistake here would leak and not drop in a foreign thread.

use std::any::Any;
use std::cell::{Cell as Plain, RefCell, UnsafeCell};
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::cancel::Requests;
use super::current::{self, TaskGuard};
use super::error::{Cancelled, Error, Result};
use super::event_loop::{Entry, Inner, Mail, remotes};
use super::handle::Call;

/// Where a task stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Its future has never been polled.
    Created,
    Running,
    Suspended,
    /// The future is gone, the outcome is there or was taken.
    Done,
}

/// What every task has.
pub(super) struct Header {
    loop_id: u64,
    /// Mail from another thread is under way.
    posted: AtomicBool,
    pub(super) local: Local,
}

/// Who is told that a task is over.
enum Callback {
    /// User code, in a turn of its own.
    Function(Box<dyn FnOnce(&AnyTask)>),
    /// Ours, at once.
    Watch(Rc<dyn Watch>, usize),
}

/// Somebody of ours who waits for tasks: keeps the number and wakes, and calls no user code.
pub(super) trait Watch {
    fn done(&self, number: usize);
}

/// The parts that belong to the loop's thread.
pub(super) struct Local {
    stage: Plain<Stage>,
    /// An entry in the ready ring is there.
    scheduled: Plain<bool>,
    aborted: Plain<bool>,
    /// Ended as cancelled; meaningful when DONE.
    cancelled: Plain<bool>,
    pub(super) requests: Requests,
    number: u64,
    name: RefCell<Option<Arc<str>>>,
    /// The place among the loop's tasks.
    index: usize,
    /// The one who awaits the task, and whether he has begun to wait.
    waited: Plain<bool>,
    waiter: RefCell<Option<Waker>>,
    callbacks: RefCell<Vec<Callback>>,
    /// What the task failed with: no user's type, so that it may be dropped anywhere.
    failure: RefCell<Option<Error>>,
    /// Nobody will ask for the outcome.
    detached: Plain<bool>,
    /// A failure has been looked at.
    retrieved: Plain<bool>,
}

/// A task of any type, as the loop and untyped handles see it.
pub(super) trait Run: Send + Sync {
    fn header(&self) -> &Header;

    /// The `RefCell<Option<Result<T>>>`. The loop's thread only.
    fn outcome(&self) -> &dyn Any;

    /// Polls the future once, if the task is scheduled. The loop's thread only, from a turn.
    fn run(self: Arc<Self>);

    /// Drops the future and ends the task as cancelled. The loop's thread only, not from within the task.
    fn drop_future(self: Arc<Self>);
}

struct Cell<T, F> {
    header: Header,
    outcome: RefCell<Option<Result<T>>>,
    future: UnsafeCell<ManuallyDrop<F>>,
}

// SAFETY: the access rules above: what is not `Send` or `Sync` in a cell is touched in the loop's thread alone, and is
// gone or never dropped when the last reference goes in another.
unsafe impl<T, F> Send for Cell<T, F> {}
// SAFETY: as for `Send`.
unsafe impl<T, F> Sync for Cell<T, F> {}

/// Makes a task; the caller puts it among the loop's tasks, at `index`, and schedules it.
pub(super) fn new<T, F>(inner: &Inner, index: usize, future: F) -> Arc<dyn Run>
where
    T: 'static,
    F: Future<Output = Result<T>> + 'static,
{
    let local = Local {
        stage: Plain::new(Stage::Created),
        scheduled: Plain::new(true),
        aborted: Plain::new(false),
        cancelled: Plain::new(false),
        requests: Requests::default(),
        number: inner.task_number(),
        name: RefCell::new(None),
        index,
        waited: Plain::new(false),
        waiter: RefCell::new(None),
        callbacks: RefCell::new(Vec::new()),
        failure: RefCell::new(None),
        detached: Plain::new(false),
        retrieved: Plain::new(false),
    };
    Arc::new(Cell {
        header: Header {
            loop_id: inner.id,
            posted: AtomicBool::new(false),
            local,
        },
        outcome: RefCell::new(None),
        future: UnsafeCell::new(ManuallyDrop::new(future)),
    })
}

impl Header {
    /// Whether an entry has to be pushed for a wake-up. The loop's thread only.
    fn schedule(&self) -> bool {
        self.local.stage.get() != Stage::Done && !self.local.scheduled.replace(true)
    }

    /// Takes in mail that woke the task. The loop's thread only.
    pub(super) fn received(&self) {
        // A swap, so that it reads from the last waker that found `posted` set: what that thread wrote before it
        // woke the task is seen by the poll to come.
        self.posted.swap(false, Ordering::AcqRel);
        self.local.scheduled.set(true);
    }
}

/// Puts a task that has to run into the ready ring, from any thread.
#[inline]
fn wake(task: Arc<dyn Run>) {
    let header = task.header();
    if current::loop_id() != header.loop_id {
        post(task);
    } else if header.schedule() {
        current::with_loop(|inner| inner.push(Entry::Task(task)));
    }
}

/// The same from another thread, apart so that the way of most wake-ups is short.
#[cold]
fn post(task: Arc<dyn Run>) {
    let header = task.header();
    // Pairs with `received`. When the loop is gone so is the future: the mail comes back and is dropped.
    if !header.posted.swap(true, Ordering::AcqRel)
        && let Some(remote) = remotes::get(header.loop_id)
    {
        let _ = remote.send(Mail::Wake(task));
    }
}

impl<T, F> Wake for Cell<T, F>
where
    T: 'static,
    F: Future<Output = Result<T>> + 'static,
{
    fn wake(self: Arc<Self>) {
        wake(self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let here = current::loop_id() == self.header.loop_id;
        if !(here && self.header.local.scheduled.get()) {
            wake(self.clone());
        }
    }
}

impl<T, F> Run for Cell<T, F>
where
    T: 'static,
    F: Future<Output = Result<T>> + 'static,
{
    fn header(&self) -> &Header {
        &self.header
    }

    fn outcome(&self) -> &dyn Any {
        &self.outcome
    }

    fn run(self: Arc<Self>) {
        let local = &self.header.local;
        if !local.scheduled.replace(false) || local.stage.get() == Stage::Done {
            return;
        }
        if local.aborted.get() {
            return self.finish(Err(Cancelled::default().into()));
        }
        if local.stage.get() == Stage::Created
            && let Some(cancelled) = local.requests.take()
        {
            return self.finish(Err(cancelled.into()));
        }
        local.stage.set(Stage::Running);
        // SAFETY: the waker's reference is not given up, and `self` outlives it.
        let waker = ManuallyDrop::new(Waker::from(unsafe { Arc::from_raw(Arc::as_ptr(&self)) }));
        let task: Arc<dyn Run> = self;
        let polled = {
            let _current = TaskGuard::enter(&task);
            // SAFETY: `task` is this very cell. The stage was not DONE, so the future is there; RUNNING keeps everybody
            // else from it. It never moves: the cell is in an `Arc`.
            let future = unsafe { Pin::new_unchecked(&mut **(*Self::of(&task)).future.get()) };
            panic::catch_unwind(AssertUnwindSafe(|| future.poll(&mut Context::from_waker(&waker))))
        };
        let outcome = match polled {
            Ok(Poll::Pending) => {
                task.header().local.stage.set(Stage::Suspended);
                return;
            }
            Ok(Poll::Ready(outcome)) => outcome,
            Err(payload) => Err(Error::panicked(payload)),
        };
        // SAFETY: `task` is this very cell.
        unsafe { &*Self::of(&task) }.finish(outcome);
    }

    fn drop_future(self: Arc<Self>) {
        if self.header.local.stage.get() != Stage::Done {
            self.finish(Err(Cancelled::default().into()));
        }
    }
}

impl<T, F> Cell<T, F>
where
    T: 'static,
    F: Future<Output = Result<T>> + 'static,
{
    fn of(task: &Arc<dyn Run>) -> *const Self {
        Arc::as_ptr(task).cast()
    }

    /// Ends the task: drops the future, keeps the outcome, tells those who wait.
    fn finish(&self, outcome: Result<T>) {
        let local = &self.header.local;
        // Still not DONE while the future's destructors run: they may come back to the task, and find it unfinished.
        local.stage.set(Stage::Running);
        if std::mem::needs_drop::<F>() {
            // SAFETY: only here is it dropped, and DONE, set below, keeps everybody from it afterwards; nobody polls
            // it now. A panic on the way is the hook's to report.
            let dropped = panic::catch_unwind(AssertUnwindSafe(|| unsafe {
                ManuallyDrop::drop(&mut *self.future.get());
            }));
            drop(dropped);
        }
        local.stage.set(Stage::Done);
        local
            .cancelled
            .set(outcome.as_ref().is_err_and(Error::is_cancelled));
        *local.failure.borrow_mut() = outcome.as_ref().err().cloned();
        let this = current::with_loop(|inner| inner.forget_task(local.index)).flatten();
        if !local.detached.get() {
            *self.outcome.borrow_mut() = Some(outcome);
        } else {
            drop(panic::catch_unwind(AssertUnwindSafe(|| drop(outcome))));
            if let Some(this) = &this {
                AnyTask::new(this.clone()).report();
            }
        }
        if let Some(waiter) = local.waiter.take() {
            waiter.wake();
        }
        for callback in local.callbacks.take() {
            match (callback, &this) {
                (Callback::Watch(who, number), _) => who.done(number),
                (Callback::Function(function), Some(this)) => {
                    let this = AnyTask::new(this.clone());
                    let call = Call::Function(Box::new(move || function(&this)));
                    current::with_loop(|inner| inner.call_soon(call));
                }
                (Callback::Function(_), None) => {}
            }
        }
    }
}

/// A task whatever its outcome is: what [`current_task`](super::current_task) and [`all_tasks`](super::all_tasks) give.
///
/// Clones are the same task. They belong to the loop's thread.
///
/// ```compile_fail
/// fn send<T: Send>(_: T) {}
/// send(ropewalk::asyncio::current_task());
/// ```
#[derive(Clone)]
pub struct AnyTask {
    task: Arc<dyn Run>,
    _not_send: PhantomData<*const ()>,
}

impl AnyTask {
    pub(super) fn new(task: Arc<dyn Run>) -> Self {
        Self {
            task,
            _not_send: PhantomData,
        }
    }

    fn local(&self) -> &Local {
        &self.task.header().local
    }

    fn schedule(&self) {
        wake(self.task.clone());
    }

    /// Asks the task to end: [`Cancelled`] comes out of the point at which it waits.
    ///
    /// A task that waits for another passes the request on to that one. A task that has not begun never begins. False if
    /// the task is done. The rules are those of Python 3.13.
    pub fn cancel(&self) -> bool {
        self.request(None)
    }

    /// As [`cancel`](AnyTask::cancel), with a word on why.
    pub fn cancel_with(&self, message: impl Into<Arc<str>>) -> bool {
        self.request(Some(message.into()))
    }

    pub(super) fn request(&self, message: Option<Arc<str>>) -> bool {
        if self.done() {
            return false;
        }
        self.local().requests.add(message);
        self.schedule();
        true
    }

    /// Takes one request back, for who asked for it and has seen it take effect; returns how many are left.
    pub fn uncancel(&self) -> u32 {
        self.local().requests.uncancel()
    }

    /// How many requests there were that nobody took back.
    pub fn cancelling(&self) -> u32 {
        self.local().requests.count()
    }

    /// Ends the task at the next turn by dropping its future, as other runtimes do: clean-up cannot wait.
    pub fn abort(&self) {
        if !self.done() {
            self.local().aborted.set(true);
            self.schedule();
        }
    }

    /// Whether the task is over.
    pub fn done(&self) -> bool {
        self.local().stage.get() == Stage::Done
    }

    /// Whether the task is over because it was cancelled.
    pub fn cancelled(&self) -> bool {
        self.done() && self.local().cancelled.get()
    }

    /// The task's name; if none was given `Task-N`, counted in each loop.
    pub fn name(&self) -> Arc<str> {
        let local = self.local();
        let mut name = local.name.borrow_mut();
        name.get_or_insert_with(|| format!("Task-{}", local.number).into())
            .clone()
    }

    /// Gives the task another name.
    pub fn set_name(&self, name: impl Into<Arc<str>>) {
        *self.local().name.borrow_mut() = Some(name.into());
    }

    /// Has `callback` called when the task is over: in the turn after, or in the next one if it is over already.
    ///
    /// # Panics
    /// If the task is over and no loop runs.
    pub fn add_done_callback(&self, callback: impl FnOnce(&AnyTask) + 'static) {
        if self.done() {
            let this = self.clone();
            super::event_loop::expect_loop(|inner| {
                inner.call_soon(Call::Function(Box::new(move || callback(&this))));
            });
        } else {
            let callback = Callback::Function(Box::new(callback));
            self.local().callbacks.borrow_mut().push(callback);
        }
    }

    /// Has `who` told the number when the task is over: at once if it is.
    pub(super) fn watch(&self, who: Rc<dyn Watch>, number: usize) {
        if self.done() {
            who.done(number);
        } else {
            let callback = Callback::Watch(who, number);
            self.local().callbacks.borrow_mut().push(callback);
        }
    }

    /// Takes `who` back.
    pub(super) fn unwatch(&self, who: &Rc<dyn Watch>) {
        self.local()
            .callbacks
            .borrow_mut()
            .retain(|callback| !matches!(callback, Callback::Watch(other, _) if Rc::ptr_eq(other, who)));
    }

    /// Says that somebody looks after the task's failure.
    pub(super) fn set_retrieved(&self) {
        self.local().retrieved.set(true);
    }

    /// Tells the loop's exception handler of a failure that nobody will ask for.
    fn report(&self) {
        let Some(error) = self.failure() else { return };
        if self.cancelled() || self.local().retrieved.replace(true) {
            return;
        }
        if let Ok(event_loop) = current::get_running_loop() {
            event_loop.call_exception_handler(&super::ExceptionContext {
                message: "Task exception was never retrieved",
                exception: Some(error),
                task: Some(self.clone()),
            });
        }
    }

    pub(super) fn failure(&self) -> Option<Error> {
        self.local().failure.borrow().clone()
    }

    /// What the task failed with, if it is over and has failed or was cancelled. Leaves the outcome in its place.
    pub fn exception(&self) -> Option<Error> {
        if self.done() {
            self.set_retrieved();
        }
        self.failure()
    }

    /// Whether both are the same task.
    pub fn is(&self, other: &AnyTask) -> bool {
        Arc::ptr_eq(&self.task, &other.task)
    }

    pub(super) fn drop_future(self) {
        self.task.drop_future();
    }

    pub(super) fn set_waiter(&self, waker: &Waker) {
        let old = {
            let mut waiter = self.local().waiter.borrow_mut();
            match &*waiter {
                Some(old) if old.will_wake(waker) => None,
                _ => waiter.replace(waker.clone()),
            }
        };
        drop(old); // outside the borrow
    }
}

/// A task on its way through other threads, which can do nothing with it.
pub(super) struct SendTask(Arc<dyn Run>);

impl SendTask {
    pub(super) fn new(task: &AnyTask) -> Self {
        Self(task.task.clone())
    }

    /// Cancels the task; called on the loop's thread, and without effect elsewhere.
    pub(super) fn cancel(self) {
        if self.0.header().loop_id == current::loop_id() {
            AnyTask::new(self.0).cancel();
        }
    }
}

/// As Python's `repr`.
impl fmt::Debug for AnyTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.local().stage.get() {
            Stage::Done if self.cancelled() => "cancelled",
            Stage::Done => "finished",
            _ if self.cancelling() > 0 => "cancelling",
            _ => "pending",
        };
        write!(f, "<Task {state} name='{}'", self.name())?;
        if let Some(error) = self.failure()
            && !self.cancelled()
        {
            write!(f, " exception={error:?}")?;
        }
        f.write_str(">")
    }
}

/// A coroutine that the loop runs, and the right to its outcome (Python: `asyncio.Task`).
///
/// Await it for the outcome. Cancelling a task that awaits it cancels it, too. Dropping it neither cancels nor ends
/// the task: it runs on, and a failure is told to the loop's exception handler.
///
/// What every task can do, [`AnyTask`] documents.
///
/// # Errors
/// What the coroutine failed with; an error that [`is_panic`](Error::is_panic) if it panicked. A task that awaits itself or
/// one of another loop, or an outcome that was taken, gives an error that [`is_misuse`](Error::is_misuse).
///
/// ```
/// use ropewalk::asyncio;
/// use std::rc::Rc;
///
/// asyncio::run(async {
///     let flag = Rc::new(7); // futures need not be Send
///     let task = asyncio::create_task(async move { Ok(*flag) });
///     assert!(!task.done()); // it begins when the loop gets control
///     assert_eq!(task.await?, 7);
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub struct Task<T: 'static> {
    any: AnyTask,
    _outcome: PhantomData<T>,
}

impl<T: 'static> Task<T> {
    pub(super) fn new(task: Arc<dyn Run>) -> Self {
        Self {
            any: AnyTask::new(task),
            _outcome: PhantomData,
        }
    }

    fn outcome(&self) -> Option<Result<T>> {
        // A `Task<T>` is only made for a cell whose outcome is a `T`.
        let outcome: &RefCell<Option<Result<T>>> = self.any.task.outcome().downcast_ref()?;
        outcome.take()
    }

    /// Awaits the task without passing requests on to it.
    pub(super) fn join(&mut self, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let current = current::loop_id();
        if current != 0 && current != self.any.task.header().loop_id {
            return Poll::Ready(Err(Error::misuse("the task belongs to another event loop")));
        }
        if self.done() {
            return Poll::Ready(self.result());
        }
        if current::is_current(&self.any.task) {
            return Poll::Ready(Err(Error::misuse("a task cannot await itself")));
        }
        self.any.set_waiter(cx.waker());
        Poll::Pending
    }

    /// Takes the outcome of a task that is over.
    ///
    /// # Errors
    /// What the task failed with. One that [`is_misuse`](Error::is_misuse) if it is not over or the outcome was taken.
    pub fn result(&mut self) -> Result<T> {
        if !self.done() {
            return Err(Error::misuse("the result is not set: await the task"));
        }
        self.set_retrieved();
        self.outcome()
            .unwrap_or(Err(Error::misuse("the result has already been taken")))
    }
}

impl<T: 'static> Unpin for Task<T> {}

impl<T: 'static> Deref for Task<T> {
    type Target = AnyTask;

    fn deref(&self) -> &AnyTask {
        &self.any
    }
}

impl<T: 'static> Future for Task<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waited = &self.any.local().waited;
        // Who has waited here until a request came gets that, and the outcome stays where it is.
        if self.done()
            && waited.replace(false)
            && let Some(cancelled) = current::take_request()
        {
            return Poll::Ready(Err(cancelled.into()));
        }
        if let Poll::Ready(outcome) = self.join(cx) {
            return Poll::Ready(outcome);
        }
        self.any.local().waited.set(true);
        if let Some(cancelled) = current::take_request() {
            // The waker is there: what the other task makes of it comes back.
            self.any.request(cancelled.into_message());
        }
        Poll::Pending
    }
}

impl<T: 'static> Drop for Task<T> {
    fn drop(&mut self) {
        self.any.local().detached.set(true);
        let outcome = self.outcome();
        if outcome.is_some() {
            self.any.report();
        }
    }
}

impl<T: 'static> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.any.fmt(f)
    }
}
