//! The steps of the protocol that a test may leave out, to prove that it would notice. In the program none is.

/// A step whose absence loses data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests name what they leave out"))]
pub(super) enum Step {
    /// List retired ids first and everything else afterwards: instead one listing serves for both.
    SecondListing,
    /// The same in the other order.
    RetiredListedFirst,
    /// Retire before deleting: instead the victims are retired last.
    RetireBeforeSweep,
    /// Keep the name `retired` for ever: instead it goes with the record.
    KeepRetiredNames,
    /// Keep what the parents of open backups use.
    KeepForOpen,
    /// Keep the record of what an open backup builds on, even when nothing of its data is left.
    KeepNamesForOpen,
    /// Give a stuck backup up only by winning its outcome's name: instead it is retired as it is.
    WinTheOutcome,
    /// Keep the WAL from the floors of open backups on.
    FloorsOfOpen,
    /// List WAL before the catalog: instead what is there at the end is taken.
    WalListedFirst,
}

#[cfg(not(test))]
pub(super) const fn left_out(_: Step) -> bool {
    false
}

#[cfg(test)]
pub(super) use testing::{leaving_out, left_out};

#[cfg(test)]
mod testing {
    use super::Step;
    use std::cell::Cell;

    thread_local!(static LEFT_OUT: Cell<Option<Step>> = const { Cell::new(None) });

    pub fn left_out(step: Step) -> bool {
        LEFT_OUT.get() == Some(step)
    }

    /// From here on this thread leaves the step out.
    pub fn leaving_out(step: Option<Step>) {
        LEFT_OUT.set(step);
    }
}
