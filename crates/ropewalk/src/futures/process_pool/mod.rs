//! A pool of worker processes.
//!
//! The core moves messages, lists of byte strings, and knows nothing of what they mean: a face of it (the Rust one
//! in this crate, the Python one in the bindings) says how to start a worker, turns calls into messages and runs
//! them in the worker.
//!
//! | file | what it holds |
//! |---|---|
//! | `pool`, `state` | the pool and its lock; which task is where, and every step that moves one |
//! | `supervisor` | the thread that starts workers, buries them and enforces time limits |
//! | `job` | a call on its way, and what becomes of it |
//! | `link`, `worker` | the two ends of the connection between pool and worker |
//! | `wire` | what the two ends agree on |
//! | `ring`, `claim`, `bell` | shared memory: frames, whose a frame is, who sleeps |
//! | `executor`, `remote` | the Rust face |
//! | `segment`, `message` | large data in memory that is passed and not copied |

#![cfg_attr(loom, allow(dead_code, unused_imports))] // The models run the two parts that are lock-free.

mod bell;
mod claim;
#[cfg(not(loom))]
mod executor;
#[cfg(not(loom))]
mod job;
#[cfg(not(loom))]
mod link;
#[cfg(not(loom))]
mod message;
#[cfg(not(loom))]
mod pool;
#[cfg(not(loom))]
mod remote;
#[cfg(not(loom))]
mod ring;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
mod state;
#[cfg(not(loom))]
mod supervisor;
#[cfg(not(loom))]
mod wire;
#[cfg(not(loom))]
mod worker;

#[cfg(not(loom))]
pub use rustix::process::Signal;

#[cfg(not(loom))]
pub use self::{
    executor::{Builder, ProcessPoolExecutor, Results},
    job::{Cause, Death, Definition, Job, Limits, Outcome, Receiver},
    message::Message,
    pool::{Config, Pool, Refused, Statistics},
    remote::{Answer, Remote, Signature},
    segment::advise_huge_pages,
    worker::{Request, WorkerLink},
};
