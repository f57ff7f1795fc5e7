//! The loops that are open, by their numbers: how a waker in another thread finds its loop.
//!
//! A task keeps its loop's number and no way into it, which would cost two atomic exchanges a task; only a wake-up from
//! another thread looks here.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::Mail;
use crate::asyncio::engine::Remote;
use crate::sync::lock;

static LOOPS: Mutex<BTreeMap<u64, Remote<Mail>>> = Mutex::new(BTreeMap::new());

pub(in crate::asyncio) fn add(id: u64, remote: Remote<Mail>) {
    lock(&LOOPS).insert(id, remote);
}

pub(in crate::asyncio) fn remove(id: u64) {
    let remote = lock(&LOOPS).remove(&id);
    drop(remote); // outside the lock
}

/// The way into a loop that is open.
pub(in crate::asyncio) fn get(id: u64) -> Option<Remote<Mail>> {
    lock(&LOOPS).get(&id).cloned()
}
