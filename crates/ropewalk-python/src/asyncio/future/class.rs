//! The class `Future`, and what `Task` shares of it.

use std::cell::RefCell;
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use pyo3::exceptions::{PyAttributeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyType};
use pyo3::{IntoPyObjectExt, ffi};

use super::{CLASS, Fields, Future, OFFSET, State, iter};
use crate::asyncio::event_loop::{self, Loop};
use crate::asyncio::names::{Names, error};
use crate::asyncio::raw::{self, Args, Part, Ref, Spec, Visit, attribute, bind_init, method};

/// A field that may be missing, as Python sees it.
fn optional<'py, T>(py: Python<'py>, field: &Option<Ref<T>>) -> PyResult<Bound<'py, PyAny>> {
    Ok(field.as_ref().map_or_else(
        || py.None().into_bound(py),
        |value| value.clone_ref(py).into_any().into_bound(py),
    ))
}

fn string<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    text.into_bound_py_any(py)
}

/// The methods of `Future`, those that `Task` has too.
pub(crate) fn methods() -> Vec<ffi::PyMethodDef> {
    vec![
        method!(
            Future,
            "result"(),
            |this| { this.result() },
            "Return the result, or raise the exception, or CancelledError, or InvalidStateError while pending."
        ),
        method!(
            Future,
            "exception"(),
            |this| {
                let py = this.py();
                let mut fields = this.fields().borrow_mut();
                match fields.state {
                    State::Cancelled => {
                        drop(fields);
                        Err(PyErr::from_value(this.make_cancelled_error()?.into_any()))
                    }
                    State::Pending => Err(error(
                        py,
                        &Names::get(py)?.invalid_state_error,
                        "Exception is not set.",
                    )),
                    State::Finished => {
                        fields.log_traceback = false;
                        optional(py, &fields.exception)
                    }
                }
            },
            "Return the exception or None; raise as result() does when there is neither."
        ),
        method!(
            Future,
            "add_done_callback",
            |this, args| {
                let [callable, context] = args.bind(["fn", "context"], 1, 1)?;
                let py = this.py();
                this.add_done_callback(callable.unwrap_or_else(|| py.None().into_bound(py)), context)?;
                Ok(py.None().into_bound(py))
            },
            "Call fn(future) soon after the future is done, in the context given or a copy of the current one."
        ),
        method!(
            Future,
            "remove_done_callback",
            |this, args| {
                let [callable] = args.bind(["fn"], 1, 1)?;
                let callable = callable.unwrap_or_else(|| this.py().None().into_bound(this.py()));
                this.remove_done_callback(&callable)?.into_bound_py_any(this.py())
            },
            "Take out every callback that equals fn; return how many there were."
        ),
        method!(
            Future,
            "cancelled"(),
            |this| { (this.state() == State::Cancelled).into_bound_py_any(this.py()) },
            "Whether the future was cancelled."
        ),
        method!(
            Future,
            "done"(),
            |this| { (this.state() != State::Pending).into_bound_py_any(this.py()) },
            "Whether the future has a result or an exception, or was cancelled."
        ),
        method!(
            Future,
            "get_loop"(),
            |this| { Ok(this.event_loop()?.0) },
            "The loop that the future is bound to."
        ),
        method!(
            Future,
            "_make_cancelled_error"(),
            |this| { Ok(this.make_cancelled_error()?.into_any()) },
            "The CancelledError that whoever waits will see."
        ),
    ]
}

/// The attributes of `Future`, which `Task` has too. They are `asyncio`'s private ones, which its own functions read.
pub(crate) fn attributes() -> Vec<ffi::PyGetSetDef> {
    vec![
        attribute!(Future, "_state", |this| string(
            this.py(),
            match this.state() {
                State::Pending => "PENDING",
                State::Cancelled => "CANCELLED",
                State::Finished => "FINISHED",
            }
        )),
        attribute!(
            Future,
            "_asyncio_future_blocking",
            |this| {
                let fields = this.fields().borrow();
                (fields.event_loop.is_some() && fields.blocking).into_bound_py_any(this.py())
            },
            |this, value| {
                this.check_alive()?;
                let value = value.is_truthy()?;
                this.fields().borrow_mut().blocking = value;
                Ok(())
            }
        ),
        attribute!(Future, "_loop", |this| optional(
            this.py(),
            &this.fields().borrow().event_loop
        )),
        attribute!(Future, "_callbacks", |this| {
            let py = this.py();
            let callbacks = this.callbacks()?;
            if callbacks.is_empty() {
                return Ok(py.None().into_bound(py));
            }
            let pairs = callbacks.into_iter().map(|shown| (shown.callable, shown.context));
            Ok(PyList::new(py, pairs.collect::<Vec<_>>())?.into_any())
        }),
        attribute!(Future, "_result", |this| optional(
            this.py(),
            &this.fields().borrow().result
        )),
        attribute!(Future, "_exception", |this| optional(
            this.py(),
            &this.fields().borrow().exception
        )),
        attribute!(
            Future,
            "_log_traceback",
            |this| this.fields().borrow().log_traceback.into_bound_py_any(this.py()),
            |this, value| {
                if value.is_truthy()? {
                    return Err(PyValueError::new_err("_log_traceback can only be set to False"));
                }
                this.fields().borrow_mut().log_traceback = false;
                Ok(())
            }
        ),
        attribute!(
            Future,
            "_source_traceback",
            |this| optional(this.py(), &this.fields().borrow().source_traceback),
            |this, value| {
                let old = this.fields().borrow_mut().source_traceback.replace(value.into());
                drop(old);
                Ok(())
            }
        ),
        attribute!(
            Future,
            "_cancel_message",
            |this| optional(this.py(), &this.fields().borrow().cancel_message),
            |this, value| {
                let old = this.fields().borrow_mut().cancel_message.replace(value.into());
                drop(old);
                Ok(())
            }
        ),
    ]
}

fn own_methods() -> Vec<ffi::PyMethodDef> {
    let mut all = methods();
    all.extend([
        method!(
            Future,
            "set_result"(_),
            |this, result| {
                this.set_result(result.clone())?;
                Ok(this.py().None().into_bound(this.py()))
            },
            "Make the future done with a result; InvalidStateError if it is done already."
        ),
        method!(
            Future,
            "set_exception"(_),
            |this, exception| {
                this.set_exception(exception.clone())?;
                Ok(this.py().None().into_bound(this.py()))
            },
            "Make the future done with an exception; InvalidStateError if it is done already."
        ),
        method!(
            Future,
            "cancel",
            |this, args| {
                let [message] = args.bind(["msg"], 1, 0)?;
                this.check_alive()?;
                this.cancel(message)?.into_bound_py_any(this.py())
            },
            "Cancel the future and tell whether it was pending."
        ),
    ]);
    all
}

unsafe extern "C" fn tp_new(
    class: *mut ffi::PyTypeObject,
    _args: *mut ffi::PyObject,
    _kwargs: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: memory of the type's size, zeroed; its fields are written before anything can look at them.
    unsafe {
        let Some(alloc) = (*class).tp_alloc else {
            return std::ptr::null_mut();
        };
        let object = alloc(class, 0);
        if !object.is_null() {
            RefCell::new(Fields::new()).write(object);
        }
        object
    }
}

unsafe extern "C" fn tp_init(
    object: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    kwargs: *mut ffi::PyObject,
) -> c_int {
    // SAFETY: called by the interpreter on an instance of our type.
    unsafe {
        raw::slot(-1, |py| {
            let this = Borrowed::from_ptr(py, object);
            let [event_loop] = bind_init(py, "Future", ["loop"], 0, 0, args, kwargs)?;
            Future::assume(&this).init(&event_loop::or_current(py, event_loop)?)?;
            Ok(0)
        })
    }
}

/// `tp_traverse` of the part that both types share.
pub(crate) unsafe extern "C" fn tp_traverse(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: called by the collector on an instance of our types.
    unsafe {
        let visit = Visit::new(visit, arg);
        let visit_all = || {
            raw::traverse_base(object, visit)?;
            RefCell::<Fields>::of(object).traverse(visit)
        };
        raw::status(visit_all())
    }
}

/// `tp_clear` of the part that both types share.
pub(crate) unsafe extern "C" fn tp_clear(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: called by the interpreter on an instance of our types.
    unsafe {
        raw::tp_clear::<RefCell<Fields>>(object);
        raw::clear_base(object);
    }
    0
}

unsafe extern "C" fn tp_finalize(object: *mut ffi::PyObject) {
    // SAFETY: called by the interpreter on an instance of our types.
    unsafe { finalize(object, |_| Ok(())) }
}

/// Reports an exception that nobody asked for, after `first`; keeps the exception that may be on its way.
///
/// # Safety
/// Called from `tp_finalize`.
pub(crate) unsafe fn finalize(
    object: *mut ffi::PyObject,
    first: impl for<'py> FnOnce(&Bound<'py, PyAny>) -> PyResult<()>,
) {
    // SAFETY: called by the interpreter on an instance of our types.
    unsafe {
        raw::slot((), |py| {
            let under_way = PyErr::take(py);
            let object = Borrowed::from_ptr(py, object);
            if let Err(error) = first(&object).and_then(|()| report(Future::assume(&object))) {
                error.write_unraisable(py, Some(&object));
            }
            if let Some(error) = under_way {
                error.restore(py);
            }
            Ok(())
        });
    }
}

fn report(this: &Future<'_>) -> PyResult<()> {
    let py = this.py();
    let mut fields = this.fields().borrow_mut();
    if !fields.log_traceback {
        return Ok(());
    }
    fields.log_traceback = false;
    let context = PyDict::new(py);
    let (exception, source) = (
        optional(py, &fields.exception)?,
        optional(py, &fields.source_traceback)?,
    );
    drop(fields);
    let class = this.0.getattr("__class__")?.getattr("__name__")?;
    context.set_item("message", format!("{class} exception was never retrieved"))?;
    context.set_item("exception", exception)?;
    context.set_item("future", &this.0)?;
    if !source.is_none() {
        context.set_item("source_traceback", source)?;
    }
    this.event_loop()?
        .0
        .call_method1("call_exception_handler", (context,))?;
    Ok(())
}

unsafe extern "C" fn tp_dealloc(object: *mut ffi::PyObject) {
    unsafe fn end(object: *mut ffi::PyObject) {
        // SAFETY: the end of `tp_dealloc`.
        unsafe {
            RefCell::<Fields>::drop_of(object);
            CLASS.free(object);
        }
    }
    // SAFETY: the interpreter calls this once, when nothing refers to the object any more.
    unsafe {
        let silent = ffi::Py_TYPE(object) == CLASS.get() && !has_report(object);
        let nests = RefCell::<Fields>::of(object).borrow().may_nest();
        dealloc(object, silent, nests, end);
    }
}

/// Whether there is an exception that nobody asked for.
///
/// # Safety
/// The object is an instance of our types.
pub(crate) unsafe fn has_report(object: *mut ffi::PyObject) -> bool {
    // SAFETY: the caller's.
    unsafe { RefCell::<Fields>::of(object).borrow().log_traceback }
}

/// Frees an object, after its finalizer has run unless that would be `silent`; `end` drops its parts, which may be the
/// first of a long chain if it `nests`.
///
/// # Safety
/// Called from `tp_dealloc` on an instance of our types.
pub(crate) unsafe fn dealloc(
    object: *mut ffi::PyObject,
    silent: bool,
    nests: bool,
    end: unsafe fn(*mut ffi::PyObject),
) {
    // SAFETY: the caller's.
    unsafe {
        if !silent && ffi::PyObject_CallFinalizerFromDealloc(object) < 0 {
            return; // the finalizer gave it to somebody
        }
        ffi::PyObject_GC_UnTrack(object.cast());
        ffi::PyObject_ClearWeakRefs(object);
        raw::clear_base(object);
        if nests {
            raw::end_nested(object, end);
        } else {
            end(object);
        }
    }
}

unsafe extern "C" fn tp_iter(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by the interpreter on an instance of our types.
    unsafe {
        raw::hot_slot(std::ptr::null_mut(), |py| {
            let this = Borrowed::from_ptr(py, object);
            Future::assume(&this).check_alive()?;
            Ok(iter::create(py, this.to_owned())?.into_ptr())
        })
    }
}

unsafe extern "C" fn tp_repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by the interpreter on an instance of our type.
    unsafe {
        raw::slot(std::ptr::null_mut(), |py| {
            let this = Borrowed::from_ptr(py, object);
            let this = Future::assume(&this);
            this.check_alive()?;
            Ok(this.repr()?.into_ptr())
        })
    }
}

/// The function of the method `set_result`: set once, with the type, and relaxed like that.
static SET_RESULT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

impl<'py> Future<'py> {
    /// The pending future, on a loop of ours that is not in debug mode, whose bound method `set_result` it is.
    #[inline]
    pub(crate) fn whose_set_result(callable: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        let py = callable.py();
        // SAFETY: the parts of a builtin method are asked for, and one with this function is bound to a future of ours.
        unsafe {
            if ffi::PyCFunction_CheckExact(callable.as_ptr()) == 0
                || ffi::PyCFunction_GetFunction(callable.as_ptr()).map(|f| f as *mut c_void)
                    != Some(SET_RESULT.load(Relaxed))
            {
                return None;
            }
            let future = Bound::from_borrowed_ptr(py, ffi::PyCFunction_GetSelf(callable.as_ptr()));
            let this = Self::assume(&future);
            let quiet = this
                .own_loop()
                .is_some_and(|event_loop| !event_loop.get().debug(py));
            (quiet && this.state() == State::Pending).then_some(future)
        }
    }
}

/// The slots that both types share.
pub(crate) fn slots() -> Vec<(c_int, *mut c_void)> {
    vec![
        (ffi::Py_tp_iter, tp_iter as *mut c_void),
        (ffi::Py_am_await, tp_iter as *mut c_void),
    ]
}

/// Makes the type.
pub(crate) fn build(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let names = Names::get(py)?;
    let size: usize = names.task.bind(py).getattr("__basicsize__")?.extract()?;
    OFFSET.store(size.next_multiple_of(align_of::<RefCell<Fields>>()), Relaxed);
    let mut slots = slots();
    slots.extend([
        (ffi::Py_tp_new, tp_new as *mut c_void),
        (ffi::Py_tp_init, tp_init as *mut c_void),
        (ffi::Py_tp_traverse, tp_traverse as *mut c_void),
        (ffi::Py_tp_clear, tp_clear as *mut c_void),
        (ffi::Py_tp_finalize, tp_finalize as *mut c_void),
        (ffi::Py_tp_dealloc, tp_dealloc as *mut c_void),
        (ffi::Py_tp_repr, tp_repr as *mut c_void),
    ]);
    let spec = Spec {
        name: c"ropewalk.asyncio.Future",
        doc: c"A result to come, on one event loop: asyncio.Future, made in Rust.",
        size: RefCell::<Fields>::offset() + size_of::<RefCell<Fields>>(),
        open: true,
        weak_references: None,
        slots,
        methods: own_methods(),
        attributes: attributes(),
    };
    let set_result = spec.methods.iter().find(|method| {
        // SAFETY: names are static strings.
        unsafe { CStr::from_ptr(method.ml_name) == c"set_result" }
    });
    // SAFETY: a method of one argument is one of these.
    let function = set_result.map(|method| unsafe { method.ml_meth.PyCFunction });
    let function = function.map_or(std::ptr::null_mut(), |function| function as *mut c_void);
    SET_RESULT.store(function, Relaxed);
    iter::build(py)?;
    CLASS.make(py, spec, Some(names.future.bind(py)))
}

/// Makes a pending future of a loop of ours.
#[inline]
pub(super) fn new<'py>(event_loop: &Bound<'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    let source_traceback =
        Fields::source_traceback(event_loop.py(), event_loop.get().debug(event_loop.py()))?;
    // SAFETY: the type is made; the base's fields are empty, in one that was freed, too.
    unsafe {
        let object = CLASS.alloc(event_loop.py())?;
        RefCell::new(Fields::of_own_loop(event_loop, source_traceback)).write(object.as_ptr());
        ffi::PyObject_GC_Track(object.as_ptr().cast());
        Ok(object)
    }
}
