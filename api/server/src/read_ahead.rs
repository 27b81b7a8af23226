//! What has come on a connection is read at once.
//!
//! rustls reads 4 KiB at a time and each read is a system call, which tells the sender of room in between: of a message of 100 KiB from
//! another server, twenty-five. Here a read takes all that is there, up to what one read of a thread's buffer holds, and the next ones are
//! served from that. A connection that has been read to its end holds no memory for it.

use bytes::{Buf, Bytes};
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Four full TLS records.
const AT_ONCE: usize = 64 << 10;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; AT_ONCE].into());
}

/// A stream that is read ahead of its reader.
pub(crate) struct ReadAhead<T> {
    stream: T,
    /// Read, and not yet asked for.
    ahead: Bytes,
}

impl<T> ReadAhead<T> {
    pub fn new(stream: T) -> Self {
        Self {
            stream,
            ahead: Bytes::new(),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ReadAhead<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            if into.remaining() >= AT_ONCE {
                return Pin::new(&mut this.stream).poll_read(context, into);
            }
            return BUFFER.with_borrow_mut(|buffer| {
                let mut read = ReadBuf::new(buffer);
                ready!(Pin::new(&mut this.stream).poll_read(context, &mut read))?;
                let read = read.filled();
                let (asked, ahead) = read.split_at(read.len().min(into.remaining()));
                into.put_slice(asked);
                this.ahead = Bytes::copy_from_slice(ahead);
                Poll::Ready(Ok(()))
            });
        }
        let count = this.ahead.len().min(into.remaining());
        into.put_slice(&this.ahead[..count]);
        this.ahead.advance(count);
        if this.ahead.is_empty() {
            this.ahead = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ReadAhead<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Counts what is read of the stream below.
    struct Counting<T>(T, Vec<usize>);

    impl<T: AsyncRead + Unpin> AsyncRead for Counting<T> {
        fn poll_read(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let this = self.get_mut();
            let before = into.filled().len();
            let polled = Pin::new(&mut this.0).poll_read(context, into);
            if polled.is_ready() {
                this.1.push(into.filled().len() - before);
            }
            polled
        }
    }

    #[tokio::test]
    async fn all_that_is_there_is_read_at_once_and_handed_on_as_it_is_asked_for() {
        let sent: Vec<u8> = (0..200_000u32).map(|number| number as u8).collect();
        // Bytes asked for at once, reads of the stream below: whole buffers, what is left, and the end.
        for (asked, reads) in [
            (1, 5),
            (4_096, 5),
            (AT_ONCE - 1, 5),
            (AT_ONCE, 5),
            (1 << 20, 2),
        ] {
            let (mut far, near) = tokio::io::duplex(1 << 20);
            far.write_all(&sent).await.unwrap();
            far.shutdown().await.unwrap();
            let mut stream = ReadAhead::new(Counting(near, Vec::new()));
            let mut received = Vec::new();
            let mut piece = vec![0; asked];
            loop {
                let count = stream.read(&mut piece).await.unwrap();
                if count == 0 {
                    break;
                }
                received.extend_from_slice(&piece[..count]);
            }
            assert!(received == sent, "{asked}");
            assert!(stream.ahead.is_empty());
            assert_eq!(
                stream.stream.1.len(),
                reads,
                "{asked}: {:?}",
                stream.stream.1
            );
        }
    }
}
