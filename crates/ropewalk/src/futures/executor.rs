use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::{Error, Kind};
use super::future::{Future, Task};

/// Something that makes calls (Python: `concurrent.futures.Executor`).
///
/// An implementation says how a [`Task`] gets run and how it shuts down; the rest follows.
pub trait Executor {
    /// Accepts a task; it is run once, soon, and not necessarily by this thread.
    ///
    /// # Errors
    /// The executor is shut down or broken, or its queue is full and cannot be waited for.
    fn execute(&self, task: Task) -> Result<(), Error>;

    /// Takes no more calls from now on.
    ///
    /// With `cancel_futures`, what has not begun is cancelled; otherwise it is still run. With `wait`, returns only when
    /// everything is over. Can be called again.
    fn shutdown(&self, wait: bool, cancel_futures: bool);

    /// Has `call` made and returns its future.
    ///
    /// # Errors
    /// As [`execute`](Executor::execute).
    fn submit<T, F>(&self, call: F) -> Result<Future<T>, Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (task, future) = Task::new(call);
        self.execute(task)?;
        Ok(future)
    }

    /// Calls `function` with every item and returns the results in the order of the items.
    ///
    /// All calls are submitted at once. Dropping the iterator cancels what has not begun.
    ///
    /// # Errors
    /// As [`execute`](Executor::execute); the iterator's items are errors where a call failed.
    ///
    /// ```
    /// use ropewalk::futures::{Executor, ThreadPoolExecutor};
    ///
    /// let pool = ThreadPoolExecutor::new();
    /// let lengths: Result<Vec<_>, _> = pool.map(str::len, ["BR", "CN", "IND"])?.collect();
    /// assert_eq!(lengths?, [2, 2, 3]);
    /// # Ok::<(), ropewalk::futures::Error>(())
    /// ```
    fn map<I, T, F>(&self, function: F, items: I) -> Result<Map<'_, Self, I::IntoIter, F, T>, Error>
    where
        Self: Sized,
        I: IntoIterator<Item: Send + 'static>,
        F: Fn(I::Item) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        self.map_with(MapOptions::default(), function, items)
    }

    /// As [`map`](Executor::map), with a time limit or a bound on the calls under way.
    ///
    /// # Errors
    /// As [`map`](Executor::map), and if `buffersize` is zero.
    fn map_with<I, T, F>(
        &self,
        options: MapOptions,
        function: F,
        items: I,
    ) -> Result<Map<'_, Self, I::IntoIter, F, T>, Error>
    where
        Self: Sized,
        I: IntoIterator<Item: Send + 'static>,
        F: Fn(I::Item) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        if options.buffersize == Some(0) {
            return Err(Kind::Invalid("buffersize must be None or > 0").into());
        }
        let mut map = Map {
            executor: self,
            function: Arc::new(function),
            items: items.into_iter(),
            pending: VecDeque::new(),
            deadline: options
                .timeout
                .and_then(|timeout| Instant::now().checked_add(timeout)),
        };
        let ahead = options.buffersize.unwrap_or(usize::MAX);
        while map.pending.len() < ahead && map.submit_next()? {}
        Ok(map)
    }
}

/// How [`Executor::map_with`] is to go about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct MapOptions {
    /// How long after the call of `map` the last result may come.
    pub timeout: Option<Duration>,
    /// How many calls may be under way or unread at once; all items are taken at once without it.
    pub buffersize: Option<usize>,
}

/// The results of [`Executor::map`], in the order of the items.
///
/// After an error the calls that have not begun are cancelled and the iterator is at its end, as in Python.
pub struct Map<'e, E, I, F, T> {
    executor: &'e E,
    function: Arc<F>,
    items: I,
    pending: VecDeque<Future<T>>,
    deadline: Option<Instant>,
}

impl<E, I, F, T> Map<'_, E, I, F, T>
where
    E: Executor,
    I: Iterator<Item: Send + 'static>,
    F: Fn(I::Item) -> T + Send + Sync + 'static,
    T: Send + 'static,
{
    /// Submits the next call; false if there is none.
    fn submit_next(&mut self) -> Result<bool, Error> {
        let Some(item) = self.items.next() else {
            return Ok(false);
        };
        let function = self.function.clone();
        self.pending
            .push_back(self.executor.submit(move || function(item))?);
        Ok(true)
    }
}

impl<E, I, F, T> Map<'_, E, I, F, T> {
    fn cancel_rest(&mut self) {
        for future in self.pending.drain(..) {
            future.cancel();
        }
    }
}

impl<E, I, F, T> Iterator for Map<'_, E, I, F, T>
where
    E: Executor,
    I: Iterator<Item: Send + 'static>,
    F: Fn(I::Item) -> T + Send + Sync + 'static,
    T: Send + 'static,
{
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = self.pending.pop_front()?;
        let outcome = self.submit_next().and_then(|_| match self.deadline {
            None => first.result(),
            Some(deadline) => first.result_timeout(deadline.saturating_duration_since(Instant::now())),
        });
        if outcome.is_err() {
            first.cancel();
            self.cancel_rest();
        }
        Some(outcome)
    }
}

impl<E, I, F, T> Drop for Map<'_, E, I, F, T> {
    fn drop(&mut self) {
        self.cancel_rest();
    }
}
