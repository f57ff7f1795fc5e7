//! Rust coroutines as Python generators, for extension modules written with PyO3.
//!
//! A function that returns a [`Generator`] gives Python a generator object: `next`, `send`, `throw`, `close`, `for`,
//! `yield from`, `inspect.getgeneratorstate`. Its body is written like that of a
//! [`Coroutine`](ropewalk::coroutine::Coroutine); `examples/extension` is a whole module.
//!
//! ```
//! use pyo3::prelude::*;
//! use ropewalk_pyo3::{Co, Generator};
//!
//! #[pyfunction]
//! fn averager() -> Generator {
//!     Generator::new("averager", |mut co: Co<Option<f64>, f64>| async move {
//!         let (mut total, mut count) = (0.0, 0.0);
//!         let mut average = None;
//!         loop {
//!             total += co.yield_(average).await?;
//!             count += 1.0;
//!             average = Some(total / count);
//!         }
//!         #[allow(unreachable_code)]
//!         Ok(())
//!     })
//! }
//! ```
//!
//! # Values and exceptions
//! What is yielded and returned is converted by `IntoPyObject` (`()` is `None`), what is sent by `FromPyObject`.
//! A sent value that cannot be converted raises the conversion's error at the yield. `next`, and `send(None)`, give
//! the body `S::default()`. Exceptions are [`Error`]: `?` on a `PyResult` raises, `Error::Raised` catches.
//!
//! # Threads
//! A generator belongs to the thread that made it. Elsewhere its methods raise RuntimeError; dropped elsewhere it
//! is leaked and reported through `sys.unraisablehook`, since a body need not be `Send`.
//!
//! # Garbage collection
//! The collector cannot look into a body. Python objects that may lead back to the generator belong in a [`Held`],
//! made by [`Co::hold`], which it sees; other references merely keep what they refer to alive. A collected or
//! dropped generator is closed; errors of its clean-up go to `sys.unraisablehook`.

mod co;
mod convert;
mod generator;

pub use co::{Co, Held};
pub use generator::Generator;

/// What can be raised in a body and out of it: Python's exceptions are its `Raised`.
pub type Error = ropewalk::coroutine::Error<pyo3::PyErr>;
