//! The bindings: one file a Python class, one module that declares the whole Python surface.

use pyo3::prelude::*;

/// The engine of the Python package `ropewalk`.
#[pymodule]
mod _native {}
