//! What a program takes from its surroundings and a test must be able to fix: the clock and randomness.

use crate::units::Timestamp;
use std::sync::Mutex;

/// The clock and the source of randomness, handed down from `main`.
///
/// No clock is trusted for safety: it names backups and words messages, it never decides what may be deleted.
pub trait Env: Send + Sync {
    /// The current moment by this machine's clock.
    fn now(&self) -> Timestamp;

    /// Fills `bytes` with randomness fit for keys.
    ///
    /// # Errors
    /// When the operating system has none to give; nothing may be sealed then.
    fn random(&self, bytes: &mut [u8]) -> Result<(), NoRandomness>;
}

/// The operating system gave no randomness.
#[derive(Debug)]
pub struct NoRandomness(String);

impl std::fmt::Display for NoRandomness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the operating system gave no random numbers: {}", self.0)
    }
}

impl std::error::Error for NoRandomness {}

/// The real surroundings.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Env for System {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now(&self) -> Timestamp {
        let micros = match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
        };
        Timestamp::from_unix_micros(micros)
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        getrandom::fill(bytes).map_err(|e| NoRandomness(e.to_string()))
    }
}

/// Fixed surroundings for tests: time advances one second a question, randomness is a seeded stream.
///
/// Not for secrets: the stream is predictable on purpose.
#[derive(Debug)]
pub struct Fixed {
    state: Mutex<(i64, blake3::OutputReader)>,
}

impl Fixed {
    /// Surroundings that begin at `start` and draw from `seed`.
    #[must_use]
    pub fn new(start: Timestamp, seed: u64) -> Self {
        let stream = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        Self { state: Mutex::new((start.as_unix_micros(), stream)) }
    }
}

impl Env for Fixed {
    fn now(&self) -> Timestamp {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = state.0;
        state.0 += 1_000_000;
        Timestamp::from_unix_micros(now)
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1.fill(bytes);
        Ok(())
    }
}
