//! The arguments of a call, sorted by name as Python does it.

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

/// The arguments of a function that schedules a call.
pub(crate) struct Call<'a, 'py, const N: usize> {
    pub(crate) named: [Borrowed<'a, 'py, PyAny>; N],
    pub(crate) rest: &'a [*mut ffi::PyObject],
    pub(crate) context: Option<Borrowed<'a, 'py, PyAny>>,
}

/// The arguments of a call, by position and by name.
pub(crate) struct Args<'a, 'py> {
    function: &'static str,
    positional: &'a [*mut ffi::PyObject],
    names: Option<Bound<'py, PyTuple>>,
    py: Python<'py>,
}

impl<'a, 'py> Args<'a, 'py> {
    /// # Safety
    /// The arguments are those of a `METH_FASTCALL | METH_KEYWORDS` function.
    pub(crate) unsafe fn new(
        py: Python<'py>,
        function: &'static str,
        args: *const *mut ffi::PyObject,
        count: isize,
        names: *mut ffi::PyObject,
    ) -> Self {
        // SAFETY: `names` is NULL or a tuple of strings, whose values follow the `count` positional arguments.
        unsafe {
            let names = Bound::from_borrowed_ptr_or_opt(py, names)
                .map(|names| names.cast_into_unchecked::<PyTuple>());
            let total = count as usize + names.as_ref().map_or(0, |names| names.len());
            let positional = if total == 0 {
                &[][..]
            } else {
                std::slice::from_raw_parts(args, total)
            };
            Self {
                function,
                positional,
                names,
                py,
            }
        }
    }

    /// The function's name.
    pub(crate) fn function(&self) -> &'static str {
        self.function
    }

    /// Sorts the arguments of a function that schedules a call: `names`, any number more, and `context`, by name.
    #[inline]
    pub(crate) fn call<const N: usize>(self, names: [&str; N]) -> PyResult<Call<'a, 'py, N>> {
        if self.names.is_some() || self.positional.len() < N {
            return self.call_by_name(names);
        }
        let (named, rest) = self.positional.split_at(N);
        // SAFETY: arguments live as long as the call.
        let object = |at: usize| unsafe { Borrowed::from_ptr(self.py, named[at]) };
        Ok(Call {
            named: std::array::from_fn(object),
            rest,
            context: None,
        })
    }

    /// Sorts the arguments of a function that takes one, named `first`, and any others by name.
    #[inline]
    pub(crate) fn one_and_others(
        self,
        first: &str,
    ) -> PyResult<(Borrowed<'a, 'py, PyAny>, Option<Bound<'py, PyDict>>)> {
        match (&self.names, self.positional) {
            // SAFETY: arguments live as long as the call.
            (None, &[one]) => Ok((unsafe { Borrowed::from_ptr(self.py, one) }, None)),
            _ => self.one_and_others_by_name(first),
        }
    }

    #[cold]
    fn one_and_others_by_name(
        self,
        first: &str,
    ) -> PyResult<(Borrowed<'a, 'py, PyAny>, Option<Bound<'py, PyDict>>)> {
        let function = self.function;
        let keywords = self.names.as_ref().map_or(0, |names| names.len());
        let (by_position, by_name) = self.positional.split_at(self.positional.len() - keywords);
        // SAFETY: arguments live as long as the call.
        let object = |&pointer: &*mut ffi::PyObject| unsafe { Borrowed::from_ptr(self.py, pointer) };
        if by_position.len() > 1 {
            let given = by_position.len() + 1;
            let message = format!("{function}() takes 2 positional arguments but {given} were given");
            return Err(PyTypeError::new_err(message));
        }
        let mut one = by_position.first().map(object);
        let others = PyDict::new(self.py);
        for (name, value) in self
            .names
            .iter()
            .flat_map(|names| names.iter())
            .zip(by_name.iter().map(object))
        {
            if name.eq(first)? {
                if one.replace(value).is_some() {
                    let message = format!("{function}() got multiple values for argument '{first}'");
                    return Err(PyTypeError::new_err(message));
                }
            } else {
                others.set_item(name, value)?;
            }
        }
        match one {
            Some(one) => Ok((one, Some(others))),
            None => {
                let message = format!("{function}() missing 1 required positional argument: '{first}'");
                Err(PyTypeError::new_err(message))
            }
        }
    }

    #[cold]
    fn call_by_name<const N: usize>(self, names: [&str; N]) -> PyResult<Call<'a, 'py, N>> {
        let keywords = self.names.as_ref().map_or(0, |names| names.len());
        let (by_position, by_name) = self.positional.split_at(self.positional.len() - keywords);
        // SAFETY: arguments live as long as the call.
        let object = |&pointer: &*mut ffi::PyObject| unsafe { Borrowed::from_ptr(self.py, pointer) };
        let (first, rest) = by_position.split_at(by_position.len().min(N));
        let mut named = [const { None }; N];
        for (place, pointer) in named.iter_mut().zip(first) {
            *place = Some(object(pointer));
        }
        let mut context = None;
        for (name, pointer) in self.names.iter().flat_map(|names| names.iter()).zip(by_name) {
            let name = name.cast::<PyString>()?.to_str()?;
            let function = self.function;
            let place = match names.iter().position(|known| *known == name) {
                Some(at) => &mut named[at],
                None if name == "context" => &mut context,
                None => {
                    let message = format!("{function}() got an unexpected keyword argument '{name}'");
                    return Err(PyTypeError::new_err(message));
                }
            };
            if place.replace(object(pointer)).is_some() {
                let message = format!("{function}() got multiple values for argument '{name}'");
                return Err(PyTypeError::new_err(message));
            }
        }
        let missing: Vec<_> = (0..N)
            .filter(|&at| named[at].is_none())
            .map(|at| format!("'{}'", names[at]))
            .collect();
        if !missing.is_empty() {
            let (count, plural) = (missing.len(), if missing.len() > 1 { "s" } else { "" });
            return Err(PyTypeError::new_err(format!(
                "{}() missing {count} required positional argument{plural}: {}",
                self.function,
                missing.join(" and ")
            )));
        }
        let none = object(&self.py.None().as_ptr());
        Ok(Call {
            named: named.map(|argument| argument.unwrap_or(none)), // none is missing
            rest,
            context,
        })
    }

    /// Sorts the arguments under `names`, of which the first `positional` may be given by position and the first
    /// `required` have to be given.
    pub(crate) fn bind<const N: usize>(
        self,
        names: [&str; N],
        positional: usize,
        required: usize,
    ) -> PyResult<[Option<Bound<'py, PyAny>>; N]> {
        let keywords = self.names.as_ref().map_or(0, |names| names.len());
        let (by_position, by_name) = self.positional.split_at(self.positional.len() - keywords);
        // SAFETY: arguments live as long as the call.
        let object = |&pointer: &*mut ffi::PyObject| unsafe { Bound::from_borrowed_ptr(self.py, pointer) };
        let keywords = self
            .names
            .iter()
            .flat_map(|names| names.iter())
            .zip(by_name.iter().map(object));
        bind(
            self.function,
            names,
            positional,
            required,
            by_position.iter().map(object),
            keywords,
        )
    }
}

/// The same for the arguments of `tp_init`.
///
/// # Safety
/// `args` and `kwargs` are those of `tp_init`.
pub(crate) unsafe fn bind_init<'py, const N: usize>(
    py: Python<'py>,
    function: &str,
    names: [&str; N],
    positional: usize,
    required: usize,
    args: *mut ffi::PyObject,
    kwargs: *mut ffi::PyObject,
) -> PyResult<[Option<Bound<'py, PyAny>>; N]> {
    // SAFETY: the interpreter passes a tuple, and a dictionary or NULL.
    let (args, kwargs) = unsafe {
        (
            Bound::from_borrowed_ptr(py, args).cast_into_unchecked::<PyTuple>(),
            Bound::from_borrowed_ptr_or_opt(py, kwargs).map(|kwargs| kwargs.cast_into_unchecked::<PyDict>()),
        )
    };
    bind(
        function,
        names,
        positional,
        required,
        args.iter(),
        kwargs.iter().flat_map(|kwargs| kwargs.iter()),
    )
}

fn bind<'py, const N: usize>(
    function: &str,
    names: [&str; N],
    positional: usize,
    required: usize,
    by_position: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
    by_name: impl Iterator<Item = (Bound<'py, PyAny>, Bound<'py, PyAny>)>,
) -> PyResult<[Option<Bound<'py, PyAny>>; N]> {
    let mut bound = [const { None }; N];
    let given = by_position.len();
    if given > positional {
        let message = format!("{function}() takes at most {positional} positional arguments ({given} given)");
        return Err(PyTypeError::new_err(message));
    }
    for (place, value) in bound.iter_mut().zip(by_position) {
        *place = Some(value);
    }
    for (name, value) in by_name {
        let name: String = name.extract()?;
        let Some(at) = names.iter().position(|known| *known == name) else {
            let message = format!("{function}() got an unexpected keyword argument '{name}'");
            return Err(PyTypeError::new_err(message));
        };
        if bound[at].replace(value).is_some() {
            let message = format!("{function}() got multiple values for argument '{name}'");
            return Err(PyTypeError::new_err(message));
        }
    }
    match bound[..required].iter().position(Option::is_none) {
        Some(missing) => {
            let message = format!(
                "{function}() missing required argument '{}' (pos {})",
                names[missing],
                missing + 1
            );
            Err(PyTypeError::new_err(message))
        }
        None => Ok(bound),
    }
}
