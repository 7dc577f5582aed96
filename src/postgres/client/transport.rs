//! The byte stream under the protocol.

use super::conninfo::Keepalives;
use super::tls::Encrypted;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// An open connection.
pub(super) enum Transport {
    Unix(UnixStream),
    Tcp(TcpStream),
    /// TCP under TLS. Its end without TLS's own farewell is an error of this stream.
    Tls(Box<Encrypted>),
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

impl Transport {
    /// Makes a TCP connection send small messages at once and notice a dead peer by itself.
    pub(super) fn prepare(stream: &TcpStream, keepalives: &Keepalives) -> io::Result<()> {
        use rustix::net::sockopt;
        stream.set_nodelay(true)?;
        if keepalives.on {
            sockopt::set_socket_keepalive(stream, true)?;
            sockopt::set_tcp_keepidle(stream, keepalives.idle)?;
            sockopt::set_tcp_keepintvl(stream, keepalives.interval)?;
            sockopt::set_tcp_keepcnt(stream, keepalives.count)?;
        }
        if let Some(limit) = keepalives.user_timeout {
            // Keepalives rest while something unacknowledged is under way; this bounds that time.
            let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
            sockopt::set_tcp_user_timeout(stream, millis)?;
        }
        Ok(())
    }
}

/// Delegates to whichever stream there is.
macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Unix($stream) => $call,
            Self::Tcp($stream) => $call,
            Self::Tls($stream) => $call,
            #[cfg(test)]
            Self::Memory($stream) => $call,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
