//! `_native.work`: what a worker process does.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Poll;

use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use ropewalk::futures::process_pool::{Message, Request, WorkerLink};

use super::call::status;
use super::pickling;

/// Takes the link from standard input and makes calls until the pool has no more.
///
/// `set_up` is called with the setup first; what it returns, if not None, is why the worker is of no use. `describe`
/// makes a text of an exception.
#[pyfunction]
pub(crate) fn work(py: Python<'_>, set_up: Bound<'_, PyAny>, describe: Bound<'_, PyAny>) -> PyResult<()> {
    let mut link = WorkerLink::from_stdin()?;
    let mut worker = Worker {
        describe,
        definitions: HashMap::new(),
    };
    loop {
        let request = match link.poll()? {
            Poll::Pending => {
                py.detach(|| link.wait());
                worker.ignore_signal();
                continue;
            }
            Poll::Ready(None) => return Ok(()),
            Poll::Ready(Some(request)) => request,
        };
        match request {
            Request::Setup(message) => {
                let refusal = set_up.call1((PyBytes::new(py, message.first()),))?;
                if !refusal.is_none() {
                    return Ok(link.not_ready(&refusal.extract::<String>()?)?);
                }
                link.ready()?;
            }
            Request::Define(number, message) => {
                let function = worker.load(&Arc::new(message), 1);
                worker.definitions.insert(number, function.map(Bound::unbind));
            }
            Request::Task { definition, message } => {
                let (status, answer) = worker.answer(definition, message)?;
                py.detach(|| link.reply(status, answer))?;
            }
        }
    }
}

struct Worker<'py> {
    describe: Bound<'py, PyAny>,
    definitions: HashMap<u64, PyResult<Py<PyAny>>>,
}

impl<'py> Worker<'py> {
    fn py(&self) -> Python<'py> {
        self.describe.py()
    }

    /// A Ctrl-C that the program passed on is for the call that was running. There is none.
    fn ignore_signal(&self) {
        if let Err(error) = self.py().check_signals()
            && !error.is_instance_of::<PyKeyboardInterrupt>(self.py())
        {
            error.write_unraisable(self.py(), None);
        }
    }

    /// Loads what the program sent; what is found in `__main__` only is found after that has been imported.
    fn load(&self, message: &Arc<Message>, skip: usize) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        pickling::load(py, message, skip).or_else(|error| {
            let imported = py
                .import("ropewalk.worker")?
                .call_method1("import_main", (error.value(py),))?;
            if imported.is_truthy()? {
                pickling::load(py, message, skip)
            } else {
                Err(error)
            }
        })
    }

    fn answer(&self, definition: u64, message: Message) -> PyResult<(u8, Message)> {
        let outcome = self
            .call(definition, message)
            .and_then(|value| pickling::dump(&pickling::lift(&value)?, None));
        let answer = match outcome {
            Ok(answer) => (status::RETURNED, answer),
            Err(error) => (status::RAISED, self.exception(error)?),
        };
        // What came too late for the call must not hit the next.
        self.ignore_signal();
        Ok(answer)
    }

    fn call(&self, definition: u64, message: Message) -> PyResult<Bound<'py, PyAny>> {
        let call = self.load(&Arc::new(message), 1)?;
        if let Ok(args) = call.cast_exact::<PyTuple>() {
            return self.function(definition)?.call1(args.clone());
        }
        let call = call.cast_into::<PyList>()?;
        let (args, kwargs) = (
            call.get_item(0)?.cast_into::<PyTuple>()?,
            call.get_item(1)?.cast_into::<PyDict>()?,
        );
        let function = match definition {
            0 => call.get_item(2)?,
            _ => self.function(definition)?,
        };
        drop(call);
        function.call(args, Some(&kwargs))
    }

    fn function(&self, definition: u64) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        match self.definitions.get(&definition) {
            Some(Ok(function)) => Ok(function.bind(py).clone()),
            Some(Err(error)) => Err(error.clone_ref(py)),
            None => Err(PyRuntimeError::new_err("the function was never sent")),
        }
    }

    /// An exception and its traceback as text; if it cannot be pickled, what kept it.
    fn exception(&self, error: PyErr) -> PyResult<Message> {
        let py = self.py();
        let exception = error.into_value(py).into_bound(py).into_any();
        let text: String = self.describe.call1((&exception,))?.extract()?;
        match pickling::dump(&exception, Some(&text)) {
            Ok(message) => Ok(message),
            Err(why) => pickling::dump(why.value(py), Some(&text)).or_else(|_| {
                let error =
                    PyRuntimeError::new_err("the exception cannot be pickled, nor the one that says so");
                pickling::dump(error.value(py), Some(&text))
            }),
        }
    }
}
