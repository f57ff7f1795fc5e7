//! Data guarded by the GIL.

use pyo3::Python;

/// A value that is touched only with the GIL held: whoever has a `Python` token may, whatever the thread.
///
/// It holds a `Cell` or a `RefCell`, since the GIL may change hands inside any call into Python.
pub(super) struct Gil<T>(T);

// SAFETY: the only access is `get`, which asks for a `Python` token, and on builds with a GIL only one thread at a time
// has one. The module does not declare that it can do without the GIL, so that a free-threaded interpreter turns it on.
unsafe impl<T: Send> Sync for Gil<T> {}

impl<T> Gil<T> {
    pub(super) const fn new(value: T) -> Self {
        Self(value)
    }

    #[inline]
    pub(super) fn get(&self, _: Python<'_>) -> &T {
        &self.0
    }

    /// The value for `__traverse__`, which has no token.
    ///
    /// # Safety
    /// The caller is the garbage collector's traversal, which runs with the GIL held.
    pub(super) unsafe fn traversed(&self) -> &T {
        &self.0
    }
}
