use super::*;
use crate::asyncio::signal::{SIGTERM, SIGUSR1};
use crate::asyncio::subprocess::{Process, Stdio, bell_by_thread};
use crate::asyncio::{create_subprocess_exec, create_subprocess_shell};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

/// A shell with pipes to all its streams.
async fn shell(line: &str) -> Result<Process> {
    Ok(create_subprocess_shell(line, Stdio::Pipe, Stdio::Pipe, Stdio::Pipe).await?)
}

/// A child that ends when its standard input does.
async fn cat() -> Result<Process> {
    Ok(create_subprocess_exec(&mut Command::new("cat"), Stdio::Pipe, Stdio::Pipe, Stdio::Inherit).await?)
}

#[test]
fn a_child_gets_arguments_and_its_status_comes_back() {
    asyncio::run(async {
        let process = create_subprocess_exec(
            Command::new("sh").args(["-c", "exit $1", "sh", "7"]),
            Stdio::DevNull,
            Stdio::DevNull,
            Stdio::DevNull,
        )
        .await?;
        assert!(process.stdin.is_none() && process.stdout.is_none() && process.stderr.is_none());
        let status = process.wait().await?;
        assert_eq!(status.code(), Some(7));
        assert_eq!(process.returncode()?, Some(status));
        assert_eq!(process.wait().await?, status, "again");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_child_is_talked_to_line_by_line() {
    asyncio::run(async {
        let mut process = cat().await?;
        assert_eq!(process.returncode()?, None);
        let (mut stdin, mut stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        for line in [&b"BR\n"[..], b"CN\n"] {
            stdin.write(line);
            stdin.drain().await?;
            assert_eq!(stdout.readline().await?, line);
        }
        stdin.close();
        assert_eq!(stdout.readline().await?, b"");
        assert!(process.wait().await?.success());
        stdin.write(b"late");
        let error = std::io::Error::from(stdin.drain().await.unwrap_err());
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        Ok(())
    })
    .unwrap();
}

#[test]
fn what_is_far_more_than_pipes_hold_goes_both_ways() {
    asyncio::run(async {
        let input: Vec<u8> = (0..4_000_000u32).map(|number| (number % 251) as u8).collect();
        let (output, errors) = shell("tee /dev/stderr").await?.communicate(&input).await?;
        assert!(output == input && errors == input);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_child_that_does_not_read_its_input_is_no_error() {
    asyncio::run(async {
        let mut process = shell("exec <&-; echo flag; exit 3").await?;
        let (output, errors) = process.communicate(&[b'x'; 1_000_000]).await?;
        assert_eq!((&output[..], &errors[..]), (&b"flag\n"[..], &b""[..]));
        assert_eq!(process.wait().await?.code(), Some(3));
        let (output, _) = process.communicate(b"").await?;
        assert_eq!(output, b"", "it was given out");
        Ok(())
    })
    .unwrap();
}

#[test]
fn errors_go_where_the_output_goes() {
    const LINE: &str = "echo one; echo two >&2; echo three";
    let path = std::env::temp_dir().join(format!("ropewalk-subprocess-{}", std::process::id()));
    let file = path.clone();
    asyncio::run(async move {
        let mut piped = create_subprocess_shell(LINE, Stdio::DevNull, Stdio::Pipe, Stdio::Stdout).await?;
        assert_eq!(
            piped.communicate(b"").await?,
            (b"one\ntwo\nthree\n".to_vec(), vec![])
        );
        let to_file = Stdio::Fd(File::create(&file)?.into());
        let mut filed = create_subprocess_shell(LINE, Stdio::DevNull, to_file, Stdio::Stdout).await?;
        assert_eq!(filed.communicate(b"").await?, (vec![], vec![]));
        assert_eq!(std::fs::read(&file)?, b"one\ntwo\nthree\n");
        let from_file = Stdio::Fd(File::open(&file)?.into());
        let mut read = create_subprocess_shell("cat", from_file, Stdio::Pipe, Stdio::DevNull).await?;
        assert_eq!(read.communicate(b"").await?.0, b"one\ntwo\nthree\n");
        let nowhere = create_subprocess_shell("echo lost >&2", Stdio::DevNull, Stdio::DevNull, Stdio::Stdout);
        assert!(nowhere.await?.wait().await?.success());
        Ok(())
    })
    .unwrap();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_cannot_be_started_is_an_error() {
    fn exec(program: &str) -> impl Future<Output = std::io::Result<Process>> {
        let mut command = Command::new(program);
        async move { create_subprocess_exec(&mut command, Stdio::Pipe, Stdio::Pipe, Stdio::Pipe).await }
    }
    asyncio::run(async {
        let missing = exec("/no/such/program").await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        let directory = exec("/").await.unwrap_err();
        assert_eq!(directory.kind(), ErrorKind::PermissionDenied);
        for (stdin, stdout) in [(Stdio::Stdout, Stdio::Pipe), (Stdio::Pipe, Stdio::Stdout)] {
            let error = create_subprocess_shell("true", stdin, stdout, Stdio::Stdout).await;
            assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        let mut process =
            create_subprocess_shell("true", Stdio::DevNull, Stdio::Pipe, Stdio::Inherit).await?;
        assert!(process.communicate(b"input").await.unwrap_err().is_misuse());
        assert!(process.wait().await?.success());
        Ok(())
    })
    .unwrap();
    let outside =
        std::pin::pin!(exec("true")).poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    assert!(matches!(outside, std::task::Poll::Ready(Err(_))));
}

#[test]
fn signals_end_children_and_are_told_until_they_have_ended() {
    asyncio::run(async {
        let (terminated, killed, told) = (cat().await?, cat().await?, cat().await?);
        terminated.terminate()?;
        killed.kill()?;
        told.send_signal(SIGUSR1)?;
        for (process, signal) in [(terminated, SIGTERM), (killed, libc::SIGKILL), (told, SIGUSR1)] {
            let status = process.wait().await?;
            assert_eq!((status.code(), status.signal()), (None, Some(signal)));
            let error = process.kill().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
        }
        let process = cat().await?;
        assert_eq!(
            process.send_signal(-1).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        process.kill()?;
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_cancelled_wait_leaves_the_others_and_can_be_made_again() {
    asyncio::run(async {
        let mut process = cat().await?;
        let stdin = process.stdin.take();
        let process = Rc::new(process);
        let wait = || {
            let process = process.clone();
            asyncio::create_task(async move { Ok(process.wait().await?.success()) })
        };
        let (first, second, third) = (wait(), wait(), wait());
        turns(2).await?;
        first.cancel();
        assert!(first.await.unwrap_err().is_cancelled());
        drop(stdin);
        assert!(second.await? && third.await? && process.wait().await?.success());
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_cancelled_communicate_loses_nothing() {
    asyncio::run(async {
        let line = "printf one; exec >&-; printf two >&2; read line; printf \"$line\" >&2";
        let mut process = shell(line).await?;
        let mut stdin = process.stdin.take().unwrap();
        let shared = Rc::new(RefCell::new(Some(process)));
        let states = ["Some(<StreamReader 3 bytes eof>)", "Some(<StreamReader 3 bytes>)"];
        loop {
            let slot = shared.clone();
            let task = asyncio::create_task(async move {
                let mut process = slot.take().unwrap();
                let outcome = process.communicate(b"").await;
                slot.replace(Some(process));
                outcome
            });
            turns(5).await?;
            task.cancel();
            assert!(task.await.unwrap_err().is_cancelled());
            let process = shared.borrow();
            let Process { stdout, stderr, .. } = process.as_ref().unwrap();
            if [format!("{stdout:?}"), format!("{stderr:?}")] == states {
                break; // one stream was read to its end, the other was not
            }
        }
        let mut process = shared.take().unwrap();
        stdin.write(b"three\n");
        assert_eq!(
            process.communicate(b"").await?,
            (b"one".to_vec(), b"twothree".to_vec())
        );
        Ok(())
    })
    .unwrap();
}

fn exists(pid: u32) -> bool {
    PathBuf::from(format!("/proc/{pid}")).exists()
}

#[test]
fn a_child_that_nobody_waits_for_is_reaped_by_its_loop() {
    asyncio::run(async {
        let mut dropped = cat().await?;
        let (stdin, pid) = (dropped.stdin.take(), dropped.pid());
        drop(dropped);
        let kept = shell("exit 3").await?;
        turns(3).await?;
        assert!(exists(pid), "dropping it does not end it");
        drop(stdin);
        while exists(pid) || exists(kept.pid()) {
            asyncio::sleep(Duration::from_millis(1)).await?;
        }
        assert_eq!(kept.returncode()?.unwrap().code(), Some(3));
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_child_that_outlives_its_loop_is_reaped_and_cannot_be_waited_for_on_another() {
    let mut held = asyncio::run(cat()).unwrap();
    let (pid, stdin) = asyncio::run(async {
        let mut process = cat().await?;
        Ok((process.pid(), process.stdin.take()))
    })
    .unwrap();
    assert!(exists(pid));
    drop(stdin);
    while exists(pid) {
        std::thread::yield_now();
    }
    asyncio::run(async move {
        let error = held.wait().await.unwrap_err();
        assert!(error.to_string().contains("another event loop"));
        held.kill()?;
        drop(held.stdin.take());
        let pid = held.pid();
        drop(held);
        while exists(pid) {
            std::thread::yield_now();
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn without_pidfd_a_thread_tells_the_end_and_leaves_the_child_to_be_reaped() {
    let mut child = Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut bell = File::from(bell_by_thread(rustix::process::Pid::from_child(&child)).unwrap());
    assert_eq!(child.try_wait().unwrap(), None);
    drop(child.stdin.take());
    assert_eq!(bell.read(&mut [0; 1]).unwrap(), 0);
    assert!(child.try_wait().unwrap().unwrap().success());
}

#[test]
fn errors_go_to_an_inherited_standard_output() {
    const NAME: &str = "asyncio::tests::subprocess::errors_go_to_an_inherited_standard_output";
    if std::env::var_os("ROPEWALK_INHERITED").is_some() {
        asyncio::run(async {
            let child =
                create_subprocess_shell("echo flag >&2", Stdio::DevNull, Stdio::Inherit, Stdio::Stdout);
            assert!(child.await?.wait().await?.success());
            Ok(())
        })
        .unwrap();
        return;
    }
    // A process whose standard output nobody else writes to.
    let mut inner = Command::new(std::env::current_exe().unwrap());
    let inner = inner.args([NAME, "--exact"]).env("ROPEWALK_INHERITED", "1");
    let output = inner.output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{out}{err}");
    assert!(out.lines().any(|line| line.ends_with("flag")), "{out}");
    assert!(!err.contains("flag"), "{err}");
}
