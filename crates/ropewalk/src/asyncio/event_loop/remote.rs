use std::fmt;

use super::{CLOSED, Mail};
use crate::asyncio::engine;
use crate::asyncio::error::Result;

/// A way into an event loop from any thread; see [`EventLoop::remote`](super::EventLoop::remote).
///
/// ```
/// use ropewalk::asyncio::{self, EventLoop};
///
/// let event_loop = EventLoop::new()?;
/// let remote = event_loop.remote();
/// let thread = std::thread::spawn(move || remote.call_soon_threadsafe(|| {
///     asyncio::get_running_loop().expect("called on the loop's thread").stop();
/// }));
/// event_loop.run_forever()?;
/// thread.join().unwrap()?;
/// # Ok::<(), asyncio::Error>(())
/// ```
#[derive(Clone)]
pub struct Remote(engine::Remote<Mail>);

impl Remote {
    pub(super) fn new(remote: engine::Remote<Mail>) -> Self {
        Self(remote)
    }

    /// Has `callback` called on the loop's thread, in one of its next turns, and wakes the loop if it sleeps.
    ///
    /// # Errors
    /// The loop is closed.
    pub fn call_soon_threadsafe(&self, callback: impl FnOnce() + Send + 'static) -> Result<()> {
        self.0.send(Mail::Call(Box::new(callback))).map_err(|_| CLOSED)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remote")
    }
}
