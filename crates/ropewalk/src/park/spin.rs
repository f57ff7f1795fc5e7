use std::cell::Cell;
use std::hint;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The default limit: about what a wake-up of an idle core costs, so that a spin that fails at most doubles a wait.
const DEFAULT: u32 = 20_000;

/// Looks between two yields. A spin without yields starves whoever it waits for when both share a core.
const LOOKS: u32 = 4;

/// The limit in nanoseconds. A setting on its own, ordered with nothing: relaxed.
static LIMIT: AtomicU32 = AtomicU32::new(DEFAULT);

thread_local! {
    /// What this thread's spins have earned, in nanoseconds: doubled by a hit, halved by a miss.
    static BUDGET: Cell<u32> = const { Cell::new(DEFAULT) };
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
/// Adaptive: a thread whose looks keep failing looks for a shorter time, down to a thousandth of the limit. Gives
/// the processor to others between the looks; if they keep it, the thread stops looking at once.
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
    BUDGET.with(|budget| {
        let nanos = budget.get().clamp(limit / 1024, limit);
        let deadline = Instant::now() + Duration::from_nanos(nanos.into());
        let mut yielded = false;
        loop {
            for _ in 0..LOOKS {
                hint::spin_loop();
                if let Some(found) = look() {
                    // What was there at once says little of how long a look may take.
                    budget.set(nanos.saturating_add(if yielded { nanos } else { nanos / 16 + 1 }));
                    return Some(found);
                }
            }
            let now = Instant::now();
            if now >= deadline {
                budget.set(nanos / 2);
                return None;
            }
            thread::yield_now();
            // Somebody with work of his own had the processor. Where processors are that scarce a sleeper, whom the
            // kernel favours when he wakes, is served sooner than a spinner.
            if now.elapsed() > Duration::from_nanos(limit.into()) {
                budget.set(0);
                return look();
            }
            yielded = true;
        }
    })
}
