//! Calls and answers as messages: a pickle, and beside it the buffers that its objects gave away (protocol 5).

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use memchr::memmem;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyTuple};
use ropewalk::futures::process_pool::{Message, advise_huge_pages};

/// From this size on, a `bytes` object is sent beside the pickle: below, the copy costs less.
const LARGE: usize = 64 * 1024;

/// What a pickle names that another process may have under another name or not at all.
///
/// Functions and classes of `__main__` are sent by value; what `multiprocessing` wants to send in its own way is
/// sent so.
const CAREFUL: [&[u8]; 2] = [b"__main__", b"multiprocessing"];

fn module_function<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    module: &str,
    name: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    cell.get_or_try_init(py, || Ok::<_, PyErr>(py.import(module)?.getattr(name)?.unbind()))
        .map(|function| function.bind(py))
}

/// Pickles `object`: the pickle, and the buffers beside it.
fn pickle<'py>(object: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyList>)> {
    static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static CAREFULLY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = object.py();
    let buffers = PyList::empty(py);
    let kwargs = PyDict::new(py);
    kwargs.set_item(intern!(py, "protocol"), 5)?;
    kwargs.set_item(
        intern!(py, "buffer_callback"),
        buffers.getattr(intern!(py, "append"))?,
    )?;
    let dumps = module_function(py, &DUMPS, "_pickle", "dumps")?;
    if let Ok(bytes) = dumps.call((object,), Some(&kwargs)) {
        let bytes = bytes.cast_into::<PyBytes>()?;
        if !CAREFUL
            .iter()
            .any(|name| memmem::find(bytes.as_bytes(), name).is_some())
        {
            return Ok((bytes, buffers));
        }
    }
    let dumps = module_function(py, &CAREFULLY, "ropewalk._pickling", "dumps")?;
    dumps.call1((object,))?.extract()
}

/// Makes a message of `object`, with `text` as its second part if there is one.
pub(super) fn dump(object: &Bound<'_, PyAny>, text: Option<&str>) -> PyResult<Message> {
    let (bytes, buffers) = pickle(object)?;
    if buffers.is_empty() {
        let parts: &[&[u8]] = match text {
            None => &[bytes.as_bytes()],
            Some(text) => &[bytes.as_bytes(), text.as_bytes()],
        };
        return Ok(Message::new(parts)?);
    }
    let views = buffers
        .iter()
        .map(|buffer| PyBuffer::<u8>::get(&buffer.call_method0(intern!(buffer.py(), "raw"))?))
        .collect::<PyResult<Vec<_>>>()?;
    let mut parts = vec![bytes.as_bytes()];
    parts.extend(text.map(str::as_bytes));
    for view in &views {
        // SAFETY: a contiguous view (`raw` sees to that) of so many bytes, held until the copy is made. Other threads
        // may write to it while we copy, as they may while anything else copies a Python buffer.
        parts.push(unsafe { std::slice::from_raw_parts(view.buf_ptr().cast(), view.len_bytes()) });
    }
    Ok(Message::new(&parts)?)
}

/// Loads what `dump` made, with the buffers after the first `skip` parts.
pub(super) fn load<'py>(py: Python<'py>, message: &Arc<Message>, skip: usize) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let loads = module_function(py, &LOADS, "_pickle", "loads")?;
    if message.count() == skip && !message.is_mapped() {
        return loads.call1((PyBytes::new(py, message.first()),));
    }
    let part = |index| SharedBuffer::new(message, index);
    let buffers = (skip..message.count())
        .map(|index| {
            if message.is_mapped() {
                Ok(Bound::new(py, part(index))?.into_any())
            } else {
                // Small: a copy is memory of its own that may be written.
                let bytes = message.parts().nth(index).unwrap_or_default();
                Ok(PyByteArray::new(py, bytes).into_any())
            }
        })
        .collect::<PyResult<Vec<_>>>()?;
    let kwargs = PyDict::new(py);
    kwargs.set_item(intern!(py, "buffers"), buffers)?;
    if message.is_mapped() {
        loads.call((part(0),), Some(&kwargs))
    } else {
        loads.call((PyBytes::new(py, message.first()),), Some(&kwargs))
    }
}

/// The arguments with large `bytes` made ready to be sent beside the pickle, which `pickle` does not do by itself.
pub(super) fn lift_large<'py>(args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyTuple>> {
    if !args.iter_borrowed().any(|arg| is_large(&arg)) {
        return Ok(args.clone());
    }
    let lifted = args.iter().map(|arg| lift(&arg)).collect::<PyResult<Vec<_>>>()?;
    PyTuple::new(args.py(), lifted)
}

/// The same for one object.
pub(super) fn lift<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if !is_large(object) {
        return Ok(object.clone());
    }
    Ok(Bound::new(object.py(), Beside(object.clone().unbind()))?.into_any())
}

/// Large `bytes` or a large `bytearray` on the way: pickled as a buffer, loaded as what it was.
#[pyclass(module = "ropewalk._native", frozen)]
struct Beside(Py<PyAny>);

#[pymethods]
impl Beside {
    fn __reduce_ex__<'py>(
        &self,
        py: Python<'py>,
        _protocol: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyAny>,))> {
        static BUFFER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        static COPY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let data = self.0.bind(py);
        let copy = match data.cast_exact::<PyBytes>() {
            Ok(_) => module_function(py, &COPY, "ropewalk._native", "copy_bytes")?.clone(),
            Err(_) => data.get_type().into_any(),
        };
        let buffer = module_function(py, &BUFFER, "_pickle", "PickleBuffer")?.call1((data,))?;
        Ok((copy, (buffer,)))
    }
}

/// Copy a buffer into `bytes`.
#[pyfunction]
pub(crate) fn copy_bytes<'py>(py: Python<'py>, buffer: PyBuffer<u8>) -> PyResult<Bound<'py, PyBytes>> {
    if !buffer.is_c_contiguous() {
        return Err(PyBufferError::new_err("the buffer is not contiguous"));
    }
    let len = buffer.len_bytes();
    // SAFETY: without a source the memory is left as it is, and nobody else sees the object before it is filled; the
    // buffer is contiguous, of `len` bytes, and does not overlap what has just been allocated.
    unsafe {
        let bytes = ffi::PyBytes_FromStringAndSize(std::ptr::null(), len as ffi::Py_ssize_t);
        let bytes = Bound::from_owned_ptr_or_err(py, bytes)?;
        let target = ffi::PyBytes_AsString(bytes.as_ptr()).cast::<u8>();
        advise_huge_pages(target, len);
        target.copy_from_nonoverlapping(buffer.buf_ptr().cast(), len);
        Ok(bytes.cast_into_unchecked())
    }
}

fn is_large(object: &Bound<'_, PyAny>) -> bool {
    let len = if let Ok(bytes) = object.cast_exact::<PyBytes>() {
        bytes.as_bytes().len()
    } else if let Ok(bytes) = object.cast_exact::<PyByteArray>() {
        bytes.len()
    } else {
        0
    };
    len >= LARGE
}

/// Memory that came from another process: a part of a message, kept alive by whoever looks at it.
#[pyclass(module = "ropewalk._native", frozen)]
pub(crate) struct SharedBuffer {
    message: Arc<Message>,
    index: usize,
}

impl SharedBuffer {
    fn new(message: &Arc<Message>, index: usize) -> Self {
        Self {
            message: message.clone(),
            index,
        }
    }
}

#[pymethods]
impl SharedBuffer {
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let Some((address, len)) = this.message.mapped_part(this.index) else {
            return Err(PyBufferError::new_err("the buffer is not in shared memory"));
        };
        let len =
            ffi::Py_ssize_t::try_from(len).map_err(|_| PyBufferError::new_err("the buffer is too large"))?;
        let owner = slf.as_ptr();
        // SAFETY: `view` is the caller's to be filled; the memory is mapped and writable for as long as the object
        // that becomes the view's owner lives, since that holds the message.
        match unsafe { ffi::PyBuffer_FillInfo(view, owner, address.cast::<c_void>(), len, 0, flags) } {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }
}
