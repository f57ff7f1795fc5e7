//! [`gather`].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::completions::Watched;
use super::current;
use super::error::{Cancelled, Error, Result};
use super::runner::ensure_future;
use super::task::{AnyTask, Task};

/// Runs futures at the same time and gives their values, in their order (Python: `asyncio.gather`).
///
/// Takes a vector, an array or a tuple of futures. Each becomes a task at once, unless it is one. If the task
/// that awaits the values is cancelled, so are all of these. Dropped, it leaves them running.
///
/// # Errors
/// The first failure, as soon as it happens; the others run on. With
/// [`return_exceptions`](Gather::return_exceptions) only the cancellation of the awaiting task.
///
/// # Panics
/// Outside a loop.
///
/// ```
/// use ropewalk::asyncio;
///
/// asyncio::run(async {
///     let square = async |n: u32| Ok(n * n);
///     assert_eq!(asyncio::gather(vec![square(2), square(3)]).await?, [4, 9]);
///     let both = (async { Ok("flag") }, async { Ok("x".parse::<u8>()?) });
///     let (name, number) = asyncio::gather(both).return_exceptions().await?;
///     assert_eq!(name?, "flag");
///     assert!(number.is_err());
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub fn gather<G: Gatherable>(futures: G) -> Gather<G> {
    let tasks = G::start(futures);
    let mut all = Vec::new();
    G::each(&tasks, &mut |task| all.push(task.clone()));
    Gather {
        tasks: Some(tasks),
        left: all.len(),
        watched: Watched::new(all),
        cancelled: None,
        waited: false,
    }
}

/// What [`gather`] takes: vectors, arrays and tuples of futures.
pub trait Gatherable {
    #[doc(hidden)]
    type Tasks;
    /// The values, in the order and shape of the futures.
    type Values;
    /// The outcomes, in the order and shape of the futures.
    type Outcomes;

    #[doc(hidden)]
    fn start(futures: Self) -> Self::Tasks;
    #[doc(hidden)]
    fn each(tasks: &Self::Tasks, f: &mut dyn FnMut(&AnyTask));
    #[doc(hidden)]
    fn values(tasks: Self::Tasks) -> Result<Self::Values>;
    #[doc(hidden)]
    fn outcomes(tasks: Self::Tasks) -> Self::Outcomes;
}

/// The future that [`gather`] returns.
#[must_use = "the futures run, but nobody sees their failures"]
pub struct Gather<G: Gatherable> {
    tasks: Option<G::Tasks>,
    watched: Watched,
    left: usize,
    cancelled: Option<Cancelled>,
    waited: bool,
}

impl<G: Gatherable> Unpin for Gather<G> {}

impl<G: Gatherable> Gather<G> {
    /// Gives all outcomes instead of failing with the first failure.
    pub fn return_exceptions(self) -> GatherOutcomes<G> {
        GatherOutcomes(self)
    }

    /// Waits for all tasks, or for the first that `is_enough`, which is then the error.
    fn poll_tasks(
        &mut self,
        cx: &mut Context<'_>,
        is_enough: impl Fn(&AnyTask) -> Option<Error>,
    ) -> Poll<Result<G::Tasks>> {
        if self.waited
            && let Some(cancelled) = current::take_request()
        {
            self.cancel(cancelled);
        }
        while let Some(number) = self.watched.completions.try_next() {
            self.left -= 1;
            if let Some(error) = is_enough(&self.watched.tasks[number]) {
                return Poll::Ready(Err(error));
            }
        }
        if self.left == 0 {
            if let Some(cancelled) = self.cancelled.take() {
                return Poll::Ready(Err(cancelled.into()));
            }
            let taken = Error::misuse("the gathered values have already been taken");
            return Poll::Ready(self.tasks.take().ok_or(taken));
        }
        self.waited = true;
        self.watched.completions.set_waiter(cx.waker());
        if let Some(cancelled) = current::take_request() {
            self.cancel(cancelled);
        }
        Poll::Pending
    }

    fn cancel(&mut self, cancelled: Cancelled) {
        for task in &self.watched.tasks {
            task.request(cancelled.clone().into_message());
        }
        self.cancelled = Some(cancelled);
    }
}

impl<G: Gatherable> Future for Gather<G> {
    type Output = Result<G::Values>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_tasks(cx, AnyTask::exception)
            .map(|tasks| G::values(tasks?))
    }
}

/// The future that [`Gather::return_exceptions`] returns.
#[must_use = "a future does nothing unless awaited"]
pub struct GatherOutcomes<G: Gatherable>(Gather<G>);

impl<G: Gatherable> Unpin for GatherOutcomes<G> {}

impl<G: Gatherable> Future for GatherOutcomes<G> {
    type Output = Result<G::Outcomes>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0
            .poll_tasks(cx, |_| None)
            .map(|tasks| Ok(G::outcomes(tasks?)))
    }
}

impl<T, F> Gatherable for Vec<F>
where
    T: 'static,
    F: Future<Output = Result<T>> + 'static,
{
    type Tasks = Vec<Task<T>>;
    type Values = Vec<T>;
    type Outcomes = Vec<Result<T>>;

    fn start(futures: Self) -> Self::Tasks {
        futures.into_iter().map(ensure_future).collect()
    }

    fn each(tasks: &Self::Tasks, f: &mut dyn FnMut(&AnyTask)) {
        tasks.iter().for_each(|task| f(task));
    }

    fn values(tasks: Self::Tasks) -> Result<Vec<T>> {
        tasks.into_iter().map(|mut task| task.result()).collect()
    }

    fn outcomes(tasks: Self::Tasks) -> Vec<Result<T>> {
        tasks.into_iter().map(|mut task| task.result()).collect()
    }
}

impl<T, F, const N: usize> Gatherable for [F; N]
where
    T: 'static,
    F: Future<Output = Result<T>> + 'static,
{
    type Tasks = Vec<Task<T>>;
    type Values = Vec<T>;
    type Outcomes = Vec<Result<T>>;

    fn start(futures: Self) -> Self::Tasks {
        Vec::start(futures.into())
    }

    fn each(tasks: &Self::Tasks, f: &mut dyn FnMut(&AnyTask)) {
        Vec::<F>::each(tasks, f);
    }

    fn values(tasks: Self::Tasks) -> Result<Vec<T>> {
        Vec::<F>::values(tasks)
    }

    fn outcomes(tasks: Self::Tasks) -> Vec<Result<T>> {
        Vec::<F>::outcomes(tasks)
    }
}

macro_rules! tuples {
    ($(($($future:ident $value:ident $index:tt),+))+) => {$(
        impl<$($future, $value),+> Gatherable for ($($future,)+)
        where
            $(
                $value: 'static,
                $future: Future<Output = Result<$value>> + 'static,
            )+
        {
            type Tasks = ($(Task<$value>,)+);
            type Values = ($($value,)+);
            type Outcomes = ($(Result<$value>,)+);

            fn start(futures: Self) -> Self::Tasks {
                ($(ensure_future(futures.$index),)+)
            }

            fn each(tasks: &Self::Tasks, f: &mut dyn FnMut(&AnyTask)) {
                $(f(&tasks.$index);)+
            }

            fn values(mut tasks: Self::Tasks) -> Result<Self::Values> {
                Ok(($(tasks.$index.result()?,)+))
            }

            fn outcomes(mut tasks: Self::Tasks) -> Self::Outcomes {
                ($(tasks.$index.result(),)+)
            }
        }
    )+};
}

tuples! {
    (F0 T0 0)
    (F0 T0 0, F1 T1 1)
    (F0 T0 0, F1 T1 1, F2 T2 2)
    (F0 T0 0, F1 T1 1, F2 T2 2, F3 T3 3)
    (F0 T0 0, F1 T1 1, F2 T2 2, F3 T3 3, F4 T4 4)
    (F0 T0 0, F1 T1 1, F2 T2 2, F3 T3 3, F4 T4 4, F5 T5 5)
    (F0 T0 0, F1 T1 1, F2 T2 2, F3 T3 3, F4 T4 4, F5 T5 5, F6 T6 6)
    (F0 T0 0, F1 T1 1, F2 T2 2, F3 T3 3, F4 T4 4, F5 T5 5, F6 T6 6, F7 T7 7)
}
