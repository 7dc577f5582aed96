//! Long listings on real servers.

use super::*;
use std::collections::BTreeSet;

/// So that the listings of these tests are long ones.
const SMALL: Plan = Plan { alone: 1, streams: 4, ranges: 7, folders: 1, level_pages: 40 };

#[test]
fn buckets_whose_listings_are_cut_keep_the_contract() {
    let server = Server::s3();
    let place = server.place(&server.bucket(&[]), "S3");
    let store = place.open().unwrap().with_pages_of(20, SMALL);
    check_with(&(Arc::new(store.clone()) as Arc<dyn Store>), 6, 5);
    assert!(store.inner.begins_at_points.load(Ordering::Relaxed), "it begins where it is told to");
    // Azure's are not cut; Azurite's could be.
    let azure = Server::azure().azure_place("cut").open().unwrap();
    let cut = azure.with_pages_of(20, SMALL);
    check_with(&(Arc::new(cut) as Arc<dyn Store>), 6, 5);
}

#[test]
fn a_long_listing_costs_its_pages_the_folders_and_a_page_for_each_range() {
    let proxy = Proxy::start();
    let bucket = proxy.server.bucket(&[]);
    let place = proxy.place(&bucket);
    let direct = proxy.server.place(&bucket, "S3").open().unwrap();
    let names: Vec<String> = (0..240).map(|i| format!("w/00000001/{:016X}/{i:024X}", i / 10)).collect();
    std::thread::scope(|scope| {
        for part in names.chunks(30) {
            let direct = &direct;
            scope.spawn(move || part.iter().for_each(|name| _ = direct.create(&key(name), b"x").unwrap()));
        }
    });
    let expected: BTreeSet<_> = names.iter().map(|name| (name.clone(), 1)).collect();
    let list = |plan, rules: &str| {
        let store = tried_again(place.open().unwrap().with_pages_of(20, plan), RetryPolicy::default());
        proxy.rules(rules);
        assert_eq!(listed(&store, "w"), expected, "{rules}");
        let queries = proxy.queries();
        let with = |what: &str| queries.iter().filter(|query| query.contains(what)).count();
        (queries.len(), with("start-after="), with("delimiter="), with("continuation-token="))
    };
    assert_eq!(list(Plan::ONE_STREAM, "[]"), (12, 0, 0, 11));
    // Folders: the timeline, and two pages of what is in it. Of six ranges of forty names each has a page of its own, and one more
    // that shows that the next has begun.
    let plan = Plan { alone: 1, streams: 4, ranges: 6, folders: 3, level_pages: 40 };
    let (all, points, folders, _) = list(plan, "[]");
    assert_eq!((points, folders), (5, 3));
    assert!(all <= 12 + 3 + 6, "{all}");
    // Whatever page of it fails is asked for once more, and nothing is shown twice.
    for query in ["start-after", "continuation-token", "delimiter", "list-type"] {
        for from in [1, 3] {
            list(plan, &format!(r#"[{{"do": "status", "query": "{query}", "from": {from}, "count": 2}}]"#));
        }
    }
    // A server that takes no notice of points, or refuses them, is found out, and costs a page for each.
    let ignored = r#"[{"do": "strip", "parameters": ["start-after"]}]"#;
    // (One page of the folders is a later one, too.)
    assert_eq!(list(plan, ignored), (12 + 3 + 5, 5, 3, 11 + 1));
    let refused = r#"[{"do": "status", "query": "start-after", "status": 501, "code": "NotImplemented"}]"#;
    assert_eq!(list(plan, refused), (12 + 3 + 5, 5, 3, 11 + 1));
    // By some of its machines.
    let now_and_then =
        r#"[{"do": "strip", "parameters": ["start-after"], "query": "start-after", "every": 2}]"#;
    assert_eq!(list(plan, now_and_then).1, 5);
    // It is asked once.
    let store = place.open().unwrap().with_pages_of(20, plan);
    proxy.rules(ignored);
    for _ in 0..2 {
        assert_eq!(listed(&store, "w"), expected);
    }
    assert_eq!(proxy.log().len(), 12 + 3 + 5 + 12);
    // What does not answer at all ends the listing.
    let gone =
        tried_again(place.open().unwrap().with_pages_of(20, plan), RetryPolicy::for_up_to(Duration::ZERO));
    proxy.rules(r#"[{"do": "status", "query": "start-after", "from": 2}]"#);
    assert_eq!(kind(gone.list(&key("w"), &mut |_| ())), StoreErrorKind::Unavailable);
}

#[test]
fn a_store_that_does_not_list_from_a_point_is_found_out_and_may_be_used() {
    let proxy = Proxy::start();
    let store = proxy.place(&proxy.server.bucket(&[])).open().unwrap();
    let found = |rules: &str| {
        proxy.rules(rules);
        let found = probe(&store, &key("probe/x"), FEW).unwrap();
        assert!(found.usable(), "{found:?}");
        found.list_from_a_point.holds()
    };
    assert!(found("[]"));
    assert!(!found(r#"[{"do": "strip", "parameters": ["start-after"]}]"#));
    assert!(!found(r#"[{"do": "status", "query": "start-after", "status": 501, "code": "NotImplemented"}]"#));
}
