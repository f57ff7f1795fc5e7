//! The event loop against tokio's current_thread and smol's LocalExecutor: tasks, turns, timers, sockets.
//!
//! Every contender runs everything in one thread, and each task is one whose future need not be `Send`.

use std::future::{Future, pending};
use std::task::{Context, Waker};
use std::time::Duration;

use ropewalk_benchmarks::scaled;

/// Tasks, timers or turns in one batch.
const MANY: usize = 1000;
const MESSAGE: usize = 1024;
const HOUR: Duration = Duration::from_secs(3600);

fn main() {
    ropewalk_benchmarks::main(&[
        ("spawn + join", "ns", |who| spawn_and_join(who, MANY)),
        ("spawn + join, 10 tasks", "ns", |who| spawn_and_join(who, 10)),
        ("spawn + join, 100 tasks", "ns", |who| spawn_and_join(who, 100)),
        ("spawn + join, 10,000 tasks", "ns", |who| {
            spawn_and_join(who, 10_000)
        }),
        ("spawn + join, 1,000,000 tasks", "ns", |who| {
            spawn_and_join(who, 1_000_000)
        }),
        ("yield", "ns", yields),
        ("timer insert + cancel", "ns", timers),
        ("TCP echo 1 KiB", "us", |who| echo(who, 1)),
        ("TCP echo 1 KiB, 50 connections", "us", |who| echo(who, 50)),
        ("memory a task", "B", memory_of_a_task),
        ("memory a connection", "B", memory_of_a_connection),
    ]);
}

/// Runs a program of ropewalk's.
fn ropewalk<T: 'static>(main: impl Future<Output = T> + 'static) -> T {
    ropewalk::asyncio::run(async { Ok(main.await) }).expect("no failure")
}

/// Runs a program of tokio's.
fn tokio<T>(main: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("descriptors");
    tokio::task::LocalSet::new().block_on(&runtime, main)
}

/// Runs a program of smol's, given its executor.
fn smol<F: Future>(main: impl FnOnce(&'static smol::LocalExecutor<'static>) -> F) -> F::Output {
    let executor: &'static _ = Box::leak(Box::new(smol::LocalExecutor::new()));
    smol::block_on(executor.run(main(executor)))
}

fn unknown(who: &str) -> ! {
    panic!("no contender: {who}")
}

/// Time of a program's work within its loop, after one round to warm up.
macro_rules! rounds {
    ($count:expr, $each:expr, $round:block) => {{
        let count = scaled($count);
        $round;
        let started = std::time::Instant::now();
        for _ in 0..count {
            $round;
        }
        started.elapsed().as_secs_f64() / (count * $each) as f64
    }};
}

/// So many at a time.
fn spawn_and_join(who: &str, many: usize) -> f64 {
    match who {
        "ropewalk" => ropewalk(async move {
            rounds!((2_000_000 / many).max(3), many, {
                let tasks: Vec<_> = (0..many)
                    .map(|n| ropewalk::asyncio::create_task(async move { Ok(n) }))
                    .collect();
                for task in tasks {
                    task.await.expect("no failure");
                }
            })
        }),
        "tokio" => tokio(async move {
            rounds!((2_000_000 / many).max(3), many, {
                let tasks: Vec<_> = (0..many)
                    .map(|n| tokio::task::spawn_local(async move { n }))
                    .collect();
                for task in tasks {
                    task.await.expect("no failure");
                }
            })
        }),
        "smol" => smol(async move |executor| {
            rounds!((2_000_000 / many).max(3), many, {
                let tasks: Vec<_> = (0..many).map(|n| executor.spawn(async move { n })).collect();
                for task in tasks {
                    task.await;
                }
            })
        }),
        _ => unknown(who),
    }
}

/// A hundred tasks that give way to each other.
fn yields(who: &str) -> f64 {
    const TASKS: usize = 100;
    match who {
        "ropewalk" => ropewalk(async {
            rounds!(20, TASKS * MANY, {
                let tasks: Vec<_> = (0..TASKS)
                    .map(|_| {
                        ropewalk::asyncio::create_task(async {
                            for _ in 0..MANY {
                                ropewalk::asyncio::sleep(Duration::ZERO).await?;
                            }
                            Ok(())
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.expect("no failure");
                }
            })
        }),
        "tokio" => tokio(async {
            rounds!(20, TASKS * MANY, {
                let tasks: Vec<_> = (0..TASKS)
                    .map(|_| {
                        tokio::task::spawn_local(async {
                            for _ in 0..MANY {
                                tokio::task::yield_now().await;
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.expect("no failure");
                }
            })
        }),
        "smol" => smol(async |executor| {
            rounds!(20, TASKS * MANY, {
                let tasks: Vec<_> = (0..TASKS)
                    .map(|_| {
                        executor.spawn(async {
                            for _ in 0..MANY {
                                smol::future::yield_now().await;
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await;
                }
            })
        }),
        _ => unknown(who),
    }
}

/// A thousand sleeps that begin, and are dropped before their time.
fn timers(who: &str) -> f64 {
    fn begin<F: Future>(make: impl Fn() -> F) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut all: Vec<_> = (0..MANY).map(|_| Box::pin(make())).collect();
        for sleep in &mut all {
            assert!(sleep.as_mut().poll(&mut cx).is_pending());
        }
    }
    let hour = || HOUR;
    match who {
        "ropewalk" => ropewalk(async move {
            rounds!(2000, MANY, {
                begin(|| ropewalk::asyncio::sleep(hour()));
                ropewalk::asyncio::sleep(Duration::ZERO)
                    .await
                    .expect("not cancelled");
            })
        }),
        "tokio" => tokio(async {
            rounds!(2000, MANY, {
                begin(|| tokio::time::sleep(hour()));
                tokio::task::yield_now().await;
            })
        }),
        "smol" => smol(async |_| {
            rounds!(2000, MANY, {
                begin(|| smol::Timer::after(hour()));
                smol::future::yield_now().await;
            })
        }),
        _ => unknown(who),
    }
}

/// A server and its clients in one loop, each client sending a message when the last one has come back.
fn echo(who: &str, connections: usize) -> f64 {
    let each = scaled(60_000) / connections;
    let local = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    match who {
        "ropewalk" => ropewalk(async move {
            use ropewalk::asyncio::{create_task, net};
            let listener = net::TcpListener::bind(local).expect("a port");
            let address = listener.local_addr().expect("an address");
            drop(create_task::<(), _>(async move {
                loop {
                    let (stream, _) = listener.accept().await?;
                    drop(create_task(async move {
                        let mut buffer = [0; MESSAGE];
                        while stream.read_exact(&mut buffer).await.is_ok() {
                            stream.write_all(&buffer).await?;
                        }
                        Ok(())
                    }));
                }
            }));
            let mut clients = Vec::new();
            for _ in 0..connections {
                clients.push(net::TcpStream::connect(address).await.expect("a server"));
            }
            let started = std::time::Instant::now();
            let tasks: Vec<_> = clients
                .into_iter()
                .map(|stream| {
                    create_task(async move {
                        let mut buffer = [1; MESSAGE];
                        for _ in 0..each {
                            stream.write_all(&buffer).await?;
                            stream.read_exact(&mut buffer).await?;
                        }
                        Ok(())
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("no failure");
            }
            started.elapsed().as_secs_f64() / (each * connections) as f64
        }),
        "tokio" => tokio(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let listener = tokio::net::TcpListener::bind(local).await.expect("a port");
            let address = listener.local_addr().expect("an address");
            tokio::task::spawn_local(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.expect("a client");
                    tokio::task::spawn_local(async move {
                        let mut buffer = [0; MESSAGE];
                        while stream.read_exact(&mut buffer).await.is_ok() {
                            stream.write_all(&buffer).await.expect("a client");
                        }
                    });
                }
            });
            let mut clients = Vec::new();
            for _ in 0..connections {
                clients.push(tokio::net::TcpStream::connect(address).await.expect("a server"));
            }
            let started = std::time::Instant::now();
            let tasks: Vec<_> = clients
                .into_iter()
                .map(|mut stream| {
                    tokio::task::spawn_local(async move {
                        let mut buffer = [1; MESSAGE];
                        for _ in 0..each {
                            stream.write_all(&buffer).await.expect("a server");
                            stream.read_exact(&mut buffer).await.expect("a server");
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("no failure");
            }
            started.elapsed().as_secs_f64() / (each * connections) as f64
        }),
        "smol" => smol(async |executor| {
            use smol::io::{AsyncReadExt, AsyncWriteExt};
            let listener = smol::net::TcpListener::bind(local).await.expect("a port");
            let address = listener.local_addr().expect("an address");
            executor
                .spawn(async move {
                    loop {
                        let (mut stream, _) = listener.accept().await.expect("a client");
                        executor
                            .spawn(async move {
                                let mut buffer = [0; MESSAGE];
                                while stream.read_exact(&mut buffer).await.is_ok() {
                                    stream.write_all(&buffer).await.expect("a client");
                                }
                            })
                            .detach();
                    }
                })
                .detach();
            let mut clients = Vec::new();
            for _ in 0..connections {
                clients.push(smol::net::TcpStream::connect(address).await.expect("a server"));
            }
            let started = std::time::Instant::now();
            let tasks: Vec<_> = clients
                .into_iter()
                .map(|mut stream| {
                    executor.spawn(async move {
                        let mut buffer = [1; MESSAGE];
                        for _ in 0..each {
                            stream.write_all(&buffer).await.expect("a server");
                            stream.read_exact(&mut buffer).await.expect("a server");
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            started.elapsed().as_secs_f64() / (each * connections) as f64
        }),
        _ => unknown(who),
    }
}

/// Bytes of this process that are in memory.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: f64 = statm
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .expect("a number");
    pages * 4096.0
}

/// What a hundred thousand tasks that wait take, each.
fn memory_of_a_task(who: &str) -> f64 {
    const TASKS: usize = 100_000;
    macro_rules! measure {
        ($spawn:expr, $turn:expr) => {{
            let mut tasks = Vec::with_capacity(TASKS);
            let before = resident();
            tasks.extend((0..TASKS).map(|_| $spawn));
            $turn;
            (resident() - before) / TASKS as f64 - size_of_val(&tasks[0]) as f64
        }};
    }
    match who {
        "ropewalk" => ropewalk(async {
            use ropewalk::asyncio::{cancellable, create_task};
            measure!(
                create_task::<(), _>(async { Ok(cancellable(pending()).await?) }),
                ropewalk::asyncio::sleep(Duration::ZERO)
                    .await
                    .expect("not cancelled")
            )
        }),
        "tokio" => tokio(async {
            measure!(
                tokio::task::spawn_local(pending::<()>()),
                tokio::task::yield_now().await
            )
        }),
        "smol" => {
            smol(async |executor| measure!(executor.spawn(pending::<()>()), smol::future::yield_now().await))
        }
        _ => unknown(who),
    }
}

/// What a connection takes at both its ends, each of which has a task that waits for a message; without what the kernel has of it.
fn memory_of_a_connection(who: &str) -> f64 {
    const CONNECTIONS: usize = 400; // twice as many descriptors, of which most systems allow 1024
    let local = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    macro_rules! measure {
        ($connect:expr, $spawn:expr) => {{
            let mut tasks = Vec::with_capacity(2 * CONNECTIONS);
            let mut before = 0.0;
            for number in 0..=CONNECTIONS {
                for stream in $connect {
                    tasks.push($spawn(stream));
                }
                if number == 0 {
                    before = resident(); // the first brings what all share
                }
            }
            (resident() - before) / CONNECTIONS as f64
        }};
    }
    match who {
        "ropewalk" => ropewalk(async move {
            use ropewalk::asyncio::{create_task, net, sleep};
            let listener = net::TcpListener::bind(local).expect("a port");
            let address = listener.local_addr().expect("an address");
            measure!(
                {
                    let client = net::TcpStream::connect(address).await.expect("a server");
                    let (server, _) = listener.accept().await.expect("a client");
                    sleep(Duration::ZERO).await.expect("not cancelled");
                    [client, server]
                },
                |stream: net::TcpStream| create_task(async move {
                    stream.read_exact(&mut [0]).await?;
                    Ok(())
                })
            )
        }),
        "tokio" => tokio(async move {
            use tokio::{io::AsyncReadExt, net, task};
            let listener = net::TcpListener::bind(local).await.expect("a port");
            let address = listener.local_addr().expect("an address");
            measure!(
                {
                    let client = net::TcpStream::connect(address).await.expect("a server");
                    let (server, _) = listener.accept().await.expect("a client");
                    task::yield_now().await;
                    [client, server]
                },
                |mut stream: net::TcpStream| task::spawn_local(
                    async move { stream.read_exact(&mut [0]).await }
                )
            )
        }),
        "smol" => smol(async |executor| {
            use smol::{io::AsyncReadExt, net};
            let listener = net::TcpListener::bind(local).await.expect("a port");
            let address = listener.local_addr().expect("an address");
            measure!(
                {
                    let client = net::TcpStream::connect(address).await.expect("a server");
                    let (server, _) = listener.accept().await.expect("a client");
                    smol::future::yield_now().await;
                    [client, server]
                },
                |mut stream: net::TcpStream| executor.spawn(async move { stream.read_exact(&mut [0]).await })
            )
        }),
        _ => unknown(who),
    }
}
