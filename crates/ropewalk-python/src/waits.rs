//! How a Python thread blocks: without the GIL, and with an ear for signals.

use std::time::{Duration, Instant};

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use ropewalk::park::Wake;

/// `threading.TIMEOUT_MAX` on 64-bit systems, in seconds.
const TIMEOUT_MAX: f64 = 9_223_372_036.0;

/// How long a wait of `timeout` seconds takes at most: `None` for no limit, no time at all for a negative number.
pub(crate) fn duration(timeout: Option<f64>) -> PyResult<Option<Duration>> {
    match timeout {
        None => Ok(None),
        Some(seconds) if seconds > TIMEOUT_MAX => Err(PyOverflowError::new_err("timeout value is too large")),
        // `max` also makes zero of a NaN.
        Some(seconds) => Ok(Some(Duration::from_secs_f64(seconds.max(0.0)))),
    }
}

/// When a wait of `timeout` seconds is over, as `duration` has it.
pub(crate) fn deadline(timeout: Option<f64>) -> PyResult<Option<Instant>> {
    Ok(duration(timeout)?.and_then(|duration| Instant::now().checked_add(duration)))
}

/// Waits without the GIL until `wait` has got what it waits for (true) or is out of time (false).
///
/// # Errors
/// What a signal handler raised, KeyboardInterrupt as a rule.
pub(crate) fn wait(py: Python<'_>, mut wait: impl FnMut() -> Wake + Send) -> PyResult<bool> {
    loop {
        match py.detach(&mut wait) {
            Wake::Woken => return Ok(true),
            Wake::TimedOut => return Ok(false),
            Wake::Interrupted => py.check_signals()?,
        }
    }
}
