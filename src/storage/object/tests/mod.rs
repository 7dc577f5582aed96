//! The contract on real servers, and what goes wrong with them.

mod listings;
pub(super) mod servers;

use super::rules::{ExpiryRule, Versions};
use super::*;
use crate::storage::conformance::{check_with, key, kind, listed, racing_creators};
use crate::storage::probe::{ProbePlan, probe};
use servers::{Proxy, Server};
use std::time::{Duration, Instant};

/// A short probe: SeaweedFS lets those who lose a race wait for seconds where there are many.
const FEW: ProbePlan = ProbePlan { creators: 6, rounds: 3 };

const ANY: ByteCount = ByteCount::mib(64);

fn words<T: std::fmt::Debug>(result: Result<T, StoreError>) -> (StoreErrorKind, String) {
    let error = result.expect_err("this should have failed");
    let source = error.source.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut said = format!("{}: {source}", error.what);
    while let Some(at) = said.find("127.0.0.1:") {
        let rest = said.split_off(at + "127.0.0.1".len());
        said += rest[1..].trim_start_matches(|c: char| c.is_ascii_digit());
    }
    (error.kind, said)
}

#[test]
fn s3_keeps_the_contract() {
    let server = Server::s3();
    let place = server.place(&server.bucket(&[]), "S3");
    check_with(&(Arc::new(place.open().unwrap()) as Arc<dyn Store>), 6, 10);
    // The second page of a listing fails: nobody sees that, and nothing is shown twice.
    let proxy = Proxy::start();
    let proxied = tried_again(proxy.place(&place.name).open().unwrap(), RetryPolicy::default());
    proxy.rules(r#"[{"do": "status", "query": "continuation-token", "count": 1}]"#);
    assert_eq!(listed(&proxied, "many").len(), 1205);
    assert_eq!(proxy.log(), ["GET 200", "GET 503", "GET 200"]);
    // At the top of a bucket, where somebody "made folders" by hand.
    let bucket = server.bucket(&[]);
    let top = Bucket { folder: None, name: bucket.clone(), ..place }.open().unwrap();
    let nothing = server.directory.join("env");
    for marker in ["a/", "a/no key of ours"] {
        server.request(&["put", &bucket, marker, nothing.to_str().unwrap()]);
    }
    top.create(&key("a/b/c"), b"x").unwrap();
    assert_eq!(listed(&top, "a"), [("a/b/c".to_owned(), 1)].into());
    assert_eq!(top.folder(None).unwrap().folders, ["a"]);
    let a = top.folder(Some(&key("a"))).unwrap();
    assert_eq!((a.objects.len(), a.folders), (0, vec!["b".to_owned()]));
}

#[test]
fn azure_keeps_the_contract() {
    let server = Server::azure();
    check_with(&(Arc::new(server.azure_place("azure/folder").open().unwrap()) as Arc<dyn Store>), 6, 10);
}

/// As the program uses it.
#[test]
fn a_bucket_that_is_tried_again_keeps_the_contract() {
    let server = Server::s3();
    let place = server.place(&server.bucket(&[]), "S3");
    let tried = tried_again(place.open().unwrap(), RetryPolicy::default());
    check_with(&(Arc::new(tried) as Arc<dyn Store>), 6, 5);
}

/// As its probe does.
#[test]
fn a_bucket_by_several_ways_keeps_the_contract() {
    let server = Server::s3();
    let place = server.place(&server.bucket(&[]), "S3");
    let ways = vec![place.open().unwrap(), place.open().unwrap(), place.open().unwrap()];
    let spread = spread::Spread::over(ways, &key("walden.json")).unwrap();
    assert_eq!(spread.ways(), 3);
    check_with(&(Arc::new(spread) as Arc<dyn Store>), 6, 5);
}

#[test]
fn of_thirty_two_who_create_one_name_at_once_one_succeeds() {
    let s3 = Server::s3();
    let azure = Server::azure();
    for place in [s3.place(&s3.bucket(&[]), "S3"), azure.azure_place("thirty-two")] {
        let store = tried_again(place.open().unwrap(), RetryPolicy::default());
        racing_creators(&(Arc::new(store) as Arc<dyn Store>), 32, 3);
    }
}

#[test]
fn a_bucket_says_what_it_does_by_itself() {
    let server = Server::s3();
    let rules =
        |bucket: &str, identity: &str| server.place(bucket, identity).open().unwrap().rules().unwrap();
    let plain = server.bucket(&[]);
    let found = rules(&plain, "S3");
    assert_eq!(found.versions.unwrap(), Versions::Off);
    assert_eq!(found.expiring.unwrap(), []);
    let versioned = server.bucket(&["--versioned"]);
    assert_eq!(rules(&versioned, "S3").versions.unwrap(), Versions::Kept);
    server.request(&["suspend", &versioned]);
    assert_eq!(rules(&versioned, "S3").versions.unwrap(), Versions::Suspended);
    server.request(&["lifecycle", &plain, "some/", "30"]);
    let tidy =
        ExpiryRule { name: "tidy".to_owned(), prefix: "some/".to_owned(), when: "after 30 days".to_owned() };
    assert_eq!(rules(&plain, "S3").expiring.unwrap(), [tidy]);
    server.request(&["lifecycle", &versioned, "elsewhere/", "30"]);
    assert_eq!(rules(&versioned, "S3").expiring.unwrap(), []);

    // Whoever has no right to ask hears so.
    for refused in [rules(&plain, "S3_NODELETE").versions.err(), rules(&plain, "S3_NODELETE").expiring.err()]
    {
        let refused = refused.unwrap();
        assert_eq!(refused.kind, StoreErrorKind::Denied);
        let said = refused.source.unwrap().to_string();
        assert!(said.starts_with("these credentials may not do this: 127.0.0.1:"), "{said}");
    }
    // A store that is busy is asked again.
    let proxy = Proxy::start();
    let store = proxy.place(&plain).open().unwrap();
    proxy.rules(r#"[{"do": "status", "query": "versioning", "count": 1}]"#);
    assert_eq!(store.rules().unwrap().versions.unwrap(), Versions::Off);
    assert_eq!(proxy.log(), ["GET 503", "GET 200", "GET 200"]);
    assert!(Server::azure().azure_place("x").open().unwrap().rules().is_none());
}

#[test]
fn a_delete_that_conflicts_is_refused() {
    let proxy = Proxy::start();
    let store = proxy.place(&proxy.server.bucket(&[])).open().unwrap();
    let k = key("a/b");
    store.create(&k, b"x").unwrap();
    proxy.rules(
        r#"[{"do": "status", "method": "DELETE", "status": 409, "code": "BlobImmutableDueToPolicy", "message": "This is kept."}]"#,
    );
    let (denied, said) = words(store.delete(&k));
    assert_eq!(denied, StoreErrorKind::Denied);
    assert_eq!(
        said,
        "could not delete a/b: the store refused: 127.0.0.1 answered 409 BlobImmutableDueToPolicy (This is kept.)"
    );
    proxy.rules(r#"[{"do": "status", "method": "GET", "status": 409, "code": "Whatever"}]"#);
    assert_eq!(kind(store.read(&k, ANY)), StoreErrorKind::Denied);
}

#[test]
fn versioned_and_locked_buckets_keep_it_too() {
    let server = Server::s3();
    for options in [&["--versioned"][..], &["--lock-days", "1"]] {
        let store = server.place(&server.bucket(options), "S3").open().unwrap();
        let k = key("a/b");
        for round in 0..3_u8 {
            assert_eq!(store.create(&k, &[round]).unwrap(), Created::New, "{options:?}");
            assert_eq!(store.create(&k, &[round]).unwrap(), Created::Same);
            assert_eq!(kind(store.create(&k, b"other")), StoreErrorKind::Taken);
            store.delete(&k).unwrap();
            assert_eq!(kind(store.read(&k, ANY)), StoreErrorKind::NotFound);
            assert_eq!(store.size(&k).unwrap(), None);
            store.list(&key("a"), &mut |listed| panic!("{listed:?} is listed")).unwrap();
        }
        let found = probe(&store, &key("probe/x"), FEW).unwrap();
        assert!(found.usable() && found.may_delete.holds(), "{options:?}: {found:?}");
    }
}

#[test]
fn who_may_do_less_is_denied_the_rest_in_words() {
    let server = Server::s3();
    let bucket = server.bucket(&[]);
    let (k, other) = (key("a/b"), key("a/c"));
    let writer = server.place(&bucket, "S3_NODELETE").open().unwrap();
    assert_eq!(writer.create(&k, b"x").unwrap(), Created::New);
    assert_eq!(writer.create(&k, b"x").unwrap(), Created::Same);
    assert_eq!(writer.read_end(&k, 5).unwrap(), (b"x".to_vec(), ByteCount::new(1)));
    assert_eq!(writer.folder(Some(&key("a"))).unwrap().objects.len(), 1);
    let (denied, said) = words(writer.delete(&k));
    assert_eq!(denied, StoreErrorKind::Denied);
    assert!(
        said.starts_with("could not delete a/b: these credentials may not do this: 127.0.0.1 answered 403"),
        "{said}"
    );
    let found = probe(&writer, &key("probe/x"), FEW).unwrap();
    assert!(found.usable() && !found.may_delete.holds(), "{found:?}");

    let reader = server.place(&bucket, "S3_READONLY").open().unwrap();
    assert_eq!(reader.read(&k, ANY).unwrap(), b"x");
    assert_eq!(reader.size(&other).unwrap(), None);
    assert_eq!(kind(reader.create(&other, b"y")), StoreErrorKind::Denied);
    assert_eq!(kind(reader.create(&k, b"y")), StoreErrorKind::Denied);
    assert_eq!(kind(reader.delete(&k)), StoreErrorKind::Denied);
}

/// Calls every function and gives the kinds and words of the errors.
fn all_calls(store: &dyn Store) -> Vec<(StoreErrorKind, String)> {
    let k = key("a/b");
    vec![
        words(store.read(&k, ANY)),
        words(store.read_range(&k, 0..5)),
        words(store.read_range(&k, 0..0)),
        words(store.read_end(&k, 5)),
        words(store.size(&k)),
        words(store.create(&k, b"x")),
        words(store.list(&k, &mut |_| ())),
        words(store.folder(None)),
        words(store.delete(&k)),
    ]
}

#[test]
fn a_missing_bucket_is_never_a_missing_object() {
    let server = Server::s3();
    let store = server.place("no-such-bucket", "S3").open().unwrap();
    for (kind, said) in all_calls(&store) {
        assert_eq!(kind, StoreErrorKind::Denied, "{said}");
        assert!(said.contains("there is no such bucket: 127.0.0.1 answered 404 NoSuchBucket"), "{said}");
    }
    let azure = Server::azure();
    let store = Bucket { name: "no-such-container".to_owned(), ..azure.azure_place("x") }.open().unwrap();
    for (kind, said) in all_calls(&store) {
        assert_eq!(kind, StoreErrorKind::Denied, "{said}");
        assert!(said.contains("there is no such bucket: 127.0.0.1 answered 404 ContainerNotFound"), "{said}");
    }
}

#[test]
fn wrong_credentials_are_named_and_not_repeated() {
    let server = Server::s3();
    let place = server.place("walden", "S3");
    let with = |change: &dyn Fn(&mut S3)| {
        let mut place = place.clone();
        if let Service::S3(s3) = &mut place.service {
            change(s3);
        }
        place.open().unwrap()
    };
    let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    let wrong_secret = with(&|s3| {
        if let S3Credentials::Key(key) = &mut s3.credentials {
            key.secret = secret.to_owned();
        }
    });
    let (denied, said) = words(wrong_secret.read(&key("a"), ANY));
    assert_eq!(denied, StoreErrorKind::Denied);
    assert!(
        said.contains("the secret does not belong to the key: 127.0.0.1 answered 403 SignatureDoesNotMatch"),
        "{said}"
    );
    let unknown = with(&|s3| {
        s3.credentials =
            S3Credentials::Key(S3Key { id: "NOBODY".to_owned(), secret: secret.to_owned(), token: None });
    });
    let (denied, said) = words(unknown.create(&key("a"), b""));
    assert_eq!(denied, StoreErrorKind::Denied);
    assert!(
        said.contains("the server does not know the access key: 127.0.0.1 answered 403 InvalidAccessKeyId"),
        "{said}"
    );
    let failing: connect::FetchS3Key = Arc::new(|| Err("there is no profile \"shop\"".to_owned()));
    let none = with(&|s3| s3.credentials = S3Credentials::Fetched(Arc::clone(&failing)));
    assert_eq!(
        words(none.folder(None)),
        (StoreErrorKind::Denied, "could not list the repository: there is no profile \"shop\"".to_owned())
    );
    let azure = Server::azure();
    let mut place = azure.azure_place("x");
    if let Service::Azure(service) = &mut place.service {
        service.credentials = AzureCredentials::Shared("c2VjcmV0IG9mIG5vYm9keQ==".to_owned());
    }
    for (kind, said) in all_calls(&place.open().unwrap()) {
        assert_eq!(kind, StoreErrorKind::Denied, "{said}");
        assert!(said.contains("answered 403"), "{said}");
        assert!(!said.contains("nobody") && !said.contains("c2Vjc"), "{said}");
    }
    for store in [&wrong_secret, &unknown, &none] {
        assert!(!format!("{store:?}").contains(secret));
        for (_, said) in all_calls(store) {
            assert!(!said.contains(secret) && !said.to_lowercase().contains("aws4"), "{said}");
        }
    }
}

#[test]
fn who_does_not_answer_is_named_with_the_reason() {
    let server = Server::s3();
    let place = server.place("walden", "S3");
    let asked = |place: Bucket| words(place.open().and_then(|store| store.size(&key("a"))));

    let (kind, said) = asked(Bucket { trusted: None, ..place.clone() });
    assert_eq!(kind, StoreErrorKind::Denied, "{said}");
    assert!(
        said.contains(
            "the certificate of 127.0.0.1 is not trusted (invalid peer certificate: UnknownIssuer)"
        ),
        "{said}"
    );
    let unverified = Bucket { trusted: None, verify: false, ..place.clone() };
    assert_eq!(unverified.open().unwrap().size(&key("a")).unwrap(), None);

    let (kind, said) = asked(Bucket { endpoint: "no-such-name.invalid".to_owned(), ..place.clone() });
    assert_eq!(kind, StoreErrorKind::Unavailable);
    assert!(said.contains("the name no-such-name.invalid cannot be looked up"), "{said}");

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (kind, said) = asked(Bucket { endpoint: format!("https://{free}"), ..place.clone() });
    assert_eq!(kind, StoreErrorKind::Unavailable);
    assert!(said.contains("nobody answers at 127.0.0.1 (Connection refused"), "{said}");

    let plain = place.endpoint.replace("https", "http");
    let (kind, said) = asked(Bucket { endpoint: plain, trusted: None, ..place.clone() });
    assert_ne!(kind, StoreErrorKind::NotFound);
    assert!(!said.is_empty());

    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let started = Instant::now();
    let endpoint = format!("https://{}", deaf.local_addr().unwrap());
    let (kind, said) = asked(Bucket { endpoint, silence: Duration::from_millis(300), ..place.clone() });
    assert_eq!(kind, StoreErrorKind::Unavailable);
    assert!(said.contains("127.0.0.1 does not answer in time"), "{said}");
    assert!(started.elapsed() < Duration::from_secs(5));

    for (endpoint, why) in [
        ("ftp://x", "is neither https:// nor http://"),
        ("https://user:pw1@x", "the endpoint holds more than a host and a path"),
        ("https://a b", "is neither a URL nor a host"),
    ] {
        let (kind, said) = asked(Bucket { endpoint: endpoint.to_owned(), ..place.clone() });
        assert_eq!(kind, StoreErrorKind::Unsupported);
        assert!(said.contains(why) && !said.contains("pw1"), "{said}");
    }
    let (kind, said) = asked(Bucket { trusted: Some(b"nothing".to_vec()), ..place });
    assert_eq!(kind, StoreErrorKind::Unsupported);
    assert!(said.contains("the CA file holds no certificate"), "{said}");
}

#[test]
fn what_passes_is_tried_again_and_what_stalls_ends() {
    let proxy = Proxy::start();
    let bucket = proxy.server.bucket(&[]);
    let place = Bucket { silence: Duration::from_millis(700), ..proxy.place(&bucket) };
    let once = place.open().unwrap();
    let millis = Duration::from_millis;
    let policy = RetryPolicy { first_pause: millis(10), longest_pause: millis(20), ..RetryPolicy::default() };
    let again = tried_again(once.clone(), policy);
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let k = |name: &str| key(&format!("faults/{name}"));
    again.create(&k("object"), &bytes).unwrap();

    // The reply is lost: the second attempt finds the object of the first.
    proxy.rules(r#"[{"do": "drop_reply", "method": "PUT", "count": 1}]"#);
    assert_eq!(again.create(&k("lost"), &bytes).unwrap(), Created::Same);
    assert_eq!(proxy.log().last().unwrap(), "GET 200");
    proxy.rules(r#"[{"do": "drop_reply", "method": "PUT", "count": 1}]"#);
    assert_eq!(kind(once.create(&k("lost-once"), &bytes)), StoreErrorKind::Unavailable);
    assert_eq!(proxy.log().len(), 1, "nothing below tries again");

    // Refused for now.
    proxy.rules(r#"[{"do": "status", "status": 503, "code": "SlowDown", "count": 2}]"#);
    assert_eq!(again.create(&k("slow"), b"x").unwrap(), Created::New);
    assert_eq!(proxy.log(), ["PUT 503", "PUT 503", "PUT 200"]);
    proxy.rules(r#"[{"do": "status", "status": 500, "code": "InternalError"}]"#);
    let (kind_of, said) = words(once.create(&k("x"), b"x"));
    assert_eq!(kind_of, StoreErrorKind::Unavailable);
    assert!(said.contains("the store cannot do it just now: 127.0.0.1 answered 500 InternalError"), "{said}");
    // Not refused for now.
    proxy.rules(r#"[{"do": "status", "status": 403, "code": "AccessDenied"}]"#);
    assert_eq!(kind(again.read(&k("object"), ANY)), StoreErrorKind::Denied);
    assert_eq!(proxy.log(), ["GET 403"]);

    // A body that ends too early, with and without a reset, and one that stalls.
    for rule in [
        r#"{"do": "cut", "method": "GET", "after": 1000, "count": 1}"#,
        r#"{"do": "cut", "method": "GET", "after": 100000, "rst": true, "count": 1}"#,
        r#"{"do": "stall", "method": "GET", "where": "body", "after": 5000, "seconds": 3, "count": 1}"#,
        r#"{"do": "stall", "method": "GET", "where": "reply", "seconds": 3, "count": 1}"#,
        r#"{"do": "refuse", "count": 1}"#,
    ] {
        proxy.rules(&format!("[{rule}]"));
        assert_eq!(kind(once.read(&k("object"), ANY)), StoreErrorKind::Unavailable, "{rule}");
        proxy.rules(&format!("[{rule}]"));
        let started = Instant::now();
        assert!(again.read(&k("object"), ANY).unwrap() == bytes, "{rule}");
        assert!(started.elapsed() < millis(2500), "{rule}: {:?}", started.elapsed());
    }
    // An upload that nobody answers ends, too, and the next attempt finds what it did.
    proxy.rules(r#"[{"do": "stall", "method": "PUT", "where": "reply", "seconds": 3, "count": 1}]"#);
    let started = Instant::now();
    assert_eq!(again.create(&k("unanswered"), b"x").unwrap(), Created::Same);
    assert!(started.elapsed() < millis(2500), "{:?}", started.elapsed());
    // An upload that breaks off leaves nothing, one that goes slowly but goes is let.
    proxy.rules(r#"[{"do": "cut_upload", "method": "PUT", "after": 100000, "count": 1}]"#);
    assert_eq!(again.create(&k("cut"), &bytes).unwrap(), Created::New);
    proxy.rules(r#"[{"do": "throttle", "method": "PUT", "bytes_per_second": 600000}]"#);
    let started = Instant::now();
    assert_eq!(again.create(&k("slowly"), &bytes).unwrap(), Created::New);
    assert!(started.elapsed() > millis(1200), "it went too fast to tell: {:?}", started.elapsed());
    // A store that performs a request twice gives the second answer.
    proxy.rules(r#"[{"do": "repeat", "method": "PUT"}]"#);
    assert_eq!(again.create(&k("twice"), &bytes).unwrap(), Created::Same);

    // A wrong region, as Amazon's servers say it.
    let region = "<Region>eu-north-1</Region>";
    proxy.rules(&format!(
        r#"[{{"do": "status", "status": 400, "code": "AuthorizationHeaderMalformed", "message": "no</Message>{region}<Message>"}}]"#
    ));
    let (kind_of, said) = words(again.read(&k("object"), ANY));
    assert_eq!(kind_of, StoreErrorKind::Denied);
    assert!(said.contains("the bucket is in the region eu-north-1"), "{said}");
}

#[test]
fn a_store_that_ignores_the_condition_is_found_out() {
    let proxy = Proxy::start();
    let store = proxy.place(&proxy.server.bucket(&[])).open().unwrap();
    proxy.rules(r#"[{"do": "strip"}]"#);
    let found = probe(&store, &key("probe/x"), FEW).unwrap();
    assert!(!found.atomic_create.holds() && !found.usable(), "{found:?}");
    proxy.rules("[]");
    let found = probe(&store, &key("probe/y"), FEW).unwrap();
    assert!(found.usable(), "{found:?}");
}

#[test]
fn requests_are_few() {
    let proxy = Proxy::start();
    let store = proxy.place(&proxy.server.bucket(&[])).open().unwrap();
    let count = |what: &dyn Fn()| {
        proxy.rules("[]");
        what();
        proxy.log()
    };
    let k = key("few/object");
    assert_eq!(count(&|| drop(store.create(&k, b"0123456789"))), ["PUT 200"]);
    assert_eq!(count(&|| drop(store.read(&k, ANY))), ["GET 200"]);
    assert_eq!(count(&|| drop(store.read_range(&k, 2..4))), ["GET 206"]);
    assert_eq!(count(&|| drop(store.read_end(&k, 4))), ["GET 206"]);
    assert_eq!(count(&|| drop(store.size(&k))), ["HEAD 200"]);
    assert_eq!(count(&|| drop(store.size(&key("few/absent")))), ["HEAD 404"]);
    assert_eq!(count(&|| drop(store.read(&key("few/absent"), ANY))), ["GET 404"]);
    assert_eq!(count(&|| drop(store.folder(Some(&key("few"))))), ["GET 200"]);
    assert_eq!(count(&|| drop(store.create(&k, b"0123456789"))), ["PUT 412", "GET 200"]);
}

#[test]
fn many_threads_wait_at_once() {
    let proxy = Proxy::start();
    let store = proxy.place(&proxy.server.bucket(&[])).open().unwrap();
    proxy.rules(r#"[{"do": "stall", "seconds": 0.5, "where": "request"}]"#);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let store = &store;
            scope.spawn(move || store.create(&key(&format!("at-once/{i}")), &[7; 100_000]).unwrap());
        }
    });
    // One after the other they would need four seconds.
    assert!(started.elapsed() < Duration::from_millis(2500), "{:?}", started.elapsed());
    // From within another runtime, too.
    let outside = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(outside.block_on(async { store.size(&key("at-once/1")) }).unwrap().is_some());
}

#[test]
fn every_address_of_a_name_is_tried() {
    let server = Server::s3();
    let place = server.place(&server.bucket(&[]), "S3");
    let by_name = Bucket { endpoint: place.endpoint.replace("127.0.0.1", "localhost"), ..place };
    let spread = spread::Spread::over(by_name.open_each_address().unwrap(), &key("walden.json")).unwrap();
    assert!(spread.ways() >= 1);
    let found = probe(&spread, &key("probe/x"), FEW).unwrap();
    assert!(found.usable(), "{found:?}");
}

#[test]
fn what_is_asked_of_the_service_beside_storing_is_asked() {
    let server = Server::s3();
    let with = |change: &dyn Fn(&mut S3)| {
        let mut place = server.place(&server.bucket(&[]), "S3");
        if let Service::S3(s3) = &mut place.service {
            change(s3);
        }
        place
    };
    let k = key("a/b");
    let customer = with(&|s3| {
        s3.encryption =
            Some(S3Encryption::Customer("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".to_owned()));
        s3.storage_class = Some("STANDARD".to_owned());
    });
    let store = customer.open().unwrap();
    assert_eq!(store.create(&k, b"0123456789").unwrap(), Created::New);
    assert_eq!(store.create(&k, b"0123456789").unwrap(), Created::Same);
    assert_eq!(store.size(&k).unwrap(), Some(ByteCount::new(10)));
    assert_eq!(store.read_range(&k, 2..4).unwrap(), b"23");
    assert_eq!(store.read_end(&k, 2).unwrap().0, b"89");
    // Without the key nobody reads it.
    let without = Bucket { name: customer.name, ..with(&|_| ()) }.open().unwrap();
    assert!(without.read(&k, ANY).is_err());

    // A key that is fetched is fetched each time: a renewed one is used at once.
    let fact = |name: &str| server.facts[name].clone();
    let (good, fetched) = (Arc::new(AtomicBool::new(false)), Arc::new(std::sync::atomic::AtomicU32::new(0)));
    let (id, secret) = (fact("S3_ACCESS_KEY"), fact("S3_SECRET_KEY"));
    let (is_good, count) = (Arc::clone(&good), Arc::clone(&fetched));
    let fetch: connect::FetchS3Key = Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let secret = if is_good.load(Ordering::Relaxed) { secret.clone() } else { "old".to_owned() };
        Ok(S3Key { id: id.clone(), secret, token: None })
    });
    let store = with(&|s3| s3.credentials = S3Credentials::Fetched(Arc::clone(&fetch))).open().unwrap();
    assert_eq!(kind(store.create(&k, b"x")), StoreErrorKind::Denied);
    good.store(true, Ordering::Relaxed);
    assert_eq!(store.create(&k, b"x").unwrap(), Created::New);
    assert_eq!(fetched.load(Ordering::Relaxed), 2);
}

#[test]
fn what_is_too_large_for_one_request_is_refused_before_it_is_sent() {
    let store = Server::s3().place("no-such-bucket", "S3").open().unwrap();
    let mut pending = store.begin(&key("a")).unwrap();
    let piece = vec![0; 16 << 20];
    for _ in 0..5 {
        pending.write(&piece).unwrap();
    }
    assert_eq!(kind(pending.write(b"x")), StoreErrorKind::Unsupported);
    assert_eq!(
        kind(store.create_shared(&key("a"), &vec![0; (80 << 20) + 1].into())),
        StoreErrorKind::Unsupported
    );
}

/// Ceph's gateway, where all is tested (`make test-all`).
#[test]
fn ceph_keeps_the_contract() {
    if !std::env::var_os("WALDEN_TEST_ALL").is_some_and(|v| !v.is_empty() && v != "0") {
        return;
    }
    let server = Server::ceph();
    let place = server.place(&server.bucket(&[]), "S3");
    check_with(&(Arc::new(place.open().unwrap()) as Arc<dyn Store>), 32, 10);
    let missing = Bucket { name: "no-such-bucket".to_owned(), ..place };
    for (kind, said) in all_calls(&missing.open().unwrap()) {
        assert_eq!(kind, StoreErrorKind::Denied, "{said}");
    }
}
