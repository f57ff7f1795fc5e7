//! The classes `Handle` and `TimerHandle`.

use std::ffi::{c_int, c_void};

use pyo3::prelude::*;
use pyo3::{IntoPyObjectExt, ffi};

use super::{Body, HANDLE, Handle, TIMER_HANDLE};
use crate::asyncio::names::Names;
use crate::asyncio::raw::{self, Args, Part, Spec, attribute, method};

fn methods() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(
            Handle,
            "cancel"(),
            |this| {
                this.cancel()?;
                Ok(this.py().None().into_bound(this.py()))
            },
            "Cancel the callback; it will not run."
        ),
        method!(
            Handle,
            "cancelled"(),
            |this| this.body().cancelled.get().into_bound_py_any(this.py()),
            "Whether the callback was cancelled."
        ),
        method!(
            Handle,
            "get_context"(),
            |this| this.field(|call| &call.context),
            "The context that the callback runs in."
        ),
        method!(
            Handle,
            "_run",
            |this, args| {
                args.bind([], 0, 0)?;
                this.run()?;
                Ok(this.py().None().into_bound(this.py()))
            },
            "Call the callback now."
        ),
        method!(
            Handle,
            "_repr_info"(),
            |this| this.as_asyncio("_repr_info"),
            "What the representation shows."
        ),
    ]
}

fn attributes() -> Vec<ffi::PyGetSetDef> {
    vec![
        // So that `isinstance` holds without the fields of that class.
        attribute!(Handle, "__class__", |this| Ok(Names::get(this.py())?
            .handle
            .bind(this.py())
            .clone()
            .into_any())),
        attribute!(Handle, "_cancelled", |this| this
            .body()
            .cancelled
            .get()
            .into_bound_py_any(this.py())),
        attribute!(Handle, "_scheduled", |this| this
            .body()
            .scheduled
            .get()
            .into_bound_py_any(this.py())),
        attribute!(Handle, "_callback", |this| this.field(|call| &call.callback)),
        attribute!(Handle, "_args", |this| this
            .arguments()?
            .into_bound_py_any(this.py())),
        attribute!(Handle, "_context", |this| this.field(|call| &call.context)),
        attribute!(Handle, "_loop", |this| this
            .event_loop()
            .into_bound_py_any(this.py())),
        attribute!(Handle, "_repr", |this| this.field(|call| &call.repr)),
        attribute!(Handle, "_source_traceback", |this| this
            .field(|call| &call.source_traceback)),
    ]
}

fn timer_methods() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(
            Handle,
            "when"(),
            |this| this.body().when.into_bound_py_any(this.py()),
            "The time, in seconds of the loop's clock, at which the callback is due."
        ),
        method!(
            Handle,
            "_repr_info"(),
            |this| this.timer_repr_info(),
            "What the representation shows."
        ),
    ]
}

fn timer_attributes() -> Vec<ffi::PyGetSetDef> {
    vec![
        attribute!(Handle, "__class__", |this| Ok(Names::get(this.py())?
            .timer_handle
            .bind(this.py())
            .clone()
            .into_any())),
        attribute!(Handle, "_when", |this| this
            .body()
            .when
            .into_bound_py_any(this.py())),
    ]
}

unsafe extern "C" fn tp_dealloc(object: *mut ffi::PyObject) {
    unsafe fn end(object: *mut ffi::PyObject) {
        // SAFETY: the end of `tp_dealloc`.
        unsafe {
            let class = if ffi::Py_TYPE(object) == HANDLE.get() {
                &HANDLE
            } else {
                &TIMER_HANDLE
            };
            Body::drop_of(object);
            class.free(object);
        }
    }
    // SAFETY: the interpreter calls this once, when nothing refers to the object any more.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        let body = Body::of(object);
        if !body.weak_references.get().is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        raw::end_nested(object, end); // its callback may hold the next one
    }
}

unsafe extern "C" fn tp_repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by the interpreter on an instance of our types.
    unsafe {
        raw::slot(std::ptr::null_mut(), |py| {
            let this = Borrowed::from_ptr(py, object);
            Ok(Handle::assume(&this).as_asyncio("__repr__")?.into_ptr())
        })
    }
}

unsafe extern "C" fn timer_hash(object: *mut ffi::PyObject) -> ffi::Py_hash_t {
    // SAFETY: called by the interpreter on an instance of our type.
    unsafe {
        raw::slot(-1, |py| {
            let this = Borrowed::from_ptr(py, object);
            Handle::assume(&this).body().when.into_bound_py_any(py)?.hash()
        })
    }
}

unsafe extern "C" fn timer_compare(
    object: *mut ffi::PyObject,
    other: *mut ffi::PyObject,
    operation: c_int,
) -> *mut ffi::PyObject {
    // SAFETY: called by the interpreter on an instance of our type; the other object may be any.
    unsafe {
        raw::slot(std::ptr::null_mut(), |py| {
            let (this, other) = (Borrowed::from_ptr(py, object), Borrowed::from_ptr(py, other));
            if !TIMER_HANDLE.holds(&other) {
                return Ok(py.NotImplemented().into_ptr());
            }
            let (this, other) = (Handle::assume(&this), Handle::assume(&other));
            let (a, b) = (this.body().when, other.body().when);
            let answer = match operation {
                ffi::Py_LT => a < b,
                ffi::Py_GT => a > b,
                ffi::Py_LE => a < b || this.is_equal(other)?,
                ffi::Py_GE => a > b || this.is_equal(other)?,
                ffi::Py_EQ => this.is_equal(other)?,
                _ => !this.is_equal(other)?,
            };
            Ok(answer.into_bound_py_any(py)?.into_ptr())
        })
    }
}

/// Makes both types.
pub(crate) fn build(py: Python<'_>) -> PyResult<()> {
    let spec = |name, doc, slots: &[(c_int, *mut c_void)], methods, attributes| Spec {
        name,
        doc,
        size: Body::offset() + size_of::<Body>(),
        open: false,
        weak_references: Some(Body::offset() + std::mem::offset_of!(Body, weak_references)),
        slots: [
            (ffi::Py_tp_traverse, raw::tp_traverse::<Body> as *mut c_void),
            (ffi::Py_tp_clear, raw::tp_clear::<Body> as *mut c_void),
            (ffi::Py_tp_dealloc, tp_dealloc as *mut c_void),
            (ffi::Py_tp_repr, tp_repr as *mut c_void),
        ]
        .into_iter()
        .chain(slots.iter().copied())
        .collect(),
        methods,
        attributes,
    };
    let handle = spec(
        c"ropewalk.asyncio.Handle",
        c"A callback that waits its turn; an instance of asyncio.Handle by isinstance.",
        &[],
        methods(),
        attributes(),
    );
    HANDLE.make(py, handle, None)?;
    // Of two entries of one name the first counts.
    let timer = spec(
        c"ropewalk.asyncio.TimerHandle",
        c"A callback that waits for a time; an instance of asyncio.TimerHandle by isinstance.",
        &[
            (ffi::Py_tp_hash, timer_hash as *mut c_void),
            (ffi::Py_tp_richcompare, timer_compare as *mut c_void),
        ],
        timer_methods().into_iter().chain(methods()).collect(),
        timer_attributes().into_iter().chain(attributes()).collect(),
    );
    TIMER_HANDLE.make(py, timer, None).map(drop)
}
