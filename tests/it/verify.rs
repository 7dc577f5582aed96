//! `verify` over what real servers stored: good when it is, and what is not is named with what lies in it.

use std::fs;

use serde_json::Value;

use crate::common::{Cluster, Output, Replace, Scratch, StopMode, Walden, all_majors, golden, test_all};

fn json(out: &Output) -> Value {
    serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}\n{out}"))
}

fn volatile() -> Vec<Replace> {
    let mut all = vec![
        Replace::Shape("00000000T000000Z-F-aaaaaa", "BACKUP"),
        Replace::Shape("0+.0 MB read", "SIZE read"),
        Replace::Shape("0+.0 kB read", "SIZE read"),
        Replace::Shape("0+,000 files", "N files"),
        Replace::Shape("000 files", "N files"),
        Replace::Shape("0+ objects", "N objects"),
        Replace::Shape("base/0+/0+", "base/N/N"),
        Replace::Shape("0+–0+", "N–N"),
        Replace::Shape("frame 0+", "frame N"),
    ];
    all.splice(0..0, Replace::backup_ids());
    all.extend(Replace::segments());
    all.extend(Replace::lsns());
    all
}

/// Changes one byte of a file.
fn flip(path: &std::path::Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_repository_is_good_until_it_is_not_and_the_files_and_pages_are_named() {
    for major in if test_all() { all_majors() } else { vec![18] } {
        let scratch = Scratch::new();
        let walden = Walden::new(&scratch);
        let mut cluster = Cluster::build(&scratch, major)
            .segment_size_mb(1)
            .conf(&["autovacuum = off"])
            .archive_command(&walden.archive_command())
            .start();
        walden.configure(&cluster, &[]);
        walden.ok(&["stanza-create"]);
        walden.fails(10, &["verify"]);
        cluster.sql(
            "create table orders as select g, repeat(md5(g::text), 40) t from generate_series(1, 4000) g",
        );
        walden.ok(&["backup", "--type=full", "--start-fast"]);
        walden.ok(&["backup", "--type=full", "--start-fast"]);
        for n in 0..3 {
            cluster.sql(&format!("insert into orders values (-1, '{n}')"));
            cluster.archive_now();
        }
        cluster.stop(StopMode::Fast);
        let good = walden.ok(&["verify"]);
        let mut said = good.stdout.clone();
        let told = json(&walden.ok(&["verify", "--output=json"]));
        assert_eq!(told["verdict"], "good", "{told:#}");
        let repository = &told["repositories"][0];
        assert_eq!(repository["unknown_objects"], 0, "{told:#}");
        let backups: Vec<&str> =
            repository["backups"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
        let (newest, oldest) = (backups[0], backups[1]);
        assert!(newest > oldest);
        let one = walden.ok(&["verify", "--set", oldest, "--process-max=1", "--max-rate=1GB"]);
        assert!(one.stdout.contains(&oldest[..25]) && !one.stdout.contains(&newest[..25]), "{one}");
        let timeline = &repository["wal"][0];
        let (first, last) =
            (timeline["first_segment"].as_str().unwrap(), timeline["last_segment"].as_str().unwrap());
        walden.ok(&["verify", "--wal", first]);
        let range = walden.ok(&["verify", &format!("--wal={first}..{last}")]);
        said.push_str(&range.stdout);

        // A pack: the files and pages in it.
        let repo = walden.repo_path();
        let pack = format!("shop/data/{oldest}/pack-000000");
        let whole = fs::read(repo.join(&pack)).unwrap();
        flip(&repo.join(&pack), whole.len() / 2);
        let damaged = walden.fails(40, &["verify"]);
        assert!(damaged.stdout.contains(&pack), "{damaged}");
        let told = json(&walden.fails(40, &["verify", "--output=json", "--set", oldest]));
        let problem = &told["repositories"][0]["backups"][0]["problems"][0];
        let file = &problem["files"][0];
        assert!(file["path"].is_string(), "{told:#}");
        assert!(file["last_block"].as_u64() >= file["first_block"].as_u64(), "{told:#}");
        said.push_str(&damaged.stdout);
        walden.ok(&["verify", "--set", newest]);
        fs::write(repo.join(&pack), whole).unwrap();

        // A segment: of the timeline, and of the backup whose range it is in.
        let segments = walden.ok(&["repo-ls", "--recurse", "shop/wal"]).stdout;
        let segment = |name: &str| {
            segments.lines().find(|line| line.ends_with(name)).map(|line| repo.join(line)).unwrap()
        };
        let away = scratch.join("away");
        fs::rename(segment(last), &away).unwrap();
        walden.ok(&["verify"]);
        walden.fails(42, &["verify", "--wal", last]);
        fs::rename(&away, segment(last)).unwrap();
        let info = json(&walden.ok(&["info", "--output=json"]));
        let stop = info["stanzas"][0]["backups"][1]["stop_segment"].as_str().unwrap().to_owned();
        fs::rename(segment(&stop), &away).unwrap();
        let missing = walden.fails(42, &["verify"]);
        assert!(missing.stdout.matches(&stop).count() >= 2, "{missing}");
        said.push_str(&missing.stdout);
        said.push_str(&missing.stderr);
        fs::rename(&away, segment(&stop)).unwrap();
        flip(&segment(&stop), 400);
        let damaged = walden.fails(40, &["verify", "--set", oldest]);
        assert!(damaged.stdout.contains(&stop), "{damaged}");
        walden.ok(&["verify", "--set", newest]);
        flip(&segment(&stop), 400);

        // What nothing knows is a note, and what is given up is not judged.
        fs::write(repo.join(format!("shop/data/{oldest}/pack-000777")), "x").unwrap();
        fs::write(repo.join("shop/catalog/strange"), "x").unwrap();
        let strays = walden.ok(&["verify"]);
        assert!(strays.stdout.contains("pack-000777") && strays.stdout.contains("strange"), "{strays}");
        if major == 18 {
            // How fast it was is said when it took a while.
            let said: String = said
                .lines()
                .map(|line| match (line.find(" read, "), line.ends_with("/s)")) {
                    (Some(at), true) => format!("{} read)\n", &line[..at]),
                    _ => format!("{line}\n"),
                })
                .collect();
            golden("verify", &said, &volatile());
        }
    }
}
