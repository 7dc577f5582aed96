//! A network in between that looks at what passes, and cuts it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Passes TCP connections on to a port of this machine, until it is dropped.
pub struct Forwarder {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    to: u16,
    /// How many bytes a server may say in one connection before it is cut; without a farewell of TLS.
    limit: AtomicU64,
    /// The first bytes that clients said, for each connection.
    begins: Mutex<Vec<Vec<u8>>>,
    /// What the server said in the connection that ended last.
    said: AtomicU64,
    ended: AtomicU64,
}

impl Forwarder {
    pub fn to(port: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            to: u16::try_from(port).unwrap(),
            limit: AtomicU64::new(u64::MAX),
            begins: Mutex::default(),
            said: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        });
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if of_thread.limit.load(Ordering::Relaxed) == ENDED {
                    return;
                }
                let shared = Arc::clone(&of_thread);
                thread::spawn(move || shared.pass(near));
            }
        });
        Self { port: own, shared }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections made from now on are cut after this many bytes of the server.
    pub fn cut_after(&self, bytes: u64) {
        self.shared.limit.store(bytes, Ordering::Relaxed);
    }

    /// The first bytes of each connection so far.
    pub fn begins(&self) -> Vec<Vec<u8>> {
        self.shared.begins.lock().unwrap().clone()
    }

    /// How many connections have ended, and what the server said in the last of them.
    pub fn last_said(&self) -> (u64, u64) {
        (self.shared.ended.load(Ordering::SeqCst), self.shared.said.load(Ordering::SeqCst))
    }
}

/// A limit that nobody asks for.
const ENDED: u64 = u64::MAX - 1;

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.limit.store(ENDED, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn pass(&self, near: TcpStream) {
        let Ok(far) = TcpStream::connect(("127.0.0.1", self.to)) else { return };
        let limit = self.limit.load(Ordering::Relaxed);
        let slot = {
            let mut begins = self.begins.lock().unwrap();
            begins.push(Vec::new());
            begins.len() - 1
        };
        let (mut up_from, mut up_to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut buffer = [0; 16384];
                while let Ok(read @ 1..) = up_from.read(&mut buffer) {
                    let mut begins = self.begins.lock().unwrap();
                    let room = 64_usize.saturating_sub(begins[slot].len()).min(read);
                    begins[slot].extend(&buffer[..room]);
                    drop(begins);
                    if up_to.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
                let _ = up_to.shutdown(Shutdown::Write);
            });
            let (mut from, mut to) = (&far, &near);
            let mut buffer = [0; 16384];
            let mut said = 0;
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                let pass = usize::try_from(limit - said).unwrap_or(usize::MAX).min(read);
                said += pass as u64;
                if to.write_all(&buffer[..pass]).is_err() || pass < read || said == limit {
                    break;
                }
            }
            self.said.store(said, Ordering::SeqCst);
            self.ended.fetch_add(1, Ordering::SeqCst);
            let _ = near.shutdown(Shutdown::Both);
            let _ = far.shutdown(Shutdown::Both);
        });
    }
}
