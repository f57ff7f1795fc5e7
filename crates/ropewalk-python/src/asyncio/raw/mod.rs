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

mod args;
mod class;
mod nesting;

use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::ops::{ControlFlow, Deref};
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;

pub(super) use args::{Args, bind_init};
pub(super) use class::{Class, Spec, add_methods, attribute, hot_method, method};
pub(super) use nesting::end_nested;

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
        Err(_) => panicked(py, failed),
    };
    // SAFETY: the GIL is held; unlike `attach`, this works while the interpreter ends, when destructors still run.
    unsafe { Python::attach_unchecked(guarded) }
}

/// The same for a hot body, without the count that PyO3 keeps of a thread's claims to the GIL: `Py`, which asks it when
/// dropped, would be put by until later, so that the body drops only `Bound` and [`Ref`].
///
/// # Safety
/// As for [`slot`].
#[inline]
pub(super) unsafe fn hot_slot<T>(failed: T, body: impl FnOnce(Python<'_>) -> PyResult<T>) -> T {
    // SAFETY: the GIL is held, as the caller says.
    let py = unsafe { Python::assume_attached() };
    match catch_unwind(AssertUnwindSafe(|| body(py))) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => {
            error.restore(py);
            failed
        }
        Err(_) => panicked(py, failed),
    }
}

#[cold]
fn panicked<T>(py: Python<'_>, failed: T) -> T {
    PyRuntimeError::new_err("ropewalk panicked: see standard error").restore(py);
    failed
}

/// An owned reference in a field of ours. It is dropped with the GIL held, as the rules say, and does not ask.
pub(super) struct Ref<T = PyAny>(ManuallyDrop<Py<T>>);

impl<T> Ref<T> {
    /// Gives the reference to the caller.
    #[inline]
    pub(super) fn into_bound(self, py: Python<'_>) -> Bound<'_, T> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: taken once, since `this` is not dropped.
        unsafe { ManuallyDrop::take(&mut this.0) }.into_bound(py)
    }
}

impl<T> Drop for Ref<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: an owned reference, given up once; fields are dropped with the GIL held.
        unsafe { ffi::Py_DECREF(self.0.as_ptr()) }
    }
}

impl<T> Deref for Ref<T> {
    type Target = Py<T>;

    #[inline]
    fn deref(&self) -> &Py<T> {
        &self.0
    }
}

impl<T> From<Py<T>> for Ref<T> {
    #[inline]
    fn from(object: Py<T>) -> Self {
        Self(ManuallyDrop::new(object))
    }
}

impl<T> From<Bound<'_, T>> for Ref<T> {
    #[inline]
    fn from(object: Bound<'_, T>) -> Self {
        object.unbind().into()
    }
}

impl<T> From<&Bound<'_, T>> for Ref<T> {
    #[inline]
    fn from(object: &Bound<'_, T>) -> Self {
        object.clone().into()
    }
}

/// Names a wrapper of the instances of one of our types: a `Bound` of which that is known.
macro_rules! wrapper {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[repr(transparent)]
        pub(crate) struct $name<'py>(Bound<'py, PyAny>);

        impl<'py> $name<'py> {
            /// # Safety
            /// `object` is an instance of the type, or of a subtype.
            pub(crate) unsafe fn assume<'a>(object: &'a Bound<'py, PyAny>) -> &'a Self {
                // SAFETY: the wrapper is transparent.
                unsafe { &*std::ptr::from_ref(object).cast() }
            }

            #[allow(dead_code, reason = "not every type asks for it")]
            fn py(&self) -> Python<'py> {
                self.0.py()
            }
        }
    };
}
pub(super) use wrapper;

/// What an instance of one of our types holds, apart from its head and the fields of a base.
///
/// # Safety
/// Whoever calls `of` does so for objects that hold a `Self` at `offset()`: from their making, before anything can look
/// at them, to the end of `tp_dealloc`.
pub(super) unsafe trait Part: Sized {
    /// Whether it holds no `Py`, and its slots may be hot.
    const HOT: bool = false;

    /// Whether to drop it is all that its end takes.
    fn is_plain(&self) -> bool {
        false
    }

    /// The type whose instances hold it.
    fn class() -> &'static Class;

    /// Where it lies in an instance, in bytes.
    fn offset() -> usize {
        const { assert!(align_of::<Self>() <= align_of::<ffi::PyObject>()) };
        size_of::<ffi::PyObject>()
    }

    /// Visits every object that it refers to.
    fn traverse(&self, visit: Visit) -> Visited;

    /// Gives up every reference.
    fn clear(&self, py: Python<'_>);

    /// The part of an instance.
    ///
    /// # Safety
    /// As the trait says; the object outlives the reference.
    unsafe fn of<'a>(object: *mut ffi::PyObject) -> &'a Self {
        // SAFETY: as the caller says.
        unsafe { &*object.byte_add(Self::offset()).cast() }
    }

    /// Writes the part of an instance that is just made.
    ///
    /// # Safety
    /// The object's type has room for it, and nothing looks at it yet.
    unsafe fn write(self, object: *mut ffi::PyObject) {
        // SAFETY: as the caller says.
        unsafe { object.byte_add(Self::offset()).cast::<Self>().write(self) }
    }

    /// Drops the part of an instance that is going.
    ///
    /// # Safety
    /// Called once, in `tp_dealloc`.
    unsafe fn drop_of(object: *mut ffi::PyObject) {
        // SAFETY: as the caller says.
        unsafe { std::ptr::drop_in_place(object.byte_add(Self::offset()).cast::<Self>()) }
    }
}

/// What `tp_traverse` is given.
#[derive(Clone, Copy)]
pub(super) struct Visit {
    visit: ffi::visitproc,
    arg: *mut c_void,
}

impl Visit {
    /// # Safety
    /// Used in the `tp_traverse` that was given the arguments, and no longer.
    pub(super) unsafe fn new(visit: ffi::visitproc, arg: *mut c_void) -> Self {
        Self { visit, arg }
    }

    #[inline]
    pub(super) fn object(self, object: *mut ffi::PyObject) -> Visited {
        // SAFETY: the collector's own function, on an object that lives.
        match unsafe { (self.visit)(object, self.arg) } {
            0 => ControlFlow::Continue(()),
            status => ControlFlow::Break(status),
        }
    }

    /// Visits what a field may hold.
    #[inline]
    pub(super) fn field<T>(self, field: &Option<Ref<T>>) -> Visited {
        match field {
            Some(object) => self.object(object.as_ptr()),
            None => ControlFlow::Continue(()),
        }
    }

    pub(super) fn all(self, mut objects: impl Iterator<Item = *mut ffi::PyObject>) -> Visited {
        objects.try_for_each(|object| self.object(object))
    }
}

/// Whether to go on, or the status with which to end at once.
pub(super) type Visited = ControlFlow<c_int>;

/// What `tp_traverse` returns.
pub(super) fn status(visited: Visited) -> c_int {
    visited.break_value().unwrap_or(0)
}

/// `tp_traverse` of a type without a base that holds a `T`.
pub(super) unsafe extern "C" fn tp_traverse<T: Part>(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: called by the collector on an instance of the type.
    unsafe {
        let visit = Visit::new(visit, arg);
        let visit_all = || {
            visit.object(ffi::Py_TYPE(object).cast())?;
            T::of(object).traverse(visit)
        };
        status(visit_all())
    }
}

/// `tp_clear` of a type that holds a `T`.
pub(super) unsafe extern "C" fn tp_clear<T: Part>(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: called by the interpreter on an instance of the type.
    unsafe {
        slot(0, |py| {
            T::of(object).clear(py);
            Ok(0)
        })
    }
}

/// `tp_dealloc` of a type without a base that holds a `T`.
pub(super) unsafe extern "C" fn tp_dealloc<T: Part>(object: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls this once, when nothing refers to the object any more.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        if !T::of(object).is_plain() {
            tp_clear::<T>(object);
        }
        T::drop_of(object);
        T::class().free(object);
    }
}

/// `tp_iter` of what is its own iterator.
pub(super) unsafe extern "C" fn tp_iter(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the object is alive.
    unsafe { ffi::Py_NewRef(object) }
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
/// Called from `tp_traverse` with its object.
pub(super) unsafe fn traverse_base(object: *mut ffi::PyObject, visit: Visit) -> Visited {
    // SAFETY: reads the object's head and its dictionary, which are valid while the collector runs.
    unsafe {
        visit.object(ffi::Py_TYPE(object).cast())?;
        #[cfg(Py_3_13)]
        match PyObject_VisitManagedDict(object, visit.visit, visit.arg) {
            0 => ControlFlow::Continue(()),
            status => ControlFlow::Break(status),
        }
        #[cfg(not(Py_3_13))]
        match dict(object).as_ref() {
            Some(dict) if !dict.is_null() => visit.object(*dict),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Where an object keeps its `__dict__`.
///
/// # Safety
/// The object lives.
#[cfg(not(Py_3_13))]
#[inline]
unsafe fn dict(object: *mut ffi::PyObject) -> *mut *mut ffi::PyObject {
    // SAFETY: the caller's; a positive offset is one into the instance.
    unsafe {
        match (*ffi::Py_TYPE(object)).tp_dictoffset {
            offset @ 1.. => object.byte_offset(offset).cast(),
            _ => _PyObject_GetDictPtr(object),
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
            let dict = dict(object);
            if !dict.is_null() {
                ffi::Py_XDECREF(std::ptr::replace(dict, std::ptr::null_mut()));
            }
        }
    }
}
