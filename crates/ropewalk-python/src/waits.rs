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

/// How long a wait goes on at first. The kernel reports no signal that came just before a thread fell asleep, so each
/// long wait looks for signals once by itself.
const FIRST_SLEEP: Duration = Duration::from_millis(20);

/// Waits without the GIL until `wait`, which is given a deadline, has got what it waits for (true) or the time is over
/// (false).
///
/// # Errors
/// What a signal handler raised, KeyboardInterrupt as a rule.
pub(crate) fn wait(
    py: Python<'_>,
    deadline: Option<Instant>,
    mut wait: impl FnMut(Option<Instant>) -> Wake + Send,
) -> PyResult<bool> {
    let first = Instant::now() + FIRST_SLEEP;
    let mut until = Some(deadline.map_or(first, |deadline| deadline.min(first)));
    loop {
        match py.detach(|| wait(until)) {
            Wake::Woken => return Ok(true),
            Wake::TimedOut if until == deadline => return Ok(false),
            Wake::TimedOut | Wake::Interrupted => py.check_signals()?,
        }
        until = deadline;
    }
}
