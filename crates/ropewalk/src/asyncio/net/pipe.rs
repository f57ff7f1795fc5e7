use std::cell::RefCell;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::reader::{LIMIT, StreamReader};
use super::transport::Transport;
use super::writer::StreamWriter;
use crate::asyncio::source::{Io, Way};

/// One end of a pipe. The other end is told that it is shut when its descriptor is closed, and not before.
struct Pipe(RefCell<Option<Io<File>>>);

impl Pipe {
    fn new(end: OwnedFd) -> io::Result<Rc<Self>> {
        rustix::io::ioctl_fionbio(&end, true)?;
        Ok(Rc::new(Self(RefCell::new(Some(Io::new(end.into())?)))))
    }
}

impl Transport for Pipe {
    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match &*self.0.borrow() {
            Some(pipe) => pipe.poll(Way::Read, cx, |mut pipe| pipe.read(buffer)),
            None => Poll::Ready(Ok(0)),
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &*self.0.borrow() {
            Some(pipe) => pipe.poll(Way::Write, cx, |mut pipe| pipe.write(bytes)),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &*self.0.borrow() {
            Some(pipe) => pipe.get().write(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn poll_shut(&self, _: &mut Context<'_>, _: Shutdown) -> Poll<io::Result<()>> {
        drop(self.0.take());
        Poll::Ready(Ok(()))
    }
}

pub(in crate::asyncio) fn pipe_reader(end: PipeReader) -> io::Result<StreamReader> {
    Ok(StreamReader::new(Pipe::new(end.into())?, LIMIT))
}

pub(in crate::asyncio) fn pipe_writer(end: PipeWriter) -> io::Result<StreamWriter> {
    Ok(StreamWriter::new(Pipe::new(end.into())?))
}
