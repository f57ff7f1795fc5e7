//! Types that PyO3 cannot declare: subclasses of `_asyncio`'s classes, whose size is known at run time only.
//!
//! # Layout
//!
//! `_asyncio.Future` and `_asyncio.Task` keep their fields, which stay empty: every method and attribute is ours. Our
//! fields follow behind those of `_asyncio.Task`, the larger one, in both, so that one offset serves for both:
//!
//! ```text
//! Future  | _asyncio.Future's fields | unused  | future::Fields |
//! Task    | _asyncio.Task's fields             | future::Fields | task::Fields |
//! ```
//!
//! # Rules
//!
//! - Fields are touched with the GIL held, and through a `RefCell`: a borrow lasts for some moves, never across a call
//!   into Python and never across the drop of an object, which may run a destructor.
//! - The garbage collector's `traverse` reads fields and calls `visit`, nothing else.

use std::ffi::{CStr, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

/// Runs the body of a slot: sets its exception, and lets no panic into the interpreter.
///
/// # Safety
/// The caller is called by the interpreter, so that this thread holds the GIL.
pub(super) unsafe fn slot<T>(failed: T, body: impl FnOnce(Python<'_>) -> PyResult<T>) -> T {
    let guarded = |py: Python<'_>| match catch_unwind(AssertUnwindSafe(|| body(py))) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => {
            error.restore(py);
            failed
        }
        Err(_) => {
            PyRuntimeError::new_err("ropewalk panicked: see standard error").restore(py);
            failed
        }
    };
    // SAFETY: the GIL is held; unlike `attach`, this works while the interpreter ends, when destructors still run.
    unsafe { Python::attach_unchecked(guarded) }
}

/// The arguments of a call, by position and by name.
pub(super) struct Args<'a, 'py> {
    function: &'static str,
    positional: &'a [*mut ffi::PyObject],
    names: Option<Bound<'py, PyTuple>>,
    py: Python<'py>,
}

impl<'a, 'py> Args<'a, 'py> {
    /// # Safety
    /// The arguments are those of a `METH_FASTCALL | METH_KEYWORDS` function.
    pub(super) unsafe fn new(
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

    /// Sorts the arguments under `names`, of which the first `positional` may be given by position and the first
    /// `required` have to be given.
    pub(super) fn bind<const N: usize>(
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

/// The same for the arguments of a constructor.
pub(super) fn bind_init<'py, const N: usize>(
    function: &str,
    names: [&str; N],
    positional: usize,
    required: usize,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<[Option<Bound<'py, PyAny>>; N]> {
    bind(
        function,
        names,
        positional,
        required,
        args.iter(),
        kwargs.into_iter().flat_map(|kwargs| kwargs.iter()),
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

/// A method's entry in a type: `method!("name", body)`, with `body: fn(&T, Args) -> PyResult<Bound<PyAny>>`, `T` being
/// the wrapper of the type's instances.
macro_rules! method {
    ($type:ident, $name:literal, $body:expr, $doc:literal) => {{
        unsafe extern "C" fn call(
            object: *mut ffi::PyObject,
            args: *const *mut ffi::PyObject,
            count: isize,
            names: *mut ffi::PyObject,
        ) -> *mut ffi::PyObject {
            let body: for<'py> fn(&$type<'py>, Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> = $body;
            // SAFETY: called by the interpreter, by fast call, on an instance of the type that holds the entry.
            unsafe {
                $crate::asyncio::raw::slot(std::ptr::null_mut(), |py| {
                    let this = pyo3::Borrowed::from_ptr(py, object);
                    let args = $crate::asyncio::raw::Args::new(py, $name, args, count, names);
                    Ok(body($type::assume(&this), args)?.into_ptr())
                })
            }
        }
        ffi::PyMethodDef {
            ml_name: concat!($name, "\0").as_ptr().cast(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: call },
            ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            ml_doc: concat!($doc, "\0").as_ptr().cast(),
        }
    }};
}
pub(super) use method;

/// An attribute's entry in a type, read-only or to be set; bodies as for [`method!`].
macro_rules! attribute {
    ($type:ident, $name:literal, $get:expr) => {{
        let mut entry = $crate::asyncio::raw::attribute!(@get $type, $name, $get);
        entry.set = None;
        entry
    }};
    ($type:ident, $name:literal, $get:expr, $set:expr) => {{
        unsafe extern "C" fn set(
            object: *mut ffi::PyObject,
            value: *mut ffi::PyObject,
            _: *mut std::ffi::c_void,
        ) -> std::ffi::c_int {
            let body: for<'py> fn(&$type<'py>, Bound<'py, PyAny>) -> PyResult<()> = $set;
            // SAFETY: called by the interpreter on an instance of the type that holds the entry.
            unsafe {
                $crate::asyncio::raw::slot(-1, |py| {
                    let this = pyo3::Borrowed::from_ptr(py, object);
                    let value = Bound::from_borrowed_ptr_or_opt(py, value)
                        .ok_or_else(|| PyAttributeError::new_err(concat!("cannot delete ", $name)))?;
                    body($type::assume(&this), value)?;
                    Ok(0)
                })
            }
        }
        let mut entry = $crate::asyncio::raw::attribute!(@get $type, $name, $get);
        entry.set = Some(set);
        entry
    }};
    (@get $type:ident, $name:literal, $get:expr) => {{
        unsafe extern "C" fn get(object: *mut ffi::PyObject, _: *mut std::ffi::c_void) -> *mut ffi::PyObject {
            let body: for<'py> fn(&$type<'py>) -> PyResult<Bound<'py, PyAny>> = $get;
            // SAFETY: called by the interpreter on an instance of the type that holds the entry.
            unsafe {
                $crate::asyncio::raw::slot(std::ptr::null_mut(), |py| {
                    let this = pyo3::Borrowed::from_ptr(py, object);
                    Ok(body($type::assume(&this))?.into_ptr())
                })
            }
        }
        ffi::PyGetSetDef {
            name: concat!($name, "\0").as_ptr().cast(),
            get: Some(get),
            set: None,
            doc: std::ptr::null(),
            closure: std::ptr::null_mut(),
        }
    }};
}
pub(super) use attribute;

/// What a type is made of.
pub(super) struct Spec {
    pub(super) name: &'static CStr,
    pub(super) doc: &'static CStr,
    pub(super) size: usize,
    pub(super) subclassable: bool,
    pub(super) slots: Vec<(c_int, *mut c_void)>,
    pub(super) methods: Vec<ffi::PyMethodDef>,
    pub(super) attributes: Vec<ffi::PyGetSetDef>,
}

impl Spec {
    /// Makes the type, a subclass of `base`. It lives as long as the process: so do the tables that it points to.
    pub(super) fn build<'py>(
        self,
        py: Python<'py>,
        base: Option<&Bound<'py, PyType>>,
    ) -> PyResult<Bound<'py, PyType>> {
        let mut methods = self.methods;
        methods.push(ffi::PyMethodDef::zeroed());
        let mut attributes = self.attributes;
        let end = ffi::PyGetSetDef {
            name: std::ptr::null(),
            get: None,
            set: None,
            doc: std::ptr::null(),
            closure: std::ptr::null_mut(),
        };
        attributes.push(end);
        let mut slots: Vec<_> = self
            .slots
            .iter()
            .map(|&(slot, pfunc)| ffi::PyType_Slot { slot, pfunc })
            .collect();
        let mut slot = |slot, pfunc: *mut c_void| slots.push(ffi::PyType_Slot { slot, pfunc });
        slot(ffi::Py_tp_doc, self.doc.as_ptr().cast_mut().cast());
        slot(ffi::Py_tp_methods, methods.leak().as_mut_ptr().cast());
        slot(ffi::Py_tp_getset, attributes.leak().as_mut_ptr().cast());
        slot(0, std::ptr::null_mut());
        let subclassable = if self.subclassable {
            ffi::Py_TPFLAGS_BASETYPE
        } else {
            0
        };
        let mut spec = ffi::PyType_Spec {
            name: self.name.as_ptr(),
            basicsize: self.size as c_int,
            itemsize: 0,
            flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | subclassable) as std::ffi::c_uint,
            slots: slots.as_mut_ptr(),
        };
        let bases = base.map(|base| PyTuple::new(py, [base])).transpose()?;
        // SAFETY: the spec is whole, ends its tables with empty entries, and its slots have the types that their
        // numbers stand for; tables that the type keeps pointers to are leaked.
        unsafe {
            let bases = bases
                .as_ref()
                .map_or(std::ptr::null_mut(), |bases| bases.as_ptr());
            let made = Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpecWithBases(&mut spec, bases))?;
            Ok(made.cast_into_unchecked())
        }
    }
}

#[cfg(Py_3_13)]
unsafe extern "C" {
    fn PyObject_VisitManagedDict(
        object: *mut ffi::PyObject,
        visit: ffi::visitproc,
        arg: *mut c_void,
    ) -> c_int;
    fn PyObject_ClearManagedDict(object: *mut ffi::PyObject);
}
#[cfg(not(Py_3_13))]
unsafe extern "C" {
    fn _PyObject_GetDictPtr(object: *mut ffi::PyObject) -> *mut *mut ffi::PyObject;
}

/// Visits what every instance of a subclass of `_asyncio.Future` refers to besides our fields: its type and its
/// `__dict__`. The base's own traversal is not called: its fields are empty, and whether it visits the type depends on
/// the version.
///
/// # Safety
/// Called from `tp_traverse` with its arguments.
pub(super) unsafe fn traverse_base(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: reads the object's head and its dictionary, which are valid while the collector runs.
    unsafe {
        let status = visit(ffi::Py_TYPE(object).cast(), arg);
        if status != 0 {
            return status;
        }
        #[cfg(Py_3_13)]
        return PyObject_VisitManagedDict(object, visit, arg);
        #[cfg(not(Py_3_13))]
        {
            let dict = _PyObject_GetDictPtr(object);
            if dict.is_null() || (*dict).is_null() {
                0
            } else {
                visit(*dict, arg)
            }
        }
    }
}

/// Clears the `__dict__`.
///
/// # Safety
/// Called with the GIL held from `tp_clear` or `tp_dealloc`.
pub(super) unsafe fn clear_base(object: *mut ffi::PyObject) {
    // SAFETY: the pointer is emptied before the reference is given up.
    unsafe {
        #[cfg(Py_3_13)]
        PyObject_ClearManagedDict(object);
        #[cfg(not(Py_3_13))]
        {
            let dict = _PyObject_GetDictPtr(object);
            if !dict.is_null() {
                ffi::Py_XDECREF(std::ptr::replace(dict, std::ptr::null_mut()));
            }
        }
    }
}

/// Ends an object after its fields are dropped.
///
/// # Safety
/// Called last in `tp_dealloc`.
pub(super) unsafe fn free(object: *mut ffi::PyObject) {
    // SAFETY: nothing refers to the object any more; an instance of a heap type owns a reference to it.
    unsafe {
        let class = ffi::Py_TYPE(object);
        if let Some(free) = (*class).tp_free {
            free(object.cast());
        }
        ffi::Py_DECREF(class.cast());
    }
}
