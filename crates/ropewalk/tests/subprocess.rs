//! What children leave behind, in a process of its own: other tests open descriptors and have children as well.
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used)]

use ropewalk::asyncio::{self, subprocess::Stdio};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_thousand_children_leave_no_descriptor_and_no_zombie() {
    asyncio::run(async {
        let before = descriptors();
        for number in 0..1000 {
            let mut process =
                asyncio::create_subprocess_shell("read line", Stdio::Pipe, Stdio::Pipe, Stdio::Pipe).await?;
            match number % 3 {
                0 => drop(process.communicate(b"flag\n").await?),
                1 => {
                    process.kill()?;
                    process.wait().await?;
                }
                _ => drop(process), // its standard input ends, and the loop reaps it
            }
        }
        // Those that were dropped may take a while. No child at all is left then, not even a zombie.
        // SAFETY: a system call; nobody else in this process waits for children by number.
        while unsafe {
            libc::waitid(
                libc::P_ALL,
                0,
                std::ptr::null_mut(),
                libc::WEXITED | libc::WNOHANG | libc::WNOWAIT,
            )
        } == 0
        {
            asyncio::sleep(std::time::Duration::from_millis(1)).await?;
        }
        // One that was reaped by a wait the loop hears of when it polls next.
        asyncio::sleep(std::time::Duration::from_millis(1)).await?;
        assert_eq!(descriptors(), before);
        Ok(())
    })
    .unwrap();
}
