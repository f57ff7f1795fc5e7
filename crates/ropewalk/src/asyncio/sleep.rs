//! [`sleep`].

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::cancel::{Cancellable, cancellable};
use super::event_loop::expect_loop;
use super::handle::{Call, Scheduled};

/// Waits for `delay`, while other tasks run; for no time, lets the others have one turn (Python: `asyncio.sleep`).
///
/// # Errors
/// The task was cancelled.
///
/// # Panics
/// When first polled outside a loop.
///
/// ```
/// use ropewalk::asyncio;
/// use std::time::Duration;
///
/// asyncio::run(async {
///     asyncio::sleep(Duration::from_millis(1)).await?;
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub fn sleep(delay: Duration) -> Cancellable<Sleep> {
    cancellable(Sleep {
        delay,
        state: State::New,
    })
}

/// The future within [`sleep`]'s.
#[must_use = "a future does nothing unless awaited"]
pub struct Sleep {
    delay: Duration,
    state: State,
}

enum State {
    New,
    /// A turn's worth of waiting.
    Yielded,
    Waiting(Rc<Scheduled>),
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &self.state {
            State::New if self.delay.is_zero() => {
                cx.waker().wake_by_ref();
                self.state = State::Yielded;
                Poll::Pending
            }
            State::New => {
                let call = Call::Wake(cx.waker().clone());
                let (timer, _) = expect_loop(|inner| inner.call_later(self.delay, call));
                self.state = State::Waiting(timer);
                Poll::Pending
            }
            State::Waiting(timer) if timer.is_due() => {
                timer.set_waker(cx.waker());
                Poll::Pending
            }
            State::Yielded | State::Waiting(_) => Poll::Ready(()),
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let State::Waiting(timer) = &self.state {
            timer.cancel_timer();
        }
    }
}

impl std::fmt::Debug for Sleep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sleep({:?})", self.delay)
    }
}
