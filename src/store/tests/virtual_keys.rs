#[test]
fn a_virtual_key_comes_back_as_it_went_in() {
    let house = House::new();
    let (one, mut two) = (house.add("1", "one"), key("2", "two"));
    two.limits.rate_limit = None;
    two.limits.budgets = vec![budget("long", 9, "1M"), budget("short", 8, "1m")];
    two.limits.budgets[0].window = Window::aligned(Span::parse("1M").unwrap()).unwrap();
    two.provider_configs[0].weight = None;
    two.provider_configs[0].key_ids = KeySet::All;
    two.provider_configs[0].limits.rate_limit = Some(rate("2-cr", None, Some(3)));
    let digest = house.store.insert_virtual_key(&mut two, &value("two")).unwrap();
    two.limits.budgets.reverse();
    assert!(two.provider_configs[0].id > one.provider_configs[0].id);
    assert_eq!(digest, house.store.hasher().digest(b"sk-bf-two"));
    let house = house.reopened();
    let keys = house.store.virtual_keys().unwrap();
    assert_eq!(keys, vec![(house.store.hasher().digest(b"sk-bf-one"), one), (digest, two)]);
    let values = house.store.virtual_key_values(["1", "2", "none"]).unwrap();
    assert_eq!((values.len(), values["1"].expose(), values["2"].expose()), (2, "sk-bf-one", "sk-bf-two"));
}

#[test]
fn no_value_is_in_the_file() {
    let house = House::new();
    house.add("1", "recognisable");
    let files = std::fs::read_dir(house.path().parent().unwrap()).unwrap();
    for file in files {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(18).any(|window| window == b"sk-bf-recognisable"));
    }
}

#[test]
fn what_is_taken_is_refused_and_nothing_is_half_done() {
    let house = House::new();
    let one = house.add("1", "one");
    let check = |id: &str, name: &str, of: &str, kind: StoreErrorKind| {
        let mut other = key(id, name);
        if kind == StoreErrorKind::IdTaken && id != "1" {
            other.limits.budgets[0].id = "1-b".into();
        }
        let error = house.store.insert_virtual_key(&mut other, &value(of)).unwrap_err();
        assert_eq!((error.kind, error.is_conflict()), (kind, true), "{error}");
        assert_eq!(house.store.virtual_keys().unwrap().len(), 1);
        assert!(!error.to_string().contains("sk-bf"));
    };
    check("2", "one", "two", StoreErrorKind::NameTaken);
    check("2", "two", "one", StoreErrorKind::ValueTaken);
    check("1", "two", "two", StoreErrorKind::IdTaken);
    check("3", "two", "two", StoreErrorKind::IdTaken);
    let mut two = house.add("2", "two");
    two.name = one.name;
    assert_eq!(house.store.update_virtual_key(&mut two, &[]).unwrap_err().kind, StoreErrorKind::NameTaken);
    let error = house.store.update_virtual_key(&mut key("3", "three"), &[]).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NotFound);
}

#[test]
fn an_update_replaces_the_parts_and_keeps_what_was_spent() {
    let house = House::new();
    let mut one = house.add("1", "one");
    let state = house.state(&one);
    spend(&state, &one, 100);
    house.store.ledger().unwrap().append(&state.outbox().take(9)).unwrap();
    one.name = "renamed".into();
    one.limits.budgets[0].max = Nanos::new(5);
    one.limits.rate_limit = Some(rate("1-r", None, Some(9)));
    one.provider_configs.push(config("anthropic", vec![]));
    house.store.update_virtual_key(&mut one, &[]).unwrap();
    let house = house.reopened();
    assert_eq!(house.store.virtual_keys().unwrap()[0].1, one);
    assert_eq!(spent(&house.store, "1-b", Measure::Money), Some(100));
    // The half that went took its balance along.
    assert_eq!(spent(&house.store, "1-r", Measure::Tokens), None);
    // Two provider configs may change places, and one that goes takes its budget along.
    let (first, second) = (one.provider_configs[0].id, one.provider_configs[1].id);
    one.provider_configs[0].id = second;
    one.provider_configs[1].id = first;
    one.provider_configs[0].limits.budgets[0].id = "fresh".into();
    house.store.update_virtual_key(&mut one, &[]).unwrap();
    one.provider_configs.truncate(1);
    house.store.update_virtual_key(&mut one, &[]).unwrap();
    assert_eq!(house.store.virtual_keys().unwrap()[0].1, one);
    assert_eq!(spent(&house.store, "1-c", Measure::Money), None);
    one.provider_configs[0].id = 99;
    assert_eq!(house.store.update_virtual_key(&mut one, &[]).unwrap_err().kind, StoreErrorKind::NotFound);
}

#[test]
fn a_deleted_key_leaves_only_its_entries() {
    let house = House::new();
    let one = house.add("1", "one");
    house.add("2", "two");
    let state = house.state(&one);
    spend(&state, &one, 100);
    let batch = state.outbox().take(9);
    house.store.ledger().unwrap().append(&batch).unwrap();
    assert!(house.store.delete_virtual_key("1").unwrap());
    assert!(!house.store.delete_virtual_key("1").unwrap());
    assert!(house.store.balances().unwrap().is_empty());
    for (table, left) in
        [("virtual_keys", 1), ("provider_configs", 1), ("budgets", 2), ("rate_limits", 1), ("ledger", 1)]
    {
        assert_eq!(house.raw(&format!("SELECT count(*) FROM {table}")), left, "{table}");
    }
    // A call that was still in flight when its key went: its balance is gone after the next start.
    spend(&state, &one, 50);
    house.store.ledger().unwrap().append(&state.outbox().take(9)).unwrap();
    let house = house.reopened();
    assert!(house.store.balances().unwrap().is_empty());
    assert_eq!(house.raw("SELECT sum(cost_nanos) FROM ledger"), 150);
}
