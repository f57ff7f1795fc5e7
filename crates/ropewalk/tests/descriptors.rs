//! A server in a process that has no descriptor left: in a process of its own, since the limit is everybody's.
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::rc::Rc;

use ropewalk::asyncio::{self, EventLoop, ExceptionContext, net};

#[test]
fn a_server_without_descriptors_says_so_and_goes_on_when_there_are_some() {
    asyncio::run(async {
        let server = net::start_server("127.0.0.1", 0, async |_reader, mut writer| {
            writer.write(b"served");
            writer.wait_closed().await
        })
        .await?;
        let told = Rc::new(Cell::new(0));
        let count = told.clone();
        asyncio::get_running_loop()?.set_exception_handler(Some(
            move |_: &EventLoop, context: &ExceptionContext| {
                let error = std::io::Error::from(context.exception.clone().unwrap());
                assert!(error.to_string().contains("Too many open files"), "{error}");
                count.set(count.get() + 1);
            },
        ));
        // Connected by the kernel, without a turn of the loop, in which it would be served.
        let client = std::net::TcpStream::connect(server.local_addrs()[0])?;
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: both calls read or write the structure that they are given.
        unsafe {
            assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
            limit.rlim_cur = 100;
            assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
        }
        let mut files = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            files.push(file);
        }
        while told.get() == 0 {
            asyncio::sleep(std::time::Duration::from_millis(1)).await?;
        }
        drop(files);
        let (mut reader, _writer) = net::split(net::TcpStream::from_std(client)?);
        assert_eq!(reader.read_to_end().await?, b"served");
        Ok(())
    })
    .unwrap();
}
