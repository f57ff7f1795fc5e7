//! `Handle` and `TimerHandle`: a callback that waits its turn, and may be cancelled.
//!
//! # Why the collector does not track a pending handle
//!
//! Most handles live for a turn, most timers are cancelled soon, and what the collector looks at in the meantime costs
//! more than all the rest. So a handle is made untracked, and what it holds is visited in its place:
//!
//! - While nobody but the loop has a handle (its reference count is 1), it is a part of the loop: the loop's
//!   `__traverse__` visits what it holds ([`Pending::traverse`]), and a cycle through both is found as usual.
//! - While somebody else has it, too, what it holds counts as reachable, which is safe but would keep a cycle that is
//!   garbage: so at the start of a full collection every such handle becomes tracked ([`Pending::track_if_kept`]), and
//!   from then on the loop visits the handle itself.
//! - A loop that lets go of a handle (it ran, was cancelled, or the loop was closed or dropped) which somebody keeps
//!   tracks it then (the `Drop` of [`Pending`]): what it still holds is to be found without the loop.
//!
//! Once tracked a handle stays so. An untracked handle that nobody has any more is freed by its count, like any object.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{IntoPyObjectExt, PyTraverseError, PyVisit, ffi, intern};

use super::context;
use super::event_loop::Loop;
use super::future::Future;
use super::names::{Names, is_fatal};
use super::raw::{self, Args, Class, Part, Ref, Spec, Visit, Visited, attribute, method, wrapper};

/// More arguments than this are kept as a tuple.
const FEW: usize = 3;

/// The arguments of a callback.
pub(super) enum Arguments {
    Few([Option<Ref>; FEW]),
    Many(Ref<PyTuple>),
}

impl Arguments {
    pub(super) const NONE: Self = Self::Few([const { None }; FEW]);

    /// # Safety
    /// The pointers are those of objects that live.
    pub(super) unsafe fn new(py: Python<'_>, arguments: &[*mut ffi::PyObject]) -> PyResult<Self> {
        // SAFETY: the caller's.
        let one = |at: usize| Some(Ref::from(unsafe { Bound::from_borrowed_ptr(py, arguments[at]) }));
        Ok(Self::Few(match arguments.len() {
            0 => [None, None, None],
            1 => [one(0), None, None],
            2 => [one(0), one(1), None],
            3 => [one(0), one(1), one(2)],
            count => {
                let all = (0..count).map(|at| one(at).map(|argument| argument.into_bound(py)));
                return Ok(Self::Many(PyTuple::new(py, all.collect::<Vec<_>>())?.into()));
            }
        }))
    }

    pub(super) fn from_tuple(arguments: &Bound<'_, PyTuple>) -> Self {
        if arguments.len() > FEW {
            return Self::Many(arguments.into());
        }
        Self::Few(std::array::from_fn(|at| {
            arguments.get_item(at).ok().map(Ref::from)
        }))
    }

    fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Few(few) => Self::Few(
                few.each_ref()
                    .map(|argument| argument.as_ref().map(|argument| argument.clone_ref(py).into())),
            ),
            Self::Many(many) => Self::Many(many.clone_ref(py).into()),
        }
    }

    fn tuple<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        match self {
            Self::Few(few) => PyTuple::new(
                py,
                few.iter()
                    .flatten()
                    .map(|argument| argument.bind(py))
                    .collect::<Vec<_>>(),
            ),
            Self::Many(many) => Ok(many.bind(py).clone()),
        }
    }

    /// Calls a callback with these arguments in a context.
    #[inline]
    fn call_in<'py>(
        &self,
        context: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        context::enter(context)?;
        let result = self.call(callback);
        context::exit(context)?;
        result
    }

    #[inline]
    fn call<'py>(&self, callback: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let few = match self {
            Self::Few(few) => few,
            Self::Many(many) => return callback.call1(many.bind(callback.py())),
        };
        let count = match few {
            [None, ..] => 0,
            [_, None, _] => 1,
            [_, _, None] => 2,
            _ => 3,
        };
        let pointer = |at: usize| few[at].as_ref().map_or(std::ptr::null_mut(), |a| a.as_ptr());
        // The place in front is the callee's to write to.
        let mut arguments = [std::ptr::null_mut(), pointer(0), pointer(1), pointer(2)];
        // SAFETY: the callback and its arguments live as long as `self` and the call.
        unsafe {
            let result = ffi::PyObject_Vectorcall(
                callback.as_ptr(),
                arguments.as_mut_ptr().add(1),
                count | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
                std::ptr::null_mut(),
            );
            Bound::from_owned_ptr_or_err(callback.py(), result)
        }
    }

    fn held(&self) -> impl Iterator<Item = &Py<PyAny>> {
        let (few, many) = match self {
            Self::Few(few) => (few.as_slice(), None),
            Self::Many(many) => (&[][..], Some(many.as_any())),
        };
        few.iter().flatten().map(|argument| &**argument).chain(many)
    }
}

struct Call {
    /// None once cancelled.
    callback: Option<Ref>,
    arguments: Arguments,
    context: Option<Ref>,
    event_loop: Option<Ref<Loop>>,
    /// In debug mode, where the handle was made, and once cancelled, how it looked.
    source_traceback: Option<Ref>,
    repr: Option<Ref>,
}

impl Call {
    fn held(&self) -> impl Iterator<Item = &Py<PyAny>> {
        let own = [&self.callback, &self.context, &self.source_traceback, &self.repr];
        let event_loop = self.event_loop.as_ref().map(|event_loop| event_loop.as_any());
        own.into_iter()
            .flatten()
            .map(|object| &**object)
            .chain(event_loop)
            .chain(self.arguments.held())
    }
}

/// What an instance of either class holds.
struct Body {
    call: RefCell<Call>,
    cancelled: Cell<bool>,
    /// Whether it lies among the timers.
    scheduled: Cell<bool>,
    /// When a timer is due, in seconds of the loop's clock.
    when: f64,
    weak_references: Cell<*mut ffi::PyObject>,
}

static HANDLE: Class = Class::new();
static TIMER_HANDLE: Class = Class::new();

// SAFETY: `Handle::create` writes it, whichever the class.
unsafe impl Part for Body {
    fn class() -> &'static Class {
        &HANDLE
    }

    fn traverse(&self, visit: Visit) -> Visited {
        // None is borrowed while the collector runs: no borrow lasts across an allocation of Python's.
        let Ok(call) = self.call.try_borrow() else {
            return Visited::Continue(());
        };
        visit.all(call.held().map(Py::as_ptr))
    }

    fn clear(&self, _: Python<'_>) {
        let old = self.call.replace(Call {
            callback: None,
            arguments: Arguments::NONE,
            context: None,
            event_loop: None,
            source_traceback: None,
            repr: None,
        });
        drop(old);
    }
}

wrapper!(
    /// A callback that waits its turn, or, of the class `TimerHandle`, for a time; an instance of asyncio's class of
    /// the same name by `isinstance`.
    Handle
);

/// A handle that the loop has: ready, among the timers, or waiting for a descriptor.
pub(super) struct Pending(Ref);

impl Pending {
    pub(super) fn object(&self) -> &Py<PyAny> {
        &self.0
    }

    pub(super) fn handle<'a, 'py>(&'a self, py: Python<'py>) -> &'a Handle<'py> {
        // SAFETY: made of a handle.
        unsafe { Handle::assume(self.0.bind(py)) }
    }

    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py).into())
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.body().cancelled.get()
    }

    fn body(&self) -> &Body {
        // SAFETY: made of a handle.
        unsafe { Part::of(self.0.as_ptr()) }
    }

    fn is_kept(&self) -> bool {
        // SAFETY: reads the count of a live object.
        unsafe { ffi::Py_REFCNT(self.0.as_ptr()) > 1 }
    }

    fn is_tracked(&self) -> bool {
        // SAFETY: the object lives and its type has the collector's head.
        unsafe { ffi::PyObject_GC_IsTracked(self.0.as_ptr()) != 0 }
    }

    /// Has the collector track the handle if somebody else has it, too.
    pub(super) fn track_if_kept(&self) {
        if self.is_kept() && !self.is_tracked() {
            // SAFETY: not tracked, and whole.
            unsafe { ffi::PyObject_GC_Track(self.0.as_ptr().cast()) }
        }
    }

    /// For the loop's `__traverse__`: visits the handle, or what it holds.
    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if self.is_tracked() {
            return visit.call(&*self.0);
        }
        match self.body().call.try_borrow() {
            Ok(call) if !self.is_kept() => call.held().try_for_each(|object| visit.call(object)),
            _ => Ok(()),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.track_if_kept();
    }
}

impl<'py> Handle<'py> {
    /// Makes a handle, or, given a time, a timer.
    #[inline]
    pub(super) fn create(
        event_loop: &Bound<'py, Loop>,
        callback: &Bound<'py, PyAny>,
        arguments: Arguments,
        context: Option<&Bound<'py, PyAny>>,
        when: Option<f64>,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        let context = match context.filter(|context| !context.is_none()) {
            Some(context) => context.clone(),
            None => context::copy(py)?,
        };
        let source_traceback = match event_loop.get().debug(py) {
            true => Some(Names::get(py)?.extract_stack.bind(py).call0()?.into()),
            false => None,
        };
        let body = Body {
            call: RefCell::new(Call {
                callback: Some(callback.into()),
                arguments,
                context: Some(context.into()),
                event_loop: Some(event_loop.into()),
                source_traceback,
                repr: None,
            }),
            cancelled: Cell::new(false),
            scheduled: Cell::new(when.is_some()),
            when: when.unwrap_or_default(),
            weak_references: Cell::new(std::ptr::null_mut()),
        };
        let class = if when.is_some() { &TIMER_HANDLE } else { &HANDLE };
        // SAFETY: the types are made, with the module's others; the body is all that an instance holds.
        unsafe {
            let object = class.alloc(py)?;
            body.write(object.as_ptr());
            Ok(Self(object))
        }
    }

    pub(super) fn into_any(self) -> Bound<'py, PyAny> {
        self.0
    }

    pub(super) fn pending(&self) -> Pending {
        Pending((&self.0).into())
    }

    #[inline]
    fn body(&self) -> &Body {
        // SAFETY: every instance of our types has it from `create` to `tp_dealloc`.
        unsafe { Part::of(self.0.as_ptr()) }
    }

    /// A field that may be missing, as Python sees it.
    fn field(&self, field: impl FnOnce(&Call) -> &Option<Ref>) -> PyResult<Bound<'py, PyAny>> {
        let call = self.body().call.borrow();
        let field = field(&call).as_ref().map(|field| field.bind(self.py()).clone());
        Ok(field.unwrap_or_else(|| self.py().None().into_bound(self.py())))
    }

    fn event_loop(&self) -> Option<Bound<'py, Loop>> {
        let call = self.body().call.borrow();
        call.event_loop
            .as_ref()
            .map(|event_loop| event_loop.bind(self.py()).clone())
    }

    fn arguments(&self) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let call = self.body().call.borrow();
        match call.callback {
            Some(_) => call.arguments.tuple(self.py()).map(Some),
            None => Ok(None),
        }
    }

    /// Says that the handle has left the timers.
    pub(super) fn unscheduled(&self) {
        self.body().scheduled.set(false);
    }

    /// The future of ours, and the result, if that is all that the callback sets: neither the handle's context is needed
    /// for it nor a call.
    #[inline]
    pub(super) fn as_set_result(&self) -> Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let call = self.body().call.borrow();
        let (Some(callback), Arguments::Few([Some(result), None, None])) = (&call.callback, &call.arguments)
        else {
            return None;
        };
        let future = Future::whose_set_result(callback.bind(self.py()))?;
        Some((future, result.bind(self.py()).clone()))
    }

    /// Whether no code but the caller's can come by the handle: through a weak reference or the collector's lists neither.
    #[inline]
    fn is_out_of_reach(&self) -> bool {
        let object = self.0.as_ptr();
        // SAFETY: reads the count and the collector's head of a live object.
        unsafe {
            ffi::Py_REFCNT(object) == 1
                && self.body().weak_references.get().is_null()
                && ffi::PyObject_GC_IsTracked(object) == 0
        }
    }

    /// Calls the callback in its context, unless the handle is cancelled; tells the exception handler what it raises.
    pub(super) fn run(&self) -> PyResult<()> {
        let py = self.py();
        let call = self.body().call.borrow();
        let (Some(callback), Some(context)) = (&call.callback, &call.context) else {
            return Ok(());
        };
        let result = if self.is_out_of_reach() {
            // Nobody can cancel it meanwhile: the borrow may last.
            let result = call.arguments.call_in(context.bind(py), callback.bind(py));
            drop(call);
            result
        } else {
            let (callback, context) = (callback.bind(py).clone(), context.bind(py).clone());
            let arguments = call.arguments.clone_ref(py);
            drop(call);
            arguments.call_in(&context, &callback)
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) if is_fatal(error.value(py)) => Err(error),
            Err(error) => self.report(error),
        }
    }

    /// Tells the exception handler what the callback has raised.
    #[cold]
    pub(super) fn report(&self, error: PyErr) -> PyResult<()> {
        let py = self.py();
        let callback = self.field(|call| &call.callback)?;
        let source = Names::get(py)?
            .format_callback_source
            .bind(py)
            .call1((callback, self.arguments()?))?;
        let context = PyDict::new(py);
        context.set_item("message", format!("Exception in callback {source}"))?;
        context.set_item("exception", error.into_value(py))?;
        context.set_item("handle", &self.0)?;
        let source = self.field(|call| &call.source_traceback)?;
        if !source.is_none() {
            context.set_item("source_traceback", source)?;
        }
        if let Some(event_loop) = self.event_loop() {
            event_loop.call_method1(intern!(py, "call_exception_handler"), (context,))?;
        }
        Ok(())
    }

    pub(super) fn cancel(&self) -> PyResult<()> {
        let py = self.py();
        let body = self.body();
        if body.cancelled.get() {
            return Ok(());
        }
        let event_loop = self.event_loop();
        let debug = event_loop
            .as_ref()
            .is_some_and(|event_loop| event_loop.get().debug(py));
        let repr = match debug {
            true => Some(Ref::from(self.0.repr()?.into_any())),
            false => None,
        };
        body.cancelled.set(true);
        let mut call = body.call.borrow_mut();
        let old = (
            call.callback.take(),
            std::mem::replace(&mut call.arguments, Arguments::NONE),
        );
        if repr.is_some() {
            call.repr = repr;
        }
        drop(call);
        drop(old);
        if body.scheduled.get()
            && let Some(event_loop) = event_loop
        {
            event_loop.get().timer_cancelled(py);
        }
        Ok(())
    }

    /// What `asyncio.Handle` makes of the handle.
    fn as_asyncio(&self, method: &str) -> PyResult<Bound<'py, PyAny>> {
        let class = Names::get(self.py())?.handle.bind(self.py());
        class.call_method1(method, (&self.0,))
    }

    fn timer_repr_info(&self) -> PyResult<Bound<'py, PyAny>> {
        let info = self.as_asyncio("_repr_info")?;
        let place = if self.body().cancelled.get() { 2 } else { 1 };
        let when = self.body().when.into_bound_py_any(self.py())?;
        info.call_method1("insert", (place, format!("when={when}")))?;
        Ok(info)
    }

    fn is_equal(&self, other: &Self) -> PyResult<bool> {
        let (a, b) = (self.body(), other.body());
        let callback = |handle: &Self| handle.field(|call| &call.callback);
        let arguments = |handle: &Self| handle.arguments()?.into_bound_py_any(handle.py());
        Ok(a.when == b.when
            && callback(self)?.eq(callback(other)?)?
            && arguments(self)?.eq(arguments(other)?)?
            && a.cancelled.get() == b.cancelled.get())
    }
}

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
pub(super) fn build(py: Python<'_>) -> PyResult<()> {
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
