use super::*;
use crate::asyncio::signal::{SIGUSR2, SIGWINCH};
use std::cell::Cell;

fn raise(signal: i32) {
    // SAFETY: sends this process a signal that a test handles, or that is ignored.
    assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
}

/// Whether the signal has the disposition that it has in a new process.
fn is_default(signal: i32) -> bool {
    // SAFETY: all zeros is a `sigaction`, which the call fills.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action);
        action.sa_sigaction == libc::SIG_DFL
    }
}

#[test]
fn a_signal_calls_back_on_the_loop_even_while_it_sleeps() {
    asyncio::run(async {
        let event_loop = asyncio::get_running_loop()?;
        let calls = Rc::new(Cell::new(0));
        let seen = calls.clone();
        event_loop.add_signal_handler(SIGUSR2, move || seen.set(seen.get() + 1))?;
        for expected in 1..4 {
            // From another thread, so that the loop may be asleep by then.
            asyncio::to_thread(|| raise(SIGUSR2)).await?;
            while calls.get() < expected {
                asyncio::sleep(Duration::from_millis(1)).await?;
            }
            assert_eq!(calls.get(), expected);
        }
        // Another loop cannot have it meanwhile, and a second callback replaces the first.
        let refused = asyncio::to_thread(|| {
            let other = asyncio::EventLoop::new().unwrap();
            other.add_signal_handler(SIGUSR2, || ()).unwrap_err().is_misuse()
        });
        assert!(refused.await?);
        let replaced = Rc::new(Cell::new(false));
        let seen = replaced.clone();
        event_loop.add_signal_handler(SIGUSR2, move || seen.set(true))?;
        raise(SIGUSR2);
        while !replaced.get() {
            asyncio::sleep(Duration::ZERO).await?;
        }
        assert_eq!(calls.get(), 3);
        Ok(())
    })
    .unwrap();
    assert!(is_default(SIGUSR2), "put back with the end of the loop");
}

#[test]
fn a_handler_that_is_removed_leaves_the_signal_as_it_was() {
    asyncio::run(async {
        let event_loop = asyncio::get_running_loop()?;
        assert!(!event_loop.remove_signal_handler(SIGWINCH)?);
        event_loop.add_signal_handler(SIGWINCH, || panic!("removed"))?;
        assert!(!is_default(SIGWINCH));
        assert!(event_loop.remove_signal_handler(SIGWINCH)?);
        assert!(is_default(SIGWINCH));
        raise(SIGWINCH); // ignored, as in any process
        turns(3).await
    })
    .unwrap();
}

#[test]
fn what_nobody_can_handle_is_an_error() {
    let event_loop = asyncio::EventLoop::new().unwrap();
    for signal in [libc::SIGKILL, libc::SIGSEGV, 0, -1, 1000] {
        assert!(event_loop.add_signal_handler(signal, || ()).is_err(), "{signal}");
    }
}
