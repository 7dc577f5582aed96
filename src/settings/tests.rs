//! Tests of resolving, with an environment and files of their own.

use super::*;
use crate::failure::{Class, Failure};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

const MAIN: &str = "/etc/walden/walden.conf";

#[derive(Default)]
struct Place_ {
    files: BTreeMap<PathBuf, String>,
    open: bool,
    environment: BTreeMap<String, String>,
    given: Vec<Given>,
}

impl Files for Place_ {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files
            .get(path)
            .map(|text| text.clone().into_bytes())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let found: Vec<_> =
            self.files.keys().filter(|p| p.parent() == Some(directory)).rev().cloned().collect();
        if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
    }

    fn readable_by_all(&self, _: &Path) -> bool {
        self.open
    }
}

impl Place_ {
    fn with(main: &str) -> Self {
        Self::default().file(MAIN, main)
    }

    fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.into(), text.into());
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    fn arg(mut self, name: &str, value: &str) -> Self {
        self.given.push(Given { name: name.into(), form: Form::Set(value.into()) });
        self
    }

    fn form(mut self, name: &str, form: Form) -> Self {
        self.given.push(Given { name: name.into(), form });
        self
    }

    fn resolve(&self, command: &str) -> Result<Settings, Failure> {
        resolve(&Sources {
            command: command_named(command).unwrap(),
            for_showing: command == "config",
            given: &self.given,
            environment: &self.environment,
            files: self,
        })
    }

    fn refused(&self, command: &str) -> String {
        let failure = self.resolve(command).unwrap_err();
        assert_eq!(failure.class(), Class::Usage, "{failure}");
        failure.to_string()
    }
}

#[test]
fn without_anything_there_are_defaults() {
    let settings = Place_::default().arg("stanza", "shop").resolve("backup").unwrap();
    let repositories = settings.repositories().unwrap();
    assert_eq!(
        repositories,
        [RepositorySettings {
            index: 1,
            kind: RepositoryKind::Posix { path: "/var/lib/walden".into() },
            cipher: Cipher::None,
            key_file: None,
        }]
    );
    let backup = settings.backup();
    assert_eq!((backup.archive_check, backup.start_fast), (true, false));
    assert_eq!(backup.compression, Compression::Zstd(1));
    assert_eq!(settings.server(1).port, None);
    assert_eq!(settings.console_level(), LogLevel::Info);
    let push = Place_::default().arg("stanza", "shop").resolve("archive-push").unwrap();
    assert_eq!(push.console_level(), LogLevel::Warn);
}

#[test]
fn the_only_stanza_of_the_file_need_not_be_named() {
    let place = Place_::with("[global]\nrepo1-path=/r\n[shop:backup]\nstart-fast=y\n[shop]\npg1-port=5433\n");
    let settings = place.resolve("backup").unwrap();
    assert_eq!(settings.stanza().unwrap().as_str(), "shop");
    assert!(settings.named_stanza().is_none());
    assert!(settings.backup().start_fast);
    assert_eq!(settings.server(1).port, Some(5433));

    let two = Place_::with("[a]\npg1-port=1\n[b]\npg1-port=2\n");
    assert!(two.refused("backup").contains("the configuration has several: a, b"));
    assert!(two.resolve("info").unwrap().stanza().is_err());
    assert_eq!(two.arg("stanza", "b").resolve("backup").unwrap().server(1).port, Some(2));
}

proptest! {
    /// Every subset of the places that may name a value: the highest one counts, and knows its origin.
    #[test]
    fn the_highest_place_counts(places in 0u8..64, reversed: bool, reset: bool) {
        let sections = ["global", "global:backup", "shop", "shop:backup"];
        let mut lines: Vec<String> = sections
            .iter()
            .enumerate()
            .filter(|(at, _)| places & (1 << at) != 0)
            .map(|(at, section)| format!("[{section}]\ncompress-level={}\n", at + 2))
            .collect();
        if reversed {
            lines.reverse();
        }
        let mut place = Place_::with(&lines.concat()).arg("stanza", "shop");
        if places & 16 != 0 {
            place = place.env("WALDEN_COMPRESS_LEVEL", "6");
        }
        if reset {
            place = place.form("compress-level", Form::Reset);
        } else if places & 32 != 0 {
            place = place.arg("compress-level", "7");
        }
        let settings = place.resolve("backup").unwrap();
        let highest = (0..6).rev().find(|at| places & (1 << at) != 0).filter(|_| !reset);
        let expected = highest.map_or(1, |at| at + 2);
        prop_assert_eq!(settings.compression(), Compression::Zstd(expected));
        let origin = &settings.get("compress-level").unwrap().origin;
        match highest {
            None => prop_assert_eq!(origin, &Origin::Default),
            Some(5) => prop_assert_eq!(origin, &Origin::CommandLine),
            Some(4) => prop_assert_eq!(origin, &Origin::Environment("WALDEN_COMPRESS_LEVEL".into())),
            Some(at) => {
                let Origin::File { section, .. } = origin else { panic!("{origin}") };
                prop_assert_eq!(section.as_str(), sections[usize::try_from(at).unwrap()]);
            }
        }
    }

    #[test]
    fn no_file_makes_it_panic(text in "(\\[?(global|shop|:backup|]|=|\n|repo1-path|set|type|y|#|é| ){1}){0,30}") {
        for command in ["backup", "archive-get", "config"] {
            let _ = Place_::with(&text).resolve(command);
        }
    }
}

#[test]
fn files_are_read_in_the_order_of_their_names_and_agree() {
    let place = Place_::with("[global]\nrepo1-path=/r\n")
        .file("/etc/walden/conf.d/b.conf", "[global]\ncompress-level=3\n")
        .file("/etc/walden/conf.d/a.conf", "[shop]\npg1-port=5433\n")
        .file("/etc/walden/conf.d/c.conf~", "nonsense");
    let settings = place.resolve("backup").unwrap();
    assert_eq!(settings.compression(), Compression::Zstd(3));
    assert_eq!(settings.files().len(), 3);
    let twice = place.file("/etc/walden/conf.d/z.conf", "[global]\nrepo1-path=/other\n");
    assert_eq!(
        twice.refused("backup"),
        "error: option \"repo1-path\" in /etc/walden/conf.d/z.conf line 2 is set a second time\n  \
         because: it is already set in /etc/walden/walden.conf line 2, in a section of the same name\n  \
         next: Remove one of the two lines."
    );
    // Where it counts, a contradiction is no mistake to go on with.
    assert!(twice.resolve("archive-push").is_err());
}

#[test]
fn a_file_that_is_named_must_exist_and_stands_alone() {
    let place = Place_::with("[global]\nrepo1-path=/r\n").arg("stanza", "x").arg("config", "/my.conf");
    assert!(place.refused("backup").starts_with("error: cannot read the configuration file /my.conf\n"));
    let place =
        place.file("/my.conf", "[global]\nrepo1-path=/mine\n").file("/etc/walden/conf.d/a.conf", "junk");
    let settings = place.resolve("backup").unwrap();
    assert_eq!(settings.files(), [PathBuf::from("/my.conf")]);
    let moved = Place_::default()
        .arg("config-path", "/srv")
        .arg("stanza", "x")
        .file("/srv/walden.conf", "[x]\npg1-port=7\n");
    assert_eq!(moved.resolve("backup").unwrap().server(1).port, Some(7));
}

#[test]
fn what_does_not_concern_archiving_does_not_stop_it() {
    let place = Place_::with(
        "[global]\nrepo1-pth=/r\nrepo1-retention-archive=2\ntarget=x\nnonsense\npack-size=huge\n[global:bakcup]\n\
         start-fast=y\n[shop]\npg1-port=1\n[shop:archive-push]\nstart-fast=y\n",
    )
    .env("WALDEN_REPO1_PTH", "x");
    for command in ["archive-push", "archive-get"] {
        let settings = place.resolve(command).unwrap();
        assert_eq!(settings.warnings().len(), 8, "{:#?}", settings.warnings());
    }
    assert!(place.resolve("backup").is_err());
    // A value that archiving itself needs is another matter.
    let wrong = Place_::with("[shop]\nrepo1-path=relative\n");
    assert!(wrong.refused("archive-push").contains("a path must begin with /"));
}

#[test]
fn secrets_are_masked_everywhere_and_open_files_are_told() {
    let mut place = Place_::with("[shop]\nrepo1-cipher-type=aes-256-gcm\nrepo1-cipher-pass=open sesame\n");
    assert_eq!(place.resolve("backup").unwrap().warnings(), [""; 0]);
    place.open = true;
    let settings = place.resolve("backup").unwrap();
    assert_eq!(settings.warnings().len(), 1);
    assert!(settings.warnings()[0].contains("every user of this machine can read it"));
    assert!(!format!("{settings:?}").contains("sesame"));
    let Cipher::Aes256Gcm(source) = settings.repositories().unwrap().remove(0).cipher else { panic!() };
    assert_eq!(source.resolve().unwrap().expose(), "open sesame");

    let place = Place_::default().arg("stanza", "x").arg("repo1-cipher-pass", "hush");
    let refused = place.refused("backup");
    assert!(refused.contains("is not taken from the command line") && !refused.contains("hush"));
    // Not even an empty or a doubled one is shown.
    let place = Place_::with("[x]\nrepo1-cipher-pass=hush\nrepo1-cipher-pass=hash\n");
    let refused = place.refused("backup");
    assert!(!refused.contains("hush") && !refused.contains("hash"));
}

#[test]
fn a_key_and_a_cipher_belong_together() {
    let key = "repo1-cipher-pass-file=/k\n";
    let none = Place_::with(&format!("[x]\n{key}")).resolve("backup").unwrap();
    assert!(none.repositories().unwrap_err().to_string().contains("has a key but is not encrypted"));
    let two = format!("[x]\nrepo1-cipher-type=aes-256-gcm\n{key}repo1-cipher-pass-command=vault\n");
    let two = Place_::with(&two).resolve("backup").unwrap();
    assert!(two.repositories().unwrap_err().to_string().contains("more than one source for its key"));
    let missing =
        Place_::with("[x]\nrepo2-cipher-type=aes-256-gcm\nrepo2-path=/r\n").resolve("backup").unwrap();
    let repositories = missing.repositories().unwrap();
    assert_eq!(repositories[0].cipher, Cipher::Aes256Gcm(KeySource::Missing { repository: 2 }));
}

#[test]
fn the_file_in_which_a_key_stands_is_known_and_no_file_for_one_of_the_environment_or_a_command() {
    let sealed = "[x]\nrepo1-cipher-type=aes-256-gcm\n";
    let file = |place: &Place_| place.resolve("backup").unwrap().repositories().unwrap().remove(0).key_file;
    let with = |line: &str| Place_::with(&format!("{sealed}{line}\n"));
    assert_eq!(file(&with("repo1-cipher-pass-file=/k")), Some("/k".into()));
    assert_eq!(file(&with("repo1-cipher-pass=hush")), Some(MAIN.into()));
    assert_eq!(file(&with("repo1-cipher-pass-command=vault")), None);
    assert_eq!(file(&with("").env("WALDEN_REPO1_CIPHER_PASS", "hush")), None);
    assert_eq!(file(&with("repo1-cipher-pass=hush").env("WALDEN_REPO1_CIPHER_PASS", "hash")), None);
}

#[test]
fn repositories_are_those_that_are_configured() {
    let text = "[global]\nrepo3-path=/c\nrepo1-path=/a\n[x]\npg1-port=1\n";
    let settings = Place_::with(text).resolve("backup").unwrap();
    let found: Vec<u16> = settings.repositories().unwrap().iter().map(|r| r.index).collect();
    assert_eq!(found, [1, 3]);
    let one = Place_::with(text).arg("repo", "3").resolve("backup").unwrap();
    assert_eq!(one.repository_to_write().unwrap().index, 3);
    assert_eq!(one.all_repositories().unwrap().len(), 2);
    let wrong = Place_::with(text).arg("repo", "2").resolve("backup").unwrap();
    assert!(wrong.repositories().unwrap_err().to_string().contains("there is 1, 3"));
    let pathless = Place_::with("[x]\nrepo2-cipher-type=none\n").resolve("backup").unwrap();
    assert!(pathless.repositories().unwrap_err().to_string().contains("repo2 has no path"));
}

#[test]
fn a_server_is_told_what_this_run_was_told() {
    let place = Place_::with("[shop]\nrepo1-path=/r\n")
        .arg("config", MAIN)
        .arg("repo2-path", "/two")
        .arg("pg1-path", "/data")
        .env("WALDEN_REPO2_CIPHER_TYPE", "aes-256-gcm")
        .env("WALDEN_REPO2_CIPHER_PASS", "hush");
    let settings = place.resolve("restore").unwrap();
    let told: Vec<String> = settings
        .to_repeat()
        .into_iter()
        .map(|given| match given.form {
            Form::Set(text) => format!("--{}={text}", given.name),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        told,
        [
            "--config=/etc/walden/walden.conf",
            "--repo2-cipher-type=aes-256-gcm",
            "--repo2-path=/two",
            "--stanza=shop"
        ]
    );
    assert_eq!(settings.secrets_from_environment(), ["WALDEN_REPO2_CIPHER_PASS"]);
}

#[test]
fn targets_and_types_go_together() {
    let at = |kind: &str| Place_::default().arg("stanza", "x").arg("pg1-path", "/d").arg("type", kind);
    assert!(at("time").resolve("restore").unwrap().restore().is_err());
    assert!(at("default").arg("target", "now").resolve("restore").unwrap().restore().is_err());
    assert!(
        at("name")
            .arg("target", "a")
            .arg("target-exclusive", "y")
            .resolve("restore")
            .unwrap()
            .restore()
            .is_err()
    );
    let good = at("time").arg("target", "2026-11-21 09:00:00").resolve("restore").unwrap().restore().unwrap();
    assert_eq!((good.kind, good.target_action), (RestoreType::Time, TargetAction::Pause));
    assert_eq!(good.path, PathBuf::from("/d"));
    assert!(at("tiem").refused("restore").contains("Did you mean time?"));
    // The same name means something else to backup.
    let backup = Place_::default().arg("stanza", "x").arg("type", "incr");
    assert!(backup.refused("backup").contains("incremental backups come with a later version"));
}

#[test]
fn commands_that_teach_work_whatever_the_configuration_says() {
    let place = Place_::with("junk").env("WALDEN_JUNK", "1");
    for command in ["help", "version", "man", "completion", "key-generate"] {
        assert!(place.resolve(command).is_ok(), "{command}");
    }
}

#[test]
fn forms_of_the_command_line() {
    let place = Place_::with("[x]\nstart-fast=y\n");
    assert!(place.resolve("backup").unwrap().backup().start_fast);
    let no = Place_::with("[x]\nstart-fast=y\n").form("start-fast", Form::No);
    assert!(!no.resolve("backup").unwrap().backup().start_fast);
    let twice = Place_::default().arg("stanza", "a").arg("stanza", "b");
    assert!(twice.refused("backup").contains("given more than once"));
    let notes = Place_::default().arg("stanza", "a").arg("annotation", "k=v=w").arg("annotation", "l=");
    assert_eq!(
        notes.resolve("backup").unwrap().backup().annotations,
        [("k".into(), "v=w".into()), ("l".into(), String::new())]
    );
}

/// A repository in a bucket, with these lines more.
fn bucket(lines: &str) -> Result<BucketSettings, Failure> {
    let text = format!("[global]\nrepo1-type=s3\nrepo1-s3-bucket=shop\n{lines}\n[x]\npg1-port=1\n");
    match Place_::with(&text).resolve("archive-push")?.repositories()?.remove(0).kind {
        RepositoryKind::Bucket(bucket) => Ok(*bucket),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pgbackrest_configuration_for_s3_is_understood() {
    let lines = "repo1-path=/walden/main\nrepo1-s3-endpoint=s3.eu-north-1.amazonaws.com\nrepo1-s3-region=eu-north-1\n\
                 repo1-s3-key=AKIA\nrepo1-s3-key-secret=hush\nrepo1-s3-key-type=shared\nrepo1-s3-uri-style=host\n";
    let found = bucket(lines).unwrap();
    assert_eq!(found.place(), "s3://shop/walden/main (eu-north-1)");
    assert_eq!(found.endpoint, "s3.eu-north-1.amazonaws.com");
    assert!(found.verify_tls && found.ca_file.is_none());
    let ServiceSettings::S3(s3) = &found.service else { panic!("{found:?}") };
    assert!(s3.bucket_in_host && s3.encryption.is_none() && s3.storage_class.is_none());
    let secret = |text: &str| Secret::new(text.to_owned());
    let key =
        S3KeySource::Key { id: secret("AKIA"), secret: SecretSource::Given(secret("hush")), token: None };
    assert_eq!(s3.key, key);
    assert!(!format!("{found:?}").contains("hush"));
}

#[test]
fn what_is_not_said_of_a_bucket_has_a_sensible_meaning() {
    let plain = bucket("repo1-s3-region=eu-north-1").unwrap();
    assert_eq!(plain.place(), "s3://shop (eu-north-1)");
    assert_eq!(plain.endpoint, "s3.eu-north-1.amazonaws.com");
    let ServiceSettings::S3(s3) = plain.service else { panic!() };
    assert_eq!(s3.key, S3KeySource::Profile { name: "default".to_owned(), file: None });
    for (endpoint, in_host) in [
        ("minio.example.com:9000", true),
        ("https://minio", true),
        ("127.0.0.1:9000", false),
        ("http://10.0.0.7", false),
        ("localhost", false),
        ("https://[::1]:9000", false),
    ] {
        let found = bucket(&format!("repo1-s3-endpoint={endpoint}")).unwrap();
        let ServiceSettings::S3(s3) = found.service else { panic!() };
        assert_eq!((s3.bucket_in_host, s3.region.as_str()), (in_host, "us-east-1"), "{endpoint}");
    }
    let patient = "[x]\nrepo1-type=s3\nrepo1-s3-bucket=shop\nrepo1-s3-region=a\n";
    for (command, seconds) in [("backup", 600), ("archive-get", 60)] {
        let kind = Place_::with(patient).resolve(command).unwrap().repositories().unwrap().remove(0).kind;
        let RepositoryKind::Bucket(found) = kind else { panic!() };
        assert_eq!((found.retry.as_secs(), found.silence.as_secs()), (seconds, 60));
    }
}

#[test]
fn what_does_not_go_together_for_a_bucket_is_refused() {
    let region = "repo1-s3-region=r\n";
    for (lines, words) in [
        ("", "repo1 needs the option repo1-s3-region"),
        ("repo1-s3-region=r\nrepo1-s3-key=K", "repo1 needs the option repo1-s3-key-secret"),
        ("repo1-s3-region=r\nrepo1-s3-key-secret=K", "repo1 needs the option repo1-s3-key"),
        (
            "repo1-s3-region=r\nrepo1-s3-key=K\nrepo1-s3-key-secret=S\nrepo1-s3-key-secret-file=/f",
            "repo1-s3-key-secret and repo1-s3-key-secret-file exclude each other",
        ),
        (
            "repo1-s3-region=r\nrepo1-s3-key=K\nrepo1-s3-key-secret=S\nrepo1-s3-key-type=auto",
            "repo1-s3-key-type and repo1-s3-key exclude each other",
        ),
        (
            "repo1-s3-region=r\nrepo1-s3-kms-key-id=k\nrepo1-s3-sse-customer-key=c",
            "repo1-s3-kms-key-id and repo1-s3-sse-customer-key exclude each other",
        ),
        (
            "repo1-s3-region=r\nrepo1-s3-storage-class=DEEP_ARCHIVE",
            "cannot use repo1-s3-storage-class=DEEP_ARCHIVE",
        ),
        ("repo1-s3-region=r\nrepo1-azure-account=a", "repo1 has repo1-azure-account but is of type s3"),
        ("repo1-s3-region=r\nrepo1-path=/a b", "cannot use repo1-path=/a b in a bucket"),
    ] {
        let refused = bucket(lines).unwrap_err();
        assert_eq!(refused.class(), Class::Usage);
        assert_eq!(refused.what(), words);
    }
    let forgotten = format!("[x]\nrepo1-s3-bucket=shop\n{region}");
    let refused = Place_::with(&forgotten).resolve("backup").unwrap().repositories().unwrap_err();
    assert_eq!(refused.what(), "repo1 has repo1-s3-bucket but is of type posix");
    for bad in ["repo1-s3-key", "repo1-s3-key-secret", "repo1-s3-token", "repo1-azure-key"] {
        let refused = Place_::default().arg("stanza", "x").arg(bad, "hush").refused("backup");
        assert!(refused.contains(bad) && !refused.contains("hush"), "{refused}");
    }
}

#[test]
fn azure_and_google_are_understood() {
    let kind = |lines: &str| {
        let text = format!("[x]\nrepo1-path=/w\n{lines}");
        Place_::with(&text).resolve("backup").unwrap().repositories().map(|mut all| all.remove(0).kind)
    };
    let azure = "repo1-type=azure\nrepo1-azure-account=acc\nrepo1-azure-container=con\n";
    let RepositoryKind::Bucket(found) = kind(&format!("{azure}repo1-azure-key-file=/k\n")).unwrap() else {
        panic!()
    };
    assert_eq!(
        (found.place().as_str(), found.endpoint.as_str()),
        ("azure://acc/con/w", "blob.core.windows.net")
    );
    let ServiceSettings::Azure(service) = found.service else { panic!() };
    assert_eq!(service.key, AzureKey::Shared(SecretSource::File("/k".into())));
    assert!(service.account_in_host);
    assert_eq!(kind(azure).unwrap_err().what(), "repo1 needs the option repo1-azure-key");
    let google = "repo1-type=gcs\nrepo1-gcs-bucket=b\n";
    let RepositoryKind::Bucket(found) = kind(&format!("{google}repo1-gcs-key=/k.json\n")).unwrap() else {
        panic!()
    };
    assert_eq!(found.place(), "gs://b/w");
    assert_eq!(kind(google).unwrap_err().what(), "repo1 needs the option repo1-gcs-key");
}

#[test]
fn the_key_of_a_profile_is_found_as_amazons_tools_write_it() {
    let file =
        b"[default]\naws_access_key_id = A\naws_secret_access_key = s=1\n\n[profile shop]\nregion = x\n\
                 s3 =\n  max_concurrent_requests = 20\naws_access_key_id=B\naws_secret_access_key=t\n\
                 aws_session_token=u\n[half]\naws_access_key_id=C\n";
    let (id, secret, token) = profile_key(file, "default").unwrap();
    assert_eq!((id.expose(), secret.expose(), token.is_none()), ("A", "s=1", true));
    let (id, secret, token) = profile_key(file, "shop").unwrap();
    assert_eq!((id.expose(), secret.expose(), token.unwrap().expose()), ("B", "t", "u"));
    assert_eq!(profile_key(file, "half").unwrap_err(), "the profile \"half\" has no aws_secret_access_key");
    assert_eq!(profile_key(file, "none").unwrap_err(), "there is no profile \"none\"");
}

#[test]
fn a_file_with_nothing_but_a_secret_should_not_be_everybodys() {
    let mut place = Place_::with("[x]\nrepo1-cipher-type=aes-256-gcm\nrepo1-cipher-pass-file=/k\n");
    assert_eq!(place.resolve("backup").unwrap().warnings(), [""; 0]);
    place.open = true;
    assert_eq!(
        place.resolve("backup").unwrap().warnings(),
        ["/k holds a secret and every user of this machine can read it; next: chmod o-rwx /k"]
    );
}

#[test]
fn a_retention_in_days_is_a_window() {
    let retention = |lines: &str| {
        let given = Place_::with(&format!("[global]\nrepo1-path=/r\n{lines}\n[shop]\n"));
        given.resolve("expire").unwrap().retention(1)
    };
    let days = |days: u64| Some(Duration::from_secs(days * 86_400));
    let count = retention("repo1-retention-full=7");
    assert_eq!((count.full, count.window), (Some(7), None));
    let time = retention("repo1-retention-full=7\nrepo1-retention-full-type=time");
    assert_eq!((time.full, time.window), (None, days(7)));
    // The longer of two windows.
    for (window, longest) in [("3d", 7), ("10d", 10)] {
        let both =
            format!("repo1-retention-full=7\nrepo1-retention-full-type=time\nrepo1-keep-window={window}");
        assert_eq!(retention(&both).window, days(longest), "{window}");
    }
    assert_eq!(retention("repo1-retention-full-type=time").window, None);
}
