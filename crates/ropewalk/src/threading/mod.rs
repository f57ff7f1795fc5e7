//! How threads tell each other, and coroutines, that something has happened: [`Event`].

mod event;
#[cfg(all(test, loom))]
mod loom;

pub use event::{Event, Wait};
