//! Ctrl-C while `asyncio::run` runs. It is the business of a process's main thread, which tests do not run in, and may end the
//! process: each case is a process of its own, in which this program runs the case in its main thread.
#![allow(clippy::unwrap_used)]

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() {
    cases::main();
}

#[cfg(target_os = "linux")]
mod cases {
    use std::cell::Cell;
    use std::future::pending;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Command, ExitStatus, Stdio};
    use std::rc::Rc;
    use std::time::Duration;

    use libc::SIGINT;
    use ropewalk::asyncio::{self, Event, Runner, cancellable};

    const HOUR: Duration = Duration::from_secs(3600);

    /// What a case is called, what it does, and how its process ends.
    const CASES: [(&str, fn(), End); 13] = [
        ("the_main_task_is_cancelled_and_cleans_up", cleans_up, End::Well),
        ("a_loop_that_sleeps_is_woken", wakes, End::Well),
        (
            "the_tasks_that_are_left_clean_up_after_it",
            others_clean_up,
            End::Well,
        ),
        (
            "the_second_ends_the_process_during_the_clean_up",
            second,
            End::Interrupted,
        ),
        (
            "the_second_ends_a_loop_that_is_held_up",
            held_up,
            End::Interrupted,
        ),
        ("a_task_that_keeps_the_request_gives_its_value", kept, End::Well),
        (
            "a_request_of_somebody_else_is_told_as_that",
            cancelled_too,
            End::Well,
        ),
        ("one_that_comes_too_late_is_told_all_the_same", late, End::Well),
        ("a_handler_of_the_loop_comes_instead", own_handler, End::Well),
        ("each_run_handles_it_and_leaves_it_as_it_was", put_back, End::Well),
        ("a_handler_that_was_there_stays", earlier_handler, End::Well),
        ("a_run_in_another_thread_leaves_it_alone", other_thread, End::Well),
        (
            "the_default_acts_when_nothing_runs",
            nothing_runs,
            End::Interrupted,
        ),
    ];

    #[derive(Clone, Copy, Debug)]
    enum End {
        Well,
        /// By SIGINT.
        Interrupted,
    }

    impl End {
        fn is(self, status: ExitStatus) -> bool {
            match self {
                Self::Well => status.success(),
                Self::Interrupted => status.signal() == Some(SIGINT),
            }
        }
    }

    pub(super) fn main() {
        let argument = std::env::args().nth(1);
        if let Some((_, case, _)) = CASES.iter().find(|(name, ..)| argument.as_deref() == Some(name)) {
            // SAFETY: a case that hangs ends by the default action of SIGALRM.
            unsafe { libc::alarm(60) };
            return case();
        }
        let mut failed = 0;
        for (name, _, end) in CASES {
            // Arguments that choose tests are heeded, those for the harness are not.
            let chosen = argument
                .as_ref()
                .is_none_or(|word| word.starts_with('-') || name.contains(word));
            if !chosen {
                continue;
            }
            let mut child = Command::new(std::env::current_exe().unwrap());
            // SAFETY: one system call. The signal may be ignored here, in a job in the background, and the child would inherit that.
            unsafe {
                child.pre_exec(|| {
                    libc::signal(SIGINT, libc::SIG_DFL);
                    Ok(())
                })
            };
            let output = child.arg(name).stdout(Stdio::null()).output().unwrap();
            let ended = end.is(output.status);
            println!("test {name} ... {}", if ended { "ok" } else { "FAILED" });
            if !ended {
                failed += 1;
                let error = String::from_utf8_lossy(&output.stderr);
                println!("expected {end:?}, but: {}\n{error}", output.status);
            }
        }
        assert_eq!(failed, 0, "cases that failed");
    }

    /// Ctrl-C, handled before this returns.
    fn press() {
        // SAFETY: a signal to this thread.
        unsafe { libc::raise(SIGINT) };
    }

    fn is_default() -> bool {
        // SAFETY: all zeros is a `sigaction`, which the call fills.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(SIGINT, std::ptr::null(), &mut action);
            action.sa_sigaction == libc::SIG_DFL
        }
    }

    fn cleans_up() {
        let cleaned = Rc::new(Cell::new(false));
        let seen = cleaned.clone();
        let outcome = asyncio::run(async move {
            press();
            let outcome = asyncio::sleep(HOUR).await;
            asyncio::sleep(Duration::from_millis(1)).await?;
            cleaned.set(true);
            Ok(outcome?)
        });
        let error = outcome.unwrap_err();
        assert!(error.is_keyboard_interrupt() && !error.is_cancelled());
        assert_eq!(error.to_string(), "interrupted by Ctrl-C");
        assert!(seen.get() && is_default());
    }

    fn wakes() {
        let process = std::process::id();
        let outcome = asyncio::run::<(), _>(async move {
            let thread = std::thread::spawn(move || {
                // Sleeping or not by then, the loop notices.
                // SAFETY: a signal to this process.
                unsafe { libc::kill(process as i32, SIGINT) }
            });
            let outcome = cancellable(pending()).await;
            assert_eq!(thread.join().unwrap(), 0);
            Ok(outcome?)
        });
        assert!(outcome.unwrap_err().is_keyboard_interrupt());
    }

    fn others_clean_up() {
        let cleaned = Rc::new(Cell::new(false));
        let seen = cleaned.clone();
        let outcome = asyncio::run::<(), _>(async move {
            drop(asyncio::create_task::<(), _>(async move {
                let outcome = asyncio::sleep(HOUR).await;
                asyncio::sleep(Duration::from_millis(1)).await?;
                cleaned.set(true);
                Err(outcome.unwrap_err().into())
            }));
            asyncio::sleep(Duration::ZERO).await?;
            press();
            Ok(cancellable(pending()).await?)
        });
        assert!(outcome.unwrap_err().is_keyboard_interrupt());
        assert!(seen.get());
    }

    fn second() {
        let _ = asyncio::run::<(), _>(async {
            press();
            assert!(asyncio::sleep(HOUR).await.is_err());
            press();
            panic!("the process goes on");
        });
    }

    fn held_up() {
        let _ = asyncio::run::<(), _>(async {
            press();
            press();
            panic!("the process goes on");
        });
    }

    fn kept() {
        let value = asyncio::run(async {
            press();
            assert!(asyncio::sleep(HOUR).await.is_err());
            Ok(7)
        });
        assert_eq!(value.unwrap(), 7);
    }

    fn cancelled_too() {
        let outcome = asyncio::run(async {
            press();
            asyncio::current_task().unwrap().cancel();
            asyncio::sleep(HOUR).await.unwrap_err();
            Ok(asyncio::sleep(HOUR).await?)
        });
        assert!(outcome.unwrap_err().is_cancelled());
    }

    fn late() {
        let outcome = asyncio::run(async {
            press();
            Ok(())
        });
        assert!(outcome.unwrap_err().is_keyboard_interrupt());
        let outcome = asyncio::run(async {
            asyncio::current_task().unwrap().add_done_callback(|_| press());
            Ok(())
        });
        assert!(outcome.unwrap_err().is_keyboard_interrupt());
    }

    fn own_handler() {
        asyncio::run(async {
            let event_loop = asyncio::get_running_loop()?;
            assert!(
                !event_loop.remove_signal_handler(SIGINT)?,
                "what `run` does is no handler of ours"
            );
            let stop = Rc::new(Event::new());
            let stopper = stop.clone();
            event_loop.add_signal_handler(SIGINT, move || stopper.set())?;
            for _ in 0..3 {
                press();
                stop.wait().await?;
                stop.clear();
            }
            assert!(event_loop.remove_signal_handler(SIGINT)?);
            assert!(is_default());
            Ok(())
        })
        .unwrap();
    }

    fn put_back() {
        let runner = Runner::new().unwrap();
        for _ in 0..3 {
            assert!(!runner.run(async { Ok(is_default()) }).unwrap());
            assert!(is_default());
            let outcome = runner.run(async {
                press();
                Ok(asyncio::sleep(HOUR).await?)
            });
            assert!(outcome.unwrap_err().is_keyboard_interrupt());
            assert!(is_default());
        }
        let panicked = std::panic::catch_unwind(|| asyncio::run::<(), _>(async { panic!("as it may") }));
        assert!(panicked.is_err() && is_default());
    }

    fn earlier_handler() {
        static CALLS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        extern "C" fn count(_: libc::c_int) {
            CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        let twice = async || {
            press();
            press();
            Ok(asyncio::sleep(Duration::from_millis(1)).await?)
        };
        // SAFETY: the handler does what a handler may.
        unsafe { libc::signal(SIGINT, count as extern "C" fn(libc::c_int) as libc::sighandler_t) };
        asyncio::run(twice()).unwrap();
        assert_eq!(CALLS.load(std::sync::atomic::Ordering::Relaxed), 2);
        // SAFETY: the signal is ignored.
        unsafe { libc::signal(SIGINT, libc::SIG_IGN) };
        asyncio::run(twice()).unwrap();
        // One that comes during the run stays after it.
        // SAFETY: as above.
        unsafe { libc::signal(SIGINT, libc::SIG_DFL) };
        asyncio::run(async move {
            // SAFETY: as above.
            unsafe { libc::signal(SIGINT, libc::SIG_IGN) };
            twice().await
        })
        .unwrap();
        assert!(!is_default());
        press();
    }

    fn other_thread() {
        let thread = std::thread::spawn(|| asyncio::run(async { Ok(is_default()) }).unwrap());
        assert!(thread.join().unwrap());
    }

    fn nothing_runs() {
        asyncio::run(async { Ok(()) }).unwrap();
        press();
        panic!("the process goes on");
    }
}
