//! Sets of segment numbers, kept as runs: 200,000 segments without a gap are one run.

use std::ops::RangeInclusive;

/// A set of segment numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs(Vec<(u64, u64)>);

impl Runs {
    /// The empty set.
    pub const EMPTY: Self = Self(Vec::new());

    /// The set of these numbers, in any order and with any repetition.
    #[must_use]
    pub fn from_numbers(mut numbers: Vec<u64>) -> Self {
        numbers.sort_unstable();
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for number in numbers {
            match runs.last_mut() {
                Some((_, last)) if number <= last.saturating_add(1) => *last = number.max(*last),
                _ => runs.push((number, number)),
            }
        }
        Self(runs)
    }

    /// Everything that is in one of `sets`.
    #[must_use]
    pub fn union<'a>(sets: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all: Vec<(u64, u64)> = sets.into_iter().flat_map(|set| set.0.iter().copied()).collect();
        all.sort_unstable();
        let mut runs: Vec<(u64, u64)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match runs.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => runs.push((first, last)),
            }
        }
        Self(runs)
    }

    /// The runs, rising; no two touch.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = RangeInclusive<u64>> + '_ {
        self.0.iter().map(|(first, last)| *first..=*last)
    }

    /// How many numbers are in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The index of the first run that ends at or after `number`.
    fn at_or_after(&self, number: u64) -> usize {
        self.0.partition_point(|(_, last)| *last < number)
    }

    /// The smallest number.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.0.first().map(|run| run.0)
    }

    /// The largest number.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|run| run.1)
    }

    /// Whether `number` is in it.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.0.get(self.at_or_after(number)).is_some_and(|(first, _)| *first <= number)
    }

    /// The largest number in `range`.
    #[must_use]
    pub fn last_in(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let within = self.0.partition_point(|(first, _)| first <= range.end());
        let (first, last) = *self.0.get(within.checked_sub(1)?)?;
        let found = last.min(*range.end());
        (found >= first && found >= *range.start()).then_some(found)
    }

    /// The stretches of `range`, rising, each with whether it is in the set.
    #[must_use]
    pub fn split(&self, range: RangeInclusive<u64>) -> Vec<(RangeInclusive<u64>, bool)> {
        let (mut at, end) = range.into_inner();
        let mut stretches = Vec::new();
        let mut index = self.at_or_after(at);
        while at <= end {
            let (stretch_end, held) = match self.0.get(index) {
                Some((first, last)) if *first <= at => {
                    index += 1;
                    (*last, true)
                }
                Some((first, _)) => (first - 1, false),
                None => (end, false),
            };
            let stretch_end = stretch_end.min(end);
            stretches.push((at..=stretch_end, held));
            match stretch_end.checked_add(1) {
                Some(next) => at = next,
                None => break,
            }
        }
        stretches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn two_hundred_thousand_segments_are_two_runs() {
        let numbers: Vec<u64> = (0..200_000).rev().filter(|n| *n != 777).collect();
        let runs = Runs::from_numbers(numbers);
        assert_eq!(runs.iter().collect::<Vec<_>>(), [0..=776, 778..=199_999]);
        assert_eq!(runs.count(), 199_999);
    }

    proptest! {
        #[test]
        fn runs_behave_as_the_set_they_stand_for(
            numbers in prop::collection::vec(0_u64..60, 0..60),
            others in prop::collection::vec(0_u64..60, 0..60),
            from in 0_u64..64, length in 0_u64..64,
        ) {
            let set: BTreeSet<u64> = numbers.iter().copied().collect();
            let runs = Runs::from_numbers(numbers);
            prop_assert_eq!(runs.iter().flatten().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            prop_assert!(runs.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            prop_assert_eq!(runs.count(), set.len() as u64);
            prop_assert_eq!((runs.first(), runs.last()), (set.first().copied(), set.last().copied()));
            let range = from..=from + length;
            prop_assert_eq!(runs.last_in(range.clone()), set.range(range.clone()).last().copied());
            let mut at = from;
            for (stretch, held) in runs.split(range.clone()) {
                prop_assert_eq!(*stretch.start(), at);
                for number in stretch.clone() {
                    prop_assert_eq!(set.contains(&number), held);
                    prop_assert_eq!(runs.contains(number), held);
                }
                at = stretch.end() + 1;
            }
            prop_assert_eq!(at, from + length + 1);
            let both = Runs::from_numbers(others.clone());
            let union: BTreeSet<u64> = set.iter().copied().chain(others).collect();
            prop_assert_eq!(Runs::union([&runs, &both]), Runs::from_numbers(union.into_iter().collect()));
        }
    }
}
