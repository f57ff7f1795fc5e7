//! Tools for tests: time that passes at once, and every order that could be.

use super::engine::Clock;
use super::error::Result;
use super::event_loop::EventLoop;
use super::runner::Runner;

/// A loop whose clock starts at zero, stands still while anything is ready and jumps to the next deadline when nothing is.
///
/// Programs of timers run at once and always in the same order. Work in other threads takes no time on this clock.
///
/// # Errors
/// The system gives no descriptor.
///
/// ```
/// use ropewalk::asyncio::{self, Runner, testing};
/// use std::time::Duration;
///
/// let runner = Runner::with_loop(testing::virtual_clock()?);
/// let day = Duration::from_secs(86400);
/// runner.run(async move { Ok(asyncio::sleep(day).await?) })?;
/// assert_eq!(runner.get_loop().time(), day);
/// # Ok::<(), ropewalk::asyncio::Error>(())
/// ```
pub fn virtual_clock() -> Result<EventLoop> {
    EventLoop::with_clock(Clock::Virtual(0))
}

/// Runs a program once for each seed, on a [`virtual_clock`], in an order that the seed decides: what is ready in one turn runs
/// in any order. What a program says under every order is no accident of one.
///
/// # Errors
/// The first failure, its seed being printed.
///
/// # Panics
/// If the program does, its seed being printed.
///
/// ```
/// use ropewalk::asyncio::{self, testing};
/// use std::{cell::Cell, rc::Rc};
///
/// testing::orders(0..100, || async {
///     let sum = Rc::new(Cell::new(0));
///     let add = |n| {
///         let sum = sum.clone();
///         asyncio::create_task(async move { Ok(sum.set(sum.get() + n)) })
///     };
///     let tasks = [add(1), add(2)];
///     for task in tasks {
///         task.await?;
///     }
///     assert_eq!(sum.get(), 3);
///     Ok(())
/// })?;
/// # Ok::<(), asyncio::Error>(())
/// ```
pub fn orders<F>(seeds: impl IntoIterator<Item = u64>, mut program: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + 'static,
{
    for seed in seeds {
        let told = Told(seed);
        let event_loop = virtual_clock()?;
        *event_loop.0.order.borrow_mut() = Some(Shuffle(seed));
        Runner::with_loop(event_loop).run(program())?;
        std::mem::forget(told);
    }
    Ok(())
}

/// Tells the seed of a program that fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("the program failed in the order of seed {}", self.0);
    }
}

/// A row of numbers that a seed decides: SplitMix64, which is small and good enough.
pub(super) struct Shuffle(u64);

impl Shuffle {
    /// The next number below `bound`, which is not zero.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((number ^ (number >> 31)) % bound as u64) as usize
    }
}
