use super::*;
use crate::governance::cel::Checker;
use crate::governance::edit::Edit;
use crate::governance::entity::{
    Budget, Customer, KeySet, KeyValue, Limits, ModelConfig, ModelSet, Network, ProviderConfig, ProviderKey,
    RoutingRule, RuleScope, RuleTarget, Team, VirtualKey, Weight,
};
use crate::governance::money::Nanos;
use crate::governance::request::RequestKind;
use crate::governance::time::{Span, Window};
use crate::governance::view::Slots;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, HashMap};

const AT: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A view with three providers of two keys each, a customer with a team with a key, and what stands there.
struct World {
    view: View,
    slots: Slots,
    /// By the id of the budget; of 100 nanos.
    used: HashMap<String, i64>,
    down: Vec<&'static str>,
}

impl Live for World {
    fn tally(&self, limit: &Limit) -> Tally {
        let used = self.used.get(&*limit.key.id).copied().unwrap_or(0);
        Tally { used, spent: used }
    }

    fn health(&self, provider: &Provider) -> f64 {
        if self.down.contains(&&*provider.name) { 0.0 } else { 1.0 }
    }
}

fn budget(id: &str) -> Limits {
    let window = Window::rolling(Span::parse("1h").unwrap());
    let id = id.into();
    let budget = Budget { id, max: Nanos::new(100), window, anchor: AT, created_at: AT, updated_at: AT };
    Limits { budgets: vec![budget], rate_limit: None }
}

fn weight(text: &str) -> Weight {
    Weight::parse(text).unwrap()
}

fn config(provider: &str, weight: Option<&str>) -> ProviderConfig {
    ProviderConfig {
        id: 1,
        provider: provider.into(),
        weight: weight.map(self::weight),
        allowed_models: ModelSet::All,
        blacklisted_models: ModelSet::Only(vec!["secret".into()]),
        key_ids: KeySet::All,
        limits: budget(&format!("config-{provider}")),
    }
}

impl World {
    fn new(configs: Vec<ProviderConfig>) -> World {
        let mut world =
            World { view: View::default(), slots: Slots::default(), used: HashMap::new(), down: Vec::new() };
        for name in ["openai", "groq", "mistral"] {
            let mut provider = Provider::new(name, AT);
            provider.network = Network { base_url: Some("http://h".into()), ..Network::default() };
            provider.keys = ["one", "two"].map(|key| Arc::new(provider_key(&format!("{name}-{key}")))).into();
            world.apply(Edit::Provider(Arc::new(provider)));
        }
        world.apply(Edit::Customer(Arc::new(Customer {
            id: "c".into(),
            name: "the customer".into(),
            limits: budget("customer"),
            config_hash: String::new(),
            created_at: AT,
            updated_at: AT,
        })));
        world.apply(Edit::Team(Arc::new(Team {
            id: "t".into(),
            name: "the team".into(),
            customer_id: Some("c".into()),
            limits: budget("team"),
            profile: None,
            config: None,
            claims: None,
            config_hash: String::new(),
            created_at: AT,
            updated_at: AT,
        })));
        world.apply(Edit::ModelConfig(Arc::new(ModelConfig {
            id: "mc".into(),
            model_name: "gpt-4o".into(),
            provider: None,
            limits: budget("model"),
            config_hash: String::new(),
            created_at: AT,
            updated_at: AT,
        })));
        let key = VirtualKey {
            id: "k".into(),
            name: "the key".into(),
            description: String::new(),
            is_active: true,
            team_id: Some("t".into()),
            customer_id: None,
            limits: budget("key"),
            provider_configs: configs,
            mcp_configs: "[]".into(),
            config_hash: String::new(),
            created_at: AT,
            updated_at: AT,
        };
        world.apply(Edit::VirtualKey { key: Arc::new(key), digest: [1; 32], value: None });
        world
    }

    /// A key that may use all three providers, one as often as the other.
    fn usual() -> World {
        World::new(["openai", "groq", "mistral"].map(|name| config(name, Some("1"))).into())
    }

    fn apply(&mut self, edit: Edit) {
        self.view.apply(&edit, &mut self.slots);
    }

    fn rule(&mut self, rule: RoutingRule) {
        self.apply(Edit::RoutingRule(Arc::new(rule)));
    }
}

fn provider_key(id: &str) -> ProviderKey {
    ProviderKey {
        id: id.into(),
        name: format!("name-of-{id}"),
        value: KeyValue::text("secret"),
        weight: Weight::ONE,
        models: ModelSet::All,
        blacklisted_models: ModelSet::Only(vec![]),
        aliases: BTreeMap::new(),
        enabled: true,
        use_for_batch_api: false,
        cloud: None,
        config_hash: String::new(),
        created_at: AT,
        updated_at: AT,
    }
}

/// A rule for everybody: `provider/model`, where either may be empty, with its weight.
fn rule(id: &str, expression: &str, targets: &[(&str, &str)]) -> RoutingRule {
    let part = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let target = |(target, share): &(&str, &str)| {
        let (provider, model) = target.split_once('/').unwrap();
        RuleTarget { provider: part(provider), model: part(model), key_id: None, weight: weight(share) }
    };
    RoutingRule {
        id: id.into(),
        name: format!("rule {id}"),
        description: String::new(),
        enabled: true,
        expression: expression.into(),
        fault: None,
        condition: Some(Checker::default().read(expression).unwrap()),
        targets: targets.iter().map(target).collect(),
        fallbacks: None,
        scope: RuleScope::Global,
        priority: 0,
        chain: false,
        query: None,
        config_hash: String::new(),
        created_at: AT,
        updated_at: AT,
    }
}

/// A request as a test asks it.
#[derive(Clone)]
struct Ask {
    model: &'static str,
    keyless: bool,
    headers: HeaderMap,
    query: &'static str,
    body: Json,
    fallbacks: Option<Vec<String>>,
    seed: u128,
}

fn ask(model: &'static str) -> Ask {
    Ask { model, keyless: false, headers: HeaderMap::new(), query: "", body: json!({}), fallbacks: None, seed: 1 }
}

impl Ask {
    fn header(mut self, name: &'static str, value: &str) -> Ask {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    fn fallbacks(mut self, fallbacks: &[&str]) -> Ask {
        self.fallbacks = Some(fallbacks.iter().map(|&text| text.to_owned()).collect());
        self
    }

    fn decide(&self, world: &World, trace: Option<&mut Trace>) -> Decision {
        let caller = world.view.caller_by_id("k").filter(|_| !self.keyless);
        let body = self.body.to_string();
        let question = Question {
            view: &world.view,
            caller: caller.map(|caller| &**caller),
            asked: Asked { kind: RequestKind::ChatCompletion, stream: false, dialect: None, home: None },
            model: self.model,
            input_tokens: 10,
            headers: &self.headers,
            query: self.query,
            body: body.as_bytes(),
            fallbacks: self.fallbacks.as_deref(),
            now: AT,
            live: world,
        };
        let mut draw = Draw::of(&self.headers, "k", self.seed);
        decide(&question, &mut draw, trace)
    }

    /// The choices as `provider/model`, or the code of the refusal; and the rule.
    fn told(&self, world: &World) -> (String, Option<String>) {
        let decision = self.decide(world, None);
        let told = match decision.targets {
            Err(refusal) => format!("{}: {}", refusal.status(), refusal.code()),
            Ok(targets) => {
                let mut choices: Vec<String> = Vec::new();
                for target in &targets {
                    if choices.len() == target.choice {
                        choices.push(format!("{}/{}", target.provider.name, target.model));
                    }
                }
                choices.join(" ")
            }
        };
        (told, decision.rule.map(|rule| rule.id.to_string()))
    }

    #[track_caller]
    fn goes(&self, world: &World, to: &str, by: Option<&str>) {
        assert_eq!(self.told(world), (to.to_owned(), by.map(str::to_owned)));
    }
}

#[test]
fn the_narrowest_scope_comes_first_and_then_the_priority() {
    let mut world = World::usual();
    let scopes = [
        ("key", RuleScope::VirtualKey("k".into())),
        ("team", RuleScope::Team("t".into())),
        ("customer", RuleScope::Customer("c".into())),
        ("all", RuleScope::Global),
    ];
    // Of another key, team and customer, and disabled ones: none of them matters.
    for (n, scope) in [RuleScope::VirtualKey("x".into()), RuleScope::Team("x".into()), RuleScope::Customer("x".into())]
        .into_iter()
        .enumerate()
    {
        world.rule(RoutingRule { scope, ..rule(&format!("other-{n}"), "", &[("groq/other", "1")]) });
    }
    for (id, scope) in scopes.iter().rev() {
        let of_scope = |id: &str, priority| RoutingRule {
            scope: scope.clone(),
            priority,
            ..rule(id, "", &[(&format!("groq/{id}"), "1")])
        };
        world.rule(of_scope(id, 5));
        world.rule(of_scope(&format!("{id}-later"), 6));
        world.rule(RoutingRule { enabled: false, ..of_scope(&format!("{id}-off"), -5) });
        world.rule(RoutingRule { condition: None, ..of_scope(&format!("{id}-unread"), -4) });
        ask("openai/m").goes(&world, &format!("groq/{id}"), Some(id));
    }
    // Whoever has no key has only those of everybody.
    Ask { keyless: true, ..ask("openai/m") }.goes(&world, "groq/all", Some("all"));
    // They go as they came, and what moves to another scope leaves its own.
    for (id, _) in &scopes[..3] {
        world.apply(Edit::RemoveRoutingRule((*id).into()));
        ask("openai/m").goes(&world, &format!("groq/{id}-later"), Some(&format!("{id}-later")));
        world.rule(rule(&format!("{id}-later"), "false", &[("groq/m", "1")]));
    }
    ask("openai/m").goes(&world, "groq/all", Some("all"));
    // Of one priority the newest comes first.
    let newer = RoutingRule { created_at: AT.plus(1), priority: 5, ..rule("newer", "", &[("groq/newer", "1")]) };
    world.rule(newer);
    ask("openai/m").goes(&world, "groq/newer", Some("newer"));
}

#[test]
fn every_variable_is_what_it_says() {
    let mut world = World::usual();
    for (id, used) in [("key", 10), ("team", 20), ("customer", 130), ("config-openai", 40), ("model", 50)] {
        world.used.insert(id.into(), used);
    }
    world.down = vec!["groq"];
    let asked = Ask {
        query: "Debug=yes&x=%C3%BC",
        body: json!({"metadata": {"user": "u1"}, "max_tokens": 5}),
        ..ask("openai/gpt-4o").header("x-tier", "gold")
    };
    let mut wrong = Vec::new();
    let mut check = |asked: &Ask, expression: &str, matches: bool| {
        world.rule(rule("r", expression, &[("groq/found", "1")]));
        let decision = asked.decide(&world, None);
        if decision.rule.is_some() != matches || !decision.faults.is_empty() {
            wrong.push(format!("{expression}: {:?} {:?}", decision.rule.is_some(), decision.faults));
        }
    };
    for expression in [
        "model == 'gpt-4o' && provider == 'openai' && request_type == 'chat_completion' && !stream && input_tokens == 10",
        "headers['X-Tier'] == 'gold' && headers.X_tier != 'gold' || headers['x-tier'] == 'gold'",
        "params['debug'] == 'yes' && params.Debug == 'yes' && params.x == 'ü' && !('y' in params)",
        "virtual_key_id == 'k' && virtual_key_name == 'the key' && team_id == 't' && team_name == 'the team'",
        "customer_id == 'c' && customer_name == 'the customer' && user_id == '' && complexity_tier == ''",
        "budget_used == 50 && tokens_used == 0 && request == 0.0",
        "virtual_key_budget_used == 10 && team_budget_used == 20.0 && customer_budget_used > 129",
        "body.metadata.user == 'u1' && body.max_tokens < 10 && !('temperature' in body)",
        "now.getFullYear() == 2023 && now.getHours() == 22 && now.getDayOfWeek() == 2",
        "provider_health[provider] == 1 && provider_health.groq == 0 && !('nobody' in provider_health)",
        "provider_health.all(name, name == 'groq' || provider_health[name] > 0.5)",
    ] {
        check(&asked, expression, true);
    }
    // What is not there is no match and no fault.
    for expression in ["headers.nope == 'a'", "params['nope'] != 'a'", "body.nope == 1", "provider_health.nope == 1"] {
        check(&asked, expression, false);
    }
    // Without a provider only what is on the model counts; without a key, team and customer nothing does.
    check(&ask("gpt-4o"), "provider == '' && budget_used == 50", true);
    check(&ask("gpt-x"), "budget_used == 0", true);
    check(&ask("openai/gpt-x"), "budget_used == 40", true);
    let keyless = Ask { keyless: true, ..ask("openai/gpt-4o") };
    check(
        &keyless,
        "virtual_key_id + team_id + customer_name == '' && team_budget_used == 0 && budget_used == 50",
        true,
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_rule_that_fails_does_not_match_and_is_told() {
    let mut world = World::usual();
    world.rule(rule("bad", "body.n > 1", &[("groq/bad", "1")]));
    world.rule(RoutingRule { priority: 1, ..rule("good", "", &[("groq/good", "1")]) });
    let asked = Ask { body: json!({"n": "text"}), ..ask("openai/m") };
    let decision = asked.decide(&world, None);
    assert_eq!(decision.rule.unwrap().id, "good".into());
    let faults: Vec<String> = decision.faults.iter().map(|f| format!("{}: {}", f.rule.id, f.fault)).collect();
    assert_eq!(faults, ["bad: a comparison cannot be used on string and int"]);
    // All rules of a request share what they may take, and the last of them finds nothing left.
    let costly = "body.l.all(x, x in body.l)";
    for n in 0..30 {
        world.rule(RoutingRule { priority: n - 100, ..rule(&format!("costly-{n}"), costly, &[("groq/m", "1")]) });
    }
    let asked = Ask { body: json!({"l": (0..1_000).collect::<Vec<u32>>(), "n": 2}), ..ask("openai/m") };
    let decision = asked.decide(&world, None);
    assert!(decision.faults.iter().all(|failed| failed.fault == Fault::TooCostly));
    assert!(decision.faults.len() >= 30, "{}", decision.faults.len());
}

#[test]
fn what_a_target_leaves_out_stays_as_it_came() {
    let mut world = World::usual();
    let mut check = |target: &str, asked: Ask, to: &str| {
        world.rule(rule("r", "", &[(target, "1")]));
        asked.goes(&world, to, Some("r"));
    };
    check("groq/other", ask("openai/m"), "groq/other");
    check("groq/", ask("openai/m"), "groq/m");
    check("/other", ask("openai/m"), "openai/other");
    check("/", ask("openai/m"), "openai/m");
    check("groq/", ask("m"), "groq/m");
    check("/mistral/large", ask("openai/m"), "mistral/large");
    check("openai/meta/llama", ask("m"), "openai/meta/llama");
    // Still bare: weights decide, and the others are fallbacks.
    check("/other", ask("m").fallbacks(&[]), "openai/other");
    // Whatever a rule says, the key's own bounds stay.
    check("groq/secret", ask("openai/m"), "403: model_blocked");
    check("cohere/m", ask("openai/m"), "403: provider_blocked");
    check("/secret", ask("m"), "403: model_blocked");
}

#[test]
fn targets_are_drawn_by_weight() {
    let mut world = World::usual();
    world.rule(rule("r", "", &[("groq/a", "0.7"), ("openai/b", "0.2"), ("mistral/c", "0.1"), ("groq/d", "0")]));
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..10_000 {
        *counts.entry(Ask { seed, ..ask("m") }.told(&world).0).or_default() += 1;
    }
    let count = |to: &str| counts.get(to).copied().unwrap_or(0);
    // Four standard deviations of the binomial distribution.
    for (to, expected, spread) in [("groq/a", 7_000, 184), ("openai/b", 2_000, 160), ("mistral/c", 1_000, 120)] {
        assert!(count(to).abs_diff(expected) < spread, "{counts:?}");
    }
    assert_eq!((count("groq/d"), counts.len()), (0, 3));
}

#[test]
fn a_chain_goes_on_with_what_it_chose() {
    let mut world = World::usual();
    let chain = |id: &str, expression: &str, target: &str, priority| RoutingRule {
        chain: true,
        priority,
        ..rule(id, expression, &[(target, "1")])
    };
    world.rule(chain("first", "model == 'm'", "openai/step", 0));
    world.rule(chain("second", "model == 'step' && provider == 'openai'", "groq/done", 1));
    ask("m").goes(&world, "groq/done", Some("second"));
    // The last match has the last word about fallbacks and key, and a rule that is no chain ends it.
    let last = RoutingRule {
        priority: 2,
        fallbacks: Some(vec!["openai/f".into()]),
        ..rule("last", "model == 'done'", &[("mistral/end", "1")])
    };
    world.rule(last);
    world.rule(chain("never", "model == 'end'", "groq/never", 3));
    ask("m").goes(&world, "mistral/end openai/f", Some("last"));
    // Around in a circle, and on without an end.
    let mut world = World::usual();
    world.rule(chain("to-b", "model == 'a'", "/b", 0));
    world.rule(chain("to-a", "model == 'b'", "/a", 1));
    ask("openai/a").goes(&world, "openai/a", Some("to-a"));
    let mut world = World::usual();
    for n in 0..40 {
        let (expression, target) = (format!("model == 'm{n}'"), format!("/m{}", n + 1));
        world.rule(chain(&format!("r{n}"), &expression, &target, n));
    }
    ask("openai/m0").goes(&world, "openai/m10", Some("r9"));
    let mut client = (*world.view.client).clone();
    client.further = r#"{"routing_chain_max_depth": 3}"#.into();
    world.apply(Edit::Client(Arc::new(client)));
    ask("openai/m0").goes(&world, "openai/m3", Some("r2"));
}

#[test]
fn fallbacks_come_from_the_rule_then_the_client_then_the_weights() {
    let mut world = World::new(vec![
        config("openai", Some("0")),
        config("groq", Some("5")),
        ProviderConfig { weight: None, ..config("mistral", None) },
    ]);
    // Weights: the one drawn, the others heaviest first, those without a weight last.
    ask("m").goes(&world, "groq/m openai/m mistral/m", None);
    ask("m").fallbacks(&[]).goes(&world, "groq/m", None);
    ask("m").fallbacks(&["openai/x", "mistral/", "mistral"]).goes(&world, "groq/m openai/x mistral/m mistral/m", None);
    // Named, a provider is alone.
    ask("openai/m").goes(&world, "openai/m", None);
    ask("openai/m").fallbacks(&["groq/"]).goes(&world, "openai/m groq/m", None);
    // What is none is passed over, and what the key may not use.
    let odd = ["nobody/x", "", "gpt-4o", "groq/secret", "cohere/x", "openai/ok", "gemini"];
    ask("openai/m").fallbacks(&odd).goes(&world, "openai/m openai/ok", None);
    assert_eq!(ask("openai/m").fallbacks(&odd).decide(&world, None).fallbacks_ignored, 3);
    let many = vec!["groq/x"; 200];
    let decision = ask("openai/m").fallbacks(&many).decide(&world, None);
    assert_eq!(decision.fallbacks_ignored, 200 - FALLBACKS_MAX);
    assert!(decision.targets.unwrap().len() <= TARGETS_MAX);
    // What is refused at first may still be served by a fallback; what nobody can read may not.
    ask("groq/secret").fallbacks(&["openai/ok"]).goes(&world, "openai/ok", None);
    ask("cohere/m").fallbacks(&["openai/ok"]).goes(&world, "openai/ok", None);
    ask("cohere/m").fallbacks(&["groq/secret"]).goes(&world, "403: provider_blocked", None);
    ask("").fallbacks(&["openai/ok"]).goes(&world, "400: invalid_request", None);
    // A rule's replace the client's; a rule without any leaves them.
    world.rule(rule("r", "model == 'm'", &[("groq/a", "1")]));
    ask("m").fallbacks(&["openai/x"]).goes(&world, "groq/a openai/x", Some("r"));
    ask("m").goes(&world, "groq/a", Some("r"));
    let fallbacks = Some(vec!["openai".to_owned(), "mistral/y".to_owned()]);
    world.rule(RoutingRule { fallbacks, ..rule("r", "model == 'm'", &[("groq/a", "1")]) });
    // A provider alone stands for the model that the client asked for.
    ask("m").fallbacks(&["openai/x"]).goes(&world, "groq/a openai/m mistral/y", Some("r"));
}

#[test]
fn weights_leave_out_what_is_exhausted_or_unwell() {
    let mut world =
        World::new(vec![config("openai", Some("1")), config("groq", Some("1")), config("mistral", Some("1"))]);
    let firsts = |world: &World| {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for seed in 0..3_000 {
            let told = Ask { seed, ..ask("m") }.told(world).0;
            *counts.entry(told.split(' ').next().unwrap().to_owned()).or_default() += 1;
        }
        counts
    };
    let counts = firsts(&world);
    assert!(counts.len() == 3 && counts.values().all(|count| count.abs_diff(1_000) < 104), "{counts:?}");
    world.used.insert("config-openai".into(), 100);
    let counts = firsts(&world);
    assert!(counts.len() == 2 && counts.values().all(|count| count.abs_diff(1_500) < 110), "{counts:?}");
    // It is no fallback either, while somebody else is left.
    assert!(!ask("m").told(&world).0.contains("openai"));
    world.down = vec!["groq"];
    ask("m").goes(&world, "mistral/m groq/m", None);
    world.used.insert("config-mistral".into(), 200);
    ask("m").goes(&world, "groq/m", None);
    // All are exhausted: what the heaviest would be told is what counts, so it is left to say it.
    world.used.insert("config-groq".into(), 100);
    assert!(ask("m").told(&world).0.starts_with("openai/m "));
    // A limit of the key itself is not about a provider.
    let mut world = World::new(vec![config("openai", Some("1"))]);
    world.used.insert("key".into(), 100);
    ask("m").goes(&world, "openai/m", None);
    // Nobody allows it, or nobody is drawn.
    ask("secret").goes(&world, "403: model_blocked", None);
    ask("x/m").goes(&world, "400: unknown_provider", None);
    ask("m").goes(&World::new(vec![config("openai", None)]), "400: model_unresolved", None);
    ask("m").goes(&World::new(vec![]), "403: model_blocked", None);
}

#[test]
fn who_is_known_to_have_a_model_is_asked_alone() {
    let named = |provider: &str, model: &str| ProviderConfig {
        allowed_models: ModelSet::Only(vec![model.into()]),
        ..config(provider, Some("1"))
    };
    let world = World::new(vec![config("openai", Some("9")), named("groq", "llama")]);
    ask("llama").goes(&world, "groq/llama", None);
    for seed in 0..20 {
        assert!(Ask { seed, ..ask("other") }.told(&world).0.starts_with("openai/other"));
    }
}

#[test]
fn keys_are_drawn_by_weight_and_pinned_by_whoever_may() {
    let mut world = World::usual();
    let keys = |world: &World, asked: &Ask| -> Vec<String> {
        let targets = asked.decide(world, None).targets;
        targets.unwrap().iter().map(|target| target.key.as_ref().unwrap().id.to_string()).collect()
    };
    let mut firsts: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..2_000 {
        let keys = keys(&world, &Ask { seed, ..ask("openai/m") });
        assert_eq!(keys.len(), 2);
        *firsts.entry(keys[0].clone()).or_default() += 1;
    }
    assert!(firsts.values().all(|count| count.abs_diff(1_000) < 90), "{firsts:?}");
    // A client's own choice, by id or by name; of the first choice alone.
    let pinned = ask("openai/m").header("x-bf-api-key-id", "openai-two");
    assert_eq!(keys(&world, &pinned), ["openai-two"]);
    let named = ask("openai/m").header("x-bf-api-key", "name-of-openai-one").fallbacks(&["groq/m"]);
    assert_eq!(keys(&world, &named)[0], "openai-one");
    assert_eq!(keys(&world, &named).len(), 3);
    // For a bare name it picks the provider that has it.
    for seed in 0..20 {
        let asked = Ask { seed, ..ask("m").header("x-bf-api-key-id", "groq-two") };
        assert_eq!(keys(&world, &asked)[0], "groq-two");
    }
    ask("openai/m").header("x-bf-api-key-id", "nobody").goes(&world, "503: no_provider_key", None);
    // A rule's choice comes before a client's.
    let mut pinning = rule("r", "", &[("openai/m", "1")]);
    pinning.targets[0].key_id = Some("openai-one".into());
    world.rule(pinning);
    assert_eq!(keys(&world, &pinned), ["openai-one"]);
    // And neither goes beyond what the virtual key may use.
    let mut world = World::new(vec![ProviderConfig {
        key_ids: KeySet::Only(vec!["openai-two".into()]),
        ..config("openai", Some("1"))
    }]);
    assert_eq!(keys(&world, &ask("openai/m")), ["openai-two"]);
    ask("openai/m").header("x-bf-api-key-id", "openai-one").goes(&world, "403: model_blocked", None);
    let mut pinning = rule("r", "", &[("openai/m", "1")]);
    pinning.targets[0].key_id = Some("openai-one".into());
    world.rule(pinning);
    ask("openai/m").goes(&world, "403: model_blocked", Some("r"));
}

#[test]
fn a_session_keeps_its_targets() {
    let mut world = World::usual();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for session in 0..60 {
        let asked = |seed| Ask { seed, ..ask("m").header("x-tollgate-session", &format!("s{session}")) };
        let targets = |seed| {
            let targets = asked(seed).decide(&world, None).targets.unwrap();
            targets.iter().map(|target| target.key.as_ref().unwrap().id.to_string()).collect::<Vec<_>>()
        };
        let first = targets(1);
        assert!((2..20).all(|seed| targets(seed) == first));
        *seen.entry(first[0].clone()).or_default() += 1;
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
    world.rule(rule("r", "", &[("groq/a", "0.5"), ("openai/b", "0.5")]));
    let told: Vec<String> =
        (0..20).map(|seed| Ask { seed, ..ask("m").header("x-bf-session-id", "s") }.told(&world).0).collect();
    assert!(told.iter().all(|to| *to == told[0]));
}

#[test]
fn a_trace_tells_every_rule_and_what_was_passed_over() {
    let mut world = World::new(vec![config("openai", Some("1")), config("groq", None), config("cohere", Some("1"))]);
    world.used.insert("config-groq".into(), 100);
    world.rule(rule("no", "model == 'x'", &[("groq/m", "1")]));
    world.rule(RoutingRule { priority: 1, ..rule("missing", "headers.nope == 'x'", &[("groq/m", "1")]) });
    world.rule(RoutingRule { priority: 2, enabled: false, ..rule("off", "", &[("groq/m", "1")]) });
    world.rule(RoutingRule { priority: 3, ..rule("bad", "1 / 0 == 1", &[("groq/m", "1")]) });
    let chain = RoutingRule { priority: 4, chain: true, ..rule("yes", "model == 'm'", &[("/n", "1")]) };
    world.rule(chain);
    world.rule(RoutingRule { priority: 5, ..rule("late", "", &[("/n", "1")]) });
    let mut trace = Trace::default();
    let decision = ask("m").decide(&world, Some(&mut trace));
    assert_eq!(decision.rule.unwrap().id, "late".into());
    let told: Vec<String> = trace
        .rules
        .iter()
        .map(|tried| format!("{} {} {}: {:?}", tried.round, tried.model, tried.rule.id, tried.result))
        .collect();
    assert_eq!(
        told,
        [
            "1 m no: NotMatched",
            "1 m missing: Missing(\"there is no 'nope'\")",
            "1 m off: Disabled",
            "1 m bad: Failed(\"something is divided by zero\")",
            "1 m yes: Matched(0)",
            "1 m late: NotReached",
            "2 n no: NotMatched",
            "2 n missing: Missing(\"there is no 'nope'\")",
            "2 n off: Disabled",
            "2 n bad: Failed(\"something is divided by zero\")",
            "2 n yes: NotMatched",
            "2 n late: Matched(0)",
        ]
    );
    let over: Vec<String> =
        trace.passed_over.iter().map(|over| format!("{}/{}: {}", over.provider, over.model, over.reason)).collect();
    assert_eq!(over, ["cohere/n: this provider is not configured", "groq/n: a limit of it is used up"]);
    // Asking changes nothing.
    let targets = |trace| ask("m").decide(&world, trace).targets.unwrap().len();
    assert_eq!(targets(None), targets(Some(&mut Trace::default())));
}
