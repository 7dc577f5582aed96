use super::*;
use proptest::prelude::*;

const SIZE: SegmentSize = SegmentSize::DEFAULT;

fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// The segment of this number on this timeline.
fn seg(timeline: u32, number: u64) -> SegmentName {
    SegmentName::from_number(tli(timeline), number, SIZE).unwrap()
}

/// A position: a segment's number and an offset in it.
fn at(number: u64, offset: u64) -> Lsn {
    Lsn::new(number * SIZE.bytes() + offset)
}

/// 1 → 2 inside segment 9, 2 → 3 exactly at the beginning of segment 12.
fn third() -> TimelineHistory {
    let text = format!("1\t{}\tx\n2\t{}\ty\n", at(9, 0x5000), at(12, 0));
    TimelineHistory::parse(tli(3), text.as_bytes()).unwrap()
}

fn ask(asker: Asker, target: Option<u32>) -> Question {
    Question { asker, target: target.map(tli), known_end: None, needed_to: None, followed: None, size: SIZE }
}

fn recovery() -> Question {
    ask(Asker::Recovery, None)
}

/// Nothing anywhere, everybody answered.
fn nothing() -> SegmentFacts {
    SegmentFacts {
        repositories: 2,
        whole: Some(Whole::default()),
        lineage: Some(Lineage::Known(third())),
        near: Some(Near::default()),
        far: Some(Far::default()),
        pieces: Some(Pieces::default()),
        waited: false,
    }
}

fn trouble(kind: TroubleKind) -> Trouble {
    Trouble { repository: "repo1".to_owned(), kind, why: "frame 12 fails its seal".to_owned() }
}

fn good() -> Option<Whole> {
    Some(Whole { good: true, troubles: vec![trouble(TroubleKind::Damaged)] })
}

fn bad(kind: TroubleKind) -> Option<Whole> {
    Some(Whole { good: false, troubles: vec![trouble(kind)] })
}

/// The row and the exit codes for a recovery and for a standby.
fn rows(question: &Question, name: SegmentName, facts: &SegmentFacts) -> (u8, u8, u8) {
    let mut facts = facts.clone();
    let answer = match segment(question, name, &facts) {
        Err(Need::Again) => {
            facts.waited = true;
            segment(question, name, &facts).unwrap()
        }
        other => other.unwrap(),
    };
    let standby = Question { asker: Asker::Standby, ..question.clone() };
    let on_standby = segment(&standby, name, &facts).unwrap();
    (answer.row, answer.exit_code(question.asker), on_standby.exit_code(Asker::Standby))
}

#[test]
fn row_1_a_verified_copy_is_served_though_another_is_damaged() {
    let facts = SegmentFacts { whole: good(), ..nothing() };
    assert_eq!(rows(&recovery(), seg(1, 5), &facts), (1, 0, 0));
    // A complete segment may lie under the name of a partial one, also beside a damaged copy.
    for whole in [Some(Whole::default()), bad(TroubleKind::Damaged)] {
        let facts = SegmentFacts {
            whole,
            near: Some(Near { pieces: true, later: Some("x".into()), ..Near::default() }),
            pieces: Some(Pieces { reach: Some(at(6, 0)), troubles: vec![] }),
            ..nothing()
        };
        assert_eq!(rows(&recovery(), seg(1, 5), &facts), (1, 0, 0));
    }
}

#[test]
fn row_2_damaged_copies_stop_a_recovery_and_are_told_to_a_standby_loudly() {
    let facts = SegmentFacts { whole: bad(TroubleKind::Damaged), ..nothing() };
    assert_eq!(rows(&recovery(), seg(1, 5), &facts), (2, 200, 1));
    assert!(segment(&ask(Asker::Standby, None), seg(1, 5), &facts).unwrap().is_loud(Asker::Standby));
}

#[test]
fn row_3_a_repository_that_does_not_answer_may_hold_it() {
    let facts = SegmentFacts { whole: bad(TroubleKind::Unreachable), ..nothing() };
    assert_eq!(rows(&recovery(), seg(1, 5), &facts), (3, 200, 1));
    assert!(!segment(&ask(Asker::Standby, None), seg(1, 5), &facts).unwrap().is_loud(Asker::Standby));
    for late in [true, false] {
        let troubles = vec![trouble(TroubleKind::Unreachable)];
        let facts = if late {
            SegmentFacts { far: Some(Far { troubles, ..Far::default() }), ..nothing() }
        } else {
            SegmentFacts { near: Some(Near { troubles, ..Near::default() }), ..nothing() }
        };
        assert_eq!(rows(&recovery(), seg(1, 5), &facts), (3, 200, 1));
    }
}

#[test]
fn row_4_a_later_segment_is_waited_for_and_then_stops_a_recovery() {
    for near in [true, false] {
        let mut facts = nothing();
        if near {
            facts.near = Some(Near { later: Some(seg(1, 6).to_string()), ..Near::default() });
        } else {
            facts.far = Some(Far { later: Some(seg(1, 600).to_string()), ..Far::default() });
        }
        assert_eq!(segment(&recovery(), seg(1, 5), &facts), Err(Need::Again));
        assert_eq!(rows(&recovery(), seg(1, 5), &facts), (4, 200, 1));
    }
}

#[test]
fn row_5_what_proves_that_it_existed_stops_a_recovery() {
    let tail = Near { proved: Some((at(5, 0x2000), "a tail".into())), pieces: true, ..Near::default() };
    let facts = SegmentFacts { near: Some(tail), ..nothing() };
    assert_eq!(rows(&recovery(), seg(1, 5), &facts), (5, 200, 1));
    // A child that left the timeline at the segment's very beginning proves nothing about it.
    for (fork, expected) in [(at(5, 1), (5, 200, 1)), (at(7, 0), (5, 200, 1)), (at(5, 0), (9, 1, 1))] {
        let facts =
            SegmentFacts { far: Some(Far { children: vec![(tli(2), fork)], ..Far::default() }), ..nothing() };
        assert_eq!(rows(&recovery(), seg(1, 5), &facts), expected);
    }
    for (known, expected) in [(seg(1, 5), (5, 200, 1)), (seg(1, 4), (9, 1, 1)), (seg(2, 5), (9, 1, 1))] {
        let question = Question { known_end: Some(known), ..recovery() };
        assert_eq!(rows(&question, seg(1, 5), &nothing()), expected);
    }
    // On the way to the target and before its fork, it must be there.
    let far = Far { children: vec![(tli(3), at(9, 0x5000))], ..Far::default() };
    let facts = SegmentFacts { far: Some(far), ..nothing() };
    assert_eq!(rows(&ask(Asker::Recovery, Some(3)), seg(1, 8), &facts), (5, 200, 1));
    // A timeline that came from nobody knows where may have left this one later.
    let facts =
        SegmentFacts { far: Some(Far { without_history: vec![tli(2)], ..Far::default() }), ..nothing() };
    assert_eq!(rows(&recovery(), seg(1, 5), &facts), (5, 200, 1));
}

#[test]
fn row_6_a_segment_beyond_the_fork_is_refused_though_it_is_there() {
    let question = ask(Asker::Recovery, Some(3));
    for name in [seg(1, 10), seg(2, 13)] {
        assert_eq!(rows(&question, name, &SegmentFacts { whole: good(), ..nothing() }), (6, 200, 1));
    }
    for asked in [seg(2, 11), seg(3, 12), seg(1, 8)] {
        assert_eq!(rows(&question, asked, &SegmentFacts { whole: good(), ..nothing() }), (1, 0, 0));
    }
    // Without the history nobody can say where the fork is.
    let facts = SegmentFacts { whole: good(), lineage: Some(Lineage::Unknown(vec![])), ..nothing() };
    assert_eq!(rows(&question, seg(1, 5), &facts), (6, 200, 1));
}

#[test]
fn rows_6_and_7_without_a_target_the_history_in_pg_wal_stops_and_never_cuts() {
    let question = Question { followed: Some(third()), ..recovery() };
    let facts = SegmentFacts { whole: good(), ..nothing() };
    assert_eq!(rows(&question, seg(1, 10), &facts), (6, 200, 1));
    assert_eq!(rows(&question, seg(1, 9), &facts), (7, 200, 1));
    assert_eq!(rows(&question, seg(1, 8), &facts), (1, 0, 0));
    assert_eq!(rows(&question, seg(3, 20), &facts), (1, 0, 0));
    // Whoever names a target knows better.
    let question = Question { target: Some(tli(1)), ..question };
    assert_eq!(rows(&question, seg(1, 10), &facts), (1, 0, 0));
}

#[test]
fn row_7_the_segment_of_the_fork_is_cut_at_the_fork() {
    // To timeline 2, which left 1 inside segment 9.
    let question = ask(Asker::Recovery, Some(2));
    let second = || Some(Lineage::Known(third().implied_for(tli(2)).unwrap()));
    let nothing = || SegmentFacts { lineage: second(), ..nothing() };
    let facts = SegmentFacts { whole: good(), ..nothing() };
    assert_eq!(
        segment(&question, seg(1, 9), &facts).unwrap(),
        Answer::serve(7, Source::Whole, Some(at(9, 0x5000)))
    );
    let pieces = |reach| SegmentFacts {
        near: Some(Near { pieces: true, ..Near::default() }),
        pieces: Some(Pieces { reach: Some(reach), troubles: vec![] }),
        ..nothing()
    };
    assert_eq!(
        segment(&question, seg(1, 9), &pieces(at(9, 0x5000))).unwrap(),
        Answer::serve(7, Source::Pieces, Some(at(9, 0x5000)))
    );
    // Short of the fork, or nothing: it was written up to the fork, so the rest was lost.
    assert_eq!(rows(&question, seg(1, 9), &pieces(at(9, 0x4FFF))), (5, 200, 1));
    assert_eq!(rows(&question, seg(1, 9), &nothing()), (5, 200, 1));
    let damaged = SegmentFacts { whole: bad(TroubleKind::Damaged), ..nothing() };
    assert_eq!(rows(&question, seg(1, 9), &damaged), (2, 200, 1));
}

#[test]
fn row_7_a_recovery_does_not_end_at_the_fork_when_its_lineage_has_more() {
    let question = ask(Asker::Recovery, Some(3));
    let far = Far { descendants: Some(seg(2, 10).to_string()), ..Far::default() };
    for name in [seg(1, 9), seg(2, 12)] {
        let facts = SegmentFacts { whole: good(), far: Some(far.clone()), ..nothing() };
        let standby = if name == seg(1, 9) { 0 } else { 1 };
        assert_eq!(rows(&question, name, &facts), (7, 200, standby));
    }
    // On the way to 3, timeline 2 was written up to segment 12: its own copy of segment 9 must be there.
    let facts = SegmentFacts { whole: good(), ..nothing() };
    assert_eq!(rows(&question, seg(1, 9), &facts), (7, 200, 0));
    let planned = Question { known_end: Some(seg(3, 12)), ..question };
    assert_eq!(rows(&planned, seg(2, 12), &nothing()), (5, 200, 1));
}

#[test]
fn row_7_a_fork_exactly_on_the_border_leaves_nothing_of_the_next_segment() {
    let question = ask(Asker::Recovery, Some(3));
    let facts = SegmentFacts { whole: good(), ..nothing() };
    assert_eq!(rows(&question, seg(2, 12), &facts), (7, 1, 1));
    assert_eq!(rows(&question, seg(2, 11), &facts), (1, 0, 0));
    let far = Far { troubles: vec![trouble(TroubleKind::Unreachable)], ..Far::default() };
    assert_eq!(rows(&question, seg(2, 12), &SegmentFacts { far: Some(far), ..facts }), (3, 200, 1));
}

#[test]
fn row_8_what_there_is_of_the_last_segment_is_served() {
    let facts = SegmentFacts {
        near: Some(Near { pieces: true, proved: Some((at(5, 0x3000), "a tail".into())), ..Near::default() }),
        pieces: Some(Pieces { reach: Some(at(5, 0x3000)), troubles: vec![] }),
        ..nothing()
    };
    for question in [recovery(), ask(Asker::Recovery, Some(1))] {
        assert_eq!(rows(&question, seg(1, 5), &facts), (8, 0, 0));
    }
    let with_child = |fork| {
        let far = Far { children: vec![(tli(2), fork)], ..Far::default() };
        SegmentFacts { far: Some(far), ..facts.clone() }
    };
    // A child that left inside it: right for a recovery that stays, unknown for one that does not say.
    assert_eq!(rows(&ask(Asker::Recovery, Some(1)), seg(1, 5), &with_child(at(5, 0x3000))), (8, 0, 0));
    assert_eq!(rows(&recovery(), seg(1, 5), &with_child(at(5, 0x3000))), (5, 200, 1));
    // A child that left further on than the pieces reach: the rest was lost.
    assert_eq!(rows(&ask(Asker::Recovery, Some(1)), seg(1, 5), &with_child(at(5, 0x3001))), (5, 200, 1));
    let later = SegmentFacts {
        near: Some(Near { pieces: true, later: Some("later".into()), ..Near::default() }),
        ..facts.clone()
    };
    assert_eq!(rows(&recovery(), seg(1, 5), &later).0, 4);
    let damaged = SegmentFacts {
        pieces: Some(Pieces { reach: None, troubles: vec![trouble(TroubleKind::Damaged)] }),
        ..facts
    };
    assert_eq!(rows(&recovery(), seg(1, 5), &damaged), (2, 200, 1));
}

#[test]
fn row_9_nothing_anywhere_is_the_end_of_the_archive() {
    assert_eq!(rows(&recovery(), seg(1, 5), &nothing()), (9, 1, 1));
    assert_eq!(rows(&ask(Asker::Recovery, Some(3)), seg(3, 20), &nothing()), (9, 1, 1));
}

fn no_history() -> HistoryFacts {
    HistoryFacts { repositories: 1, whole: Some(Whole::default()), timelines: Some(Timelines::default()) }
}

fn history_rows(question: &Question, timeline: u32, facts: &HistoryFacts) -> (u8, u8, u8) {
    let answer = history(question, tli(timeline), facts).unwrap();
    (answer.row, answer.exit_code(Asker::Recovery), answer.exit_code(Asker::Standby))
}

#[test]
fn row_10_a_history_is_served_also_when_a_later_one_implies_it() {
    let facts = HistoryFacts { whole: good(), ..no_history() };
    assert_eq!(history_rows(&recovery(), 2, &facts), (10, 0, 0));
    let mut timelines = Timelines::default();
    timelines.histories.insert(tli(3), StoredHistory::Readable(third()));
    for whole in [Some(Whole::default()), bad(TroubleKind::Damaged)] {
        let facts = HistoryFacts { whole, timelines: Some(timelines.clone()), ..no_history() };
        let answer = history(&recovery(), tli(2), &facts).unwrap();
        let implied = third().implied_for(tli(2)).unwrap();
        assert_eq!(answer, Answer::serve(10, Source::Implied(implied), None));
    }
}

#[test]
fn row_11_a_missing_history_below_a_later_timeline_stops_a_recovery() {
    let mut timelines = Timelines::default();
    timelines.folders.insert(tli(3));
    let facts = HistoryFacts { timelines: Some(timelines.clone()), ..no_history() };
    assert_eq!(history_rows(&recovery(), 2, &facts), (11, 200, 1));
    assert_eq!(history_rows(&recovery(), 3, &facts), (11, 200, 1));
    assert_eq!(history_rows(&ask(Asker::Recovery, Some(2)), 2, &facts), (11, 200, 1));
    // Above the target PostgreSQL is choosing its new number: 2 is free, 3 is not.
    assert_eq!(history_rows(&ask(Asker::Recovery, Some(1)), 2, &facts), (11, 1, 1));
    assert_eq!(history_rows(&ask(Asker::Recovery, Some(1)), 3, &facts), (11, 200, 1));
    timelines.histories.insert(tli(4), StoredHistory::Unreadable);
    let facts = HistoryFacts { timelines: Some(timelines), ..no_history() };
    assert_eq!(history_rows(&recovery(), 4, &facts), (11, 200, 1));
}

#[test]
fn row_11_histories_that_contradict_each_other_imply_nothing() {
    let mut timelines = Timelines::default();
    timelines.histories.insert(tli(3), StoredHistory::Readable(third()));
    let other = TimelineHistory::parse(tli(4), b"1\t0/5000000\tx\n2\t0/6000000\ty\n").unwrap();
    timelines.histories.insert(tli(4), StoredHistory::Readable(other));
    let facts = HistoryFacts { timelines: Some(timelines), ..no_history() };
    assert_eq!(history_rows(&recovery(), 2, &facts), (11, 200, 1));
}

#[test]
fn row_12_no_history_and_nothing_later_is_the_newest_timeline() {
    let mut timelines = Timelines::default();
    timelines.folders.insert(tli(1));
    let facts = HistoryFacts { timelines: Some(timelines.clone()), ..no_history() };
    assert_eq!(history_rows(&recovery(), 2, &facts), (12, 1, 1));
    // The first timeline has none, whatever there is and whoever is silent; nor has the oldest of all.
    timelines.folders.insert(tli(3));
    let facts = HistoryFacts {
        whole: bad(TroubleKind::Unreachable),
        timelines: Some(timelines.clone()),
        ..no_history()
    };
    assert_eq!(history_rows(&recovery(), 1, &facts), (12, 1, 1));
    let oldest = TimelineHistory::parse(tli(5), b"4\t0/5000000\tx\n").unwrap();
    timelines.histories.insert(tli(5), StoredHistory::Readable(oldest));
    let facts = HistoryFacts { timelines: Some(timelines), ..no_history() };
    assert_eq!(history_rows(&recovery(), 4, &facts), (12, 1, 1));
}

#[test]
fn row_13_a_copier_gets_the_file_as_archived_or_nothing() {
    let copier = ask(Asker::Copier, Some(3));
    let exit = |name, facts: &SegmentFacts| {
        let answer = segment(&copier, name, facts).unwrap();
        (answer.row, answer.exit_code(Asker::Copier))
    };
    // Beyond the fork, and uncut: pg_rewind reads the dead branch on purpose.
    let whole = SegmentFacts { whole: good(), ..SegmentFacts::default() };
    for name in [seg(1, 10), seg(1, 9)] {
        assert_eq!(segment(&copier, name, &whole).unwrap(), Answer::serve(1, Source::Whole, None));
    }
    let absent = SegmentFacts { whole: Some(Whole::default()), ..SegmentFacts::default() };
    assert_eq!(exit(seg(1, 5), &absent), (13, 1));
    let damaged = SegmentFacts { whole: bad(TroubleKind::Damaged), ..SegmentFacts::default() };
    assert_eq!(exit(seg(1, 5), &damaged), (2, 200));
    let answer = history(&copier, tli(7), &no_history()).unwrap();
    assert_eq!((answer.row, answer.exit_code(Asker::Copier)), (13, 1));
}

#[test]
fn row_14_what_only_a_newer_version_can_read_stops_a_standby_too() {
    let facts = SegmentFacts { whole: bad(TroubleKind::Unusable), ..nothing() };
    assert_eq!(rows(&recovery(), seg(1, 5), &facts), (14, 200, 200));
    let beyond: SegmentName = "000000010000000000000FFF".parse().unwrap();
    assert_eq!(rows(&recovery(), beyond, &nothing()), (14, 200, 200));
}

#[test]
fn row_15_a_store_that_refuses_is_told_loudly() {
    let facts = SegmentFacts { whole: bad(TroubleKind::Refused), ..nothing() };
    assert_eq!(rows(&recovery(), seg(1, 5), &facts), (15, 200, 1));
    let none_answers = SegmentFacts { repositories: 1, whole: bad(TroubleKind::Unreachable), ..nothing() };
    assert_eq!(rows(&recovery(), seg(1, 5), &none_answers), (15, 200, 1));
    assert!(segment(&ask(Asker::Standby, None), seg(1, 5), &facts).unwrap().is_loud(Asker::Standby));
}

#[test]
fn a_segment_that_is_there_needs_one_look() {
    let facts = SegmentFacts { repositories: 1, ..SegmentFacts::default() };
    assert_eq!(segment(&ask(Asker::Recovery, Some(3)), seg(3, 20), &facts), Err(Need::Whole));
    assert_eq!(segment(&ask(Asker::Recovery, Some(3)), seg(1, 20), &facts), Err(Need::Lineage));
    // A standby that finds nothing looks into one folder more, and no further.
    let absent = SegmentFacts { whole: Some(Whole::default()), ..facts };
    assert_eq!(segment(&ask(Asker::Standby, None), seg(1, 20), &absent), Err(Need::Near));
    let near = SegmentFacts { near: Some(Near::default()), ..absent };
    assert_eq!(segment(&ask(Asker::Standby, None), seg(1, 20), &near).unwrap(), Answer::not_there(9));
}

#[test]
fn doubts_are_told_in_words() {
    let two = |why: &str| {
        let mut second = trouble(TroubleKind::Damaged);
        second.repository = "repo2".to_owned();
        second.why = why.to_owned();
        Doubt::Troubles(vec![trouble(TroubleKind::Damaged), second]).to_string()
    };
    assert_eq!(two("frame 12 fails its seal"), "is damaged in repo1 and repo2 (frame 12 fails its seal)");
    assert_eq!(two("it is cut"), "is damaged in repo1 (frame 12 fails its seal) and repo2 (it is cut)");
}

prop_compose! {
    fn troubles()(kinds in prop::collection::vec(0..4u8, 0..3)) -> Vec<Trouble> {
        kinds.into_iter().map(|kind| trouble(match kind {
            0 => TroubleKind::Damaged,
            1 => TroubleKind::Unreachable,
            2 => TroubleKind::Refused,
            _ => TroubleKind::Unusable,
        })).collect()
    }
}

fn named() -> impl Strategy<Value = Option<String>> {
    prop::option::weighted(0.2, Just("something".to_owned()))
}

prop_compose! {
    fn any_facts()(
        whole in (prop::bool::weighted(0.1), troubles()),
        lineage in prop::option::of(troubles()),
        near in (named(), any::<bool>(), prop::option::of(0..14u64 * 3), troubles()),
        far in (named(), prop::collection::vec(0..14u64 * 3, 0..2), any::<bool>(), named(), troubles()),
        pieces in (prop::option::of(0..14u64 * 3), troubles()),
    ) -> SegmentFacts {
        let third_of = |n: u64| at(n / 3, (n % 3) * 0x5000);
        SegmentFacts {
            repositories: 2,
            whole: Some(Whole { good: whole.0, troubles: whole.1 }),
            lineage: Some(lineage.map_or_else(|| Lineage::Known(third()), Lineage::Unknown)),
            near: Some(Near {
                later: near.0,
                pieces: near.1,
                proved: near.2.map(|n| (third_of(n), "a tail".to_owned())),
                troubles: near.3,
            }),
            far: Some(Far {
                later: far.0,
                children: far.1.into_iter().map(|n| (tli(9), third_of(n))).collect(),
                without_history: if far.2 { vec![] } else { vec![tli(8)] },
                descendants: far.3,
                troubles: far.4,
            }),
            pieces: Some(Pieces { reach: pieces.0.map(third_of), troubles: pieces.1 }),
            waited: true,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_recovery_never_ends_while_anything_is_in_doubt(
        facts in any_facts(),
        timeline in 1..4u32,
        number in 0..15u64,
        target in prop::option::of(1..4u32),
        known in prop::option::of((1..4u32, 0..15u64)),
    ) {
        let question = Question {
            known_end: known.map(|(t, n)| seg(t, n)),
            ..ask(Asker::Recovery, target)
        };
        let name = seg(timeline, number);
        let answer = segment(&question, name, &facts).unwrap();
        let (whole, near, far) = (facts.whole.unwrap(), facts.near.unwrap(), facts.far.unwrap());
        let border = answer.row == 7;
        if answer.exit_code(Asker::Recovery) == 1 {
            prop_assert!(far.troubles.is_empty());
            if border {
                prop_assert!(far.descendants.is_none());
            } else {
                prop_assert!(!whole.good && whole.troubles.is_empty() && near.troubles.is_empty());
                prop_assert!(near.later.is_none() && far.later.is_none());
                prop_assert!(far.children.iter().all(|(_, fork)| *fork <= at(number, 0)));
                prop_assert!(near.proved.is_none_or(|(to, _)| to <= at(number, 0)));
                prop_assert!(question.known_end.is_none_or(|k| k.timeline() != tli(timeline) || k < name));
            }
        }
        // And it is never given bytes of a branch it does not follow.
        if let Verdict::Serve { cut, .. } = answer.verdict
            && target == Some(3) && timeline < 3
        {
            let fork = third().fork_from(tli(timeline)).unwrap();
            prop_assert!(fork >= at(number + 1, 0) || cut == Some(fork));
        }
    }

    #[test]
    fn a_recovery_never_takes_a_missing_history_for_the_end_while_anything_is_in_doubt(
        whole in (prop::bool::weighted(0.1), troubles()),
        histories in prop::collection::btree_set(1..6u32, 0..3),
        folders in prop::collection::btree_set(1..6u32, 0..3),
        listing in troubles(),
        target in prop::option::of(1..6u32),
        asked in 2..6u32,
    ) {
        let facts = HistoryFacts {
            repositories: 2,
            whole: Some(Whole { good: whole.0, troubles: whole.1 }),
            timelines: Some(Timelines {
                histories: histories.iter().map(|t| (tli(*t), StoredHistory::Unreadable)).collect(),
                folders: folders.iter().copied().map(tli).collect(),
                troubles: listing,
            }),
        };
        let answer = history(&ask(Asker::Recovery, target), tli(asked), &facts).unwrap();
        if answer.exit_code(Asker::Recovery) == 1 {
            prop_assert!(facts.whole.unwrap().troubles.is_empty());
            prop_assert!(facts.timelines.unwrap().troubles.is_empty());
            let later = histories.iter().chain(&folders).any(|t| *t >= asked);
            prop_assert!(!later || answer.row == 11 && target.is_some_and(|t| t < asked));
            prop_assert!(!histories.contains(&asked) && !folders.contains(&asked));
        }
    }
}

#[test]
fn row_8_a_recovery_that_stops_in_what_is_held_of_a_segment_gets_it_although_there_was_more() {
    let held = |reach| SegmentFacts {
        near: Some(Near { pieces: true, later: Some("a later one".to_owned()), ..Near::default() }),
        pieces: Some(Pieces { reach: Some(reach), troubles: Vec::new() }),
        waited: true,
        ..nothing()
    };
    let stops = |to| Question { needed_to: Some(to), ..recovery() };
    let (name, half) = (seg(3, 20), at(20, 0x8000));
    assert_eq!(rows(&stops(half), name, &held(half)), (8, 0, 0));
    assert_eq!(rows(&stops(at(20, 0x8001)), name, &held(half)).0, 4, "it falls short by a byte");
    assert_eq!(rows(&stops(at(21, 0x10)), name, &held(half)).0, 4, "it stops in the next one");
    assert_eq!(rows(&stops(at(19, 0x10)), name, &held(half)).0, 4, "it should have stopped before");
    assert_eq!(rows(&recovery(), name, &held(half)).0, 4);
}
