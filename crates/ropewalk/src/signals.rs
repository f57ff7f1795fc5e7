//! Which thread signals go to.

use std::mem::MaybeUninit;

fn set_mask(
    how: libc::c_int,
    fill: unsafe extern "C" fn(*mut libc::sigset_t) -> libc::c_int,
) -> libc::sigset_t {
    let mut mask = MaybeUninit::uninit();
    let mut old = MaybeUninit::uninit();
    // SAFETY: both point to memory for a mask; `fill` and `pthread_sigmask` write one and fail for no valid argument.
    unsafe {
        fill(mask.as_mut_ptr());
        libc::pthread_sigmask(how, mask.as_ptr(), old.as_mut_ptr());
        old.assume_init()
    }
}

/// Runs `f` with all signals blocked: a thread that it starts never gets one, so that the program's handlers run in
/// the program's own threads.
pub fn blocked<T>(f: impl FnOnce() -> T) -> T {
    let old = set_mask(libc::SIG_BLOCK, libc::sigfillset);
    let value = f();
    // SAFETY: restores the mask that `set_mask` returned.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut()) };
    value
}

/// Lets this thread get signals, whatever mask the process was started with.
#[cfg(target_os = "linux")]
pub(crate) fn unblock_all() {
    set_mask(libc::SIG_UNBLOCK, libc::sigfillset);
}
