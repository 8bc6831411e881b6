//! Who is asked in which order: groups as they are given, and within each its keys as they are drawn.

use crate::governance::dice::Dice;
use crate::governance::entity::Weight;
use crate::governance::route::Target;
use crate::state::health::breaker::Standing;
use smallvec::SmallVec;
use std::sync::Arc;

/// The targets of one provider for one model: they share its retries and its time. Indices, in their order.
pub(super) type Group = SmallVec<[usize; 4]>;

/// Orders the targets. Who is out is left out, unless nobody else is there: then of each group the one that is
/// back soonest is asked, and not all of them, which would say no once more each. `anyway`: it is known already
/// that nobody else is there. True beside the groups: those who are out are in them.
pub(super) fn plan(
    targets: &[Target],
    standing: impl Fn(&Target) -> Standing,
    anyway: bool,
    dice: &mut Dice,
) -> (SmallVec<[Group; 2]>, bool) {
    let stands: SmallVec<[Standing; 4]> = targets.iter().map(standing).collect();
    let is_out = |at: usize| matches!(stands[at], Standing::Out { .. });
    let anyway = anyway || (0..targets.len()).all(is_out);
    let mut groups = SmallVec::new();
    let mut start = 0;
    for chunk in targets.chunk_by(are_one_group) {
        let mut group: Group = (start..start + chunk.len()).filter(|&at| anyway || !is_out(at)).collect();
        start += chunk.len();
        if group.len() > 1 {
            dice.draw(&mut group, |&at| targets[at].key.as_ref().map_or(Weight::ONE, |key| key.weight));
            if anyway {
                // Of equals the first that was drawn.
                let soonest = group.iter().copied().min_by_key(|&at| match stands[at] {
                    Standing::Good | Standing::Due => None,
                    Standing::Out { until } => Some(until),
                });
                group = soonest.into_iter().collect();
            }
        }
        if !group.is_empty() {
            groups.push(group);
        }
    }
    (groups, anyway)
}

fn are_one_group(a: &Target, b: &Target) -> bool {
    Arc::ptr_eq(&a.provider, &b.provider) && a.model == b.model && a.config == b.config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governance::entity::{KeyValue, ModelSet, Provider, ProviderKey};
    use crate::governance::time::Timestamp;
    use std::collections::BTreeMap;

    fn target(provider: &Arc<Provider>, model: &str, key: &str, weight: u64) -> Target {
        let key = ProviderKey {
            id: key.into(),
            name: key.into(),
            value: KeyValue::text("sk"),
            weight: Weight::from_millionths(weight),
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
            model: model.into(),
            upstream_model: model.into(),
            key: Some(Arc::new(key)),
        }
    }

    /// `a*3 b*1 | c*1`: groups with their keys and weights. A key whose name begins with `x` is out.
    fn targets(text: &str) -> Vec<Target> {
        let mut all = Vec::new();
        for (n, group) in text.split('|').enumerate() {
            let provider = Arc::new(Provider::new(&format!("p{n}"), Timestamp::default()));
            for key in group.split_whitespace() {
                let (name, weight) = key.split_once('*').unwrap_or((key, "0"));
                all.push(target(&provider, "m", name, weight.parse().unwrap()));
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

    fn planned(text: &str, anyway: bool, seed: u64) -> (String, bool) {
        let targets = targets(text);
        let (groups, anyway) = plan(&targets, standing, anyway, &mut Dice::seeded(seed));
        let name = |at: &usize| targets[*at].key.as_ref().unwrap().name.clone();
        let groups: Vec<String> =
            groups.iter().map(|group| group.iter().map(name).collect::<Vec<_>>().join(" ")).collect();
        (groups.join(" | "), anyway)
    }

    #[test]
    fn who_is_out_is_asked_only_when_nobody_else_is_there() {
        let check = |text: &str, anyway: bool, expected: (&str, bool)| {
            for seed in 0..20 {
                let (groups, anyway) = planned(text, anyway, seed);
                assert_eq!((&*groups, anyway), expected, "{text}");
            }
        };
        check("a*1", false, ("a", false));
        check("a*1 b | c*1", false, ("a b | c", false));
        check("x9*1 b | c*1", false, ("b | c", false));
        check("x9*1 | c*1", false, ("c", false));
        check("a*1 | x9*1", false, ("a", false));
        check("x*1 x9 | x8*1", false, ("x", false));
        check("x9*1 x5 x7*1 | x1*1", false, ("x5 | x1", true));
        check("x9*1 b | x1*1", true, ("b | x1", true));
        check("", false, ("", true));
    }

    #[test]
    fn keys_are_drawn_in_proportion_and_the_same_seed_draws_the_same() {
        let first = |seed| planned("a*6 b*3 c*1 z", false, seed).0;
        let mut counts = BTreeMap::<String, u32>::new();
        for seed in 0..2_000 {
            let drawn = first(seed);
            assert!(drawn.ends_with('z') && drawn == first(seed), "{drawn}");
            *counts.entry(drawn[..1].to_owned()).or_default() += 1;
        }
        // Five standard deviations and a little.
        let near = |name: &str, share: u32| assert!(counts[name].abs_diff(share) < 120, "{counts:?}");
        near("a", 1_200);
        near("b", 600);
        near("c", 200);
    }

    #[test]
    fn one_provider_for_two_models_is_two_groups() {
        let provider = Arc::new(Provider::new("p", Timestamp::default()));
        let targets = [target(&provider, "m", "a", 1), target(&provider, "n", "a", 1), target(&provider, "n", "b", 0)];
        let (groups, _) = plan(&targets, standing, false, &mut Dice::seeded(1));
        assert_eq!(groups.iter().map(|group| group.to_vec()).collect::<Vec<_>>(), [vec![0], vec![1, 2]]);
    }
}
