//! `Queue`, `LifoQueue` and `PriorityQueue`: asyncio's (with 3.13's `shutdown` on every version), on any loop.
//!
//! `put`, `get` and `join` return awaitables of a native type, [`call`], that satisfy `asyncio.iscoroutine`: what
//! need not wait makes no frame and no future.

mod call;

use std::cell::RefCell;
use std::collections::VecDeque;

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;
use pyo3::{IntoPyObjectExt, PyTraverseError, PyVisit, ffi, intern};

use super::event_loop::Loop;
use super::future::{Future, State};
use super::gil::Gil;
use super::raw::{Args, Ref, add_methods, hot_method, method, wrapper};
pub(super) use call::build;

/// What is in a queue, by the order in which it comes out.
enum Items {
    Fifo(VecDeque<Ref>),
    Lifo(Vec<Ref>),
    /// A heap of `heapq`, whose order is that of Python's `<`.
    Priority(Py<PyList>),
}

impl Items {
    fn len(&self, py: Python<'_>) -> usize {
        match self {
            Self::Fifo(items) => items.len(),
            Self::Lifo(items) => items.len(),
            Self::Priority(items) => items.bind(py).len(),
        }
    }
}

struct Inner {
    items: Items,
    getters: VecDeque<Ref>,
    putters: VecDeque<Ref>,
    joiners: VecDeque<Ref>,
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
        self.inner.get(py).borrow().items.len(py)
    }

    fn is_full(&self, py: Python<'_>) -> bool {
        self.limit > 0.0 && self.len(py) as f64 >= self.limit
    }

    fn pop<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let mut inner = self.inner.get(py).borrow_mut();
        match &mut inner.items {
            Items::Fifo(items) => Ok(items.pop_front().map(|item| item.into_bound(py))),
            Items::Lifo(items) => Ok(items.pop().map(|item| item.into_bound(py))),
            Items::Priority(items) => {
                let items = items.bind(py).clone();
                drop(inner); // comparing runs Python code
                if items.is_empty() {
                    return Ok(None);
                }
                let heapq = py.import(intern!(py, "heapq"))?;
                Ok(Some(heapq.call_method1(intern!(py, "heappop"), (items,))?))
            }
        }
    }

    fn waiters(inner: &mut Inner, side: Side) -> &mut VecDeque<Ref> {
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
            if set(&waiter.into_bound(py))? {
                return Ok(());
            }
        }
    }

    fn wake_all(&self, py: Python<'_>, side: Side) -> PyResult<()> {
        let waiters = std::mem::take(Self::waiters(&mut self.inner.get(py).borrow_mut(), side));
        for waiter in waiters {
            set(&waiter.into_bound(py))?;
        }
        Ok(())
    }

    fn try_put(&self, item: Bound<'_, PyAny>) -> Result<(), Refusal> {
        let py = item.py();
        let mut inner = self.inner.get(py).borrow_mut();
        if inner.is_shutdown {
            drop(inner);
            return Err(Refusal::Error(exception(py, "QueueShutDown")));
        }
        if self.limit > 0.0 && inner.items.len(py) as f64 >= self.limit {
            return Err(Refusal::Wait);
        }
        match &mut inner.items {
            Items::Fifo(items) => items.push_back(item.into()),
            Items::Lifo(items) => items.push(item.into()),
            Items::Priority(items) => {
                let items = items.bind(py).clone();
                drop(inner); // comparing runs Python code
                py.import(intern!(py, "heapq"))
                    .and_then(|heapq| heapq.call_method1(intern!(py, "heappush"), (items, item)))
                    .map_err(Refusal::Error)?;
                inner = self.inner.get(py).borrow_mut();
            }
        }
        inner.unfinished += 1;
        if inner.getters.is_empty() {
            return Ok(());
        }
        drop(inner);
        self.wake_next(py, Side::Get).map_err(Refusal::Error)
    }

    fn try_get<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>, Refusal> {
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
        Self::waiters(&mut queue.inner.get(py).borrow_mut(), side).push_back((&waiter).into());
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

    /// Wait until every item put in has been got and `task_done` been called for it.
    fn join<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        call::create(this, Side::Join, None)
    }

    /// Put an item in, or raise QueueFull.
    fn put_nowait(&self, item: Bound<'_, PyAny>) -> PyResult<()> {
        let py = item.py();
        self.try_put(item).map_err(|refusal| match refusal {
            Refusal::Wait => exception(py, "QueueFull"),
            Refusal::Error(error) => error,
        })
    }

    /// Take an item out, or raise QueueEmpty.
    fn get_nowait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
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
            Items::Fifo(items) => items.iter().try_for_each(|item| visit.call(&**item))?,
            Items::Lifo(items) => items.iter().try_for_each(|item| visit.call(&**item))?,
            Items::Priority(items) => visit.call(items)?,
        }
        for waiter in inner.getters.iter().chain(&inner.putters).chain(&inner.joiners) {
            visit.call(&**waiter)?;
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

wrapper!(
    /// A queue of ours.
    AnyQueue
);

impl<'py> AnyQueue<'py> {
    fn call(&self, side: Side, item: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the methods below are called on instances of the class that they were added to.
        call::create(unsafe { self.0.cast_unchecked() }, side, item)
    }
}

/// Adds the hot methods to the class that PyO3 makes.
pub(super) fn add_hot_methods(py: Python<'_>) -> PyResult<()> {
    let methods = vec![
        hot_method!(
            AnyQueue,
            "put",
            |this, args| {
                let (item, others) = args.one_and_others("item")?;
                if others.is_some_and(|others| !others.is_empty()) {
                    return Err(PyTypeError::new_err("put() takes just one argument, 'item'"));
                }
                this.call(Side::Put, Some(&item))
            },
            "put($self, /, item)\n--\n\nPut an item in; wait for a free place first."
        ),
        method!(
            AnyQueue,
            "get"(),
            |this| this.call(Side::Get, None),
            "get($self, /)\n--\n\nTake an item out; wait for one first."
        ),
    ];
    add_methods(&py.get_type::<Queue>(), methods)
}
