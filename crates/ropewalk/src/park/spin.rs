use std::cell::Cell;
use std::hint;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The default limit: about what a wake-up of an idle core costs, so that a spin that fails at most doubles a wait.
const DEFAULT: u32 = 20_000;

/// Looks between two yields. A spin without yields starves whoever it waits for when both share a core.
const LOOKS: u32 = 4;

/// How many times a thread sleeps at once after others have kept the processor from it.
const RESTS: u32 = 64;

/// The limit in nanoseconds. A setting on its own, ordered with nothing: relaxed.
static LIMIT: AtomicU32 = AtomicU32::new(DEFAULT);

thread_local! {
    /// What this thread's spins have earned, in nanoseconds: doubled by a hit, halved by a miss.
    static BUDGET: Cell<u32> = const { Cell::new(DEFAULT) };

    /// How many times this thread still sleeps at once.
    static REST: Cell<u32> = const { Cell::new(0) };
}

/// Sets how long a thread looks for what it waits for before it sleeps; zero turns spinning off.
///
/// Holds for the whole process. Four seconds are the most that counts. The default is 20 µs.
pub fn set_spin(limit: Duration) {
    LIMIT.store(
        u32::try_from(limit.as_nanos()).unwrap_or(u32::MAX),
        Ordering::Relaxed,
    );
}

/// How long a thread looks at most before it sleeps, as [`set_spin`] left it.
pub fn spin_limit() -> Duration {
    Duration::from_nanos(LIMIT.load(Ordering::Relaxed).into())
}

/// Looks for something until `look` finds it, or gives up and returns `None` when it is time to sleep.
///
/// Adaptive: a thread whose looks keep failing looks for a shorter time, down to an eighth of the limit. Gives the
/// processor to others between the looks; if they keep it, the thread sleeps at once this time and the next few dozen.
///
/// ```
/// ropewalk::park::set_spin(std::time::Duration::from_micros(20));
/// assert_eq!(ropewalk::park::spin(|| Some(7)), Some(7));
/// assert_eq!(ropewalk::park::spin(|| None::<i32>), None);
/// ```
pub fn spin<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    if let Some(found) = look() {
        return Some(found);
    }
    let limit = LIMIT.load(Ordering::Relaxed);
    if limit == 0 || cfg!(loom) {
        return None;
    }
    let rest = REST.get();
    if rest > 0 {
        REST.set(rest - 1);
        return None;
    }
    let nanos = BUDGET.get().clamp(limit / 8, limit);
    let deadline = Instant::now() + Duration::from_nanos(nanos.into());
    loop {
        for _ in 0..LOOKS {
            hint::spin_loop();
            if let Some(found) = look() {
                BUDGET.set(nanos.saturating_mul(2));
                return Some(found);
            }
        }
        let now = Instant::now();
        if now >= deadline {
            BUDGET.set(nanos / 2);
            return None;
        }
        thread::yield_now();
        // Somebody with work of his own had the processor. Where processors are that scarce a sleeper, whom the
        // kernel favours when he wakes, is served sooner than a spinner.
        if now.elapsed() > Duration::from_nanos(limit.into()) {
            REST.set(RESTS);
            return look();
        }
    }
}
