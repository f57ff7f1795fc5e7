//! How a long chain of objects that hold each other is freed without a stack as long.
//!
//! What the interpreter calls its trashcan: from some depth on an object is put by, and freed when the outermost of those
//! that are being freed in this thread is done.

use std::cell::{Cell, RefCell};

use pyo3::ffi;

/// How many objects may be freed inside each other.
const DEEPEST: usize = 50;

struct Freeing {
    depth: Cell<usize>,
    put_by: RefCell<Vec<(*mut ffi::PyObject, End)>>,
}

/// What drops an object's fields and frees it.
type End = unsafe fn(*mut ffi::PyObject);

thread_local! {
    static FREEING: Freeing = const {
        Freeing {
            depth: Cell::new(0),
            put_by: RefCell::new(Vec::new()),
        }
    };
}

/// Ends an object, now or later.
///
/// # Safety
/// Called in `tp_dealloc`, after which nothing looks at the object any more; `end` is its end.
pub(crate) unsafe fn end_nested(object: *mut ffi::PyObject, end: End) {
    let nested = FREEING.try_with(|freeing| {
        let depth = freeing.depth.get();
        if depth >= DEEPEST {
            freeing.put_by.borrow_mut().push((object, end));
            return;
        }
        freeing.depth.set(depth + 1);
        // SAFETY: the caller's.
        unsafe { end(object) };
        let next = || freeing.put_by.borrow_mut().pop();
        if depth == 0 {
            while let Some((object, end)) = next() {
                // SAFETY: as it was when it was put by.
                unsafe { end(object) };
            }
        }
        freeing.depth.set(depth);
    });
    if nested.is_err() {
        // SAFETY: the caller's. The thread ends, and cannot count any more.
        unsafe { end(object) }
    }
}
