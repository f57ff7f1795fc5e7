//! The tasks that are not done, of all loops: a list through the tasks, which costs some stores for each, where a
//! `WeakSet` costs a third of a microsecond.

use std::cell::Cell;

use pyo3::ffi;
use pyo3::prelude::*;

use super::{Own, Task};
use crate::asyncio::gil::Gil;
use crate::asyncio::raw::Part;

/// The neighbours of a task in the list of all that are not done: unowned, since a task leaves the list before it dies.
pub(super) struct Links {
    previous: Cell<*mut ffi::PyObject>,
    next: Cell<*mut ffi::PyObject>,
    linked: Cell<bool>,
}

impl Links {
    pub(super) const fn new() -> Self {
        Self {
            previous: Cell::new(std::ptr::null_mut()),
            next: Cell::new(std::ptr::null_mut()),
            linked: Cell::new(false),
        }
    }

    /// Takes a task out, if it is in.
    ///
    /// # Safety
    /// `task` is one of ours, and the GIL is held.
    pub(super) unsafe fn unlink(task: *mut ffi::PyObject) {
        let links = links_of(task);
        if !links.linked.replace(false) {
            return;
        }
        let (previous, next) = (links.previous.get(), links.next.get());
        if previous.is_null() {
            // SAFETY: the GIL is held.
            NEWEST.get(unsafe { Python::assume_attached() }).0.set(next);
        } else {
            links_of(previous).next.set(next);
        }
        if !next.is_null() {
            links_of(next).previous.set(previous);
        }
    }
}

/// A pointer that the GIL guards.
struct Head(Cell<*mut ffi::PyObject>);
// SAFETY: a pointer may be sent; what it points to is touched with the GIL held.
unsafe impl Send for Head {}

/// The newest task that is not done.
static NEWEST: Gil<Head> = Gil::new(Head(Cell::new(std::ptr::null_mut())));

impl<'py> Task<'py> {
    /// Puts the task among all those that are not done.
    pub(super) fn link(&self) {
        let links = &self.part().links;
        if links.linked.replace(true) {
            return;
        }
        let head = &NEWEST.get(self.py()).0;
        let next = head.replace(self.0.as_ptr());
        links.next.set(next);
        links.previous.set(std::ptr::null_mut());
        if !next.is_null() {
            links_of(next).previous.set(self.0.as_ptr());
        }
    }

    pub(super) fn unlink(&self) {
        // SAFETY: a task of ours.
        unsafe { Links::unlink(self.0.as_ptr()) }
    }

    /// The tasks that are not done, of all loops, oldest first.
    pub(crate) fn all(py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        let mut found = Vec::new();
        let mut at = NEWEST.get(py).0.get();
        while !at.is_null() {
            // SAFETY: a linked task is alive: it unlinks itself before it is freed.
            // One that nothing refers to is being freed (a subclass's `__del__` may have kept ours from unlinking it).
            unsafe {
                if ffi::Py_REFCNT(at) > 0 {
                    found.push(Bound::from_borrowed_ptr(py, at));
                }
            }
            at = links_of(at).next.get();
        }
        found.reverse();
        found
    }
}

fn links_of<'a>(task: *mut ffi::PyObject) -> &'a Links {
    // SAFETY: only linked tasks are asked for; these are alive, and the part is theirs for life.
    unsafe { &Own::of(task).links }
}
