//! The engine's clock.

/// A time, or a span of time, in nanoseconds.
pub type Nanos = u64;

/// Where an engine takes the time from.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The system's monotonic clock.
    Monotonic,
    /// A clock that stands still while anything is ready and jumps to the next deadline when nothing is: programs
    /// of timers run at once and always in the same order.
    Virtual(Nanos),
}

impl Clock {
    /// The time now.
    #[inline]
    pub fn now(&self) -> Nanos {
        match self {
            Self::Monotonic => monotonic(),
            Self::Virtual(now) => *now,
        }
    }

    pub(super) fn is_virtual(&self) -> bool {
        matches!(self, Self::Virtual(_))
    }

    /// Lets a wait pass: tells how long to sleep in earnest.
    pub(super) fn pass(&mut self, timeout: Option<Nanos>) -> Option<Nanos> {
        match (self, timeout) {
            (Self::Virtual(now), Some(timeout)) => {
                *now += timeout;
                Some(0)
            }
            (_, timeout) => timeout,
        }
    }
}

#[cfg(target_os = "linux")]
fn monotonic() -> Nanos {
    // The origin is the system's, so that times agree with Python's `time.monotonic()`.
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(not(target_os = "linux"))]
fn monotonic() -> Nanos {
    static ORIGIN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    ORIGIN.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64
}
