use super::*;
use crate::governance::edit::Edit;
use crate::governance::entity::{Concurrency, KeyValue, ModelSet, Weight};
use crate::governance::view::Slots;
use std::collections::BTreeMap;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + seconds * 1_000)
}

fn key(id: &str) -> Arc<ProviderKey> {
    Arc::new(ProviderKey {
        id: id.into(),
        name: id.into(),
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
    })
}

fn provider(keys: &[&str]) -> Provider {
    Provider { keys: keys.iter().map(|id| key(id)).collect(), ..Provider::new("openai", Timestamp::default()) }
}

fn view(provider: Provider) -> View {
    let mut view = View::default();
    view.apply(&Edit::Provider(Arc::new(provider)), &mut Slots::default());
    view
}

fn health(keys: &[&str]) -> (Health, Arc<ProviderHealth>) {
    let health = Health::default();
    health.follow(&view(provider(keys)));
    let of = health.of("openai").unwrap();
    (health, of)
}

fn fail(health: &Arc<ProviderHealth>, key: &str, now: Timestamp) -> Ejected {
    health.enter_anyway(Some(key)).failed(now)
}

#[test]
fn five_failures_eject_a_key_while_another_is_left() {
    let (all, openai) = health(&["a", "b"]);
    for n in 1..=5 {
        let ejected = fail(&openai, "a", at(0));
        assert_eq!(ejected.key, n == 5);
        openai.enter_anyway(Some("b")).succeeded();
    }
    assert!(!all.usable("openai", Some("a"), at(9)) && all.usable("openai", Some("b"), at(9)));
    assert!(all.usable("openai", None, at(9)) && all.usable("nobody", Some("x"), at(9)));
    assert!(openai.enter(Some("a"), "m", at(9)).is_none() && openai.enter(Some("b"), "m", at(9)).is_some());
    // The last key is never ejected, however often it fails.
    for _ in 0..20 {
        assert!(!fail(&openai, "b", at(5)).key);
        openai.enter_anyway(None).succeeded();
    }
    assert!(all.usable("openai", Some("b"), at(9)));
    // Half open: one goes and finds out.
    let probe = openai.enter(Some("a"), "m", at(10)).unwrap();
    assert!(openai.enter(Some("a"), "m", at(10)).is_none());
    probe.succeeded();
    assert!(openai.enter(Some("a"), "m", at(10)).is_some() && all.usable("openai", Some("a"), at(10)));
}

#[test]
fn five_failures_in_a_row_eject_a_provider_whatever_its_keys() {
    let (all, openai) = health(&["a", "b"]);
    let ejected: Vec<bool> = ["a", "b", "a", "b", "a", "b"].map(|key| fail(&openai, key, at(0)).provider).to_vec();
    assert_eq!(ejected, [false, false, false, false, true, false]);
    assert_eq!(openai.report(at(9)), Report::Ejected { until: at(10) });
    assert!(!all.usable("openai", None, at(9)) && !all.usable("openai", Some("b"), at(9)));
    // A probe that is dropped without a word is followed by the next; one that fails doubles the time.
    drop(openai.enter(Some("a"), "m", at(10)).unwrap());
    let probe = openai.enter(Some("b"), "m", at(10)).unwrap();
    assert!(openai.enter(Some("a"), "m", at(10)).is_none());
    assert!(probe.failed(at(11)).provider);
    assert_eq!(openai.report(at(30)), Report::Ejected { until: at(31) });
    // Who has nobody else to ask may try all the same, and be lucky.
    openai.enter_anyway(Some("a")).succeeded();
    assert_eq!(openai.report(at(30)), Report::Good);
}

#[test]
fn a_rejected_key_is_out_at_once_and_a_resting_one_until_it_is_told() {
    let (all, openai) = health(&["a", "b"]);
    assert!(openai.enter_anyway(Some("a")).rejected(at(0)));
    assert!(!openai.enter_anyway(Some("a")).rejected(at(1)), "that is known");
    assert!(!all.usable("openai", Some("a"), at(1)));
    assert!(openai.enter_anyway(Some("b")).rest(Some("m"), 30_000, at(0)));
    assert!(openai.enter(Some("b"), "m", at(29)).is_none() && openai.enter(Some("b"), "other", at(29)).is_some());
    assert!(openai.enter(Some("b"), "m", at(31)).is_some());
    assert_eq!(openai.report(at(1)), Report::Good);
    // No rest is longer than the longest, and a later word does not shorten it.
    assert!(openai.enter_anyway(Some("b")).rest(None, u64::MAX, at(0)));
    assert!(!openai.enter_anyway(Some("b")).rest(None, 1_000, at(0)));
    assert_eq!(openai.standing(Some("b"), None, at(1)), Standing::Out { until: at(600) });
    assert_eq!(openai.report(at(1)), Report::NoKey { until: at(10) });
    assert!(all.usable("openai", Some("b"), at(600)));
}

#[test]
fn who_is_declared_anew_begins_anew() {
    let (all, openai) = health(&["a", "b"]);
    for _ in 0..5 {
        fail(&openai, "a", at(0));
    }
    openai.enter_anyway(Some("b")).rest(None, 60_000, at(0));
    for _ in 0..5 {
        fail(&openai, "a", at(0));
    }
    let place = openai.gate().try_enter().unwrap();
    let standing = || {
        let openai = all.of("openai").unwrap();
        let out = |key| matches!(openai.standing(key, None, at(1)), Standing::Out { .. });
        (out(None), out(Some("a")), out(Some("b")), openai.gate().in_flight())
    };
    let same = provider(&["a", "b"]);
    all.follow(&view(same.clone()));
    assert_eq!(standing(), (true, true, true, 1));
    // Another value, or another place.
    let mut other = same.clone();
    Arc::make_mut(&mut other.keys[1]).value = KeyValue::text("sk-2");
    other.network.base_url = Some("http://elsewhere".into());
    all.follow(&view(other.clone()));
    assert_eq!(standing(), (false, false, false, 1));
    other.concurrency = Concurrency { concurrency: 1, buffer_size: 1 };
    all.follow(&view(other));
    assert_eq!(standing(), (false, false, false, 0));
    drop(place);
    all.follow(&View::default());
    assert!(all.of("openai").is_none());
}
