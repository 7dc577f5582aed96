use super::*;
use crate::restore::running::Sign;
use std::os::unix::fs::symlink;

const SYSTEM: SystemIdentifier = SystemIdentifier::new(7_572_093_145_086_623_041);

struct Scene {
    dir: tempfile::TempDir,
    tablespaces: Destinations,
}

impl Scene {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), tablespaces: Destinations::default() }
    }
    fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join(name)
    }
    fn file(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        #[allow(clippy::disallowed_methods, reason = "a test sets its scene")]
        fs::write(path, text).unwrap();
    }
    fn wishes(&self) -> Wishes {
        // As root the owner must be said: temporary directories are root's.
        let owner = (Owner::of_this_process().user == 0).then_some(Owner { user: 12345, group: 12345 });
        Wishes {
            pgdata: self.path("data"),
            wal_dir: None,
            tablespaces: self.tablespaces.clone(),
            owner,
            force: false,
            system: SYSTEM,
            version_folder: "PG_17_202406281".to_owned(),
            keep_out: Vec::new(),
        }
    }
    fn look(&self, change: impl FnOnce(&mut Wishes)) -> Result<Place, DirectoryError> {
        let mut wishes = self.wishes();
        change(&mut wishes);
        examine(&wishes, "20261121T084116Z")
    }
    fn data_directory(&self) {
        self.file("data/PG_VERSION", "17\n");
        self.file("data/base/1/1259", "pages");
    }
}

#[test]
fn an_absent_or_empty_directory_may_be_filled() {
    let scene = Scene::new();
    let place = scene.look(|_| {}).unwrap();
    assert_eq!((place.found, place.group_access), (Found::Absent, None));
    assert!(place.room.free > ByteCount::ZERO);
    fs::create_dir(scene.path("data")).unwrap();
    fs::set_permissions(scene.path("data"), fs::Permissions::from_mode(0o750)).unwrap();
    let place = scene.look(|_| {}).unwrap();
    assert_eq!((place.found, place.group_access), (Found::Empty, Some(true)));
}

#[test]
fn a_data_directory_is_replaced_only_by_force_and_anything_else_never() {
    let scene = Scene::new();
    scene.data_directory();
    assert!(matches!(scene.look(|_| {}), Err(DirectoryError::DataDirectory { .. })));
    let found = scene.look(|wishes| wishes.force = true).unwrap().found;
    assert_eq!(found, Found::DataDirectory { version: "17".into(), pid_left: false });
    scene.file("data/postmaster.pid", "2147483646\n");
    assert!(matches!(scene.look(|_| {}), Err(DirectoryError::PidFileLeft(_))));
    assert!(scene.look(|wishes| wishes.force = true).is_ok());
    // A pg_control that is not of this cluster, or damaged.
    scene.file("data/global/pg_control", "not at all");
    assert!(matches!(
        scene.look(|wishes| wishes.force = true),
        Err(DirectoryError::OtherCluster { system: None, .. })
    ));

    let scene = Scene::new();
    scene.file("data/photos/1.jpg", "");
    let error = scene.look(|wishes| wishes.force = true).unwrap_err();
    assert!(
        error.to_string().ends_with("is not empty and is no PostgreSQL data directory (photos)"),
        "{error}"
    );
    let scene = Scene::new();
    scene.file("data", "a file");
    assert!(matches!(scene.look(|_| {}), Err(DirectoryError::NotADirectory(_))));
}

#[test]
fn what_a_killed_restore_left_is_filled_again_without_force() {
    let scene = Scene::new();
    scene.data_directory();
    scene.file(&format!("data/{MARKER}"), "");
    let early = Scene::new();
    early.file("data/.walden-0123-0", "half a marker");
    assert_eq!(early.look(|_| {}).unwrap().found, Found::Unfinished);
    assert_eq!(scene.look(|_| {}).unwrap().found, Found::Unfinished);
    // Once pg_control stands, the restore was finished, whatever else lies there.
    scene.file("data/global/pg_control", "");
    assert!(matches!(scene.look(|_| {}), Err(DirectoryError::DataDirectory { .. })));
}

#[test]
fn a_running_server_is_refused_even_by_force() {
    let scene = Scene::new();
    scene.data_directory();
    let mut sleeper =
        std::process::Command::new("sleep").arg("60").current_dir(scene.path("data")).spawn().unwrap();
    scene.file("data/postmaster.pid", &format!("{}\n", sleeper.id()));
    let refused = scene.look(|wishes| wishes.force = true);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert!(matches!(refused, Err(DirectoryError::ServerRunning { sign: Sign::Process, .. })));
}

#[test]
fn wal_that_is_there_is_moved_beside_the_directory_or_beside_what_it_links_to() {
    let scene = Scene::new();
    scene.data_directory();
    fs::create_dir_all(scene.path("data/pg_wal/archive_status")).unwrap();
    assert_eq!(scene.look(|wishes| wishes.force = true).unwrap().wal_aside, None);
    scene.file("data/pg_wal/000000010000000000000001", "wal");
    assert_eq!(
        scene.look(|wishes| wishes.force = true).unwrap().wal_aside,
        Some((scene.path("data/pg_wal"), scene.path("data-pg_wal-before-20261121T084116Z")))
    );
    fs::remove_dir_all(scene.path("data/pg_wal")).unwrap();
    scene.file("fast/wal/000000010000000000000001", "wal");
    symlink(scene.path("fast/wal"), scene.path("data/pg_wal")).unwrap();
    let wal = scene.path("fast/wal");
    let place = scene
        .look(|wishes| {
            wishes.force = true;
            wishes.wal_dir = Some(wal.clone());
        })
        .unwrap();
    assert_eq!(
        place.wal_aside,
        Some((scene.path("fast/wal"), scene.path("fast/wal-before-20261121T084116Z")))
    );
}

#[test]
fn directories_for_wal_and_tablespaces_must_be_empty_and_apart() {
    let mut scene = Scene::new();
    scene.file("wal/x", "");
    let wal = scene.path("wal");
    assert!(matches!(
        scene.look(|wishes| wishes.wal_dir = Some(wal.clone())),
        Err(DirectoryError::NotEmpty { .. })
    ));
    let inside = scene.path("data/pg_wal");
    assert!(matches!(
        scene.look(|wishes| wishes.wal_dir = Some(inside.clone())),
        Err(DirectoryError::Nested { .. })
    ));
    scene.file("space/PG_17_202406281/5/16384", "");
    scene.tablespaces.linked.insert(16391, scene.path("space"));
    scene.data_directory();
    // The living primary's tablespace is not ours to empty, whatever is asked.
    assert!(matches!(
        scene.look(|wishes| wishes.force = true),
        Err(DirectoryError::TablespaceNotEmpty { oid: 16391, holds_own: true, .. })
    ));
    // It is when the directory that is replaced had it.
    fs::create_dir_all(scene.path("data/pg_tblspc")).unwrap();
    symlink(scene.path("space"), scene.path("data/pg_tblspc/16391")).unwrap();
    let place = scene.look(|wishes| wishes.force = true).unwrap();
    assert!(place.tablespaces[0].to_be_emptied);
}

#[test]
fn paths_that_could_mean_something_else_are_refused() {
    let scene = Scene::new();
    for bad in ["data", "/", "/tmp/../etc"] {
        let refused = scene.look(|wishes| wishes.pgdata = PathBuf::from(bad));
        assert!(
            matches!(refused, Err(DirectoryError::NotAbsolute(_) | DirectoryError::NotADirectory(_))),
            "{bad}"
        );
    }
    symlink("/nowhere/at/all", scene.path("data")).unwrap();
    assert!(matches!(scene.look(|_| {}), Err(DirectoryError::NotADirectory(_))));
}

#[test]
fn nothing_is_restored_for_root() {
    if Owner::of_this_process().user != 0 {
        return;
    }
    let scene = Scene::new();
    assert!(matches!(scene.look(|wishes| wishes.owner = None), Err(DirectoryError::OwnerIsRoot(_))));
    std::os::unix::fs::chown(scene.dir.path(), Some(12345), Some(54321)).unwrap();
    let place = scene.look(|wishes| wishes.owner = None).unwrap();
    assert_eq!((place.owner, place.set_owner), (Owner { user: 12345, group: 54321 }, true));
}

#[test]
fn a_tablespace_finds_place_beside_other_versions_only_by_force() {
    let mut scene = Scene::new();
    scene.file("space/PG_16_202307071/5/16384", "");
    scene.tablespaces.linked.insert(16391, scene.path("space"));
    let refused = scene.look(|_| {});
    assert!(
        matches!(refused, Err(DirectoryError::TablespaceNotEmpty { holds_own: false, .. })),
        "{refused:?}"
    );
    let me = Owner::of(&fs::metadata(scene.path("space")).unwrap());
    if me.user != 0 {
        let place = scene.look(|wishes| wishes.force = true).unwrap();
        assert!(place.tablespaces[0].shared && !place.tablespaces[0].to_be_emptied);
    } else {
        // It is somebody else's: owner and mode are not changed under them.
        assert!(scene.look(|wishes| wishes.force = true).is_err());
        std::os::unix::fs::chown(scene.path("space"), Some(12345), Some(12345)).unwrap();
        assert!(scene.look(|wishes| wishes.force = true).unwrap().tablespaces[0].shared);
    }
    scene.file("space/notes.txt", "");
    assert!(scene.look(|wishes| wishes.force = true).is_err());
}

/// A process that looks like a server's in `data`.
fn seeming_server(scene: &Scene, data: &str) -> std::process::Child {
    let program = scene.path("postgres");
    std::fs::copy("/bin/sleep", &program).unwrap();
    let server = std::process::Command::new(program).arg("60").current_dir(scene.path(data)).spawn().unwrap();
    // Its name changes a moment after the call that starts it has returned.
    let named = || fs::read_to_string(format!("/proc/{}/comm", server.id())).unwrap();
    while named().trim() != "postgres" {
        std::thread::yield_now();
    }
    server
}

#[test]
fn what_a_copy_of_a_data_directory_links_to_is_the_running_originals() {
    let mut scene = Scene::new();
    scene.file("space/PG_17_202406281/5/16384", "");
    scene.tablespaces.linked.insert(16391, scene.path("space"));
    scene.data_directory();
    scene.file("wal/000000010000000000000001", "wal");
    for data in ["data", "original"] {
        fs::create_dir_all(scene.path(&format!("{data}/pg_tblspc"))).unwrap();
        symlink(scene.path("space"), scene.path(&format!("{data}/pg_tblspc/16391"))).unwrap();
    }
    assert!(scene.look(|wishes| wishes.force = true).is_ok());
    let mut server = seeming_server(&scene, "original");
    let with_space = scene.look(|wishes| wishes.force = true);
    // Its pg_wal would be moved from under it.
    scene.tablespaces.linked.clear();
    for data in ["data", "original"] {
        symlink(scene.path("wal"), scene.path(&format!("{data}/pg_wal"))).unwrap();
    }
    let with_wal = scene.look(|wishes| wishes.force = true);
    server.kill().unwrap();
    server.wait().unwrap();
    for refused in [with_space, with_wal] {
        assert!(matches!(refused, Err(DirectoryError::UsedByServer { .. })), "{refused:?}");
    }
    assert!(scene.look(|wishes| wishes.force = true).is_ok());
}

#[test]
fn a_repository_is_neither_replaced_nor_restored_into() {
    let scene = Scene::new();
    scene.data_directory();
    scene.file("data/backups/walden.json", "");
    let keep = |path: PathBuf| vec![("repo1".to_owned(), path)];
    for path in [scene.path("data/backups"), scene.path("")] {
        let refused = scene.look(|wishes| {
            wishes.force = true;
            wishes.keep_out = keep(path);
        });
        assert!(matches!(refused, Err(DirectoryError::HoldsOther { .. })), "{refused:?}");
    }
}

#[test]
fn a_directory_for_wal_that_an_early_killed_restore_left_is_taken_again() {
    let scene = Scene::new();
    scene.file(&format!("data/{MARKER}"), "");
    fs::create_dir_all(scene.path("wal/archive_status")).unwrap();
    let wal = scene.path("wal");
    let look = || scene.look(|wishes| wishes.wal_dir = Some(wal.clone()));
    assert!(matches!(look(), Err(DirectoryError::NotEmpty { .. })));
    symlink(&wal, scene.path("data/pg_wal")).unwrap();
    assert!(look().is_ok());
    scene.file("wal/notes.txt", "");
    assert!(look().is_ok_and(|place| place.wal_aside.is_some()));
}

#[test]
fn tablespaces_of_the_replaced_directory_that_go_elsewhere_are_named_and_stay() {
    let mut scene = Scene::new();
    scene.data_directory();
    scene.file("space/PG_17_202406281/5/16384", "");
    fs::create_dir_all(scene.path("data/pg_tblspc")).unwrap();
    symlink(scene.path("space"), scene.path("data/pg_tblspc/16391")).unwrap();
    scene.tablespaces.linked.insert(16391, scene.path("new"));
    let place = scene.look(|wishes| wishes.force = true).unwrap();
    assert_eq!(place.left_behind, [scene.path("space")]);
}
