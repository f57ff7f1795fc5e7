//! `Queue`, `LifoQueue` and `PriorityQueue`: asyncio's (with 3.13's `shutdown` on every version), on any loop.
//!
//! `put`, `get` and `join` return awaitables of a native type, [`QueueCall`], that satisfy `asyncio.iscoroutine`: what
//! need not wait makes no frame and no future.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyType};
use pyo3::{IntoPyObjectExt, PyTraverseError, PyVisit, ffi, intern};

use super::event_loop::Loop;
use super::future::{Future, State};
use super::future_iter;
use super::gil::Gil;
use super::raw::{self, Args, Spec, method};

/// What is in a queue, by the order in which it comes out.
enum Items {
    Fifo(VecDeque<Py<PyAny>>),
    Lifo(Vec<Py<PyAny>>),
    /// A heap of `heapq`, whose order is that of Python's `<`.
    Priority(Py<PyList>),
}

struct Inner {
    items: Items,
    getters: VecDeque<Py<PyAny>>,
    putters: VecDeque<Py<PyAny>>,
    joiners: VecDeque<Py<PyAny>>,
    unfinished: usize,
    is_shutdown: bool,
    event_loop: Option<Py<PyAny>>,
}

/// A queue of items for coroutines of one event loop; not thread-safe. Base of `ropewalk.Queue` and its siblings.
#[pyclass(
    frozen,
    subclass,
    generic,
    weakref,
    name = "Queue",
    module = "ropewalk._native"
)]
pub(crate) struct Queue {
    inner: Gil<RefCell<Inner>>,
    maxsize: Py<PyAny>,
    /// Full from this many items on.
    limit: f64,
}

/// Why a call cannot be carried out now.
enum Refusal {
    /// The queue is empty or full.
    Wait,
    Error(PyErr),
}

#[derive(Clone, Copy)]
enum Side {
    Get,
    Put,
    Join,
}

fn exception(py: Python<'_>, name: &str) -> PyErr {
    let class = py
        .import("asyncio.queues")
        .and_then(|queues| match queues.getattr_opt(name)? {
            Some(class) => Ok(class),
            // Before 3.13 there is none: the package has its own.
            None => py.import("ropewalk.asyncio.queues")?.getattr(name),
        });
    match class.and_then(|class| class.call0()) {
        Ok(value) => PyErr::from_value(value),
        Err(error) => error,
    }
}

impl Queue {
    fn len(&self, py: Python<'_>) -> usize {
        match &self.inner.get(py).borrow().items {
            Items::Fifo(items) => items.len(),
            Items::Lifo(items) => items.len(),
            Items::Priority(items) => items.bind(py).len(),
        }
    }

    fn is_full(&self, py: Python<'_>) -> bool {
        self.limit > 0.0 && self.len(py) as f64 >= self.limit
    }

    fn push(&self, py: Python<'_>, item: Py<PyAny>) -> PyResult<()> {
        let mut inner = self.inner.get(py).borrow_mut();
        match &mut inner.items {
            Items::Fifo(items) => items.push_back(item),
            Items::Lifo(items) => items.push(item),
            Items::Priority(items) => {
                let items = items.clone_ref(py);
                drop(inner); // comparing runs Python code
                py.import(intern!(py, "heapq"))?
                    .call_method1(intern!(py, "heappush"), (items, item))?;
            }
        }
        Ok(())
    }

    fn pop(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let mut inner = self.inner.get(py).borrow_mut();
        match &mut inner.items {
            Items::Fifo(items) => Ok(items.pop_front()),
            Items::Lifo(items) => Ok(items.pop()),
            Items::Priority(items) => {
                let items = items.clone_ref(py);
                drop(inner);
                if items.bind(py).is_empty() {
                    return Ok(None);
                }
                Ok(Some(
                    py.import(intern!(py, "heapq"))?
                        .call_method1(intern!(py, "heappop"), (items,))?
                        .unbind(),
                ))
            }
        }
    }

    fn waiters(inner: &mut Inner, side: Side) -> &mut VecDeque<Py<PyAny>> {
        match side {
            Side::Get => &mut inner.getters,
            Side::Put => &mut inner.putters,
            Side::Join => &mut inner.joiners,
        }
    }

    /// Wakes the first waiter that is not done.
    fn wake_next(&self, py: Python<'_>, side: Side) -> PyResult<()> {
        loop {
            let waiter = Self::waiters(&mut self.inner.get(py).borrow_mut(), side).pop_front();
            let Some(waiter) = waiter else { return Ok(()) };
            if set(waiter.bind(py))? {
                return Ok(());
            }
        }
    }

    fn wake_all(&self, py: Python<'_>, side: Side) -> PyResult<()> {
        let waiters = std::mem::take(Self::waiters(&mut self.inner.get(py).borrow_mut(), side));
        for waiter in waiters {
            set(waiter.bind(py))?;
        }
        Ok(())
    }

    fn try_put(&self, py: Python<'_>, item: &Py<PyAny>) -> Result<(), Refusal> {
        if self.inner.get(py).borrow().is_shutdown {
            return Err(Refusal::Error(exception(py, "QueueShutDown")));
        }
        if self.is_full(py) {
            return Err(Refusal::Wait);
        }
        self.push(py, item.clone_ref(py)).map_err(Refusal::Error)?;
        self.inner.get(py).borrow_mut().unfinished += 1;
        self.wake_next(py, Side::Get).map_err(Refusal::Error)
    }

    fn try_get(&self, py: Python<'_>) -> Result<Py<PyAny>, Refusal> {
        match self.pop(py).map_err(Refusal::Error)? {
            Some(item) => {
                self.wake_next(py, Side::Put).map_err(Refusal::Error)?;
                Ok(item)
            }
            None if self.inner.get(py).borrow().is_shutdown => {
                Err(Refusal::Error(exception(py, "QueueShutDown")))
            }
            None => Err(Refusal::Wait),
        }
    }

    /// The loop that runs, which the queue belongs to from its first use of one.
    fn own_loop<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let running = py
            .import(intern!(py, "asyncio"))?
            .call_method0(intern!(py, "get_running_loop"))?;
        let mut inner = this.get().inner.get(py).borrow_mut();
        let own = inner
            .event_loop
            .get_or_insert_with(|| running.clone().unbind())
            .clone_ref(py);
        drop(inner);
        if own.is(&running) {
            return Ok(running);
        }
        Err(PyRuntimeError::new_err(format!(
            "{} is bound to a different event loop",
            this.repr()?
        )))
    }

    /// Makes a waiter, a future of the loop that runs, and puts it in line.
    fn wait<'py>(this: &Bound<'py, Self>, side: Side) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let queue = this.get();
        let running = Self::own_loop(this)?;
        let waiter = match running.cast::<Loop>() {
            Ok(native) => Future::create(native)?,
            Err(_) => running.call_method0(intern!(py, "create_future"))?,
        };
        Self::waiters(&mut queue.inner.get(py).borrow_mut(), side).push_back(waiter.clone().unbind());
        Ok(waiter)
    }

    /// Cleans up after a waiter that was thrown out: cancels it, and passes on a wake-up that it cannot use.
    fn abandon(&self, py: Python<'_>, side: Side, waiter: &Bound<'_, PyAny>) -> PyResult<()> {
        waiter.call_method0(intern!(py, "cancel"))?;
        let mut inner = self.inner.get(py).borrow_mut();
        let line = Self::waiters(&mut inner, side);
        let place = line.iter().position(|other| other.is(waiter));
        let removed = place.and_then(|place| line.remove(place));
        drop(inner);
        drop(removed);
        if waiter.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
            return Ok(());
        }
        match side {
            Side::Get if self.len(py) > 0 => self.wake_next(py, side),
            Side::Put if !self.is_full(py) => self.wake_next(py, side),
            _ => Ok(()),
        }
    }

    fn finished(&self, py: Python<'_>) -> PyResult<()> {
        if self.inner.get(py).borrow().unfinished == 0 {
            self.wake_all(py, Side::Join)
        } else {
            Ok(())
        }
    }

    fn format(&self, py: Python<'_>) -> PyResult<String> {
        let inner = self.inner.get(py).borrow();
        let items: Vec<Bound<'_, PyAny>> = match &inner.items {
            Items::Fifo(items) => items.iter().map(|item| item.bind(py).clone()).collect(),
            Items::Lifo(items) => items.iter().map(|item| item.bind(py).clone()).collect(),
            Items::Priority(items) => items.bind(py).iter().collect(),
        };
        let (getters, putters) = (inner.getters.len(), inner.putters.len());
        let (unfinished, is_shutdown) = (inner.unfinished, inner.is_shutdown);
        drop(inner); // what follows calls `repr`
        let mut text = format!("maxsize={}", self.maxsize.bind(py).repr()?);
        if !items.is_empty() {
            text += &format!(" _queue={}", PyList::new(py, items)?.repr()?);
        }
        for (name, count) in [("_getters", getters), ("_putters", putters)] {
            if count > 0 {
                text += &format!(" {name}[{count}]");
            }
        }
        if unfinished > 0 {
            text += &format!(" tasks={unfinished}");
        }
        if is_shutdown {
            text += " shutdown";
        }
        Ok(text)
    }
}

/// Sets a waiter's result unless it is done; tells whether it did.
fn set(waiter: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = waiter.py();
    if let Some(future) = Future::cast(waiter) {
        let pending = future.state() == State::Pending;
        if pending {
            future.set_result(py.None().into_bound(py))?;
        }
        return Ok(pending);
    }
    if waiter.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(false);
    }
    waiter.call_method1(intern!(py, "set_result"), (py.None(),))?;
    Ok(true)
}

#[pymethods]
impl Queue {
    #[new]
    #[pyo3(signature = (maxsize=None, order="fifo"))]
    fn new(py: Python<'_>, maxsize: Option<Bound<'_, PyAny>>, order: &str) -> PyResult<Self> {
        let maxsize = maxsize.map_or_else(|| 0i32.into_bound_py_any(py), Ok)?;
        let items = match order {
            "fifo" => Items::Fifo(VecDeque::new()),
            "lifo" => Items::Lifo(Vec::new()),
            "priority" => Items::Priority(PyList::empty(py).unbind()),
            _ => return Err(PyValueError::new_err(format!("no such order: {order}"))),
        };
        let inner = Inner {
            items,
            getters: VecDeque::new(),
            putters: VecDeque::new(),
            joiners: VecDeque::new(),
            unfinished: 0,
            is_shutdown: false,
            event_loop: None,
        };
        Ok(Self {
            inner: Gil::new(RefCell::new(inner)),
            limit: maxsize.extract()?,
            maxsize: maxsize.unbind(),
        })
    }

    /// How many items there are.
    fn qsize(&self, py: Python<'_>) -> usize {
        self.len(py)
    }

    /// How many items there may be; none or fewer means any number.
    #[getter]
    fn maxsize(&self, py: Python<'_>) -> Py<PyAny> {
        self.maxsize.clone_ref(py)
    }

    /// Whether there is no item.
    fn empty(&self, py: Python<'_>) -> bool {
        self.len(py) == 0
    }

    /// Whether there are as many items as there may be.
    fn full(&self, py: Python<'_>) -> bool {
        self.is_full(py)
    }

    /// Put an item in; wait for a free place first.
    fn put<'py>(this: &Bound<'py, Self>, item: Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
        QueueCall::create(this, Side::Put, Some(item))
    }

    /// Take an item out; wait for one first.
    fn get<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        QueueCall::create(this, Side::Get, None)
    }

    /// Wait until every item put in has been got and `task_done` been called for it.
    fn join<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        QueueCall::create(this, Side::Join, None)
    }

    /// Put an item in, or raise QueueFull.
    fn put_nowait(&self, py: Python<'_>, item: Py<PyAny>) -> PyResult<()> {
        self.try_put(py, &item).map_err(|refusal| match refusal {
            Refusal::Wait => exception(py, "QueueFull"),
            Refusal::Error(error) => error,
        })
    }

    /// Take an item out, or raise QueueEmpty.
    fn get_nowait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.try_get(py).map_err(|refusal| match refusal {
            Refusal::Wait => exception(py, "QueueEmpty"),
            Refusal::Error(error) => error,
        })
    }

    /// Say that an item that was got has been dealt with; ValueError when there is none.
    fn task_done(&self, py: Python<'_>) -> PyResult<()> {
        let mut inner = self.inner.get(py).borrow_mut();
        if inner.unfinished == 0 {
            return Err(PyValueError::new_err("task_done() called too many times"));
        }
        inner.unfinished -= 1;
        drop(inner);
        self.finished(py)
    }

    /// Refuse items from now on (QueueShutDown); `immediate` drops those that are there.
    #[pyo3(signature = (immediate=false))]
    fn shutdown(&self, py: Python<'_>, immediate: bool) -> PyResult<()> {
        self.inner.get(py).borrow_mut().is_shutdown = true;
        if immediate {
            while self.pop(py)?.is_some() {
                let mut inner = self.inner.get(py).borrow_mut();
                inner.unfinished = inner.unfinished.saturating_sub(1);
            }
            self.finished(py)?;
        }
        self.wake_all(py, Side::Get)?;
        self.wake_all(py, Side::Put)
    }

    fn _get_loop<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::own_loop(this)
    }

    fn _format(&self, py: Python<'_>) -> PyResult<String> {
        self.format(py)
    }

    /// Who waits for an item: a copy.
    #[getter]
    fn _getters(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.inner
            .get(py)
            .borrow()
            .getters
            .iter()
            .map(|waiter| waiter.clone_ref(py))
            .collect()
    }

    /// Who waits for a place: a copy.
    #[getter]
    fn _putters(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.inner
            .get(py)
            .borrow()
            .putters
            .iter()
            .map(|waiter| waiter.clone_ref(py))
            .collect()
    }

    fn __repr__(this: &Bound<'_, Self>) -> PyResult<String> {
        let (name, address) = (this.get_type().name()?, this.as_ptr().addr());
        Ok(format!(
            "<{name} at {address:#x} {}>",
            this.get().format(this.py())?
        ))
    }

    fn __str__(this: &Bound<'_, Self>) -> PyResult<String> {
        Ok(format!(
            "<{} {}>",
            this.get_type().name()?,
            this.get().format(this.py())?
        ))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.maxsize)?;
        // SAFETY: called from `__traverse__`; no borrow lasts across an allocation of Python's.
        let Ok(inner) = unsafe { self.inner.traversed() }.try_borrow() else {
            return Ok(());
        };
        match &inner.items {
            Items::Fifo(items) => items.iter().try_for_each(|item| visit.call(item))?,
            Items::Lifo(items) => items.iter().try_for_each(|item| visit.call(item))?,
            Items::Priority(items) => visit.call(items)?,
        }
        for waiter in inner.getters.iter().chain(&inner.putters).chain(&inner.joiners) {
            visit.call(waiter)?;
        }
        visit.call(&inner.event_loop)
    }

    fn __clear__(&self, py: Python<'_>) {
        let mut inner = self.inner.get(py).borrow_mut();
        let items = std::mem::replace(&mut inner.items, Items::Lifo(Vec::new()));
        let waiters =
            [Side::Get, Side::Put, Side::Join].map(|side| std::mem::take(Self::waiters(&mut inner, side)));
        let event_loop = inner.event_loop.take();
        drop(inner);
        drop((items, waiters, event_loop));
    }
}

/// How far a call has come.
enum Progress {
    /// Nothing is waited for: not begun, or woken up.
    Ready,
    /// The future that it waits for, and the iterator of that.
    Waiting(Py<PyAny>, Py<PyAny>),
    Done,
}

struct CallFields {
    queue: Option<Py<Queue>>,
    side: Side,
    item: Option<Py<PyAny>>,
    progress: Progress,
}

#[repr(C)]
struct Object {
    head: ffi::PyObject,
    fields: RefCell<CallFields>,
}

/// Set once, with the other types of the loop; relaxed, because the GIL orders that with everything after.
static TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(std::ptr::null_mut());

/// A `put`, `get` or `join` that is or will be awaited.
#[repr(transparent)]
struct QueueCall<'py>(Bound<'py, PyAny>);

impl<'py> QueueCall<'py> {
    /// # Safety
    /// `object` is an instance of the type.
    unsafe fn assume<'a>(object: &'a Bound<'py, PyAny>) -> &'a Self {
        // SAFETY: the wrapper is transparent.
        unsafe { &*std::ptr::from_ref(object).cast() }
    }

    fn create(queue: &Bound<'py, Queue>, side: Side, item: Option<Py<PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        let py = queue.py();
        if TYPE.load(Relaxed).is_null() {
            super::loop_types(py)?;
        }
        let fields = CallFields {
            queue: Some(queue.clone().unbind()),
            side,
            item,
            progress: Progress::Ready,
        };
        // SAFETY: the type is ready; its fields are written before anything can look at them.
        unsafe {
            let object = Bound::from_owned_ptr_or_err(py, ffi::PyType_GenericAlloc(TYPE.load(Relaxed), 0))?;
            (&raw mut (*object.as_ptr().cast::<Object>()).fields).write(RefCell::new(fields));
            Ok(object)
        }
    }

    fn py(&self) -> Python<'py> {
        self.0.py()
    }

    fn fields(&self) -> &RefCell<CallFields> {
        // SAFETY: an instance has its fields from `create` to `tp_dealloc`; no other way makes one.
        unsafe { &(*self.0.as_ptr().cast::<Object>()).fields }
    }

    fn go_on(&self) -> PyResult<future_iter::Step> {
        let py = self.py();
        loop {
            let mut fields = self.fields().borrow_mut();
            let progress = std::mem::replace(&mut fields.progress, Progress::Done);
            let (side, queue) = (
                fields.side,
                fields.queue.as_ref().map(|queue| queue.bind(py).clone()),
            );
            let item = fields.item.as_ref().map(|item| item.clone_ref(py));
            drop(fields);
            let Some(queue) = queue else { return Err(reused()) };
            match progress {
                Progress::Done => return Err(reused()),
                Progress::Ready => {
                    let tried = match side {
                        Side::Get => queue.get().try_get(py),
                        Side::Put => {
                            let item = item.unwrap_or_else(|| py.None());
                            queue.get().try_put(py, &item).map(|()| py.None())
                        }
                        Side::Join if queue.get().inner.get(py).borrow().unfinished == 0 => Ok(py.None()),
                        Side::Join => Err(Refusal::Wait),
                    };
                    match tried {
                        Ok(value) => return Ok(future_iter::Step::Return(value.into_ptr())),
                        Err(Refusal::Error(error)) => return Err(error),
                        Err(Refusal::Wait) => {
                            let waiter = Queue::wait(&queue, side)?;
                            let iterator = waiter.call_method0(intern!(py, "__await__"))?;
                            self.fields().borrow_mut().progress =
                                Progress::Waiting(waiter.unbind(), iterator.unbind());
                        }
                    }
                }
                Progress::Waiting(waiter, iterator) => {
                    let mut result = std::ptr::null_mut();
                    // SAFETY: the iterator is alive; the result is an owned reference unless an exception is set.
                    let sent = unsafe { ffi::PyIter_Send(iterator.as_ptr(), ffi::Py_None(), &mut result) };
                    match sent {
                        ffi::PySendResult::PYGEN_NEXT => {
                            self.fields().borrow_mut().progress = Progress::Waiting(waiter, iterator);
                            return Ok(future_iter::Step::Yield(result));
                        }
                        ffi::PySendResult::PYGEN_RETURN => {
                            // SAFETY: an owned reference.
                            drop(unsafe { Bound::from_owned_ptr(py, result) });
                            // 3.13's join does not look again: what was finished is finished.
                            if matches!(side, Side::Join) {
                                return Ok(future_iter::Step::Return(py.None().into_ptr()));
                            }
                            self.fields().borrow_mut().progress = Progress::Ready;
                        }
                        ffi::PySendResult::PYGEN_ERROR => {
                            let error = PyErr::fetch(py);
                            queue.get().abandon(py, side, waiter.bind(py))?;
                            return Err(error);
                        }
                    }
                }
            }
        }
    }

    /// Ends the call and cleans up after it.
    fn end(&self) -> PyResult<()> {
        let py = self.py();
        let mut fields = self.fields().borrow_mut();
        let progress = std::mem::replace(&mut fields.progress, Progress::Done);
        let (side, queue) = (
            fields.side,
            fields.queue.as_ref().map(|queue| queue.bind(py).clone()),
        );
        drop(fields);
        if let (Progress::Waiting(waiter, iterator), Some(queue)) = (progress, queue) {
            iterator.bind(py).call_method0(intern!(py, "close"))?;
            queue.get().abandon(py, side, waiter.bind(py))?;
        }
        Ok(())
    }
}

fn reused() -> PyErr {
    PyRuntimeError::new_err("cannot reuse already awaited coroutine")
}

unsafe extern "C" fn am_send(
    object: *mut ffi::PyObject,
    _value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: called by the interpreter on an instance of the type, with a place for the result.
    unsafe {
        *result = std::ptr::null_mut();
        raw::slot(ffi::PySendResult::PYGEN_ERROR, |py| {
            let this = Borrowed::from_ptr(py, object);
            let (value, kind) = match QueueCall::assume(&this).go_on()? {
                future_iter::Step::Yield(future) => (future, ffi::PySendResult::PYGEN_NEXT),
                future_iter::Step::Return(value) => (value, ffi::PySendResult::PYGEN_RETURN),
            };
            *result = value;
            Ok(kind)
        })
    }
}

unsafe extern "C" fn tp_iternext(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: called by the interpreter on an instance of the type.
    unsafe {
        raw::slot(std::ptr::null_mut(), |py| {
            let this = Borrowed::from_ptr(py, object);
            QueueCall::assume(&this).go_on()?.into_next(py)
        })
    }
}

unsafe extern "C" fn tp_iter(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the object is alive.
    unsafe { ffi::Py_NewRef(object) }
}

unsafe extern "C" fn tp_traverse(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the collector runs with the GIL held and no borrow is alive: none lasts across an allocation of
    // Python's. Between allocation and `create`'s write there is none either.
    unsafe {
        let status = visit(ffi::Py_TYPE(object).cast(), arg);
        if status != 0 {
            return status;
        }
        let Ok(fields) = (*object.cast::<Object>()).fields.try_borrow() else {
            return 0;
        };
        let waiting = match &fields.progress {
            Progress::Waiting(waiter, iterator) => [Some(waiter.as_ptr()), Some(iterator.as_ptr())],
            _ => [None, None],
        };
        let own = [
            fields.queue.as_ref().map(Py::as_ptr),
            fields.item.as_ref().map(Py::as_ptr),
        ];
        for held in own.into_iter().chain(waiting).flatten() {
            let status = visit(held, arg);
            if status != 0 {
                return status;
            }
        }
        0
    }
}

unsafe extern "C" fn tp_clear(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: called by the interpreter on an instance of the type.
    unsafe {
        raw::slot(0, |py| {
            let this = Borrowed::from_ptr(py, object);
            let empty = CallFields {
                queue: None,
                side: Side::Get,
                item: None,
                progress: Progress::Done,
            };
            let old = QueueCall::assume(&this).fields().replace(empty);
            drop(old);
            Ok(0)
        })
    }
}

unsafe extern "C" fn tp_dealloc(object: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls this once, when nothing refers to the object any more.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        tp_clear(object);
        std::ptr::drop_in_place(&raw mut (*object.cast::<Object>()).fields);
        raw::free(object);
    }
}

/// Makes the type of the calls.
pub(super) fn build(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let spec = Spec {
        name: c"ropewalk.asyncio.QueueCall",
        doc: c"A put, get or join of a Queue, to be awaited.",
        size: size_of::<Object>(),
        subclassable: false,
        slots: vec![
            (ffi::Py_tp_iter, tp_iter as *mut c_void),
            (ffi::Py_am_await, tp_iter as *mut c_void),
            (ffi::Py_tp_iternext, tp_iternext as *mut c_void),
            (ffi::Py_am_send, am_send as *mut c_void),
            (ffi::Py_tp_traverse, tp_traverse as *mut c_void),
            (ffi::Py_tp_clear, tp_clear as *mut c_void),
            (ffi::Py_tp_dealloc, tp_dealloc as *mut c_void),
        ],
        methods: vec![
            method!(
                QueueCall,
                "send",
                |this, args| {
                    args.bind(["value"], 1, 1)?;
                    let py = this.py();
                    // SAFETY: an owned reference, or NULL for the end without a value.
                    let next = unsafe { Bound::from_owned_ptr_or_opt(py, this.go_on()?.into_next(py)?) };
                    next.ok_or_else(|| PyStopIteration::new_err(()))
                },
                "Go on, whatever the value."
            ),
            method!(
                QueueCall,
                "throw",
                |this, args| {
                    let thrown =
                        future_iter::exception(this.py(), args.bind(["type", "value", "traceback"], 3, 1)?)?;
                    this.end()?;
                    Err(PyErr::from_value(thrown))
                },
                "Give up waiting and raise the exception."
            ),
            method!(
                QueueCall,
                "close",
                |this, args| {
                    args.bind([], 0, 0)?;
                    this.end()?;
                    Ok(this.py().None().into_bound(this.py()))
                },
                "Give up waiting."
            ),
        ],
        attributes: Vec::new(),
    };
    let class = spec.build(py, None)?;
    // A reference of its own: a type may not go while the process makes instances of it.
    TYPE.store(class.clone().into_ptr().cast(), Relaxed);
    Ok(class)
}
