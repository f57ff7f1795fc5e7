//! Classic coroutines: `next`, `send`, `throw`, `close` and `yield_from` (PEP 342 and PEP 380, as in CPython 3.13).
//!
//! A [`Coroutine`] is a call that can stop in the middle, hand a value out, and go on with what it is sent.
//! It is the generator of Python, on stable Rust and with types: what it yields, what it is sent, what it
//! returns and what it may raise.
//!
//! ```
//! use ropewalk::coroutine::{Coroutine, State, Step};
//!
//! fn averager() -> Coroutine<'static, f64, f64> {
//!     Coroutine::new(|mut co| async move {
//!         let (mut total, mut count) = (0.0, 0.0);
//!         let mut average = 0.0;
//!         loop {
//!             total += co.yield_(average).await?;
//!             count += 1.0;
//!             average = total / count;
//!         }
//!     })
//! }
//!
//! let average = averager();
//! assert_eq!(average.state(), State::Created);
//! average.prime()?;
//! assert_eq!(average.send(10.0)?, Step::Yielded(10.0));
//! assert_eq!(average.send(30.0)?, Step::Yielded(20.0));
//! average.close()?;
//! assert_eq!(average.state(), State::Closed);
//! # Ok::<(), ropewalk::coroutine::Error>(())
//! ```
//!
//! # Which kind should you use?
//! Both are a [`Coroutine`], may be mixed in one `yield_from` chain, and keep the same rules.
//! - **Stackless**, [`Coroutine::new`]: the body is an `async` block that yields with
//!   `co.yield_(value).await?`. A few hundred bytes, a few nanoseconds a switch, no unsafe code. The default.
//! - **Stackful**, `Coroutine::stackful` (feature `stackful`): the body is an ordinary closure that yields with
//!   `co.yield_(value)?`, from any depth of ordinary calls, callbacks of other libraries included, like a
//!   greenlet. It has a stack of its own, 1 MiB of address space of which only touched pages are memory.
//!
//! # Rules
//! - `next` is Python's `send(None)`, and the body receives `S::default()` for it. `send` always sends a value.
//! - An exception is an [`Error`]: `?` raises it further, `match` catches it. Where Python writes `finally`, keep
//!   the result of a block, clean up, and then apply `?`. Clean-up may yield, unless the coroutine is being closed.
//! - A panic in a body passes through to the caller that resumed it; the coroutine is closed then.
//! - A coroutine stays on its thread (it is not `Send`). It waits for nothing but its caller: a body that awaits
//!   a future of some event loop ends with [`Error::ForeignAwait`].
//!
//! ```compile_fail,E0277
//! let coroutine = ropewalk::coroutine::Coroutine::<i32>::new(|mut co| async move { co.yield_(1).await });
//! std::thread::spawn(move || coroutine.next());
//! ```

mod channel;
#[expect(
    clippy::module_inception,
    reason = "one concept a file: the type bears the module's name"
)]
mod coroutine;
mod error;
mod stack;
#[cfg(feature = "stackful")]
pub mod stackful;
mod stackless;
mod state;

pub use coroutine::Coroutine;
pub use error::Error;
pub use stackless::{Co, Yield, YieldFrom};
pub use state::{State, Step};
