use super::super::tls::SslMode;
use super::*;
use proptest::prelude::*;

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn conninfo(string: &str) -> ConnectionSettings {
    ConnectionSettings { conninfo: Some(Password::new(string)), ..ConnectionSettings::default() }
}

fn resolve(string: &str) -> Result<ConnectionParameters, ConninfoError> {
    ConnectionParameters::resolve(&conninfo(string), &BTreeMap::new(), Some("me"))
}

fn password(parameters: &ConnectionParameters) -> &[u8] {
    parameters.password.as_ref().map_or(b"", |(password, _)| password.bytes())
}

fn tcp(host: &str, port: u16) -> Vec<Address> {
    vec![Address::Tcp { host: host.to_owned(), port }]
}

#[test]
fn nothing_given_means_the_local_socket_and_the_system_user() {
    let it =
        ConnectionParameters::resolve(&ConnectionSettings::default(), &BTreeMap::new(), Some("me")).unwrap();
    assert_eq!(it.addresses[0].to_string(), "/var/run/postgresql/.s.PGSQL.5432");
    assert_eq!(it.addresses[1].to_string(), "/tmp/.s.PGSQL.5432");
    assert_eq!(
        (it.user.as_str(), it.database.as_str(), it.application_name.as_str()),
        ("me", "postgres", "walden")
    );
    let nobody = ConnectionParameters::resolve(&ConnectionSettings::default(), &BTreeMap::new(), None);
    assert_eq!(nobody.unwrap_err(), ConninfoError::NoUser);
}

#[test]
fn settings_win_over_the_string_and_the_string_over_the_environment() {
    let env = environment(&[
        ("PGHOST", "e"),
        ("PGPORT", "1"),
        ("PGUSER", "e"),
        ("PGDATABASE", "e"),
        ("PGHOSTADDR", "10.0.0.9"),
    ]);
    let mut settings = conninfo("host=c port=2 user=c");
    let it = ConnectionParameters::resolve(&settings, &env, None).unwrap();
    assert_eq!((it.addresses, it.user.as_str(), it.database.as_str()), (tcp("c", 2), "c", "e"));
    assert_eq!(it.host_address, None, "the environment's address belongs to the environment's host");
    settings.user = Some("s".to_owned());
    settings.socket_path = Some("/srv/s".into());
    let it = ConnectionParameters::resolve(&settings, &env, None).unwrap();
    assert_eq!(it.addresses[0].to_string(), "/srv/s/.s.PGSQL.2");
    assert_eq!(it.user, "s");
    settings.host = Some("h".to_owned());
    assert!(matches!(
        ConnectionParameters::resolve(&settings, &env, None),
        Err(ConninfoError::Contradiction(_))
    ));
}

#[test]
fn pairs_are_read_as_libpq_reads_them() {
    let it =
        resolve(r"host = db1  port=5433 user='a b' password='it\'s \\ here' dbname=x\ y connect_timeout=0")
            .unwrap();
    assert_eq!(it.addresses, tcp("db1", 5433));
    assert_eq!((it.user.as_str(), it.database.as_str(), it.connect_timeout), ("a b", "x y", None));
    assert_eq!(password(&it), br"it's \ here");
    assert_eq!(resolve("host=/run/x").unwrap().addresses[0].to_string(), "/run/x/.s.PGSQL.5432");
    assert_eq!(resolve("host=db hostaddr=10.1.2.3").unwrap().host_address, Some([10, 1, 2, 3].into()));
}

#[test]
fn uris_are_read_as_libpq_reads_them() {
    let it = resolve("postgresql://back%40up:p%3Aw@db1:5433/sh%20op?application_name=x&keepalives_idle=7")
        .unwrap();
    assert_eq!(it.addresses, tcp("db1", 5433));
    assert_eq!(
        (it.user.as_str(), it.database.as_str(), it.application_name.as_str()),
        ("back@up", "sh op", "x")
    );
    assert_eq!(password(&it), b"p:w");
    assert_eq!(it.keepalives.idle, Duration::from_secs(7));
    assert_eq!(resolve("postgres://[2001:db8::1]:1").unwrap().addresses[0].to_string(), "[2001:db8::1]:1");
    assert_eq!(
        resolve("postgres://%2Fvar%2Flib/x").unwrap().addresses[0].to_string(),
        "/var/lib/.s.PGSQL.5432"
    );
    assert_eq!(
        resolve("postgresql:///x?host=/srv&port=7").unwrap().addresses[0].to_string(),
        "/srv/.s.PGSQL.7"
    );
    assert_eq!(resolve("postgresql://").unwrap().addresses.len(), 2);
}

#[test]
fn a_service_stands_between_the_string_and_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("services");
    let text = "[shop]\nhost=s\nport=3\nuser=s\ndbname=s\npassword=s\nsslmode=require\n";
    #[allow(clippy::disallowed_methods, reason = "a file of a test")]
    std::fs::write(&file, text).unwrap();
    let env = environment(&[
        ("PGSERVICE", "shop"),
        ("PGSERVICEFILE", file.to_str().unwrap()),
        ("PGUSER", "e"),
        ("PGDATABASE", "e"),
        ("PGPASSWORD", "e"),
        ("PGSSLMODE", "disable"),
        ("PGAPPNAME", "e"),
    ]);
    let mut settings = conninfo("user=c port=2");
    settings.host = Some("own".to_owned());
    let it = ConnectionParameters::resolve(&settings, &env, None).unwrap();
    assert_eq!((it.addresses.clone(), it.user.as_str()), (tcp("own", 2), "c"));
    assert_eq!((it.database.as_str(), it.application_name.as_str()), ("s", "e"));
    assert_eq!(it.tls.mode, SslMode::Require);
    assert_eq!(it.password, Some((Password::new("s"), PasswordSource::ServiceFile(file.clone()))));
    let named = format!("service=shop servicefile={}", file.display());
    assert_eq!(resolve(&named).unwrap().addresses, tcp("s", 3));
    let error = resolve(&named.replace("shop", "none")).unwrap_err().to_string();
    assert!(error.contains("there is no service \"none\""), "{error}");
}

#[test]
fn what_would_be_ignored_to_somebodys_harm_is_refused() {
    for string in [
        "host=a,b",
        "postgresql://a,b/x",
        "postgresql://a:1,b:2/x",
        "postgresql://[::1],[::2]/x",
        "hostaddr=10.0.0.1,10.0.0.2",
        "require_auth=scram-sha-256",
        "requirepeer=postgres",
        "gssencmode=require",
        "target_session_attrs=read-write",
        "service=x servicefile=/nonexistent",
        "sslkeylogfile=/tmp/keys",
        "replication=true",
        "host=@abstract",
        "port=0",
        "port=65536",
        "port=1,2",
        "hostaddr=db1",
        "nonsense=1",
        "connect_timeout=soon",
        "keepalives=2",
    ] {
        assert!(resolve(string).is_err(), "{string}");
    }
    let env = environment(&[("PGREQUIREAUTH", "scram-sha-256")]);
    assert!(ConnectionParameters::resolve(&ConnectionSettings::default(), &env, Some("me")).is_err());
}

#[test]
fn no_error_and_no_debug_output_quotes_a_password() {
    for string in
        ["password=hun ter2", "password='hunter2", "postgresql://u:hunter2%zz@h", "postgresql://u:hunter2@[h"]
    {
        let error = resolve(string).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("ter2"), "{error}");
    }
    let settings = conninfo("password=hunter2");
    assert!(!format!("{settings:?} {:?}", resolve("password=hunter2").unwrap()).contains("hunter2"));
}

#[test]
fn a_password_is_taken_from_the_nearest_place() {
    let env = environment(&[("PGPASSWORD", "env")]);
    let it = ConnectionParameters::resolve(&conninfo("password=own"), &env, Some("me")).unwrap();
    assert_eq!(it.password.unwrap().1, PasswordSource::Settings);
    let it = ConnectionParameters::resolve(&conninfo("host=x"), &env, Some("me")).unwrap();
    assert_eq!(it.password.unwrap(), (Password::new("env"), PasswordSource::Environment));
}

proptest! {
    #[test]
    fn arbitrary_strings_never_panic(string in "\\PC{0,60}") {
        let _ = resolve(&string);
        let _ = resolve(&format!("postgresql://{string}"));
    }

    #[test]
    fn a_quoted_value_comes_back(value in "[^\0]{1,30}") {
        let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
        let it = resolve(&format!("dbname='{quoted}'")).unwrap();
        prop_assert_eq!(it.database, value);
    }
}
