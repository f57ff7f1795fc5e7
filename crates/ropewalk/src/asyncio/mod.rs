//! The event loop: what Python calls `asyncio`.
//!
//! [`engine`] is the loop without a language: the crate's own tasks and Python's handles both run on it.

pub mod engine;
