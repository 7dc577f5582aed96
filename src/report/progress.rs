//! What is going on: a bar on a terminal, timed lines elsewhere, and never silence while waiting.

use super::{Report, render};
use crate::settings::{LogLevel, ProgressStyle};
use crate::units::ByteCount;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Without a terminal, a line every so often.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// From here on a phase that showed no bar ends with a line.
const LONG: Duration = Duration::from_secs(30);
/// On a terminal, a new picture every so often.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// Rates are averages over so long.
const RATE_OVER: Duration = Duration::from_secs(10);

/// What both kinds of display read. Written by any thread.
#[derive(Debug)]
struct State {
    name: String,
    since: Instant,
    done: AtomicU64,
    total: AtomicU64,
    stored: AtomicU64,
    waiting: Mutex<String>,
    samples: Mutex<VecDeque<(Instant, u64, u64)>>,
}

/// A stretch of work that a person may have to wait for. Shared by reference with the engine's callbacks.
///
/// Dropping it without [`Phase::finish`] takes the bar away and says nothing.
#[derive(Debug)]
pub struct Phase<'r> {
    report: &'r Report,
    state: Arc<State>,
    bar: Option<ProgressBar>,
    ticker: Option<Ticker>,
}

impl State {
    /// Everything after the phase's name.
    fn rest(&self, with_bar: bool) -> String {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let elapsed = render::duration(Duration::from_secs(self.since.elapsed().as_secs()));
        let mut text = String::new();
        if done > 0 || total > 0 {
            let (read_rate, stored_rate) = self.rates(done);
            if total > 0 {
                // More than expected may come: the total of a running cluster is an estimate.
                let percent = (u128::from(done) * 100 / u128::from(total.max(done))) as u64;
                if with_bar {
                    let full = usize::try_from(percent * 24 / 100).unwrap_or(0).min(24);
                    let _ = write!(text, "{}{}  ", "█".repeat(full), "░".repeat(24 - full));
                }
                let _ = write!(text, "{percent:3} %   {} of {}", ByteCount::new(done), ByteCount::new(total));
            } else {
                let _ = write!(text, "{}", ByteCount::new(done));
            }
            let _ = write!(text, "   {}/s read", ByteCount::new(read_rate));
            if self.stored.load(Ordering::Relaxed) > 0 {
                let _ = write!(text, ", {}/s stored", ByteCount::new(stored_rate));
            }
            if total > done && read_rate > 0 {
                let left = Duration::from_secs((total - done) / read_rate);
                let _ = write!(text, "   {} left", render::duration(left));
            }
        } else {
            text.push_str(&elapsed);
        }
        if !waiting.is_empty() {
            let _ = write!(text, "   waiting for {waiting}");
        }
        text
    }

    /// Bytes a second over the last seconds, done and stored.
    fn rates(&self, done: u64) -> (u64, u64) {
        let stored = self.stored.load(Ordering::Relaxed);
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        samples.push_back((now, done, stored));
        while samples.len() > 2 && samples.front().is_some_and(|(at, ..)| now - *at > RATE_OVER) {
            samples.pop_front();
        }
        let (since, first_done, first_stored) = samples.front().copied().unwrap_or((self.since, 0, 0));
        let millis = u64::try_from((now - since).as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = |bytes: u64| bytes.saturating_mul(1000) / millis;
        (rate(done.saturating_sub(first_done)), rate(stored.saturating_sub(first_stored)))
    }
}

impl<'r> Phase<'r> {
    pub(super) fn begin(report: &'r Report, name: &str, total: Option<ByteCount>) -> Self {
        let since = Instant::now();
        let state = Arc::new(State {
            name: name.to_owned(),
            since,
            done: AtomicU64::new(0),
            total: AtomicU64::new(total.map_or(0, ByteCount::as_u64)),
            stored: AtomicU64::new(0),
            waiting: Mutex::new(String::new()),
            samples: Mutex::new(VecDeque::from([(since, 0, 0)])),
        });
        let quiet = report.console_level() < LogLevel::Info || report.style() == ProgressStyle::None;
        let bar = (!quiet && report.draws_bars()).then(|| bar(&state));
        report.show_bar(bar.as_ref());
        let ticker = (!quiet && bar.is_none()).then(|| Ticker::start(report.console(), Arc::clone(&state)));
        Self { report, state, bar, ticker }
    }

    /// So much has been read in this phase.
    pub fn done(&self, done: ByteCount) {
        self.state.done.store(done.as_u64(), Ordering::Relaxed);
    }

    /// So much more has been read.
    pub fn add(&self, more: ByteCount) {
        self.state.done.fetch_add(more.as_u64(), Ordering::Relaxed);
    }

    /// So much has been stored in this phase.
    pub fn stored(&self, stored: ByteCount) {
        self.state.stored.store(stored.as_u64(), Ordering::Relaxed);
    }

    /// So much is to be read in all.
    pub fn total(&self, total: ByteCount) {
        self.state.total.store(total.as_u64(), Ordering::Relaxed);
    }

    /// What keeps it from going on; empty when it goes on.
    pub fn waiting_for(&self, what: &str) {
        what.clone_into(&mut self.state.waiting.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// How long it has taken so far.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.state.since.elapsed()
    }

    /// Ends it with a line that says what came of it.
    pub fn finish(self, line: impl std::fmt::Display) {
        let report = self.report;
        drop(self);
        report.info(line);
    }
}

impl Drop for Phase<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            self.report.show_bar(None);
            bar.finish_and_clear();
        }
        let is_lined = self.ticker.is_some();
        if let Some(ticker) = self.ticker.take() {
            ticker.stop();
        }
        // What a run spent its time on; the benchmark reads it. Where no bar was seen, a long phase is told to everybody.
        let line = format_args!("{}: {:.3} s", self.state.name, self.elapsed().as_secs_f64()).to_string();
        if is_told(self.bar.is_some(), is_lined, self.elapsed()) {
            self.report.info(line);
        } else {
            self.report.detail(line);
        }
    }
}

/// Whether the end of a phase is said to everybody: it was long, and nobody saw a bar.
fn is_told(has_bar: bool, is_lined: bool, took: Duration) -> bool {
    !has_bar && is_lined && took >= LONG
}

fn bar(state: &Arc<State>) -> ProgressBar {
    let shown = Arc::clone(state);
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = indicatif::ProgressStyle::with_template("{line}") {
        let line = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{:<9} {}", shown.name, shown.rest(true));
        };
        bar.set_style(style.with_key("line", line));
    }
    bar.enable_steady_tick(DRAW_EVERY);
    bar
}

/// A thread that writes a line a minute until it is stopped.
#[derive(Debug)]
struct Ticker {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(console: Arc<super::Console>, state: Arc<State>) -> Self {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let seen = Arc::clone(&stop);
        // Without a thread there are no lines in between: nothing else depends on it.
        let thread = std::thread::Builder::new().name("progress".into()).spawn(move || {
            let (stopped, wake) = &*seen;
            let mut guard = stopped.lock().unwrap_or_else(PoisonError::into_inner);
            while !*guard {
                let (next, timeout) =
                    wake.wait_timeout(guard, LINE_EVERY).unwrap_or_else(PoisonError::into_inner);
                guard = next;
                if timeout.timed_out() && !*guard {
                    console.line(&format!("{}: {}", state.name, state.rest(false).trim_start()));
                }
            }
        });
        Self { stop, thread: thread.ok() }
    }

    fn stop(mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_phase_without_a_bar_is_told_when_it_ends() {
        assert!(is_told(false, true, LONG));
        assert!(!is_told(false, true, LONG / 2), "a short one is for those who ask for details");
        assert!(!is_told(true, false, LONG) && !is_told(false, false, LONG), "a bar, or no progress wanted");
    }

    #[test]
    fn a_phase_says_how_far_it_is_and_what_it_waits_for() {
        let (report, seen) = Report::captured();
        let phase = report.phase("copying", Some(ByteCount::new(412_000_000_000)));
        phase.done(ByteCount::new(251_320_000_000));
        phase.waiting_for("the repository");
        let line = phase.state.rest(true);
        assert!(line.starts_with("██████████████░░░░░░░░░░   61 %   251.3 GB of 412.0 GB   "), "{line}");
        assert!(line.ends_with("   waiting for the repository"), "{line}");
        phase.done(ByteCount::new(500_000_000_000));
        assert!(phase.state.rest(false).starts_with("100 %"), "more than expected is not more than all");
        phase.finish("copied 500.0 GB");
        assert_eq!(seen.console(), "copied 500.0 GB\n");
    }
}
