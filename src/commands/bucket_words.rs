//! Words for what a bucket does by itself with what lies in it.

use crate::storage::StoreError;
use crate::storage::object::rules::{BucketRules, ExpiryRule, Versions};

/// The names of so many rules are told.
const MOST_NAMED: usize = 5;

/// A thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Whether something should be done about it.
    pub warning: bool,
    pub text: String,
    pub because: Vec<String>,
    pub next: String,
}

/// What there is to say of rules that remove objects of the repository `name`.
pub(super) fn expiring(name: &str, rules: &BucketRules) -> Option<Told> {
    match &rules.expiring {
        Ok(rules) if rules.is_empty() => None,
        Ok(rules) => Some(Told {
            warning: true,
            text: format!("{name}: its bucket removes objects of the repository by rules of its own"),
            because: rules.iter().take(MOST_NAMED).map(rule).collect(),
            next: format!(
                "End the rule, or keep it to names that are not below {name}-path: what is no longer needed goes by \
                 retention, and a backup that has lost objects cannot be restored."
            ),
        }),
        Err(error) => Some(Told {
            warning: false,
            text: format!(
                "{name}: whether its bucket removes objects by rules of its own could not be asked"
            ),
            because: vec![why(error)],
            next: "Look yourself, or give these credentials the right s3:GetLifecycleConfiguration."
                .to_owned(),
        }),
    }
}

/// The same as a warning's lines.
pub(super) fn lines(told: &Told) -> Vec<String> {
    let because = told.because.iter().map(|why| format!("because: {why}"));
    std::iter::once(told.text.clone()).chain(because).chain([format!("next: {}", told.next)]).collect()
}

/// What credentials that may delete can do, as the end of a sentence; and whether that is reason for a warning.
pub(super) fn deletion(versions: Option<&Result<Versions, StoreError>>) -> (bool, String) {
    match versions {
        Some(Ok(Versions::Kept)) => (false, "and versioning keeps what is deleted".to_owned()),
        Some(Ok(Versions::Suspended)) => (true, "for good: versioning is suspended".to_owned()),
        Some(Ok(Versions::Off)) => (true, "for good: versioning is off".to_owned()),
        Some(Err(error)) => {
            (true, format!("for good if versioning is off, which could not be asked ({})", why(error)))
        }
        None => (true, "for good if versioning is off".to_owned()),
    }
}

fn rule(rule: &ExpiryRule) -> String {
    let named = match rule.name.as_str() {
        "" => "a rule without a name".to_owned(),
        name => format!("the rule \"{name}\""),
    };
    let below = match rule.prefix.as_str() {
        "" => "every object".to_owned(),
        prefix => format!("every object whose name begins with {prefix}"),
    };
    format!("{named} removes {below} {}", rule.when)
}

fn why(error: &StoreError) -> String {
    error.source.as_ref().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::StoreErrorKind;

    fn refused() -> StoreError {
        let source = Some("these credentials may not do this".into());
        StoreError { kind: StoreErrorKind::Denied, what: "could not ask".to_owned(), source }
    }

    fn of(rules: Result<Vec<ExpiryRule>, StoreError>) -> Option<String> {
        let rules = BucketRules { versions: Ok(Versions::Kept), expiring: rules };
        expiring("repo1", &rules).map(|told| format!("{} {}", told.warning, lines(&told).join("\n")))
    }

    #[test]
    fn rules_that_remove_objects_are_named_and_a_refusal_is_no_warning() {
        assert_eq!(of(Ok(Vec::new())), None);
        let rule = |name: &str, prefix: &str| ExpiryRule {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
            when: "after 30 days".to_owned(),
        };
        let said = of(Ok(vec![rule("tidy", "walden/"), rule("", "")])).unwrap();
        assert_eq!(
            said,
            "true repo1: its bucket removes objects of the repository by rules of its own\n\
             because: the rule \"tidy\" removes every object whose name begins with walden/ after 30 days\n\
             because: a rule without a name removes every object after 30 days\n\
             next: End the rule, or keep it to names that are not below repo1-path: what is no longer needed goes by \
             retention, and a backup that has lost objects cannot be restored."
        );
        let said = of(Err(refused())).unwrap();
        assert!(said.starts_with("false repo1: whether its bucket removes objects"), "{said}");
        assert!(said.contains("could not be asked\nbecause: these credentials may not do this\n"), "{said}");
    }

    #[test]
    fn only_versioning_makes_deletion_harmless() {
        assert!(!deletion(Some(&Ok(Versions::Kept))).0);
        for (versions, said) in [
            (Some(Ok(Versions::Off)), "for good: versioning is off"),
            (Some(Ok(Versions::Suspended)), "for good: versioning is suspended"),
            (
                Some(Err(refused())),
                "for good if versioning is off, which could not be asked (these credentials may not do this)",
            ),
            (None, "for good if versioning is off"),
        ] {
            assert_eq!(deletion(versions.as_ref()), (true, said.to_owned()));
        }
    }
}
