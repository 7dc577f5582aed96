//! `stanza-upgrade`: adds the cluster that succeeds the one a stanza holds, after `pg_upgrade` or a new `initdb`.
//!
//! Backups and WAL of both stay, each under its own system identifier. All repositories are looked at before any
//! is changed.

use super::open::{open_repository, repository_failure};
use super::server::{Source, learn_cluster, warn_of_untested};
use super::stanza_create::changed;
use super::{Context, Outcome, no_stdout};
use crate::failure::{Class, Failure};
use crate::repo::{Cluster, Repository};
use crate::settings::RepositorySettings;
use crate::storage::Created;
use crate::units::Stanza;
use serde_json::json;

pub(super) fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let (settings, report) = (context.settings, context.report);
    let stanza = settings.stanza()?;
    let (cluster, source) = learn_cluster(&settings.server(1))?;
    if let Source::DataDirectory(path) = &source {
        report.info(format!("no server answers; {} tells which cluster it is", path.display()));
    }
    warn_of_untested(cluster.major, report);
    let mut looked = Vec::new();
    for target in settings.repositories()? {
        let repository = open_repository(&target)?;
        let before = look(&repository, &target, stanza, &cluster, &source)?;
        looked.push((target, repository, before));
    }
    let which = format!("PostgreSQL {}, system {}", cluster.major, cluster.system);
    let (mut documents, mut any_new) = (Vec::new(), false);
    for (target, repository, before) in looked {
        let name = target.name();
        let added = match before {
            None => false,
            Some(before) => {
                let added = repository.add_cluster(stanza, &cluster, context.env).map_err(|error| {
                    repository_failure(error, &target, format!("could not upgrade stanza {stanza} in {name}"))
                })? == Created::New;
                report.info(format!(
                    "{name}: stanza {stanza} now holds {which}, after PostgreSQL {}, system {}",
                    before.major, before.system
                ));
                added
            }
        };
        if before.is_none() {
            report.info(format!("{name}: stanza {stanza} holds {which} already"));
        }
        any_new |= added;
        documents.push(json!({ "repository": target.index, "cluster_added": added }));
    }
    if any_new {
        report.info(format!(
            "next: take a backup at once (`walden --stanza={stanza} backup`): those of before do not lead into this \
             cluster.\n      They and their WAL stay until retention lets them go"
        ));
    }
    if report.is_json() {
        let document = json!({
            "stanza": stanza.as_str(),
            "cluster": {
                "system_identifier": cluster.system.to_string(),
                "postgresql_major": cluster.major.as_u16(),
            },
            "repositories": documents,
        });
        report.json(&document).map_err(no_stdout)?;
    }
    Ok(Outcome::Done)
}

/// The newest cluster that the stanza holds; `None` when `cluster` is one of them.
fn look(
    repository: &Repository,
    target: &RepositorySettings,
    stanza: &Stanza,
    cluster: &Cluster,
    source: &Source,
) -> Result<Option<Cluster>, Failure> {
    let name = target.name();
    let held = repository.clusters(stanza).map_err(|error| {
        repository_failure(error, target, format!("could not look up stanza {stanza} in {name}"))
    })?;
    if let Some(there) = held.iter().find(|held| held.system == cluster.system) {
        return if there == cluster { Ok(None) } else { Err(changed(&name, stanza, there, cluster, source)) };
    }
    let Some(newest) = held.iter().max_by_key(|held| (held.major, held.system)) else {
        return Err(Failure::new(
            Class::NoRepository,
            format!("cannot upgrade stanza {stanza}: {name} does not hold it"),
        )
        .because_text(format!("{} holds no cluster under that name", repository.describe()))
        .next(format!("Run `walden --stanza={stanza} stanza-create`.")));
    };
    if cluster.major < newest.major {
        return Err(Failure::new(
            Class::NotThisCluster,
            format!("cannot upgrade stanza {stanza} of {name} to an older PostgreSQL"),
        )
        .because_text(format!(
            "{name} holds PostgreSQL {}, system {}; {source} is PostgreSQL {}, system {}",
            newest.major, newest.system, cluster.major, cluster.system
        ))
        .next("Check pg1-path, pg1-host and pg1-port: they seem to name the old cluster.")
        .next("If this is another cluster, give it a stanza of its own: --stanza=NAME."));
    }
    Ok(Some(*newest))
}
