//! Who is asked, in the order in which they are given: one choice after the other, each with its keys as drawn.

use crate::governance::route::Target;
use crate::state::health::breaker::Standing;
use smallvec::SmallVec;

/// The targets of one choice, which are one provider for one model: they share its retries and its time. Indices.
pub(super) type Group = SmallVec<[usize; 4]>;

/// Orders the targets. Who is out is left out, unless nobody else is there: then of each group the one that is
/// back soonest is asked, and not all of them, which would say no once more each. `anyway`: it is known already
/// that nobody else is there. True beside the groups: those who are out are in them.
pub(super) fn plan(
    targets: &[Target],
    standing: impl Fn(&Target) -> Standing,
    anyway: bool,
) -> (SmallVec<[Group; 2]>, bool) {
    let stands: SmallVec<[Standing; 4]> = targets.iter().map(standing).collect();
    let is_out = |at: usize| matches!(stands[at], Standing::Out { .. });
    let anyway = anyway || (0..targets.len()).all(is_out);
    let mut groups = SmallVec::new();
    let mut start = 0;
    for chunk in targets.chunk_by(|a, b| a.choice == b.choice) {
        let mut group: Group = (start..start + chunk.len()).filter(|&at| anyway || !is_out(at)).collect();
        start += chunk.len();
        if anyway && group.len() > 1 {
            // Of equals the first that was drawn.
            let soonest = group.iter().copied().min_by_key(|&at| match stands[at] {
                Standing::Good | Standing::Due => None,
                Standing::Out { until } => Some(until),
            });
            group = soonest.into_iter().collect();
        }
        if !group.is_empty() {
            groups.push(group);
        }
    }
    (groups, anyway)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governance::entity::{KeyValue, ModelSet, Provider, ProviderKey, Weight};
    use crate::governance::time::Timestamp;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn target(provider: &Arc<Provider>, choice: usize, key: &str) -> Target {
        let key = ProviderKey {
            id: key.into(),
            name: key.into(),
            value: KeyValue::text("sk"),
            weight: Weight::ONE,
            models: ModelSet::All,
            blacklisted_models: ModelSet::Only(Vec::new()),
            aliases: BTreeMap::new(),
            enabled: true,
            use_for_batch_api: false,
            cloud: None,
            config_hash: String::new(),
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
        };
        Target {
            provider: Arc::clone(provider),
            config: None,
            model: "m".into(),
            upstream_model: "m".into(),
            key: Some(Arc::new(key)),
            choice,
        }
    }

    /// `a b | c`: choices with their keys. A key whose name is `x` and a time is out until then, `x` alone is due.
    fn targets(text: &str) -> Vec<Target> {
        let mut all = Vec::new();
        for (n, group) in text.split('|').enumerate() {
            let provider = Arc::new(Provider::new(&format!("p{n}"), Timestamp::default()));
            for key in group.split_whitespace() {
                all.push(target(&provider, n, key));
            }
        }
        all
    }

    fn standing(target: &Target) -> Standing {
        match target.key.as_ref().and_then(|key| key.name.strip_prefix('x')) {
            None => Standing::Good,
            Some("") => Standing::Due,
            Some(until) => Standing::Out { until: Timestamp::from_millis(until.parse().unwrap()) },
        }
    }

    fn planned(text: &str, anyway: bool) -> (String, bool) {
        let targets = targets(text);
        let (groups, anyway) = plan(&targets, standing, anyway);
        let name = |at: &usize| targets[*at].key.as_ref().unwrap().name.clone();
        let groups: Vec<String> =
            groups.iter().map(|group| group.iter().map(name).collect::<Vec<_>>().join(" ")).collect();
        (groups.join(" | "), anyway)
    }

    #[test]
    fn who_is_out_is_asked_only_when_nobody_else_is_there() {
        let check = |text: &str, anyway: bool, expected: (&str, bool)| {
            let (groups, anyway) = planned(text, anyway);
            assert_eq!((&*groups, anyway), expected, "{text}");
        };
        check("a", false, ("a", false));
        check("a b | c", false, ("a b | c", false));
        check("x9 b | c", false, ("b | c", false));
        check("x9 | c", false, ("c", false));
        check("a | x9", false, ("a", false));
        check("x x9 | x8", false, ("x", false));
        check("x9 x5 x7 | x1", false, ("x5 | x1", true));
        check("x9 b | x1", true, ("b | x1", true));
        check("", false, ("", true));
    }
}
