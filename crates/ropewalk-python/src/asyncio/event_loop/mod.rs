//! `Loop`: the engine as Python sees it, the hot half of `ropewalk.asyncio.EventLoop`.
//!
//! The other half, what runs once for a connection or a run, is `asyncio`'s own Python, of which
//! `ropewalk.asyncio.EventLoop` is a subclass.

mod calls;
mod descriptors;
mod streams;
mod turn;

use std::cell::{Cell, RefCell, RefMut};
use std::os::fd::RawFd;

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit, intern};
use ropewalk::asyncio::engine::{Clock, Engine, Host};

use super::gathering::Gathering;
use super::gil::Gil;
use super::handle::Pending;
use super::names::Names;
use super::raw::Ref;
use super::stream::Stream;
pub(crate) use calls::{add_hot_methods, call_soon, call_soon_foreign};
use descriptors::{Side, Source};

/// What is ready, or will be at a time.
pub(super) enum Entry {
    Handle(Pending),
    /// A handle that `asyncio` made itself, for a signal.
    Foreign(Ref),
    /// A task of ours that makes its next step.
    Step(Ref),
    /// A task of ours whose awaited future is done.
    Wakeup(Ref),
    /// A gathering whose last child, or first that failed, is done.
    Gather(Ref<Gathering>),
}

/// What the engine runs for Python.
pub(super) struct Python_;

impl Host for Python_ {
    type Entry = Entry;
    type Mail = Entry;
    type Source = Source;

    fn receive(mail: Entry) -> Entry {
        mail
    }

    fn is_cancelled(entry: &Entry) -> bool {
        matches!(entry, Entry::Handle(handle) if handle.is_cancelled())
    }
}

/// The hot half of an event loop.
#[pyclass(frozen, subclass, name = "Loop", module = "ropewalk._native")]
pub(crate) struct Loop {
    /// None once the loop is closed: its descriptors go at once, whoever still holds the loop.
    engine: Gil<RefCell<Option<Engine<Python_>>>>,
    state: Gil<Flags>,
    /// Whether tasks may go past `call_soon`: not where a subclass has its own.
    is_direct: bool,
    task_factory: Gil<RefCell<Option<Py<PyAny>>>>,
    current_handle: Gil<RefCell<Option<Py<PyAny>>>>,
    /// The task that `_current_tasks` shows, since the last step.
    shown: Gil<RefCell<Option<Ref>>>,
    /// Streams that have something to send at the end of the turn.
    dirty: Gil<RefCell<Vec<Py<Stream>>>>,
    /// Where streams read into: one for all, made when it is first needed.
    buffer: Gil<RefCell<Vec<u8>>>,
}

struct Flags {
    closed: Cell<bool>,
    stopping: Cell<bool>,
    debug: Cell<bool>,
    slow_callback_duration: Cell<f64>,
    /// Whether turns follow each other, so that what is put off to the end of one will be done.
    running: Cell<bool>,
}

impl Loop {
    pub(super) fn debug(&self, py: Python<'_>) -> bool {
        self.state.get(py).debug.get()
    }

    pub(super) fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// The engine, borrowed for some moves.
    fn engine<'a>(&'a self, py: Python<'a>) -> PyResult<RefMut<'a, Engine<Python_>>> {
        RefMut::filter_map(self.engine.get(py).borrow_mut(), Option::as_mut)
            .map_err(|_| PyRuntimeError::new_err("Event loop is closed"))
    }

    fn check_closed(&self, py: Python<'_>) -> PyResult<()> {
        if self.state.get(py).closed.get() {
            return Err(PyRuntimeError::new_err("Event loop is closed"));
        }
        Ok(())
    }

    /// What `call_soon` checks first.
    #[inline]
    fn check(&self, this: &Bound<'_, Self>) -> PyResult<()> {
        let flags = self.state.get(this.py());
        if flags.closed.get() || flags.debug.get() {
            return self.check_well(this);
        }
        Ok(())
    }

    #[cold]
    fn check_well(&self, this: &Bound<'_, Self>) -> PyResult<()> {
        self.check_closed(this.py())?;
        this.call_method0("_check_thread").map(drop)
    }

    fn check_callback(
        &self,
        this: &Bound<'_, Self>,
        callback: &Bound<'_, PyAny>,
        method: &str,
    ) -> PyResult<()> {
        if self.debug(this.py()) {
            this.call_method1("_check_callback", (callback, method))?;
        }
        Ok(())
    }

    /// Appends to the ready ring, from the loop's own thread.
    #[inline]
    pub(super) fn push(&self, this: &Bound<'_, Self>, entry: Entry) -> PyResult<()> {
        if let Err(error) = self.check(this) {
            drop(entry);
            return Err(error);
        }
        self.engine(this.py())?.push(entry);
        Ok(())
    }

    fn ring(&self, py: Python<'_>) {
        if let Ok(engine) = self.engine(py) {
            engine.ring();
        }
    }

    pub(super) fn timer_cancelled(&self, py: Python<'_>) {
        let gone = self.engine(py).map(|mut engine| engine.timer_cancelled());
        drop(gone); // outside the borrow
    }

    fn empty(&self, py: Python<'_>) {
        let engine = self.engine.get(py).borrow_mut().take();
        let Some(mut engine) = engine else { return };
        let ready: Vec<_> = std::iter::from_fn(|| engine.pop()).collect();
        let timers: Vec<_> = engine.timers.take().collect();
        let sources: Vec<_> = engine.reactor.take().collect();
        drop(engine);
        let dirty = std::mem::take(&mut *self.dirty.get(py).borrow_mut());
        drop((ready, timers, sources, dirty));
    }
}

#[pymethods]
impl Loop {
    #[new]
    #[classmethod]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(
        class: &Bound<'_, PyType>,
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let engine = Engine::new().map_err(|error| os_error(&error))?;
        let call_soon = intern!(class.py(), "call_soon");
        let own = class.py().get_type::<Self>().getattr(call_soon)?;
        Ok(Self {
            is_direct: class.getattr(call_soon)?.is(&own),
            engine: Gil::new(RefCell::new(Some(engine))),
            state: Gil::new(Flags {
                closed: Cell::new(false),
                stopping: Cell::new(false),
                debug: Cell::new(false),
                slow_callback_duration: Cell::new(0.1),
                running: Cell::new(false),
            }),
            task_factory: Gil::new(RefCell::new(None)),
            current_handle: Gil::new(RefCell::new(None)),
            shown: Gil::new(RefCell::new(None)),
            dirty: Gil::new(RefCell::new(Vec::new())),
            buffer: Gil::new(RefCell::new(Vec::new())),
        })
    }

    /// The loop's clock, in seconds: `time.monotonic()`.
    fn time(&self, py: Python<'_>) -> f64 {
        let now = match self.engine(py) {
            Ok(mut engine) => engine.time(),
            Err(_) => Clock::Monotonic.now(),
        };
        now as f64 / 1e9
    }

    /// Stop the loop at the end of this turn.
    fn stop(&self, py: Python<'_>) {
        self.state.get(py).stopping.set(true);
    }

    /// Whether the loop is closed.
    fn is_closed(&self, py: Python<'_>) -> bool {
        self.state.get(py).closed.get()
    }

    /// Whether the loop is in debug mode.
    fn get_debug(&self, py: Python<'_>) -> bool {
        self.debug(py)
    }

    /// Run turns until the loop is stopped.
    fn _run(this: &Bound<'_, Self>) -> PyResult<()> {
        let event_loop = this.get();
        event_loop.run(this, || {
            loop {
                event_loop.turn(this)?;
                if event_loop.state.get(this.py()).stopping.get() {
                    return Ok(());
                }
            }
        })
    }

    /// Run one turn.
    fn _run_once(this: &Bound<'_, Self>) -> PyResult<()> {
        this.get().run(this, || this.get().turn(this))
    }

    /// Append a handle made by asyncio.
    fn _add_callback(&self, py: Python<'_>, handle: Py<PyAny>) -> PyResult<()> {
        self.engine(py)?.push(Entry::Foreign(handle.into()));
        Ok(())
    }

    /// The same from a signal handler or another thread.
    fn _add_callback_signalsafe(&self, py: Python<'_>, handle: Py<PyAny>) -> PyResult<()> {
        self._add_callback(py, handle)?;
        self.ring(py);
        Ok(())
    }

    /// Forget every callback, timer and descriptor, for good.
    fn _empty(&self, py: Python<'_>) {
        self.empty(py);
    }

    /// Have the garbage collector track the pending handles that somebody keeps: `handle` says why.
    fn _track_kept(&self, py: Python<'_>) {
        let Ok(engine) = self.engine(py) else { return };
        for entry in engine.iter().chain(engine.timers.iter()) {
            if let Entry::Handle(handle) = entry {
                handle.track_if_kept();
            }
        }
        for source in engine.reactor.iter() {
            source.handles().for_each(Pending::track_if_kept);
        }
    }

    /// Wake the loop from any thread.
    fn _write_to_self(&self, py: Python<'_>) {
        self.ring(py);
    }

    #[pyo3(signature = (fd, callback, *args))]
    fn _add_reader<'py>(
        this: &Bound<'py, Self>,
        fd: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::add(this, fd, callback, args, Side::Read)
    }

    #[pyo3(signature = (fd, callback, *args))]
    fn _add_writer<'py>(
        this: &Bound<'py, Self>,
        fd: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::add(this, fd, callback, args, Side::Write)
    }

    fn _remove_reader(this: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        Self::remove(this, fd, Side::Read)
    }

    fn _remove_writer(this: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        Self::remove(this, fd, Side::Write)
    }

    /// What is waited for on a descriptor: 1 for reading, 2 for writing, 3 for both, 0 for nothing.
    fn _interest(&self, py: Python<'_>, fd: RawFd) -> u8 {
        let Ok(engine) = self.engine(py) else { return 0 };
        let interest = engine
            .reactor
            .source(fd)
            .map(Source::interest)
            .unwrap_or_default();
        u8::from(interest.readable) | u8::from(interest.writable) << 1
    }

    #[getter(_closed)]
    fn shown_closed(&self, py: Python<'_>) -> bool {
        self.is_closed(py)
    }

    #[setter(_closed)]
    fn set_closed(&self, py: Python<'_>, closed: bool) {
        self.state.get(py).closed.set(closed);
    }

    #[getter(_stopping)]
    fn shown_stopping(&self, py: Python<'_>) -> bool {
        self.state.get(py).stopping.get()
    }

    #[setter(_stopping)]
    fn set_stopping(&self, py: Python<'_>, stopping: bool) {
        self.state.get(py).stopping.set(stopping);
    }

    #[getter(_debug)]
    fn shown_debug(&self, py: Python<'_>) -> bool {
        self.debug(py)
    }

    #[setter(_debug)]
    fn set_debug(&self, py: Python<'_>, debug: Bound<'_, PyAny>) -> PyResult<()> {
        self.state.get(py).debug.set(debug.is_truthy()?);
        Ok(())
    }

    #[getter]
    fn get_slow_callback_duration(&self, py: Python<'_>) -> f64 {
        self.state.get(py).slow_callback_duration.get()
    }

    #[setter]
    fn set_slow_callback_duration(&self, py: Python<'_>, seconds: f64) {
        self.state.get(py).slow_callback_duration.set(seconds);
    }

    #[getter(_task_factory)]
    fn shown_task_factory(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.task_factory
            .get(py)
            .borrow()
            .as_ref()
            .map(|factory| factory.clone_ref(py))
    }

    #[setter(_task_factory)]
    fn set_task_factory(&self, py: Python<'_>, factory: Option<Py<PyAny>>) {
        let old = self.task_factory.get(py).replace(factory);
        drop(old);
    }

    #[getter(_current_handle)]
    fn shown_current_handle(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.current_handle
            .get(py)
            .borrow()
            .as_ref()
            .map(|handle| handle.clone_ref(py))
    }

    #[setter(_current_handle)]
    fn set_current_handle(&self, py: Python<'_>, handle: Option<Py<PyAny>>) {
        let old = self.current_handle.get(py).replace(handle);
        drop(old);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // SAFETY: called from `__traverse__`; no borrow lasts across an allocation of Python's.
        let (engine, factory, handle) = unsafe {
            (
                self.engine.traversed(),
                self.task_factory.traversed(),
                self.current_handle.traversed(),
            )
        };
        let (Ok(engine), Ok(factory), Ok(handle)) =
            (engine.try_borrow(), factory.try_borrow(), handle.try_borrow())
        else {
            return Ok(());
        };
        for entry in engine
            .iter()
            .flat_map(|engine| engine.iter().chain(engine.timers.iter()))
        {
            match entry {
                Entry::Handle(handle) => handle.traverse(&visit)?,
                Entry::Gather(gathering) => visit.call(&**gathering)?,
                Entry::Foreign(task) | Entry::Step(task) | Entry::Wakeup(task) => visit.call(&**task)?,
            }
        }
        for source in engine.iter().flat_map(|engine| engine.reactor.iter()) {
            for handle in source.handles() {
                handle.traverse(&visit)?;
            }
        }
        visit.call(&*factory)?;
        visit.call(&*handle)?;
        // SAFETY: as above.
        if let Ok(Some(shown)) = unsafe { self.shown.traversed() }.try_borrow().as_deref() {
            visit.call(&**shown)?;
        }
        // SAFETY: as above.
        let Ok(dirty) = unsafe { self.dirty.traversed() }.try_borrow() else {
            return Ok(());
        };
        dirty.iter().try_for_each(|stream| visit.call(stream))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.empty(py);
        self.set_task_factory(py, None);
        self.set_current_handle(py, None);
        let shown = self.shown.get(py).take();
        drop(shown);
    }
}

pub(super) fn os_error(error: &std::io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, strerror(number))),
        None => PyOSError::new_err(error.to_string()),
    }
}

fn strerror(number: i32) -> String {
    // Rust's text is the system's with the number behind it.
    let text = std::io::Error::from_raw_os_error(number).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// The loop given, or the current one as `asyncio` finds it.
pub(super) fn or_current<'py>(
    py: Python<'py>,
    event_loop: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    if let Some(event_loop) = event_loop.filter(|event_loop| !event_loop.is_none()) {
        return Ok(event_loop);
    }
    let events = Names::get(py)?.events.bind(py);
    match events.getattr_opt("_get_event_loop")? {
        Some(get) => get.call1((1,)), // 3.10: warns on the caller's line when none runs
        None => events.call_method0("get_event_loop"),
    }
}
