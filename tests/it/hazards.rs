//! What PostgreSQL does to a backup tool, made to happen with its own programs (`tests/hazards/`).
//!
//! The design rests on these facts. A version of PostgreSQL that behaves otherwise fails here first, and then
//! the table in `tests/hazards/README.md` changes, and with it walden.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Scratch, Server, all_majors, finish, test_all};

/// One major shows that the fact still holds; `make test-all` asks them all.
fn shows_itself(script: &str) {
    let majors = if test_all() { all_majors() } else { vec![18] };
    for major in majors {
        let server = Server::of(major);
        let scratch = Scratch::new();
        // Started by root, a script takes a copy of itself along to the user it runs servers as.
        let mut command =
            Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hazards").join(script));
        command.arg(&server.bin).env("PGCLIENT", &server.client).env("TMPDIR", scratch.path());
        command.env_remove("KEEP").stdin(Stdio::null());
        let out = finish(command);
        assert!(out.success(), "on PostgreSQL {major}:\n{out}");
        println!("{}", out.text());
    }
}

#[test]
fn a_follower_of_a_promoted_standby_archives_an_unfinished_segment_under_its_full_name() {
    shows_itself("archive-mode-always-incomplete-segment");
}

#[test]
fn two_clones_write_equal_history_files_over_different_wal() {
    shows_itself("clones-share-history");
}

#[test]
fn postgresql_replays_a_dead_branch_past_the_fork() {
    shows_itself("dead-branch-replayed");
}

#[test]
fn the_first_segment_of_a_timeline_begins_with_its_ancestors_pages() {
    shows_itself("first-segment-of-new-timeline");
}

#[test]
fn one_missing_history_file_ends_recovery_early() {
    shows_itself("missing-history-ends-early");
}

#[test]
fn exit_codes_of_restore_command_up_to_125_end_recovery_without_a_word() {
    shows_itself("restore-command-exit-codes");
}

#[test]
fn the_reference_for_complete_segments_agrees_with_pg_waldump() {
    shows_itself("segment-complete-test");
}

#[test]
fn size_and_tail_of_a_segment_do_not_tell_whether_it_is_complete() {
    shows_itself("segment-tails");
}

#[test]
fn streamed_and_archived_segments_are_equal() {
    shows_itself("streamed-equals-archived");
}
