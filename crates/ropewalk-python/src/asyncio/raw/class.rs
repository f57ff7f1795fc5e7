//! How a type is made: its methods, attributes and slots.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};

use super::Part;
use crate::asyncio::gil::Gil;

/// A method's entry in a type: `method!(T, "name", body, doc)`, with `body: fn(&T, Args) -> PyResult<Bound<PyAny>>`, `T`
/// being the wrapper of the type's instances; `method!(T<P: Bound>, …)` where the body is generic. `"name"()` takes no
/// arguments and `"name"(_)` just one, by position: the fastest there are, in a hot slot.
macro_rules! method {
    ($type:ident, $name:literal(), $body:expr, $doc:literal) => {{
        unsafe extern "C" fn call(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
            let body: for<'py> fn(&$type<'py>) -> PyResult<Bound<'py, PyAny>> = $body;
            // SAFETY: called by the interpreter on an instance of the type that holds the entry.
            unsafe {
                $crate::asyncio::raw::hot_slot(std::ptr::null_mut(), |py| {
                    let this = pyo3::Borrowed::from_ptr(py, object);
                    Ok(body($type::assume(&this))?.into_ptr())
                })
            }
        }
        $crate::asyncio::raw::method!(@entry $name, PyCFunction: call, ffi::METH_NOARGS, $doc)
    }};
    ($type:ident, $name:literal(_), $body:expr, $doc:literal) => {{
        unsafe extern "C" fn call(
            object: *mut ffi::PyObject,
            argument: *mut ffi::PyObject,
        ) -> *mut ffi::PyObject {
            let body: for<'py> fn(&$type<'py>, &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> = $body;
            // SAFETY: called by the interpreter, with an argument, on an instance of the type that holds the entry.
            unsafe {
                $crate::asyncio::raw::hot_slot(std::ptr::null_mut(), |py| {
                    let this = pyo3::Borrowed::from_ptr(py, object);
                    let argument = pyo3::Borrowed::from_ptr(py, argument);
                    Ok(body($type::assume(&this), &argument)?.into_ptr())
                })
            }
        }
        $crate::asyncio::raw::method!(@entry $name, PyCFunction: call, ffi::METH_O, $doc)
    }};
    (@entry $name:literal, $kind:ident: $call:expr, $flags:expr, $doc:literal) => {
        ffi::PyMethodDef {
            ml_name: concat!($name, "\0").as_ptr().cast(),
            ml_meth: ffi::PyMethodDefPointer { $kind: $call },
            ml_flags: $flags,
            ml_doc: concat!($doc, "\0").as_ptr().cast(),
        }
    };
    ($type:ident $(<$part:ident: $bound:ident>)?, $name:literal, $body:expr, $doc:literal) => {
        $crate::asyncio::raw::method!(@fast slot, $type $(<$part: $bound>)?, $name, $body, $doc)
    };
    (
        @fast $slot:ident, $type:ident $(<$part:ident: $bound:ident>)?, $name:literal, $body:expr, $doc:literal
    ) => {{
        unsafe extern "C" fn call $(<$part: $bound>)? (
            object: *mut ffi::PyObject,
            args: *const *mut ffi::PyObject,
            count: isize,
            names: *mut ffi::PyObject,
        ) -> *mut ffi::PyObject {
            let body: for<'py> fn(&$type<'py>, Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> = $body;
            // SAFETY: called by the interpreter, by fast call, on an instance of the type that holds the entry.
            unsafe {
                $crate::asyncio::raw::$slot(std::ptr::null_mut(), |py| {
                    let this = pyo3::Borrowed::from_ptr(py, object);
                    let args = $crate::asyncio::raw::Args::new(py, $name, args, count, names);
                    Ok(body($type::assume(&this), args)?.into_ptr())
                })
            }
        }
        $crate::asyncio::raw::method!(
            @entry $name,
            PyCFunctionFastWithKeywords: call $(::<$part>)?,
            ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            $doc
        )
    }};
}
pub(crate) use method;

/// A [`method!`] with any arguments in a hot slot.
macro_rules! hot_method {
    ($type:ident, $name:literal, $body:expr, $doc:literal) => {
        $crate::asyncio::raw::method!(@fast hot_slot, $type, $name, $body, $doc)
    };
}
pub(crate) use hot_method;

/// An attribute's entry in a type, read-only or to be set; types and bodies as for [`method!`].
macro_rules! attribute {
    ($type:ident $(<$part:ident: $bound:ident>)?, $name:literal, $get:expr) => {{
        $crate::asyncio::raw::attribute!(@get $type $(<$part: $bound>)?, $name, $get)
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
    (@get $type:ident $(<$part:ident: $bound:ident>)?, $name:literal, $get:expr) => {{
        unsafe extern "C" fn get $(<$part: $bound>)? (
            object: *mut ffi::PyObject,
            _: *mut std::ffi::c_void,
        ) -> *mut ffi::PyObject {
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
            get: Some(get $(::<$part>)?),
            set: None,
            doc: std::ptr::null(),
            closure: std::ptr::null_mut(),
        }
    }};
}
pub(crate) use attribute;

/// How many instances that were freed are kept for the next ones.
const SPARE: usize = 1024;

/// One of our types.
pub(crate) struct Class {
    /// NULL until it is made, with the others of the loop, before there is any instance. Relaxed, because the GIL orders
    /// that with everything after.
    class: AtomicPtr<ffi::PyTypeObject>,
    spare: Gil<Spare>,
}

/// Memory of freed instances, linked through where their type stood.
struct Spare {
    first: Cell<*mut ffi::PyObject>,
    count: Cell<usize>,
}
// SAFETY: the memory belongs to no thread.
unsafe impl Send for Spare {}

impl Class {
    pub(crate) const fn new() -> Self {
        Self {
            class: AtomicPtr::new(std::ptr::null_mut()),
            spare: Gil::new(Spare {
                first: Cell::new(std::ptr::null_mut()),
                count: Cell::new(0),
            }),
        }
    }

    /// The type, or NULL.
    #[inline]
    pub(crate) fn get(&self) -> *mut ffi::PyTypeObject {
        self.class.load(Relaxed)
    }

    /// Makes the type, a subclass of `base`.
    pub(crate) fn make<'py>(
        &self,
        py: Python<'py>,
        spec: Spec,
        base: Option<&Bound<'py, PyType>>,
    ) -> PyResult<Bound<'py, PyType>> {
        let class = spec.build(py, base)?;
        // A reference of its own: a type may not go while the process makes instances of it.
        self.class.store(class.clone().into_ptr().cast(), Relaxed);
        Ok(class)
    }

    /// Makes an instance of the type itself. The collector does not look at it before `PyObject_GC_Track`.
    ///
    /// # Safety
    /// The type is made; the parts of the instance are written next, whatever they are.
    #[inline]
    pub(crate) unsafe fn alloc<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let spare = self.spare.get(py);
        let object = spare.first.get();
        // SAFETY: a spare one is memory of an instance, emptied, that nothing refers to.
        unsafe {
            if object.is_null() {
                let object = Bound::from_owned_ptr_or_err(py, ffi::PyType_GenericAlloc(self.get(), 0))?;
                ffi::PyObject_GC_UnTrack(object.as_ptr().cast());
                return Ok(object);
            }
            spare.first.set((*object).ob_type.cast());
            spare.count.set(spare.count.get() - 1);
            Ok(Bound::from_owned_ptr(py, ffi::PyObject_Init(object, self.get())))
        }
    }

    /// Ends an instance of the type, or of a subtype, after its parts are dropped.
    ///
    /// # Safety
    /// Called last in `tp_dealloc`, with the GIL held; the collector does not look at the object any more.
    #[inline]
    pub(crate) unsafe fn free(&self, object: *mut ffi::PyObject) {
        // SAFETY: nothing refers to the object any more; an instance of a heap type owns a reference to it.
        unsafe {
            let spare = self.spare.get(Python::assume_attached());
            let class = ffi::Py_TYPE(object);
            // One that was finalized would never be so again.
            let reusable = class == self.get() && ffi::PyObject_GC_IsFinalized(object) == 0;
            if reusable && spare.count.get() < SPARE {
                (*object).ob_type = spare.first.replace(object).cast();
                spare.count.set(spare.count.get() + 1);
            } else if let Some(free) = (*class).tp_free {
                free(object.cast());
            }
            ffi::Py_DECREF(class.cast());
        }
    }

    /// Makes an instance of a type without a base.
    ///
    /// # Safety
    /// The type is made, and its instances hold a `T`.
    #[inline]
    pub(crate) unsafe fn instance<'py, T: Part>(
        &self,
        py: Python<'py>,
        part: T,
    ) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the caller's; nothing looks at the object before its part is written.
        unsafe {
            let object = self.alloc(py)?;
            part.write(object.as_ptr());
            ffi::PyObject_GC_Track(object.as_ptr().cast());
            Ok(object)
        }
    }

    /// Whether the object is an instance of the type itself.
    #[inline]
    pub(crate) fn is_exactly(&self, object: &Bound<'_, PyAny>) -> bool {
        // SAFETY: reads the type of a live object.
        unsafe { ffi::Py_TYPE(object.as_ptr()) == self.get() }
    }

    /// Whether the object is an instance of the type or of a subtype.
    #[inline]
    pub(crate) fn holds(&self, object: &Bound<'_, PyAny>) -> bool {
        // SAFETY: reads the type of a live object, and compares two types.
        self.is_exactly(object)
            || unsafe { ffi::PyType_IsSubtype(ffi::Py_TYPE(object.as_ptr()), self.get()) != 0 }
    }
}

/// Adds methods to a class that PyO3 makes.
pub(crate) fn add_methods(class: &Bound<'_, PyType>, methods: Vec<ffi::PyMethodDef>) -> PyResult<()> {
    for definition in methods.leak() {
        // SAFETY: both live as long as the process.
        let method = unsafe {
            let method = ffi::PyDescr_NewMethod(class.as_type_ptr(), definition);
            Bound::from_owned_ptr_or_err(class.py(), method)?
        };
        class.setattr(method.getattr("__name__")?.cast::<PyString>()?, method)?;
    }
    Ok(())
}

/// What a type is made of.
pub(crate) struct Spec {
    pub(crate) name: &'static CStr,
    pub(crate) doc: &'static CStr,
    pub(crate) size: usize,
    /// Whether Python may make subclasses and instances.
    pub(crate) open: bool,
    /// Where instances keep the list of their weak references, if not as the base does.
    pub(crate) weak_references: Option<usize>,
    pub(crate) slots: Vec<(c_int, *mut c_void)>,
    pub(crate) methods: Vec<ffi::PyMethodDef>,
    pub(crate) attributes: Vec<ffi::PyGetSetDef>,
}

impl Spec {
    /// Makes the type, a subclass of `base`. It lives as long as the process: so do the tables that it points to.
    fn build<'py>(self, py: Python<'py>, base: Option<&Bound<'py, PyType>>) -> PyResult<Bound<'py, PyType>> {
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
        if let Some(offset) = self.weak_references {
            let member = |name, offset: usize| ffi::PyMemberDef {
                name,
                type_code: ffi::Py_T_PYSSIZET,
                offset: offset as ffi::Py_ssize_t,
                flags: ffi::Py_READONLY,
                doc: std::ptr::null(),
            };
            let members = vec![
                member(c"__weaklistoffset__".as_ptr(), offset),
                member(std::ptr::null(), 0),
            ];
            slot(ffi::Py_tp_members, members.leak().as_mut_ptr().cast());
        }
        slot(0, std::ptr::null_mut());
        // Only we make instances of a type that has no constructor.
        let use_of = match self.open {
            true => ffi::Py_TPFLAGS_BASETYPE,
            false => ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION,
        };
        let mut spec = ffi::PyType_Spec {
            name: self.name.as_ptr(),
            basicsize: self.size as c_int,
            itemsize: 0,
            flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | use_of) as std::ffi::c_uint,
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
