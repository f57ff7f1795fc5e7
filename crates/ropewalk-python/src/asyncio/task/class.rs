//! The class `Task`.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};

use pyo3::exceptions::{PyAttributeError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use pyo3::{IntoPyObjectExt, ffi};

use super::all::Links;
use super::{CLASS, Fields, Name, Own, Task, as_name, check_arguments};
use crate::asyncio::event_loop::{self, Loop};
use crate::asyncio::future::{self, State};
use crate::asyncio::names::Names;
use crate::asyncio::raw::{self, Args, Part, Spec, Visit, attribute, bind_init, method};

fn none(py: Python<'_>) -> Bound<'_, PyAny> {
    py.None().into_bound(py)
}

fn own_methods() -> Vec<ffi::PyMethodDef> {
    let mut all = future::methods();
    all.extend([
        method!(
            Task,
            "set_result",
            |_, _| {
                Err(PyRuntimeError::new_err(
                    "Task does not support set_result operation",
                ))
            },
            "Not for tasks: RuntimeError."
        ),
        method!(
            Task,
            "set_exception",
            |_, _| {
                Err(PyRuntimeError::new_err(
                    "Task does not support set_exception operation",
                ))
            },
            "Not for tasks: RuntimeError."
        ),
        method!(
            Task,
            "cancel",
            |this, args| {
                let [message] = args.bind(["msg"], 1, 0)?;
                this.cancel(message)?.into_bound_py_any(this.py())
            },
            "Throw a CancelledError into the coroutine at its next step; tell whether the task was pending."
        ),
        method!(Task, "get_name"(), |this| { this.name() }, "The task's name."),
        method!(
            Task,
            "set_name",
            |this, args| {
                let [name] = args.bind(["value"], 1, 1)?;
                let name = Name::Given(as_name(&name.unwrap_or_else(|| none(this.py())))?);
                let old = std::mem::replace(&mut this.fields().borrow_mut().name, name);
                drop(old);
                Ok(none(this.py()))
            },
            "Give the task a name."
        ),
        method!(
            Task,
            "get_coro"(),
            |this| {
                let fields = this.fields().borrow();
                Ok(fields
                    .coro
                    .as_ref()
                    .map_or_else(|| none(this.py()), |coro| coro.bind(this.py()).clone()))
            },
            "The coroutine."
        ),
        method!(
            Task,
            "get_stack",
            |this, args| {
                let [limit] = args.bind(["limit"], 0, 0)?;
                this.helper("_task_get_stack", (&this.0, limit))
            },
            "The frames of the coroutine, oldest first."
        ),
        method!(
            Task,
            "print_stack",
            |this, args| {
                let [limit, file] = args.bind(["limit", "file"], 0, 0)?;
                this.helper("_task_print_stack", (&this.0, limit, file))
            },
            "Print the frames of the coroutine, or the traceback of its exception."
        ),
        method!(
            Task,
            "_step",
            |this, args| {
                let [exception] = args.bind(["exc"], 1, 0)?;
                let exception = exception.filter(|exception| !exception.is_none());
                this.step(exception.map(|exception| exception.cast_into()).transpose()?)?;
                Ok(none(this.py()))
            },
            "Run a step now."
        ),
    ]);
    if cfg!(Py_3_11) {
        all.extend([
            method!(
                Task,
                "cancelling"(),
                |this| { this.fields().borrow().cancels.into_bound_py_any(this.py()) },
                "How many cancellations have been asked for and not taken back."
            ),
            method!(
                Task,
                "uncancel"(),
                |this| {
                    let mut fields = this.fields().borrow_mut();
                    if fields.cancels > 0 {
                        fields.cancels -= 1;
                        if cfg!(Py_3_13) && fields.cancels == 0 {
                            fields.must_cancel = false;
                        }
                    }
                    fields.cancels.into_bound_py_any(this.py())
                },
                "Take back one cancellation; return how many are left."
            ),
        ]);
    }
    if cfg!(Py_3_12) {
        all.push(method!(
            Task,
            "get_context"(),
            |this| { this.context() },
            "The context that the coroutine runs in."
        ));
    }
    all
}

fn own_attributes() -> Vec<ffi::PyGetSetDef> {
    let mut all = future::attributes();
    all.extend([
        attribute!(
            Task,
            "_log_destroy_pending",
            |this| this
                .fields()
                .borrow()
                .log_destroy_pending
                .into_bound_py_any(this.py()),
            |this, value| {
                let value = value.is_truthy()?;
                this.fields().borrow_mut().log_destroy_pending = value;
                Ok(())
            }
        ),
        attribute!(Task, "_must_cancel", |this| this
            .fields()
            .borrow()
            .must_cancel
            .into_bound_py_any(this.py())),
        attribute!(Task, "_coro", |this| {
            let fields = this.fields().borrow();
            Ok(fields
                .coro
                .as_ref()
                .map_or_else(|| none(this.py()), |coro| coro.bind(this.py()).clone()))
        }),
        attribute!(Task, "_fut_waiter", |this| {
            let fields = this.fields().borrow();
            Ok(fields
                .waiter
                .as_ref()
                .map_or_else(|| none(this.py()), |waiter| waiter.bind(this.py()).clone()))
        }),
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
            RefCell::new(future::Fields::new()).write(object);
            Own::new(Fields::new()).write(object);
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
            let names = ["coro", "loop", "name", "context", "eager_start"];
            let [coro, event_loop, name, context, eager] = bind_init(py, "Task", names, 1, 1, args, kwargs)?;
            let eager = eager.is_some_and(|eager| eager.is_truthy().unwrap_or(false));
            let coro = coro.unwrap_or_else(|| none(py));
            let this = Task::assume(&this);
            this.fields().borrow_mut().log_destroy_pending = false; // until the arguments are found good
            let event_loop = event_loop::or_current(py, event_loop)?;
            let (name, context) = check_arguments(&coro, name.as_ref(), context.as_ref())?;
            this.init(&event_loop, Fields::of_coro(&coro, name, context), eager)?;
            Ok(0)
        })
    }
}

unsafe extern "C" fn tp_traverse(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: called by the collector on an instance of our type.
    unsafe {
        match future::tp_traverse(object, visit, arg) {
            0 => raw::status(Own::of(object).traverse(Visit::new(visit, arg))),
            status => status,
        }
    }
}

unsafe extern "C" fn tp_clear(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: called by the interpreter on an instance of our type.
    unsafe {
        Links::unlink(object);
        raw::tp_clear::<Own>(object);
        future::tp_clear(object)
    }
}

unsafe extern "C" fn tp_finalize(object: *mut ffi::PyObject) {
    // SAFETY: called by the interpreter on an instance of our type.
    unsafe { future::finalize(object, |object| report(Task::assume(object))) }
}

/// Reports a task that is destroyed while pending.
fn report(this: &Task<'_>) -> PyResult<()> {
    let py = this.py();
    // No more one of all tasks, even if the handler keeps it: as its weak reference would be gone by now.
    this.unlink();
    let pending = this.future().state() == State::Pending && this.fields().borrow().log_destroy_pending;
    if !pending || this.future().fields().borrow().event_loop.is_none() {
        return Ok(());
    }
    let context = PyDict::new(py);
    context.set_item("task", &this.0)?;
    context.set_item("message", "Task was destroyed but it is pending!")?;
    let source = this.0.getattr("_source_traceback")?;
    if !source.is_none() {
        context.set_item("source_traceback", source)?;
    }
    this.future()
        .event_loop()?
        .0
        .call_method1("call_exception_handler", (context,))?;
    Ok(())
}

unsafe extern "C" fn tp_dealloc(object: *mut ffi::PyObject) {
    unsafe fn end(object: *mut ffi::PyObject) {
        // SAFETY: the end of `tp_dealloc`.
        unsafe {
            Own::drop_of(object);
            RefCell::<future::Fields>::drop_of(object);
            CLASS.free(object);
        }
    }
    // SAFETY: the interpreter calls this once, when nothing refers to the object any more.
    unsafe {
        let (own, outcome) = (Own::of(object), RefCell::<future::Fields>::of(object));
        let done = outcome.borrow().state != State::Pending || !own.fields.borrow().log_destroy_pending;
        let silent = ffi::Py_TYPE(object) == CLASS.get() && done && !future::has_report(object);
        Links::unlink(object);
        future::dealloc(object, silent, true, end);
    }
}

unsafe extern "C" fn tp_repr(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by the interpreter on an instance of our type.
    unsafe {
        raw::slot(std::ptr::null_mut(), |py| {
            let this = Borrowed::from_ptr(py, object);
            let this = Task::assume(&this);
            let repr = if cfg!(Py_3_11) {
                this.helper("_task_repr", (&this.0,))?
            } else {
                future::repr_of_info(&this.0, &this.helper("_task_repr_info", (&this.0,))?)?
            };
            Ok(repr.into_ptr())
        })
    }
}

/// Makes the type; after that of futures, whose layout it continues.
pub(crate) fn build(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let mut slots = future::slots();
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
        name: c"ropewalk.asyncio.Task",
        doc: c"A coroutine that runs on an event loop: asyncio.Task, made in Rust.",
        size: Own::offset() + size_of::<Own>(),
        open: true,
        weak_references: None,
        slots,
        methods: own_methods(),
        attributes: own_attributes(),
    };
    CLASS.make(py, spec, Some(Names::get(py)?.task.bind(py)))
}

/// Makes a pending task of a loop of ours.
#[inline]
pub(super) fn new<'py>(
    event_loop: &Bound<'py, Loop>,
    coro: &Bound<'py, PyAny>,
    name: Name,
    context: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let source_traceback = future::Fields::source_traceback(py, event_loop.get().debug(py))?;
    // SAFETY: the type is made; the base's fields are empty, in one that was freed, too.
    unsafe {
        let object = CLASS.alloc(py)?;
        RefCell::new(future::Fields::of_own_loop(event_loop, source_traceback)).write(object.as_ptr());
        Own::new(Fields::of_coro(coro, name, context)).write(object.as_ptr());
        ffi::PyObject_GC_Track(object.as_ptr().cast());
        Ok(object)
    }
}
