//! Many of everything at once, tasks, timers, connections, and nothing left of them.
//!
//! A program of its own: it counts what is allocated, and ten thousand connections want most of the descriptors of two
//! processes, this and its server.
#![allow(clippy::unwrap_used)]

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() {
    cases::main();
}

#[cfg(target_os = "linux")]
mod cases {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::{Cell, RefCell};
    use std::io::{BufRead, BufReader};
    use std::net::SocketAddr;
    use std::process::{Child, Command, Stdio};
    use std::rc::Rc;
    use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};
    use std::sync::mpsc;
    use std::task::{Poll, Waker};
    use std::time::Duration;

    use ropewalk::asyncio::{self, Event, Runner, net, testing};

    const CASES: [(&str, fn()); 4] = [
        ("a_million_tasks_at_once", tasks),
        ("nothing_is_left_of_tasks_whose_wakers_others_hold", wakers),
        ("a_hundred_thousand_timers_at_once", timers),
        ("ten_thousand_connections_at_once", connections),
    ];

    /// Counts the bytes that are in use.
    struct Counted;

    #[global_allocator]
    static COUNTED: Counted = Counted;
    static IN_USE: AtomicIsize = AtomicIsize::new(0);

    // SAFETY: the system's allocator, by the default methods as well.
    unsafe impl GlobalAlloc for Counted {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            IN_USE.fetch_add(layout.size() as isize, Relaxed);
            // SAFETY: the caller's contract.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
            IN_USE.fetch_sub(layout.size() as isize, Relaxed);
            // SAFETY: the caller's contract.
            unsafe { System.dealloc(memory, layout) }
        }
    }

    /// Runs a program, and then again: all that the second time allocates it gives back.
    fn leaves_nothing(program: impl Fn()) {
        program();
        let before = IN_USE.load(Relaxed);
        program();
        assert_eq!(IN_USE.load(Relaxed), before, "bytes in use");
    }

    pub(super) fn main() {
        let argument = std::env::args().nth(1);
        if argument.as_deref() == Some("server") {
            return serve();
        }
        for (name, case) in CASES {
            let chosen = argument
                .as_ref()
                .is_none_or(|word| word.starts_with('-') || name.contains(word));
            if chosen {
                print!("test {name} ... ");
                case();
                println!("ok");
            }
        }
    }

    fn tasks() {
        leaves_nothing(|| many_tasks(10));
        leaves_nothing(|| many_tasks(1_000_000));
    }

    fn many_tasks(count: usize) {
        asyncio::run(async move {
            let (begun, go) = (Rc::new(Cell::new(0)), Rc::new(Event::new()));
            let tasks: Vec<_> = (0..count)
                .map(|number| {
                    let (begun, go) = (begun.clone(), go.clone());
                    asyncio::create_task(async move {
                        begun.set(begun.get() + 1);
                        go.wait().await?;
                        Ok(number)
                    })
                })
                .collect();
            asyncio::sleep(Duration::ZERO).await?;
            assert_eq!(begun.get(), count);
            assert_eq!(asyncio::all_tasks().len(), count + 1);
            go.set();
            for (number, task) in tasks.into_iter().enumerate() {
                assert_eq!(task.await?, number);
            }
            assert_eq!(asyncio::all_tasks().len(), 1);
            Ok(())
        })
        .unwrap();
    }

    /// The wakers are cloned, called and dropped in another thread: some while the tasks run, the others when the loop is gone.
    fn wakers() {
        const COUNT: usize = 1000;
        leaves_nothing(|| {
            let (sender, wakers) = mpsc::channel::<Waker>();
            let (go, gone) = mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                let kept: Vec<_> = wakers
                    .iter()
                    .take(COUNT)
                    .map(|waker| {
                        waker.wake_by_ref();
                        [waker.clone(), waker]
                    })
                    .collect();
                assert!(gone.recv().is_err(), "the loop is gone");
                for [one, other] in kept {
                    one.wake();
                    drop(other);
                }
            });
            asyncio::run(async move {
                let tasks: Vec<_> = (0..COUNT)
                    .map(|number| {
                        let mut sender = Some(sender.clone());
                        asyncio::create_task(async move {
                            let text = number.to_string();
                            std::future::poll_fn(|cx| match sender.take() {
                                Some(sender) => {
                                    sender.send(cx.waker().clone()).unwrap();
                                    Poll::Pending
                                }
                                None => Poll::Ready(()),
                            })
                            .await;
                            Ok(text)
                        })
                    })
                    .collect();
                // Every other outcome has nobody who asks for it.
                for (number, task) in tasks.into_iter().enumerate().step_by(2) {
                    assert_eq!(task.await?, number.to_string());
                }
                Ok(())
            })
            .unwrap();
            drop(go);
            thread.join().unwrap();
        });
    }

    /// On a clock that stands still while anything is ready: half of them wake, by deadline, and half are cancelled.
    fn timers() {
        const COUNT: usize = 100_000;
        let runner = Runner::with_loop(testing::virtual_clock().unwrap());
        let woken = runner.run(async {
            let woken = Rc::new(RefCell::new(Vec::new()));
            let tasks: Vec<_> = (0..COUNT)
                .map(|number| {
                    let woken = woken.clone();
                    // Each deadline once, and in no order: the factor and the count have no divisor in common.
                    let milliseconds = (number * 61_803 % COUNT) as u64 + 1;
                    asyncio::create_task(async move {
                        asyncio::sleep(Duration::from_millis(milliseconds)).await?;
                        woken.borrow_mut().push(milliseconds);
                        Ok(())
                    })
                })
                .collect();
            asyncio::sleep(Duration::ZERO).await?;
            for task in tasks.iter().skip(1).step_by(2) {
                task.cancel();
            }
            for (number, task) in tasks.into_iter().enumerate() {
                assert_eq!(task.await.is_err(), number % 2 == 1);
            }
            Ok(woken.take())
        });
        let woken = woken.unwrap();
        assert_eq!(woken.len(), COUNT / 2);
        assert!(woken.is_sorted());
    }

    fn connections() {
        // The server inherits the limit. Few others are open in either process.
        let count = allow_descriptors(10_100).saturating_sub(100).min(10_000);
        if count < 10_000 {
            print!("(only {count}: the limit of open files is low) ");
        }
        let mut server = Command::new(std::env::current_exe().unwrap());
        let server = server.arg("server").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = Server(server.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(server.0.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address: SocketAddr = line.trim().parse().unwrap();
        asyncio::run(async move {
            let (connected, go) = (Rc::new(Cell::new(0)), Rc::new(Event::new()));
            let clients: Vec<_> = (0..count)
                .map(|number| {
                    let (connected, go) = (connected.clone(), go.clone());
                    asyncio::create_task(async move {
                        let stream = net::TcpStream::connect(address).await?;
                        for round in 0..3 {
                            let sent = (number + round).to_le_bytes();
                            let mut received = [0; 8];
                            stream.write_all(&sent).await?;
                            stream.read_exact(&mut received).await?;
                            assert_eq!(received, sent);
                            if round == 0 {
                                connected.set(connected.get() + 1);
                                if connected.get() == count {
                                    go.set();
                                }
                                go.wait().await?; // so that all of them are open
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            asyncio::gather(clients).await?;
            assert_eq!(connected.get(), count);
            Ok(())
        })
        .unwrap();
    }

    struct Server(Child);

    impl Drop for Server {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    /// Echoes until it is killed, or until who started it is gone.
    fn serve() {
        std::thread::spawn(|| {
            let _ = std::io::stdin().read_line(&mut String::new());
            std::process::exit(0);
        });
        asyncio::run::<(), _>(async {
            let listener = net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            println!("{}", listener.local_addr()?);
            loop {
                let (stream, _) = listener.accept().await?;
                drop(asyncio::create_task(async move {
                    let mut buffer = [0; 8];
                    while stream.read_exact(&mut buffer).await.is_ok() {
                        stream.write_all(&buffer).await?;
                    }
                    Ok(())
                }));
            }
        })
        .unwrap();
    }

    /// Raises the limit of open files to what is wanted, or what is allowed; returns it.
    fn allow_descriptors(wanted: u64) -> u64 {
        // SAFETY: two system calls on a local structure.
        unsafe {
            let mut limit: libc::rlimit = std::mem::zeroed();
            assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
            if limit.rlim_cur < wanted {
                limit.rlim_cur = wanted.min(limit.rlim_max);
                assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
            }
            limit.rlim_cur
        }
    }
}
