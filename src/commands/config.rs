//! `config`: what holds, and where it came from.

use super::{Context, Outcome, no_stdout};
use crate::failure::Failure;
use crate::report::render::{Align, Table};
use crate::settings::{Origin, Setting, Settings, Value};
use serde_json::{Value as Json, json};

pub(super) fn run(context: &Context<'_>) -> Result<Outcome, Failure> {
    let settings = context.settings;
    // What a command would stumble over shall be found here.
    settings.repositories()?;
    let written = if context.report.is_json() {
        context.report.json(&document(settings))
    } else {
        context.report.data(text(settings))
    };
    written.map_err(no_stdout)?;
    Ok(Outcome::Done)
}

fn text(settings: &Settings) -> String {
    let mut table = Table::new(&[Align::Left, Align::Left]);
    // What somebody decided comes first; a person looks for that.
    let (decided, defaults): (Vec<&Setting>, Vec<&Setting>) =
        settings.all().partition(|setting| setting.origin != Origin::Default);
    for setting in decided.into_iter().chain(defaults) {
        table.row([format!("{}={}", setting.name(), setting.shown()), setting.origin.to_string()]);
    }
    let mut text = table.render();
    if settings.files().is_empty() {
        text.push_str("(no configuration file was found)\n");
    }
    text
}

fn document(settings: &Settings) -> Json {
    let options: Vec<Json> = settings
        .all()
        .map(|setting| {
            let (from, place) = match &setting.origin {
                Origin::Default => ("default", json!({})),
                Origin::CommandLine => ("command-line", json!({})),
                Origin::Environment(variable) => ("environment", json!({ "variable": variable })),
                Origin::OnlyStanza(_) => ("only-stanza", json!({})),
                Origin::File { path, line, section } => {
                    ("file", json!({ "path": path.to_string_lossy(), "line": line, "section": section }))
                }
            };
            json!({
                "option": setting.name(),
                "value": value(setting),
                "secret": setting.spec.secret,
                "origin": from,
                "place": place,
            })
        })
        .collect();
    let files: Vec<_> = settings.files().iter().map(|path| path.to_string_lossy()).collect();
    json!({ "command": settings.command().name, "files": files, "options": options })
}

/// Exact: sizes in bytes, lengths of time in milliseconds.
fn value(setting: &Setting) -> Json {
    if setting.hides_password() {
        return Json::Null;
    }
    match &setting.value {
        Value::Boolean(value) => json!(value),
        Value::Integer(number) => json!(number),
        Value::Size(size) => json!({ "size_bytes": size.as_u64() }),
        Value::Duration(length) => {
            json!({ "duration_ms": u64::try_from(length.as_millis()).unwrap_or(u64::MAX) })
        }
        Value::Map(pairs) => {
            json!(pairs.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect::<Vec<_>>())
        }
        Value::Secret(_) => Json::Null,
        other => json!(other.shown()),
    }
}
