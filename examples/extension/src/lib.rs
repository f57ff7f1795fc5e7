//! A Python module whose generators are Rust coroutines. To try it: `pip install ./examples/extension`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use ropewalk::coroutine::Coroutine;
use ropewalk_pyo3::{Co, Error, Generator};

/// Generators that run in Rust.
#[pymodule]
mod strands {
    #[pymodule_export]
    use super::{Generator, averager, chain, countdown, grouper, log};
}

/// Counts down to one and returns how the count was ended: "done", or, closed early, "stopped at N".
#[pyfunction]
fn countdown(start: u32) -> Generator {
    Generator::new("countdown", move |mut co: Co<u32>| async move {
        for n in (1..=start).rev() {
            match co.yield_(n).await {
                Err(Error::GeneratorExit) => return Ok(format!("stopped at {n}")),
                received => received?,
            };
        }
        Ok("done".to_owned())
    })
}

/// Yields the average of the numbers sent so far; ValueError, thrown in, starts anew.
#[pyfunction]
fn averager() -> Generator {
    Generator::new("averager", |mut co: Co<Option<f64>, Option<f64>>| async move {
        let (mut total, mut count) = (0.0, 0.0);
        let mut average = None;
        loop {
            match co.yield_(average).await {
                Ok(Some(term)) => {
                    total += term;
                    count += 1.0;
                    average = Some(total / count);
                }
                Ok(None) => return Ok(average),
                Err(Error::Raised(error))
                    if Python::attach(|py| error.is_instance_of::<PyValueError>(py)) =>
                {
                    (total, count, average) = (0.0, 0.0, None);
                }
                Err(error) => return Err(error),
            }
        }
    })
}

/// The sum and count of what is sent until `None`: the sub-coroutine of `grouper`, in Rust alone.
fn summer() -> Coroutine<'static, (), Option<f64>, (f64, u32), PyErr> {
    Coroutine::new(|mut co| async move {
        let (mut total, mut count) = (0.0, 0);
        while let Some(term) = co.yield_(()).await? {
            total += term;
            count += 1;
        }
        Ok((total, count))
    })
}

/// Puts a `(sum, count)` into `results[key]` for each group of numbers sent; `None` ends a group.
#[pyfunction]
fn grouper(results: Py<PyDict>, key: String) -> Generator {
    Generator::new("grouper", move |mut co: Co<(), Option<f64>>| async move {
        let results = co.hold(results.into_any());
        loop {
            let sum = co.yield_from(summer()).await?;
            Python::attach(|py| results.bind(py).set_item(&key, sum))?;
        }
        #[allow(unreachable_code)]
        Ok(())
    })
}

/// Delegates to each of the iterables in turn and returns the list of what they returned.
#[pyfunction]
#[pyo3(signature = (*iterables))]
fn chain(iterables: Vec<Py<PyAny>>) -> Generator {
    Generator::new("chain", move |mut co: Co<Py<PyAny>>| async move {
        let iterables = iterables
            .into_iter()
            .map(|iterable| co.hold(iterable))
            .collect::<Vec<_>>();
        let mut results = Vec::new();
        for iterable in iterables {
            let iterable = Python::attach(|py| iterable.clone_ref(py));
            results.push(co.yield_from_python(iterable).await?);
        }
        Ok(results)
    })
}

/// Calls `write` with everything that is sent, and with "closed" at the end.
#[pyfunction]
fn log(write: Py<PyAny>) -> Generator {
    Generator::new("log", move |mut co: Co<()>| async move {
        let write = co.hold(write);
        let result: Result<(), Error> = loop {
            match co.yield_(()).await {
                Ok(line) => Python::attach(|py| write.call1(py, (line,)))?,
                Err(error) => break Err(error),
            };
        };
        Python::attach(|py| write.call1(py, ("closed",)))?;
        result
    })
}
