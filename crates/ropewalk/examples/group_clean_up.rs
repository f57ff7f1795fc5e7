//! One member of a group fails; the others take leave of the server, over the network, before the group is over.
//!
//! A runtime that cancels by dropping cannot do this: a destructor does not wait.

use std::net::SocketAddr;
use std::rc::Rc;

use ropewalk::asyncio::net::{TcpListener, TcpStream};
use ropewalk::asyncio::{self, Barrier, TaskGroup};

/// Reads lines of one client and prints them.
async fn serve(stream: TcpStream) -> asyncio::Result<()> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(());
        }
        match byte {
            [b'\n'] => {
                println!("server: {}", String::from_utf8_lossy(&line));
                stream.write_all(b"!").await?; // so that the client knows that it was read
                line.clear();
            }
            [byte] => line.push(byte),
        }
    }
}

async fn say(stream: &TcpStream, what: String) -> asyncio::Result<()> {
    stream.write_all(format!("{what}\n").as_bytes()).await?;
    Ok(stream.read_exact(&mut [0]).await?)
}

/// Keeps a connection until it is cancelled.
async fn member(name: &str, server: SocketAddr, all_there: &Barrier) -> asyncio::Result<()> {
    let stream = TcpStream::connect(server).await?;
    let waits = async {
        all_there.wait().await?;
        asyncio::cancellable(std::future::pending::<()>()).await?;
        Ok(())
    };
    let outcome: asyncio::Result<()> = waits.await;
    say(&stream, format!("{name} says goodbye")).await?; // clean-up that waits
    outcome
}

#[ropewalk::main]
async fn main() -> asyncio::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
    let address = listener.local_addr()?;
    let server = asyncio::create_task::<(), _>(async move {
        loop {
            // One after the other, so that what is printed has an order.
            serve(listener.accept().await?.0).await?;
        }
    });

    let all_there = Rc::new(Barrier::new(3));
    let group = TaskGroup::new();
    let outcome = group.run(async |group| {
        for name in ["alice", "bob"] {
            let all_there = all_there.clone();
            group.create_task(async move { member(name, address, &all_there).await });
        }
        all_there.wait().await?;
        group.create_task(async { Ok("twelve".parse::<u32>().map(drop)?) });
        asyncio::cancellable(std::future::pending::<()>()).await?;
        Ok(())
    });
    if let Err(error) = outcome.await {
        println!("{error}");
    }
    server.cancel();
    Ok(())
}
