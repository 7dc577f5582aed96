//! A runtime without threads, for blocking callers.

use std::io;

/// Drives connections from the threads that wait for them.
pub(super) struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    pub(super) fn new() -> io::Result<Self> {
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map(|r| Self(Some(r)))
    }

    /// What comes of `work`. May be called from many threads: one of them drives the work of all, and hands
    /// that on when its own is done.
    pub(super) fn wait<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        let Some(runtime) = &self.0 else { unreachable!("the runtime goes when it is dropped") };
        if tokio::runtime::Handle::try_current().is_err() {
            return runtime.block_on(work);
        }
        // A thread of another runtime may not wait for this one; it may wait for a thread.
        std::thread::scope(|scope| match scope.spawn(|| runtime.block_on(work)).join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // A name that is being looked up must not hold up the end of the program.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
