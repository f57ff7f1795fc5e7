//! The arguments of a callback: few are kept without a tuple, and passed on so.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::asyncio::context;
use crate::asyncio::raw::Ref;

/// More arguments than this are kept as a tuple.
const FEW: usize = 3;

/// The arguments of a callback.
pub(crate) enum Arguments {
    Few([Option<Ref>; FEW]),
    Many(Ref<PyTuple>),
}

impl Arguments {
    pub(crate) const NONE: Self = Self::Few([const { None }; FEW]);

    /// # Safety
    /// The pointers are those of objects that live.
    pub(crate) unsafe fn new(py: Python<'_>, arguments: &[*mut ffi::PyObject]) -> PyResult<Self> {
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

    pub(crate) fn from_tuple(arguments: &Bound<'_, PyTuple>) -> Self {
        if arguments.len() > FEW {
            return Self::Many(arguments.into());
        }
        Self::Few(std::array::from_fn(|at| {
            arguments.get_item(at).ok().map(Ref::from)
        }))
    }

    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Few(few) => Self::Few(
                few.each_ref()
                    .map(|argument| argument.as_ref().map(|argument| argument.clone_ref(py).into())),
            ),
            Self::Many(many) => Self::Many(many.clone_ref(py).into()),
        }
    }

    pub(super) fn tuple<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
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
    pub(super) fn call_in<'py>(
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

    pub(super) fn held(&self) -> impl Iterator<Item = &Py<PyAny>> {
        let (few, many) = match self {
            Self::Few(few) => (few.as_slice(), None),
            Self::Many(many) => (&[][..], Some(many.as_any())),
        };
        few.iter().flatten().map(|argument| &**argument).chain(many)
    }
}
