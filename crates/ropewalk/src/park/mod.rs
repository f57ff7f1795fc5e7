//! How a thread waits.
//!
//! A thread first looks a few times ([`spin`]), because what it waits for is often a microsecond away, and then
//! sleeps in the kernel on a word of memory ([`Futex`]) until somebody changes the word and wakes it.
//!
//! # No lost wake-up
//!
//! Whoever waits reads the word, decides from its value that there is reason to sleep, and passes *that value* to
//! [`Futex::wait`], which sleeps only if the word still holds it. Whoever wakes changes the word first and calls
//! [`Futex::wake_one`] or [`Futex::wake_all`] afterwards. So either the change comes before the check, and `wait`
//! returns at once, or the sleeper is already in the kernel's queue when the wake arrives.
//!
//! The kernel orders the check and the wake, not other memory: what the waiter reads after waking it must get
//! from an acquire load of the word, paired with the waker's release store.

mod futex;
mod spin;

#[cfg(target_os = "linux")]
pub(crate) use futex::SharedFutex;
pub use futex::{Futex, Wake};
pub use spin::{set_spin, spin, spin_limit};
