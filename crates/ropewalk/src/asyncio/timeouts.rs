//! [`timeout`], [`timeout_at`], [`wait_for`].

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use super::error::{Error, Result};
use super::event_loop::expect_loop;
use super::handle::{Call, Scheduled};
use super::task::AnyTask;

/// A limit of `delay` for what [`Timeout::run`] will run, counted from then; `None`: no limit (Python: `asyncio.timeout`).
///
/// ```
/// use ropewalk::asyncio;
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let limit = asyncio::timeout(Duration::from_millis(1));
///     let outcome = limit.run(async { Ok(asyncio::sleep(Duration::from_secs(3600)).await?) }).await;
///     assert!(outcome.unwrap_err().is_timeout());
///     assert!(limit.expired());
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub fn timeout(delay: impl Into<Option<Duration>>) -> Timeout {
    Timeout::new(Limit::After(delay.into()))
}

/// As [`timeout`], for a time on the loop's clock (Python: `asyncio.timeout_at`).
pub fn timeout_at(when: impl Into<Option<Duration>>) -> Timeout {
    Timeout::new(Limit::At(when.into()))
}

/// Awaits a future for at most `timeout` (Python: `asyncio.wait_for`).
///
/// When the time is over the future gets [`Cancelled`](super::Cancelled) at the point where it waits, and the time
/// that its clean-up takes. It runs in this task.
///
/// # Errors
/// Of the future. One that [`is_timeout`](Error::is_timeout) when the time was over. One that [`is_misuse`](Error::is_misuse) outside a
/// task.
pub async fn wait_for<T, E, F>(future: F, timeout: impl Into<Option<Duration>>) -> Result<T>
where
    F: Future<Output = Result<T, E>>,
    Error: From<E>,
{
    self::timeout(timeout).run(async { Ok(future.await?) }).await
}

enum Limit {
    After(Option<Duration>),
    At(Option<Duration>),
}

/// A limit of time; see [`timeout`].
pub struct Timeout {
    limit: Limit,
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The task within the limit, while it is there.
    task: RefCell<Option<AnyTask>>,
    timer: RefCell<Option<Rc<Scheduled>>>,
    when: Cell<Option<Duration>>,
    state: Cell<State>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Created,
    Active,
    /// The time is over, and the task has been asked to end.
    Expiring,
    Expired,
    Finished,
}

impl Timeout {
    fn new(limit: Limit) -> Self {
        Self {
            limit,
            shared: Rc::default(),
        }
    }

    /// Awaits `future` within the limit, in this task.
    ///
    /// # Errors
    /// Of the future. One that [`is_timeout`](Error::is_timeout) if the time was over and the future ended with the cancellation
    /// that this caused: a request that came from elsewhere stays one. One that [`is_misuse`](Error::is_misuse) the second time, or outside
    /// a task.
    pub async fn run<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let shared = &self.shared;
        if shared.state.get() != State::Created {
            return Err(Error::misuse("the timeout has already been used"));
        }
        let task = super::current_task().ok_or(Error::misuse(
            "a timeout needs a task: await it inside `asyncio::run`",
        ))?;
        let cancelling = task.cancelling();
        shared.state.set(State::Active);
        *shared.task.borrow_mut() = Some(task.clone());
        shared.set_timer(match self.limit {
            Limit::After(delay) => delay.map(|delay| expect_loop(|inner| inner.time()).saturating_add(delay)),
            Limit::At(when) => when,
        });
        let left = Left { shared, task: &task };
        let outcome = future.await;
        drop(left);
        // More requests than when we came: somebody else wants the task to end, too.
        let ours = self.expired() && task.cancelling() <= cancelling;
        if ours && outcome.as_ref().is_err_and(Error::is_cancelled) {
            return Err(Error::TIMED_OUT);
        }
        outcome
    }

    /// Moves the limit to another time on the loop's clock, or takes it away.
    ///
    /// # Errors
    /// One that [`is_misuse`](Error::is_misuse) unless a future runs within the limit and the time is not over.
    pub fn reschedule(&self, when: impl Into<Option<Duration>>) -> Result<()> {
        if self.shared.state.get() != State::Active {
            return Err(Error::misuse(
                "the timeout is not active: it can be rescheduled while a future runs in it",
            ));
        }
        self.shared.set_timer(when.into());
        Ok(())
    }

    /// The time on the loop's clock at which it expires, once a future runs within it.
    pub fn when(&self) -> Option<Duration> {
        self.shared.when.get()
    }

    /// Whether the time was over before the future was done.
    pub fn expired(&self) -> bool {
        matches!(self.shared.state.get(), State::Expiring | State::Expired)
    }
}

impl Shared {
    fn set_timer(self: &Rc<Self>, when: Option<Duration>) {
        self.when.set(when);
        let timer = when.map(|when| {
            let this = self.clone();
            let expire = Call::Function(Box::new(move || this.expire()));
            expect_loop(|inner| match when <= inner.time() {
                true => inner.call_soon(expire),
                false => inner.call_at(when, expire),
            })
        });
        let old = self.timer.replace(timer);
        if let Some(old) = old {
            old.cancel_timer();
        }
    }

    fn expire(&self) {
        if let Some(task) = self.task.take() {
            self.state.set(State::Expiring);
            task.cancel();
        }
    }
}

/// The end of the time within the limit: the future is done, or dropped.
struct Left<'a> {
    shared: &'a Shared,
    task: &'a AnyTask,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.shared.task.take();
        if let Some(timer) = self.shared.timer.take() {
            timer.cancel_timer();
        }
        let expired = self.shared.state.get() == State::Expiring;
        if expired {
            self.task.uncancel();
        }
        self.shared
            .state
            .set(if expired { State::Expired } else { State::Finished });
    }
}

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.shared.state.get() {
            State::Created => "created",
            State::Active => "active",
            State::Expiring => "expiring",
            State::Expired => "expired",
            State::Finished => "finished",
        };
        write!(f, "<Timeout [{state}] when={:?}>", self.when())
    }
}
