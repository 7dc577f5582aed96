use super::*;
use crate::commands::testing::{self, Shelf, cluster, shop};
use crate::commands::{Runner, repo_ls};
use crate::repo::layout;
use crate::units::{BackupKind, Timestamp};

fn call(shelf: &Shelf, command: &str, runner: Runner, more: &[&str]) -> (Result<Outcome, Failure>, String) {
    let options = shelf.options(1);
    let line: Vec<&str> = options.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let (outcome, seen) = testing::run(command, &line, runner);
    (outcome, seen.data())
}

fn shelf() -> (Shelf, String) {
    let shelf = Shelf::new();
    shelf.store_segment("000000010000000000000001", None);
    let random = [5; 13];
    let id = crate::units::BackupId::new(Timestamp::from_unix_seconds(1), BackupKind::Full, random);
    let place = layout::pack(&shop(), &id, 0).unwrap();
    shelf.repository.create_parts(&place, &[b"one ", b"two"], Vec::new(), &shelf.env).unwrap();
    (shelf, place.key.to_string())
}

#[test]
fn names_are_listed_and_each_object_is_given_in_the_clear() {
    let (shelf, pack) = shelf();
    let list = |more: &[&str]| call(&shelf, "repo-ls", repo_ls::run, more);
    let get = |more: &[&str]| call(&shelf, "repo-get", run, more);
    assert_eq!(list(&[]).1, "keys/\nshop/\nwalden.json\n");
    assert_eq!(list(&["shop/"]).1, "cluster/\ndata/\nwal/\n");
    let all = list(&["--recurse"]).1;
    assert_eq!(all.lines().count(), 5, "{all}");
    for name in all.lines() {
        let (outcome, bytes) = get(&[name]);
        assert!(outcome.is_ok() && !bytes.is_empty(), "{name}: {outcome:?}");
    }
    assert_eq!(get(&[&pack]).1, "one two");
    assert_eq!(list(&[&pack]).1, "pack-000000\n");
    let system = cluster().system;
    let json = get(&[&format!("shop/cluster/{system}")]).1;
    assert!(json.contains("\"postgresql_major\": 17"), "{json}");
    let segment = all.lines().find(|name| name.contains("/wal/")).unwrap();
    assert_eq!(get(&[segment]).1.len(), 1 << 20);
}

#[test]
fn what_is_not_there_and_what_is_no_object_is_said() {
    let (shelf, pack) = shelf();
    let refused = |command: &str, runner: Runner, path: &str| {
        let failure = call(&shelf, command, runner, &[path]).0.unwrap_err();
        (failure.class(), failure.what().to_owned())
    };
    assert_eq!(refused("repo-get", run, "shop").0, Class::Usage);
    assert_eq!(refused("repo-get", run, "../key").0, Class::Usage);
    assert_eq!(refused("repo-get", run, "shop/wal/1/00000002.history").0, Class::NoRepository);
    assert_eq!(refused("repo-get", run, "nothing").1, "there is nothing named \"nothing\" in repo1");
    assert_eq!(refused("repo-ls", repo_ls::run, "nothing").1, "there is nothing named \"nothing\" in repo1");

    let file = shelf.join("repo").join(&pack);
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(refused("repo-get", run, &pack).0, Class::Damaged);
    std::fs::write(shelf.join("repo/shop/strange"), "x").unwrap();
    assert_eq!(refused("repo-get", run, "shop/strange").1, "cannot tell what shop/strange is");
}

/// Runs with these repositories, in this order. What came of it, stdout, stderr.
fn over(
    runner: (&str, Runner),
    repositories: &[Vec<String>],
    more: &[&str],
) -> (Result<Outcome, Failure>, String, String) {
    let line: Vec<&str> =
        repositories.iter().flatten().map(String::as_str).chain(more.iter().copied()).collect();
    let (outcome, seen) = testing::run(runner.0, &line, runner.1);
    (outcome, seen.data(), seen.console())
}

const GET: (&str, Runner) = ("repo-get", run);
const LS: (&str, Runner) = ("repo-ls", repo_ls::run);

/// A repository that is not there.
fn gone(shelf: &Shelf, index: u16) -> Vec<String> {
    vec![format!("--repo{index}-path={}", shelf.join("nowhere").display())]
}

const PARTS: [&[u8]; 3] = [&[b'a'; 900], &[b'b'; 800], &[b'c'; 700]];

/// Stores these frames as a pack.
fn store(shelf: &Shelf, parts: &[&[u8]]) -> Key {
    let id = crate::units::BackupId::new(Timestamp::from_unix_seconds(2), BackupKind::Full, [6; 13]);
    let place = layout::pack(&shop(), &id, 0).unwrap();
    shelf.repository.create_parts(&place, parts, Vec::new(), &shelf.env).unwrap();
    place.key
}

/// Changes the first byte of a stored frame.
fn damage(shelf: &Shelf, key: &Key, frame: usize) {
    let place = named(key).and_then(|named| named.place()).unwrap();
    let before = shelf.repository.reader(&place).unwrap().stored_bytes(&(0..frame)).unwrap();
    let file = shelf.join("repo").join(key.as_str());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[crate::repo::seal::HEADER_LENGTH + usize::try_from(before).unwrap()] ^= 1;
    std::fs::write(&file, bytes).unwrap();
}

fn whole() -> String {
    String::from_utf8(PARTS.concat()).unwrap()
}

#[test]
fn an_object_comes_from_the_first_repository_that_has_it_whole() {
    let (one, two) = (Shelf::new(), Shelf::new());
    let key = store(&two, &PARTS);
    let key_text = key.as_str();
    let both = [one.options(1), two.options(2)];
    let place = two.join("repo").display().to_string();

    // The first has nothing of that name: nothing is wrong, a backup lies in one repository.
    let (outcome, data, told) = over(GET, &both, &[key_text]);
    assert_eq!((outcome.unwrap(), data), (Outcome::Done, whole()));
    assert_eq!(told, format!("{key} is from repo2 ({place}); not in repo1\n"));

    // It is not there at all.
    let (outcome, data, told) = over(GET, &[gone(&one, 1), two.options(2)], &[key_text]);
    assert_eq!((outcome.unwrap(), data), (Outcome::DoneWithWarnings, whole()));
    assert!(told.starts_with("warning: could not open repo1: "), "{told}");
    assert!(told.ends_with(&format!("\n{key} is from repo2 ({place})\n")), "{told}");

    // It has it: the second is not even opened.
    store(&one, &PARTS);
    let (outcome, data, told) = over(GET, &[one.options(1), gone(&two, 2)], &[key_text]);
    assert_eq!((outcome.unwrap(), data, told), (Outcome::Done, whole(), String::new()));

    // It has it damaged, from the beginning or in the middle: each byte is written once.
    for (frame, after) in [(2, " after its first 1700 bytes, which are the same there"), (0, "")] {
        damage(&one, &key, frame);
        let (outcome, data, told) = over(GET, &both, &[key_text]);
        assert_eq!((outcome.unwrap(), data), (Outcome::DoneWithWarnings, whole()), "frame {frame}");
        assert!(told.contains(&format!("warning: cannot get {key} from repo1: {key} is damaged")), "{told}");
        assert!(told.ends_with(&format!("{key} is from repo2 ({place}){after}\n")), "{told}");
    }
    // What --repo names is what is meant.
    let (outcome, data, _) = over(GET, &both, &["--repo=1", key_text]);
    assert_eq!((outcome.unwrap_err().class(), data), (Class::Damaged, String::new()));
    let (outcome, data, told) = over(GET, &both, &["--repo=2", key_text]);
    assert_eq!((outcome.unwrap(), data, told), (Outcome::Done, whole(), String::new()));
}

#[test]
fn the_rest_of_another_object_is_not_put_behind_a_beginning() {
    for other in [&[&[b'x'; 900], PARTS[1], PARTS[2]][..], &PARTS[..1], &[&[b'a'; 1699], b"x", PARTS[2]]] {
        let (one, two, three) = (Shelf::new(), Shelf::new(), Shelf::new());
        let key = store(&one, &PARTS);
        store(&two, other);
        damage(&one, &key, 2);
        let (outcome, data, _) = over(GET, &[one.options(1), two.options(2)], &[key.as_str()]);
        let failure = outcome.unwrap_err();
        assert_eq!(failure.class(), Class::Damaged);
        assert!(failure.reasons().last().unwrap().contains("not to be trusted"), "{failure}");
        assert!(
            failure.to_string().contains(&format!("error: cannot get the rest of {key} from repo2")),
            "{failure}"
        );
        assert_eq!(data, whole()[..1700], "nothing of the other is written");
        // A third one may have the right one.
        store(&three, &PARTS);
        let all = [one.options(1), two.options(2), three.options(3)];
        let (outcome, data, told) = over(GET, &all, &[key.as_str()]);
        assert_eq!((outcome.unwrap(), data), (Outcome::DoneWithWarnings, whole()));
        assert_eq!(told.matches("warning: ").count(), 2, "{told}");
    }
}

#[test]
fn what_no_repository_has_is_told_apart_from_what_one_may_have() {
    let (one, two) = (Shelf::new(), Shelf::new());
    let both = [one.options(1), two.options(2)];
    let missing = "shop/wal/1/00000002.history";
    for name in [missing, "nothing"] {
        let failure = over(GET, &both, &[name]).0.unwrap_err();
        assert_eq!(failure.class(), Class::NoRepository);
        assert_eq!(failure.what(), format!("there is nothing named \"{name}\" in repo1, repo2"));
    }
    let failure = over(GET, &[one.options(1), gone(&two, 2)], &[missing]).0.unwrap_err();
    assert_eq!(failure.what(), "could not open repo2");
    assert!(failure.reasons().last().unwrap().starts_with("and repo1 (/"), "{failure}");
    // A folder, or a strange name, in the second.
    let key = store(&two, &PARTS);
    let folder = key.as_str().rsplit_once('/').unwrap().0;
    assert!(over(GET, &both, &[folder]).0.unwrap_err().what().ends_with("it is a folder"));
    let (none, told) =
        (over(GET, &[gone(&one, 1), gone(&two, 2)], &[missing]).0, "error: could not open repo2");
    assert!(none.unwrap_err().to_string().contains(told));
}

#[test]
fn a_listing_is_of_the_first_repository_that_can_be_listed() {
    let (one, two) = (Shelf::new(), Shelf::new());
    let key = store(&two, &PARTS);
    let folder = key.as_str().rsplit_once('/').unwrap().0;
    let half = [gone(&one, 1), two.options(2)];
    for (more, expected) in [(&[folder][..], "pack-000000\n"), (&[key.as_str()], "pack-000000\n")] {
        let (outcome, data, told) = over(LS, &half, more);
        assert_eq!((outcome.unwrap(), data.as_str()), (Outcome::DoneWithWarnings, expected));
        assert!(told.starts_with("warning: could not open repo1: "), "{told}");
        let place = two.join("repo").display().to_string();
        assert!(told.ends_with(&format!("\nthis is what lies in repo2 ({place})\n")), "{told}");
    }
    // A directory that is no repository is none that can be listed.
    std::fs::remove_file(one.join("repo/walden.json")).unwrap();
    let (outcome, _, told) = over(LS, &[one.options(1), two.options(2)], &[]);
    assert_eq!(outcome.unwrap(), Outcome::DoneWithWarnings);
    assert!(told.starts_with("warning: cannot list repo1: "), "{told}");

    // Which repository it is matters to who looks: what the first does not have is not shown from another.
    let (outcome, data, _) = over(LS, &[two.options(1), gone(&one, 2)], &["nothing"]);
    let failure = outcome.unwrap_err();
    assert_eq!((failure.class(), data), (Class::NoRepository, String::new()));
    assert_eq!(failure.what(), "there is nothing named \"nothing\" in repo1");
    assert_eq!(failure.steps().last().unwrap(), "--repo=2 looks in repo2.");
    let failure = over(LS, &half, &["nothing"]).0.unwrap_err();
    assert_eq!(failure.what(), "could not open repo1", "it may be there");
    assert!(failure.reasons().last().unwrap().ends_with("holds nothing of that name"), "{failure}");
    let (outcome, data, told) = over(LS, &half, &["--repo=2"]);
    assert!(matches!(outcome, Ok(Outcome::Done)) && !data.is_empty() && told.is_empty(), "{told}");
    assert_eq!(over(LS, &half, &["--repo=1"]).0.unwrap_err().class(), Class::NoRepository);
    let failure = over(LS, &[gone(&one, 1), gone(&two, 2)], &[]).0.unwrap_err();
    assert!(failure.to_string().contains("\nerror: could not open repo2"), "{failure}");
}
