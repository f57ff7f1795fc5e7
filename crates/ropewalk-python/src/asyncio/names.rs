//! The parts of Python's `asyncio` that the loop works with, looked up once.

use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

/// Objects of the standard library.
pub(super) struct Names {
    pub(super) cancelled_error: Py<PyType>,
    pub(super) invalid_state_error: Py<PyType>,
    pub(super) future: Py<PyType>,
    pub(super) task: Py<PyType>,
    pub(super) handle: Py<PyType>,
    pub(super) timer_handle: Py<PyType>,
    /// `asyncio.tasks._current_tasks`: loop to task. None where the interpreter keeps it elsewhere (3.14).
    pub(super) current_tasks: Option<Py<PyDict>>,
    pub(super) events: Py<PyAny>,
    pub(super) tasks: Py<PyAny>,
    pub(super) base_futures: Py<PyAny>,
    pub(super) base_tasks: Py<PyAny>,
    pub(super) iscoroutine: Py<PyAny>,
    pub(super) extract_stack: Py<PyAny>,
    pub(super) format_callback_source: Py<PyAny>,
}

static NAMES: PyOnceLock<Names> = PyOnceLock::new();

impl Names {
    /// The table. It is made at the first call, that of the module's initialisation, which reports errors.
    pub(super) fn get(py: Python<'_>) -> PyResult<&'static Names> {
        NAMES.get_or_try_init(py, || Self::import(py))
    }

    fn import(py: Python<'_>) -> PyResult<Self> {
        let exceptions = py.import("asyncio.exceptions")?;
        let native = py.import("_asyncio")?;
        let events = py.import("asyncio.events")?;
        let tasks = py.import("asyncio.tasks")?;
        let format = py.import("asyncio.format_helpers")?;
        let class = |module: &Bound<'_, PyModule>, name: &str| -> PyResult<Py<PyType>> {
            Ok(module.getattr(name)?.cast_into::<PyType>()?.unbind())
        };
        Ok(Self {
            cancelled_error: class(&exceptions, "CancelledError")?,
            invalid_state_error: class(&exceptions, "InvalidStateError")?,
            future: class(&native, "Future")?,
            task: class(&native, "Task")?,
            handle: class(&events, "Handle")?,
            timer_handle: class(&events, "TimerHandle")?,
            current_tasks: match native.getattr_opt("_current_tasks")? {
                Some(tasks) => Some(tasks.cast_into::<PyDict>()?.unbind()),
                None => None,
            },
            iscoroutine: py.import("asyncio.coroutines")?.getattr("iscoroutine")?.unbind(),
            base_futures: py.import("asyncio.base_futures")?.into_any().unbind(),
            base_tasks: py.import("asyncio.base_tasks")?.into_any().unbind(),
            extract_stack: py.import("traceback")?.getattr("extract_stack")?.unbind(),
            format_callback_source: format.getattr("_format_callback_source")?.unbind(),
            events: events.into_any().unbind(),
            tasks: tasks.into_any().unbind(),
        })
    }
}

/// An instance of one of `asyncio`'s exceptions.
pub(super) fn error(py: Python<'_>, class: &Py<PyType>, message: impl Into<String>) -> PyErr {
    PyErr::from_type(class.bind(py).clone(), (message.into(),))
}

/// Whether an exception must leave the loop at once.
pub(super) fn is_fatal(error: &Bound<'_, PyBaseException>) -> bool {
    error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>()
        || error.is_instance_of::<pyo3::exceptions::PySystemExit>()
}
