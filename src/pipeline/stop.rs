//! Being asked to stop: by a signal, or because another part failed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Not a signal: somebody called [`StopFlag::request`].
const WITHOUT_SIGNAL: usize = usize::MAX;

/// How often waiting tasks look. A signal handler may only write a number, so somebody has to look.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Set once, seen by every clone. What runs long looks at it between steps and then cleans up.
///
/// Nothing may rest on being asked: a process may also be killed, and that must be as safe.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicUsize>);

/// The work was given up because somebody asked for it. Never shown as an error of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it was asked to stop")
    }
}

impl std::error::Error for Stopped {}

impl StopFlag {
    /// A flag that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets it.
    pub fn request(&self) {
        let _ = self.0.compare_exchange(0, WITHOUT_SIGNAL, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }

    /// The signal that set it, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        match self.0.load(Ordering::SeqCst) {
            0 | WITHOUT_SIGNAL => None,
            signal => i32::try_from(signal).ok(),
        }
    }

    /// The cell a signal handler writes the signal's number to.
    #[must_use]
    pub fn cell(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.0)
    }

    /// For use with `?` between steps.
    ///
    /// # Errors
    /// [`Stopped`] once it is set.
    pub fn check(&self) -> Result<(), Stopped> {
        if self.is_requested() { Err(Stopped) } else { Ok(()) }
    }

    /// Returns once it is set, at most 50 ms later. Cancel-safe. Needs tokio's timer.
    pub async fn requested(&self) {
        while !self.is_requested() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Sleeps on this thread, and wakes early when it is set.
    ///
    /// # Errors
    /// [`Stopped`] once it is set.
    pub fn sleep(&self, length: Duration) -> Result<(), Stopped> {
        let mut left = length;
        while !left.is_zero() {
            self.check()?;
            let step = left.min(LOOK_EVERY);
            std::thread::sleep(step);
            left -= step;
        }
        self.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_to_stop_is_kept() {
        let flag = StopFlag::new();
        assert_eq!(flag.check(), Ok(()));
        flag.cell().store(15, Ordering::SeqCst);
        flag.request();
        assert_eq!((flag.check(), flag.signal()), (Err(Stopped), Some(15)));
        assert_eq!(flag.sleep(Duration::from_secs(60)), Err(Stopped));
    }

    #[test]
    fn tasks_wait_for_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let flag = StopFlag::new();
        runtime.block_on(async {
            tokio::join!(flag.requested(), async { flag.request() });
        });
        assert_eq!((flag.is_requested(), flag.signal()), (true, None));
    }
}
