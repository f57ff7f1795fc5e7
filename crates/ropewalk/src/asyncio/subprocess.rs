//! Child processes.
//!
//! The loop polls the pidfd of a child, and reaps the child when that tells its end, whether or not anybody waits. Where the system has
//! no pidfd (Linux before 5.3, or a sandbox that forbids it) a thread waits for the child and tells the loop by a pipe.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::process::{self, Child, Command, ExitStatus};
use std::rc::Rc;
use std::task::Poll;
use std::thread;

use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitOptions};

use super::error::{Error, Result};
use super::net::{StreamReader, StreamWriter, pipe_reader, pipe_writer};
use super::waiters::Waiters;
use super::{cancellable, current, get_running_loop};

/// What a standard stream of a child is.
#[derive(Debug)]
pub enum Stdio {
    /// This process's own (Python: `None`).
    Inherit,
    /// A pipe, whose other end the [`Process`] has.
    Pipe,
    /// Nothing: what is written is thrown away, and there is nothing to read.
    DevNull,
    /// The same as the child's standard output; for its standard error only.
    Stdout,
    /// A file, or whatever else has a descriptor.
    Fd(OwnedFd),
}

/// Starts a program (Python: `asyncio.create_subprocess_exec`).
///
/// The three streams replace those of the command. The loop stands still until the program has been started.
///
/// A child that is not waited for leaves no zombie: its loop reaps it, and when that is closed, a thread. Neither that nor dropping
/// the [`Process`] ends it: [`kill`](Process::kill) does.
///
/// # Errors
/// The system's (no such program: `NotFound`); outside a loop; [`Stdio::Stdout`] for another stream than standard error
/// (`InvalidInput`).
///
/// ```
/// use ropewalk::asyncio::{self, subprocess::Stdio};
/// use std::process::Command;
///
/// asyncio::run(async {
///     let mut sort = asyncio::create_subprocess_exec(
///         Command::new("sort").arg("-r"),
///         Stdio::Pipe,
///         Stdio::Pipe,
///         Stdio::Inherit,
///     )
///     .await?;
///     let (output, _) = sort.communicate(b"BR\nCN\n").await?;
///     assert_eq!(output, b"CN\nBR\n");
///     assert!(sort.wait().await?.success());
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub async fn create_subprocess_exec(
    command: &mut Command,
    stdin: Stdio,
    stdout: Stdio,
    stderr: Stdio,
) -> io::Result<Process> {
    let event_loop = get_running_loop()?;
    // All that can fail comes before the child is there, as far as it can.
    let (stdin, writer) = match stdin {
        Stdio::Pipe => {
            let (theirs, ours) = io::pipe()?;
            (Stdio::Fd(theirs.into()), Some(pipe_writer(ours)?))
        }
        stdin => (stdin, None),
    };
    let (stdout, output) = open(stdout)?;
    let (stderr, errors) = match (stderr, &stdout) {
        (Stdio::Stdout, Stdio::Fd(fd)) => (Stdio::Fd(fd.try_clone()?), None),
        (Stdio::Stdout, Stdio::DevNull) => (Stdio::DevNull, None),
        (Stdio::Stdout, _) => (Stdio::Stdout, None),
        (stderr, _) => open(stderr)?,
    };
    if matches!(stdin, Stdio::Stdout) || matches!(stdout, Stdio::Stdout) {
        let why = "Stdio::Stdout is for standard error only";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    let child = command.spawn();
    // The command would keep the child's ends of the pipes open.
    command
        .stdin(Stdio::Inherit)
        .stdout(Stdio::Inherit)
        .stderr(Stdio::Inherit);
    let mut child = child?;
    let pid = Pid::from_child(&child);
    let bell = rustix::process::pidfd_open(pid, PidfdFlags::empty());
    let bell = bell.or_else(|_| bell_by_thread(pid)).inspect_err(|_| {
        let _ = child.kill();
        let _ = child.wait();
    })?;
    let exit = Rc::new(Exit {
        pid,
        child: RefCell::new(child),
        bell,
        loop_id: current::loop_id(),
        waiters: Waiters::default(),
    });
    let process = Process {
        stdin: writer,
        stdout: output,
        stderr: errors,
        exit: exit.clone(),
    };
    let ended = move || {
        if !matches!(exit.poll(), Ok(None)) {
            let _ = get_running_loop().and_then(|event_loop| event_loop.remove_reader(&exit.bell));
            exit.waiters.tell_all(true);
        }
    };
    if let Err(error) = event_loop.add_reader(&process.exit.bell, ended) {
        let _ = process.kill();
        return Err(error.into());
    }
    Ok(process)
}

/// Has the shell, `/bin/sh`, run a line (Python: `asyncio.create_subprocess_shell`); otherwise as [`create_subprocess_exec`].
///
/// What comes from outside must be quoted for the shell, or given to a program as an argument.
///
/// # Errors
/// As [`create_subprocess_exec`].
///
/// ```
/// use ropewalk::asyncio::{self, subprocess::Stdio};
///
/// asyncio::run(async {
///     let line = "echo flag; echo no such flag >&2; exit 3";
///     let mut shell =
///         asyncio::create_subprocess_shell(line, Stdio::DevNull, Stdio::Pipe, Stdio::Stdout).await?;
///     let (output, _) = shell.communicate(b"").await?;
///     assert_eq!(output, b"flag\nno such flag\n");
///     assert_eq!(shell.wait().await?.code(), Some(3));
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub async fn create_subprocess_shell(
    line: impl AsRef<OsStr>,
    stdin: Stdio,
    stdout: Stdio,
    stderr: Stdio,
) -> io::Result<Process> {
    let mut shell = Command::new("/bin/sh");
    create_subprocess_exec(shell.arg("-c").arg(line), stdin, stdout, stderr).await
}

/// The child's end of an output stream, and ours.
fn open(stdio: Stdio) -> io::Result<(Stdio, Option<StreamReader>)> {
    match stdio {
        Stdio::Pipe => {
            let (ours, theirs) = io::pipe()?;
            Ok((Stdio::Fd(theirs.into()), Some(pipe_reader(ours)?)))
        }
        stdio => Ok((stdio, None)),
    }
}

impl From<Stdio> for process::Stdio {
    fn from(stdio: Stdio) -> Self {
        match stdio {
            Stdio::Inherit => Self::inherit(),
            Stdio::Pipe => Self::piped(),
            Stdio::DevNull => Self::null(),
            Stdio::Stdout => io::stdout().into(),
            Stdio::Fd(fd) => fd.into(),
        }
    }
}

/// A descriptor that is ready to be read once the child has ended, as a pidfd is. The child is not reaped.
pub(super) fn bell_by_thread(pid: Pid) -> io::Result<OwnedFd> {
    let (bell, open): (PipeReader, _) = io::pipe()?;
    // If somebody else has reaped the child, the thread ends at once, or with another child of the same number, which rings too
    // late for a child that nobody can wait for any more.
    reaper().spawn(move || {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let _ = retry_on_intr(|| rustix::process::waitid(WaitId::Pid(pid), options));
        drop(open);
    })?;
    Ok(bell.into())
}

/// A thread that waits for one child.
fn reaper() -> thread::Builder {
    thread::Builder::new()
        .name("asyncio-reaper".into())
        .stack_size(64 * 1024)
}

/// A child process (Python: `asyncio.subprocess.Process`), made by [`create_subprocess_exec`] and
/// [`create_subprocess_shell`].
///
/// Belongs to the loop on which it was made.
///
/// ```
/// use ropewalk::asyncio::{self, subprocess::Stdio};
/// use std::{os::unix::process::ExitStatusExt, process::Command};
///
/// asyncio::run(async {
///     let mut cat = asyncio::create_subprocess_exec(
///         &mut Command::new("cat"),
///         Stdio::Pipe,
///         Stdio::Pipe,
///         Stdio::Inherit,
///     )
///     .await?;
///     if let (Some(stdin), Some(stdout)) = (&mut cat.stdin, &mut cat.stdout) {
///         stdin.write(b"flag\n");
///         assert_eq!(stdout.readline().await?, b"flag\n");
///     }
///     assert_eq!(cat.returncode()?, None);
///     cat.terminate()?;
///     assert_eq!(cat.wait().await?.signal(), Some(asyncio::signal::SIGTERM));
///     Ok(())
/// })
/// # .unwrap();
/// ```
pub struct Process {
    /// What the child reads, if that is a [`Stdio::Pipe`]. Closed or taken out and dropped, it is at its end for the child.
    pub stdin: Option<StreamWriter>,
    /// What the child writes, if that is a pipe.
    pub stdout: Option<StreamReader>,
    /// What the child writes to its standard error, if that is a pipe.
    pub stderr: Option<StreamReader>,
    exit: Rc<Exit>,
}

/// The end of a child. Owned by the [`Process`] and, until the child has ended, by the loop.
struct Exit {
    pid: Pid,
    child: RefCell<Child>,
    /// Ready to be read once the child has ended.
    bell: OwnedFd,
    loop_id: u64,
    waiters: Waiters,
}

impl Exit {
    /// Reaps the child if it has ended.
    fn poll(&self) -> io::Result<Option<ExitStatus>> {
        self.child.borrow_mut().try_wait()
    }
}

impl Drop for Exit {
    fn drop(&mut self) {
        // It has outlived its loop. Without a thread it is the system that reaps it, when this process ends.
        if let Ok(None) = self.poll() {
            let pid = self.pid;
            let _ = reaper()
                .spawn(move || retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty())));
        }
    }
}

impl Process {
    /// The child's number; another process may have it once the child has ended.
    pub fn pid(&self) -> u32 {
        self.exit.pid.as_raw_nonzero().get() as u32
    }

    /// How the child has ended; none while it runs. (Python's number is the [`code`](ExitStatus::code), or minus the
    /// [`signal`](std::os::unix::process::ExitStatusExt::signal) that ended it.)
    ///
    /// # Errors
    /// Somebody else has reaped the child, or the process ignores `SIGCHLD`.
    pub fn returncode(&self) -> io::Result<Option<ExitStatus>> {
        self.exit.poll()
    }

    /// Waits until the child has ended. Several tasks may wait.
    ///
    /// A child that writes more into a pipe than that holds ends only if somebody reads it:
    /// [`communicate`](Process::communicate) does.
    ///
    /// # Errors
    /// As [`returncode`](Process::returncode); the cancellation of the task, after which it can be called again; on another loop.
    pub async fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.exit.poll()? {
                return Ok(status);
            }
            if current::loop_id() != self.exit.loop_id {
                return Err(io::Error::other("the process belongs to another event loop"));
            }
            cancellable(self.exit.waiters.wait(|_| ())).await?;
        }
    }

    /// Writes `input` and closes the child's standard input, reads its output and errors to their ends, all at the same time, and
    /// waits until it has ended. What is no pipe comes out empty.
    ///
    /// A child that does not read all of `input` is no error, as in Python. A cancellation loses nothing: `input` is on its way, and
    /// what was read comes out of the next call, which is given none.
    ///
    /// # Errors
    /// The system's; the cancellation of the task; input for a child without a pipe to its standard input.
    ///
    /// # Panics
    /// Outside a loop.
    pub async fn communicate(&mut self, input: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
        if self.stdin.is_none() && !input.is_empty() {
            return Err(Error::misuse("the standard input of the process is no pipe"));
        }
        all([
            Some(pin!(feed(&mut self.stdin, input))),
            Some(pin!(fill(&mut self.stdout))),
            Some(pin!(fill(&mut self.stderr))),
        ])
        .await?;
        self.wait().await?;
        Ok((taken(&mut self.stdout).await?, taken(&mut self.stderr).await?))
    }

    /// Sends the child a signal.
    ///
    /// # Errors
    /// The child has ended: `ESRCH` (Python: `ProcessLookupError`). The system's: no such signal, no permission.
    pub fn send_signal(&self, signal: i32) -> io::Result<()> {
        if self.exit.poll()?.is_some() {
            return Err(rustix::io::Errno::SRCH.into());
        }
        // SAFETY: a system call on numbers. The child is not reaped, so its number is no other process's.
        match unsafe { libc::kill(self.exit.pid.as_raw_nonzero().get(), signal) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Asks the child to end, by `SIGTERM`.
    ///
    /// # Errors
    /// As [`send_signal`](Process::send_signal).
    pub fn terminate(&self) -> io::Result<()> {
        self.send_signal(libc::SIGTERM)
    }

    /// Ends the child, by `SIGKILL`.
    ///
    /// # Errors
    /// As [`send_signal`](Process::send_signal).
    pub fn kill(&self) -> io::Result<()> {
        self.send_signal(libc::SIGKILL)
    }
}

type Part<'a> = Pin<&'a mut dyn Future<Output = Result<()>>>;

/// Runs parts of a task at the same time, until all are done or one fails.
async fn all(mut parts: [Option<Part<'_>>; 3]) -> Result<()> {
    poll_fn(|cx| -> Poll<Result<()>> {
        for place in &mut parts {
            if let Some(part) = place
                && part.as_mut().poll(cx)?.is_ready()
            {
                *place = None;
            }
        }
        match parts.iter().all(Option::is_none) {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    })
    .await
}

async fn feed(stdin: &mut Option<StreamWriter>, input: &[u8]) -> Result<()> {
    let Some(stdin) = stdin else { return Ok(()) };
    stdin.write(input);
    let outcome = stdin.drain().await;
    if let Err(error) = &outcome
        && error.is_cancelled()
    {
        return outcome;
    }
    stdin.close();
    match outcome {
        Err(error) if !is_broken_pipe(&error) => Err(error),
        _ => Ok(()),
    }
}

fn is_broken_pipe(error: &Error) -> bool {
    let error: Option<&io::Error> = error.downcast_ref();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn fill(stream: &mut Option<StreamReader>) -> Result<()> {
    match stream {
        Some(stream) => stream.fill_to_end().await,
        None => Ok(()),
    }
}

/// What is in the buffer of a stream that is at its end.
async fn taken(stream: &mut Option<StreamReader>) -> Result<Vec<u8>> {
    match stream {
        Some(stream) => stream.read_to_end().await,
        None => Ok(Vec::new()),
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<Process {}>", self.pid())
    }
}
