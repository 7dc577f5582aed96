//! Pages that failed their checksum: which, and of what.

use super::copy;
use super::source::Streamed;
use crate::postgres::client::{ClientError, ReplicationClient};
use crate::postgres::control_file::ControlFile;
use crate::postgres::relation_file::{DEFAULT_TABLESPACE, FileKind};
use crate::repo::record::{PageChecksums, PageFailure};
use std::collections::BTreeMap;

/// The most relations that the server is asked to name: each takes a question.
const MOST_NAMED: usize = 200;

/// Ours and the server's findings together: the server re-reads a torn page, but names five a file at most, and not
/// in every language.
///
/// Later servers may switch checksums while they run (19rc1 does not yet): where they are not on at the end, too, what did not fit here
/// says nothing. The server knows when it switched: what it says counts in any case.
pub(super) fn found(
    on_at_start: bool,
    streamed: &Streamed,
    copied: &copy::Copied,
    control: &ControlFile,
) -> PageChecksums {
    let ours_count = on_at_start && control.data_checksums_are_on();
    let (mut failures, mut failure_count) =
        if ours_count { (copied.failures.clone(), copied.failure_count) } else { (Vec::new(), 0) };
    if let Some(found) = &streamed.page_failures {
        for page in &found.pages {
            let path = page.file.trim_start_matches("./").to_owned();
            let failure = PageFailure { path, block: page.block, relation: None };
            if !failures.contains(&failure) {
                failure_count += 1;
                if failures.len() < copy::MOST_FAILURES {
                    failures.push(failure);
                }
            }
        }
        failure_count = failure_count.max(1);
    }
    PageChecksums { enabled: ours_count || failure_count > 0, failures, failure_count }
}

/// Asks the server what the damaged files belong to. What it does not say stays unsaid: nothing rests on it.
pub(super) async fn name_relations(client: &mut ReplicationClient, failures: &mut [PageFailure]) {
    if failures.is_empty() || !client.takes_sql() {
        return;
    }
    let file_of = |failure: &PageFailure| {
        FileKind::of_path(&failure.path)
            .relation()
            .map(|file| (file.tablespace, file.database, file.relation))
    };
    let mut names: BTreeMap<(u32, u32, u32), Option<String>> = BTreeMap::new();
    for failure in failures.iter_mut() {
        let Some(file) = file_of(failure) else { continue };
        if !names.contains_key(&file) && names.len() < MOST_NAMED {
            // A connection that is lost here fails the backup where it is used next.
            let Ok(name) = name_of(client, file).await else { return };
            names.insert(file, name);
        }
        failure.relation = names.get(&file).cloned().flatten();
    }
}

/// The relation, if it is in the database of the connection or shared; else the database.
async fn name_of(
    client: &mut ReplicationClient,
    (tablespace, database, relation): (u32, u32, u32),
) -> Result<Option<String>, ClientError> {
    // pg_filenode_relation calls the database's own tablespace 0; which that is, it finds out itself.
    let tablespace = if tablespace == DEFAULT_TABLESPACE { 0 } else { tablespace };
    let question = format!(
        "select case when {database} <> 0 and d.oid <> {database} \
           then (select format('database %I', o.datname) from pg_catalog.pg_database o where o.oid = {database}) \
           else (select format('%s %I.%I', \
               case c.relkind when 'i' then 'index' when 'I' then 'index' when 'S' then 'sequence' \
                 when 'm' then 'materialized view' when 't' then 'TOAST of table' else 'table' end, \
               coalesce(tn.nspname, n.nspname), coalesce(t.relname, c.relname)) \
             from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
               left join pg_catalog.pg_class t on c.relkind = 't' and t.reltoastrelid = c.oid \
               left join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace \
             where c.oid = pg_catalog.pg_filenode_relation({tablespace}, {relation})) end \
         from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()"
    );
    let rows = client.sql(&question, "what a damaged file belongs to").await;
    match rows {
        Ok(rows) => Ok(rows.first().and_then(|row| row.text(0).map(str::to_owned))),
        // It may have been dropped since, or the catalogue is damaged, too.
        Err(ClientError::Server { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
