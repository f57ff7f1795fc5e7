//! [`Future`]: a call under way, shared between who runs it and who waits for it.
//!
//! One allocation holds the state, the outcome and, until it is run, the call itself:
//! `Shared<T, Call<F>>`. Handles see it as `Shared<T, dyn Erased>`, executors as `dyn Run`.
//!
//! # Access rules
//! - `outcome` is written once, by whom `StateMachine::start` put in charge, before `finish`; it is read only after
//!   the state was seen to be FINISHED (acquire), and never written again.
//! - A value in it belongs to whoever flips `taken` from false to true; nobody else reads it.
//!   An error in it is never moved out, only cloned.
//! - A [`Call`] is touched by whoever got `Ok` from `start`: one thread, once. Handles only borrow the cell around it.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::error::{Error, Kind};
use super::state::{Notify, Owed, State, StateMachine, Watcher};
use crate::park::Wake;

enum Outcome<T> {
    None,
    /// Dropped by `Shared::drop` unless `taken`.
    Value(ManuallyDrop<T>),
    Error(Error),
}

/// A call as a handle sees it: something that can be dropped anywhere.
trait Erased: Send {
    /// Who runs the call, if handles must ask him.
    fn engine(&self) -> Option<&dyn Engine> {
        None
    }
}

/// A call until it is run or given up.
type Call<F> = UnsafeCell<Option<F>>;

impl<F: Send> Erased for Call<F> {}
impl Erased for () {}

impl<E: Engine> Erased for WithEngine<E> {
    fn engine(&self) -> Option<&dyn Engine> {
        Some(&self.0)
    }
}

/// A call that is in other hands, which know more of it than the state machine.
#[cfg_attr(any(not(target_os = "linux"), loom), allow(dead_code))]
struct WithEngine<E>(E);

/// What a handle asks of an engine that runs a call elsewhere.
pub(crate) trait Engine: Send + Sync + 'static {
    /// Cancels the call if it has not begun, or even if it `running`. The promise is dropped before this returns.
    fn cancel(&self, running: bool) -> bool;

    /// Whether the call has begun, for all that is known, and is not over.
    fn running(&self) -> bool;

    /// Does the engine's work in this thread until `done`, a signal or the deadline; `None`: another thread does.
    fn wait(&self, done: &dyn Fn() -> bool, deadline: Option<Instant>) -> Option<Wake>;
}

struct Shared<T, C: ?Sized> {
    machine: StateMachine,
    taken: AtomicBool,
    outcome: UnsafeCell<Outcome<T>>,
    call: C,
}

// SAFETY: `outcome` and a `Call` are reached from several threads only as the access rules above say, which never
// let two threads touch the same part at once. Values and calls do move between threads: hence `Send`. What else may
// stand in place of a call can be shared: `()`, or an engine, which is `Sync`.
unsafe impl<T: Send, C: Send + ?Sized> Sync for Shared<T, C> {}

impl<T, C: ?Sized> Shared<T, C> {
    /// # Safety
    /// The caller was put in charge by `start` and has not finished the call yet.
    unsafe fn finish(&self, outcome: Outcome<T>) -> Owed<'_> {
        // SAFETY: in charge, so nobody else writes; not FINISHED, so nobody reads.
        unsafe { *self.outcome.get() = outcome };
        self.machine.finish()
    }

    fn take(&self) -> Result<T, Error> {
        match self.machine.state() {
            State::Cancelled | State::CancelledAndNotified => return Err(Kind::Cancelled.into()),
            State::Pending | State::Running => return Err(Kind::TimedOut { unfinished: None }.into()),
            State::Finished => {}
        }
        // SAFETY: FINISHED was read with acquire; from then on the outcome is only read.
        match unsafe { &*self.outcome.get() } {
            Outcome::Error(error) => Err(error.clone()),
            Outcome::Value(value) => {
                // Relaxed: the flag decides who owns the value and carries nothing else.
                if self.taken.swap(true, Ordering::Relaxed) {
                    return Err(Kind::Taken.into());
                }
                // SAFETY: the swap made this thread the owner; `drop` leaves a taken value alone.
                Ok(ManuallyDrop::into_inner(unsafe { std::ptr::read(value) }))
            }
            Outcome::None => Err(Kind::Invalid("the future was finished without an outcome").into()),
        }
    }
}

impl<T, C: ?Sized> Drop for Shared<T, C> {
    fn drop(&mut self) {
        if !*self.taken.get_mut()
            && let Outcome::Value(value) = self.outcome.get_mut()
        {
            // SAFETY: not taken, and nobody can take it any more.
            unsafe { ManuallyDrop::drop(value) };
        }
    }
}

/// What an executor does with a call.
trait Run: Send + Sync {
    fn run(&self);
    fn cancel(&self);
    fn fail(&self, error: Error);
}

impl<T, F> Shared<T, Call<F>> {
    /// Begins the call and takes it out. One that was cancelled is dropped: what it holds goes when it will not be
    /// made, not when the last handle goes.
    fn start(&self) -> Option<F> {
        let started = self.machine.start().ok()?;
        // SAFETY: `start` said Ok, which it does once.
        let call = unsafe { &mut *self.call.get() }.take();
        if started {
            return call;
        }
        drop_quietly(call);
        None
    }
}

impl<T, F> Run for Shared<T, Call<F>>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    fn run(&self) {
        let Some(call) = self.start() else { return };
        let outcome = match panic::catch_unwind(AssertUnwindSafe(call)) {
            Ok(value) => Outcome::Value(ManuallyDrop::new(value)),
            Err(payload) => Outcome::Error(Error::panicked(payload)),
        };
        // SAFETY: `start` put us in charge.
        unsafe { self.finish(outcome) }.pay();
    }

    fn cancel(&self) {
        if let Ok(owed) = self.machine.cancel() {
            self.start();
            owed.pay();
        }
    }

    fn fail(&self, error: Error) {
        if let Some(call) = self.start() {
            drop_quietly(call);
            // SAFETY: `start` put us in charge.
            unsafe { self.finish(Outcome::Error(error)) }.pay();
        }
    }
}

/// Drops what a user made; its panic has been reported by the hook and must not end a worker.
fn drop_quietly<V>(value: V) {
    drop(panic::catch_unwind(AssertUnwindSafe(|| drop(value))));
}

/// A call on its way to be run, as [`Executor::execute`](super::Executor::execute) gets it.
///
/// A task that is dropped without being run cancels its future: nobody waits for ever.
pub struct Task(Arc<dyn Run>);

impl Task {
    /// A task that makes this call, and the future that stands for its outcome.
    pub fn new<T, F>(call: F) -> (Self, Future<T>)
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let shared = Arc::new(Shared {
            machine: StateMachine::new(),
            taken: AtomicBool::new(false),
            outcome: UnsafeCell::new(Outcome::None),
            call: UnsafeCell::new(Some(call)),
        });
        (Task(shared.clone()), Future(shared))
    }

    /// Makes the call, unless it was cancelled, and tells those who wait. A panic becomes the outcome.
    pub fn run(self) {
        self.0.run();
        // A value that no handle is left to take goes with the task.
        drop_quietly(self);
    }

    /// Cancels the call and tells those who wait.
    pub fn cancel(self) {
        self.0.cancel();
    }

    /// Ends the call with an error instead of making it.
    pub(crate) fn fail(self, error: Error) {
        self.0.fail(error);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // Without effect once the call has begun.
        self.0.cancel();
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}

/// The making side of a future that no executor runs: for bridging callbacks and other engines.
///
/// Dropped without an outcome, it cancels the future.
///
/// ```
/// let (promise, future) = ropewalk::futures::Promise::new();
/// assert!(promise.start());
/// promise.set_result(5);
/// assert_eq!(future.result()?, 5);
/// # Ok::<(), ropewalk::futures::Error>(())
/// ```
pub struct Promise<T>(Future<T>);

impl<T: Send + 'static> Promise<T> {
    /// A promise and its future.
    pub fn new() -> (Self, Future<T>) {
        let future = Future(Arc::new(Shared {
            machine: StateMachine::new(),
            taken: AtomicBool::new(false),
            outcome: UnsafeCell::new(Outcome::None),
            call: (),
        }));
        (Promise(future.clone()), future)
    }

    /// A promise and its future, whose handles ask `engine`.
    #[cfg_attr(any(not(target_os = "linux"), loom), allow(dead_code))]
    pub(crate) fn with_engine(engine: impl Engine) -> (Self, Future<T>) {
        let future = Future(Arc::new(Shared {
            machine: StateMachine::new(),
            taken: AtomicBool::new(false),
            outcome: UnsafeCell::new(Outcome::None),
            call: WithEngine(engine),
        }));
        (Promise(future.clone()), future)
    }

    /// Says that the call begins: from now on it cannot be cancelled. False if it was cancelled before
    /// (Python: `set_running_or_notify_cancel`).
    pub fn start(&self) -> bool {
        matches!(self.0.0.machine.start(), Ok(true) | Err(State::Running))
    }

    /// Ends the future with a value; without effect if it was cancelled.
    pub fn set_result(self, value: T) {
        self.set(Outcome::Value(ManuallyDrop::new(value)));
    }

    /// Ends the future with an error; without effect if it was cancelled.
    pub fn set_exception(self, error: Error) {
        self.set(Outcome::Error(error));
    }

    fn set(self, outcome: Outcome<T>) {
        if self.start() {
            // SAFETY: the state is RUNNING, and only the one promise, consumed here, ever gets that far.
            unsafe { self.0.0.finish(outcome) }.pay();
        } else if let Outcome::Value(value) = outcome {
            drop(ManuallyDrop::into_inner(value));
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let machine = &self.0.0.machine;
        if machine.state() == State::Running {
            let error = Kind::Broken("the promise was dropped without an outcome".into());
            // SAFETY: RUNNING, and this promise is the only one in charge.
            unsafe { self.0.0.finish(Outcome::Error(error.into())) }.pay();
        } else if let Ok(owed) = machine.cancel() {
            owed.pay();
        }
    }
}

impl<T> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Promise({:?})", self.0)
    }
}

/// A call under way in an executor (Python: `concurrent.futures.Future`).
///
/// A handle: clones stand for the same call. Wait for it in a thread with [`result`](Future::result), in an async
/// runtime of any kind with `.await`, or leave a callback. Dropping it neither cancels the call nor waits.
///
/// The value moves to the first who asks for it; who asks again gets an error that
/// [`is_taken`](Error::is_taken).
///
/// ```
/// use ropewalk::futures::{Executor, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::new();
/// let future = pool.submit(|| 6 * 7)?;
/// assert_eq!(future.result()?, 42);
/// # Ok::<(), ropewalk::futures::Error>(())
/// ```
pub struct Future<T>(Arc<Shared<T, dyn Erased>>);

impl<T> Clone for Future<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Future<T> {
    /// Where the call stands.
    pub fn state(&self) -> State {
        self.0.machine.state()
    }

    /// Whether the call is finished or cancelled.
    pub fn done(&self) -> bool {
        self.0.machine.is_done()
    }

    /// Whether the call was cancelled.
    pub fn cancelled(&self) -> bool {
        matches!(self.state(), State::Cancelled | State::CancelledAndNotified)
    }

    /// Whether the call is being made.
    pub fn running(&self) -> bool {
        match self.engine() {
            Some(engine) => !self.done() && engine.running(),
            None => self.state() == State::Running,
        }
    }

    pub(crate) fn engine(&self) -> Option<&dyn Engine> {
        self.0.call.engine()
    }

    /// Cancels the call if it has not begun; says whether it is cancelled. Callbacks run here and now.
    pub fn cancel(&self) -> bool {
        if let Some(engine) = self.engine() {
            return self.cancelled() || engine.cancel(false);
        }
        self.0.machine.cancel().map(Owed::pay).is_ok()
    }

    /// Waits for the call and takes its value.
    ///
    /// # Errors
    /// The call was cancelled, it panicked, or its value was taken before. Never a time-out.
    pub fn result(&self) -> Result<T, Error> {
        self.wait(None);
        self.0.take()
    }

    /// As [`result`](Future::result), for at most `timeout`.
    ///
    /// # Errors
    /// Also one that [`is_timeout`](Error::is_timeout), after which the future can be asked again.
    pub fn result_timeout(&self, timeout: Duration) -> Result<T, Error> {
        self.wait(Instant::now().checked_add(timeout));
        self.0.take()
    }

    /// Waits for the call and says what it failed of, if it failed. Leaves the value where it is.
    pub fn exception(&self) -> Option<Error> {
        self.wait(None);
        self.0.error()
    }

    /// Waits until the call is done or the deadline has passed; says whether it is done.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> bool {
        loop {
            let helped = self
                .engine()
                .and_then(|engine| engine.wait(&|| self.done(), deadline));
            match helped.unwrap_or_else(|| self.0.machine.wait(deadline)) {
                Wake::Woken if !self.done() => {}
                Wake::Woken => return true,
                Wake::TimedOut => return false,
                Wake::Interrupted => {}
            }
        }
    }

    pub(super) fn watch(&self, watcher: Watcher) -> Option<Watcher> {
        self.0.machine.watch(watcher)
    }

    pub(super) fn unwatch(&self, who: &Arc<dyn Notify>) {
        self.0.machine.unwatch(who);
    }

    /// The same for all handles of one call, and for no other's while one of them lives.
    pub(super) fn id(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<()>() as usize
    }
}

impl<T: Send + 'static> Future<T> {
    /// Calls `callback` with this future when it is done: in the thread that ends it, or here and now if it is done.
    ///
    /// Callbacks run in the order in which they were added. One that panics is reported by the panic hook and
    /// keeps nothing else from running. A callback must not block: it may hold up a worker.
    pub fn add_done_callback<F>(&self, callback: F)
    where
        F: FnOnce(&Future<T>) + Send + 'static,
    {
        let this = self.clone();
        if let Some(late) = self.watch(Watcher::Call(Box::new(move || callback(&this)))) {
            late.tell();
        }
    }
}

impl<T, C: ?Sized> Shared<T, C> {
    fn error(&self) -> Option<Error> {
        match self.machine.state() {
            State::Cancelled | State::CancelledAndNotified => Some(Kind::Cancelled.into()),
            State::Pending | State::Running => None,
            // SAFETY: FINISHED was read with acquire; an error is never moved out.
            State::Finished => match unsafe { &*self.outcome.get() } {
                Outcome::Error(error) => Some(error.clone()),
                _ => None,
            },
        }
    }
}

impl<T> std::future::Future for Future<T> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.done() && self.watch(Watcher::Wake(cx.waker().clone())).is_none() {
            return Poll::Pending;
        }
        Poll::Ready(self.0.take())
    }
}

impl<T> fmt::Debug for Future<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state() {
            State::Pending => "pending",
            State::Running => "running",
            State::Cancelled | State::CancelledAndNotified => "cancelled",
            State::Finished => match self.0.error() {
                Some(error) => return write!(f, "<Future state=finished raised {error:?}>"),
                None => "finished",
            },
        };
        write!(f, "<Future state={state}>")
    }
}
