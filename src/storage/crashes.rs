//! What a directory looks like after the death of its writers, and what it says when it is full or closed.
//! Each writer is this test program once more, as another process.

use super::conformance::{key, listed};
use super::posix::PosixStore;
use super::*;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const PART: &str = "WALDEN_TEST_STORE_PART";
const ROOT: &str = "WALDEN_TEST_STORE_ROOT";

/// A command that runs `part` of [`another_process`] on `root`.
fn other(part: &str, root: &Path) -> Command {
    wrapped(&[], part, root)
}

fn wrapped(before: &[&str], part: &str, root: &Path) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut words: Vec<&std::ffi::OsStr> = before.iter().map(std::ffi::OsStr::new).collect();
    words.push(program.as_os_str());
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args([
        "--exact",
        "storage::crashes::another_process",
        "--ignored",
        "--nocapture",
    ]);
    command.env(PART, part).env(ROOT, root);
    command
}

/// Waits until the child has said `ready`.
fn ready(child: &mut Child) {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("ready")), "the child ended early");
}

#[test]
#[ignore = "the other process of the tests below"]
fn another_process() {
    let Ok(part) = std::env::var(PART) else { return };
    let store = PosixStore::open(Path::new(&std::env::var(ROOT).unwrap())).unwrap();
    match &*part {
        "hold a pending object" => {
            let mut pending = store.begin(&key("held/object")).unwrap();
            pending.write(&vec![b'x'; 3_000_000]).unwrap();
            println!("ready");
            std::thread::sleep(std::time::Duration::from_secs(600));
        }
        "create without end" => {
            let own = std::process::id();
            println!("ready");
            for i in 0_u64.. {
                let k = key(&format!("endless/{}/{own}-{i}", i % 3));
                if i % 2 == 0 {
                    store.create(&k, contents(&k).as_bytes()).unwrap();
                } else {
                    let mut pending = store.begin(&k).unwrap();
                    pending.write(contents(&k).as_bytes()).unwrap();
                    pending.commit().unwrap();
                }
            }
        }
        "fill" => {
            store.create(&key("small"), b"x").unwrap();
            let big = vec![b'x'; 8 << 20];
            assert_eq!(store.create(&key("f/big"), &big).unwrap_err().kind, StoreErrorKind::Full);
            let mut pending = store.begin(&key("f/big")).unwrap();
            let failed = (0..32).find_map(|_| pending.write(&big[..256 * 1024]).err()).expect("it fits");
            assert_eq!(failed.kind, StoreErrorKind::Full);
            pending.write(b"more").unwrap_err();
            // Dropped at the failure, so that there is space again.
            store.create(&key("f/after"), &vec![b'y'; 300_000]).unwrap();
            pending.commit().unwrap_err();
            assert_eq!(listed(&store, "f"), [("f/after".to_owned(), 300_000)].into());
        }
        "write to a closed directory" => {
            for k in ["object", "shop/object"] {
                assert_eq!(store.create(&key(k), b"x").unwrap_err().kind, StoreErrorKind::Denied);
                assert_eq!(store.begin(&key(k)).err().unwrap().kind, StoreErrorKind::Denied);
            }
            assert_eq!(store.delete(&key("there/object")).unwrap_err().kind, StoreErrorKind::Denied);
            assert_eq!(store.read(&key("there/object"), ByteCount::new(9)).unwrap(), b"x");
        }
        "create a few" => {
            store.create(&key("a/b/one"), b"x").unwrap();
            let pending = store.begin(&key("a/two")).unwrap();
            pending.commit().unwrap();
        }
        "create and say" => {
            for _ in 0..2 {
                match store.create(&key("a/b/object"), OBJECT) {
                    Ok(created) => println!("says {created:?}"),
                    Err(e) => println!("says {:?}", e.kind),
                }
            }
        }
        "read what is closed" => {
            let k = key("closed/object");
            assert_eq!(store.read(&k, ByteCount::new(9)).unwrap_err().kind, StoreErrorKind::Denied);
            assert_eq!(store.size(&k).unwrap_err().kind, StoreErrorKind::Denied);
            assert_eq!(store.list(&key("closed"), &mut |_| ()).unwrap_err().kind, StoreErrorKind::Denied);
            assert_eq!(store.folder(Some(&key("closed"))).unwrap_err().kind, StoreErrorKind::Denied);
        }
        other => panic!("no part {other}"),
    }
    println!("done");
}

const OBJECT: &[u8] = b"what the object holds";

fn contents(key: &Key) -> String {
    key.as_str().repeat(2000)
}

#[test]
fn a_killed_writer_leaves_nothing_to_see_and_what_it_left_is_removed_while_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let store = PosixStore::open(dir.path()).unwrap();
    let mut dying = other("hold a pending object", dir.path()).stdout(Stdio::piped()).spawn().unwrap();
    ready(&mut dying);
    let mut living = store.begin(&key("held/other")).unwrap();
    living.write(b"alive").unwrap();
    assert_eq!(store.remove_leftovers().unwrap(), 0, "both are alive");
    dying.kill().unwrap();
    dying.wait().unwrap();
    assert_eq!(listed(&store, "held"), [].into());
    assert_eq!(store.size(&key("held/object")).unwrap(), None);
    assert_eq!(store.remove_leftovers().unwrap(), 1);
    assert_eq!(store.remove_leftovers().unwrap(), 0);
    assert_eq!(living.commit().unwrap(), Created::New);
    assert_eq!(listed(&store, "held"), [("held/other".to_owned(), 5)].into());
}

#[test]
fn whatever_a_killed_writer_was_doing_every_object_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = PosixStore::open(dir.path()).unwrap();
    for round in 0..15_u64 {
        let mut child = other("create without end", dir.path()).stdout(Stdio::piped()).spawn().unwrap();
        ready(&mut child);
        std::thread::sleep(std::time::Duration::from_micros(3000 + round * 1700));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut seen = 0;
    store
        .list(&key("endless"), &mut |l| {
            assert!(
                store.read(&l.key, ByteCount::mib(1)).unwrap() == contents(&l.key).as_bytes(),
                "{}",
                l.key
            );
            seen += 1;
        })
        .unwrap();
    assert!(seen > 0);
    store.remove_leftovers().unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join(".walden-tmp")).unwrap().count(), 0);
}

/// Lets strace meddle with the system calls of two creates of one object.
fn meddled_with(inject: &[&str], root: &Path) -> String {
    let mut words = vec!["strace", "-f", "-o", "/dev/null"];
    let inject: Vec<_> = inject.iter().map(|what| format!("--inject={what}")).collect();
    words.extend(inject.iter().map(String::as_str));
    let output = wrapped(&words, "create and say", root).output().expect("this test needs strace");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("running 1 test"), "{inject:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    let said: Vec<_> =
        text.split("says ").skip(1).filter_map(|rest| rest.split_whitespace().next()).collect();
    said.join(" ")
}

/// The first create makes the folders `a` and `a/b` (fsync 1 and 2), then syncs the file (3) and `a/b` (4).
#[test]
fn each_failing_system_call_is_told_for_what_it_is() {
    for (inject, said, exists) in [
        // No links here: the rename that refuses to overwrite.
        (&["linkat:error=EPERM"][..], "New Same", true),
        (&["linkat:error=EOPNOTSUPP", "renameat2:error=EINVAL"], "Unsupported Unsupported", false),
        (&["linkat:error=EPERM", "renameat2:error=EPERM"], "Denied Denied", false),
        (&["linkat:error=EXDEV"], "Unsupported Unsupported", false),
        (&["linkat:error=ESTALE:when=1"], "Unavailable New", true),
        // A directory that did not sync is final for this process, a file is written anew.
        (&["fsync:error=EIO:when=1"], "Unavailable Unavailable", false),
        (&["fsync:error=EIO:when=2"], "Unavailable Unavailable", false),
        (&["fsync:error=EIO:when=3"], "Unavailable New", true),
        (&["fsync:error=ENOSPC:when=3"], "Full New", true),
        (&["fsync:error=EIO:when=4"], "Unavailable Unavailable", true),
        (&["fsync:error=EINVAL:when=4"], "Unsupported Unavailable", true),
        // Found to be the same, but not to be durable.
        (&["fsync:error=EIO:when=6"], "New Unavailable", true),
        (&["fsync:error=EIO:when=7"], "New Unavailable", true),
        (&["flock:error=ENOLCK"], "New Same", true),
        (&["unlinkat:error=EIO"], "New Same", true),
        (&["fchmod:error=EPERM"], "New Same", true),
        (&["mkdirat:error=EROFS:when=2"], "Denied New", true),
        (&["mkdirat:error=EDQUOT:when=2"], "Full New", true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(meddled_with(inject, dir.path()), said, "{inject:?}");
        let store = PosixStore::open(dir.path()).unwrap();
        let there = store.size(&key("a/b/object")).unwrap();
        assert_eq!(there, exists.then(|| ByteCount::new(OBJECT.len() as u64)), "{inject:?}");
    }
}

#[test]
fn a_writer_killed_at_any_step_leaves_the_object_absent_or_whole_and_the_next_one_settles_it() {
    let mut settled = Vec::new();
    for call in ["mkdirat", "flock", "fsync", "linkat", "unlinkat"] {
        for nth in 1..=8 {
            let dir = tempfile::tempdir().unwrap();
            let said = meddled_with(&[&format!("{call}:signal=KILL:when={nth}")], dir.path());
            let store = PosixStore::open(dir.path()).unwrap();
            match store.read(&key("a/b/object"), ByteCount::mib(1)) {
                Ok(bytes) => assert_eq!(bytes, OBJECT),
                Err(e) => assert_eq!((e.kind, &*said), (StoreErrorKind::NotFound, ""), "{call} {nth}"),
            }
            let outcome = store.create(&key("a/b/object"), OBJECT).unwrap();
            settled.push((call, nth, said.clone(), outcome));
            assert_eq!(listed(&store, "a"), [("a/b/object".to_owned(), OBJECT.len() as u64)].into());
            store.remove_leftovers().unwrap();
            assert_eq!(std::fs::read_dir(dir.path().join(".walden-tmp")).unwrap().count(), 0, "{call} {nth}");
            if said == "New Same" {
                break;
            }
        }
    }
    // Killed before the object had its name, after it but unanswered, and between the two creates.
    for (said, outcome) in [("", Created::New), ("", Created::Same), ("New", Created::Same)] {
        assert!(settled.iter().any(|(_, _, s, o)| (&**s, *o) == (said, outcome)), "{settled:?}");
    }
    // The last kill of each call came too late, so every one was tried.
    assert_eq!(settled.iter().filter(|(_, _, said, _)| said == "New Same").count(), 5, "{settled:?}");
}

#[test]
fn the_umask_changes_no_mode() {
    use std::os::unix::fs::PermissionsExt;
    for umask in ["077", "000"] {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("umask {umask} && exec \"$0\" \"$@\"");
        succeeds(wrapped(&["sh", "-c", &script], "create a few", dir.path()));
        for (path, mode) in [("a", 0o750), ("a/b", 0o750), ("a/b/one", 0o640), ("a/two", 0o640)] {
            let found = std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode();
            assert_eq!(found & 0o7777, mode, "{path} under umask {umask}");
        }
    }
}

fn succeeds(mut command: Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("done"), "{command:?}: {text}{errors}");
}

/// Runs `part` in a mount namespace of its own, where `mount` was run before on the directory.
fn in_namespace(mount: &str, part: &str, root: &Path) {
    let script = format!("{mount} && exec \"$0\" \"$@\"");
    let user = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    let mut command = wrapped(&["unshare", user, "sh", "-c", &script], part, root);
    command.env("DIR", root);
    succeeds(command);
}

#[test]
fn a_full_file_system_is_told_and_nothing_of_the_object_stays() {
    let dir = tempfile::tempdir().unwrap();
    in_namespace("mount -t tmpfs -o size=2m none \"$DIR\"", "fill", dir.path());
}

fn with_an_object() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = PosixStore::open(dir.path()).unwrap();
    store.create(&key("there/object"), b"x").unwrap();
    store.create(&key("closed/object"), b"x").unwrap();
    dir
}

#[test]
fn a_read_only_file_system_is_told() {
    let dir = with_an_object();
    let mount = "mount --bind \"$DIR\" \"$DIR\" && mount -o remount,ro,bind \"$DIR\"";
    in_namespace(mount, "write to a closed directory", dir.path());
}

#[test]
fn a_lack_of_rights_is_told_and_never_taken_for_absence() {
    use std::os::unix::fs::PermissionsExt;
    let dir = with_an_object();
    let set = |path: &str, mode| {
        std::fs::set_permissions(dir.path().join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set("there/object", 0o444);
    set("there", 0o555);
    set(".walden-tmp", 0o555);
    set("closed", 0o000);
    set(".", 0o555);
    for part in ["write to a closed directory", "read what is closed"] {
        let mut command = other(part, dir.path());
        let programs = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            // Root is refused nothing. Another user may not reach where this program was built.
            let program = programs.path().join("tests");
            std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
            std::fs::set_permissions(programs.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
            let mut as_nobody = Command::new(program);
            as_nobody.args(command.get_args());
            for (name, value) in command.get_envs() {
                as_nobody.env(name, value.unwrap());
            }
            as_nobody.current_dir("/").uid(65534).gid(65534);
            command = as_nobody;
        }
        succeeds(command);
    }
    set(".", 0o755);
    set("closed", 0o755);
    set("there", 0o755);
}
