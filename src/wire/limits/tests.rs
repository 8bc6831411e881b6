use super::*;
use crate::wire::change::fixture::{LATER, NOW, owned, read_at};
use serde_json::json;

fn read_over(base: Option<&Limits>, body: &Value, own_ids: bool) -> Result<Limits, Vec<String>> {
    read_at(LATER, own_ids, |change, faults| {
        let owner = Object::of(body, "", faults)?;
        Some(read(&owner, base, change, faults))
    })
}

fn created(body: Value) -> Limits {
    read_over(None, &body, false).unwrap()
}

/// A day's and a week's budget with ids `day` and `week`, and both halves of a rate limit `rate`.
fn both() -> Limits {
    let body = json!({
        "budgets": [
            {"id": "week", "max_limit": 70, "reset_duration": "1w"},
            {"id": "day", "max_limit": 10, "reset_duration": "1d"},
        ],
        "rate_limit": {
            "id": "rate", "token_max_limit": 1000, "token_reset_duration": "1h",
            "request_max_limit": 10, "request_reset_duration": "1m",
        },
    });
    read_at(NOW, true, |change, faults| {
        let owner = Object::of(&body, "", faults)?;
        Some(read(&owner, None, change, faults))
    })
    .unwrap()
}

/// Budgets as `id max duration`, an `!` for a calendar; rate limits as `tokens/duration requests/duration`.
fn told(limits: &Limits) -> Vec<String> {
    let budget = |budget: &Budget| {
        let mark = if budget.window.is_aligned() { "!" } else { "" };
        format!("{} {} {}{mark}", budget.id, budget.max, budget.window.span().text())
    };
    let half = |half: &Option<Quota>| match half {
        Some(quota) => format!("{}/{}", quota.max, quota.window.span().text()),
        None => "-".to_owned(),
    };
    let rate = |rate: &RateLimit| format!("{} {} {}", rate.id, half(&rate.tokens), half(&rate.requests));
    limits.budgets.iter().map(budget).chain(limits.rate_limit.as_deref().map(rate)).collect()
}

#[test]
fn a_new_owner_gets_what_is_said() {
    let check = |body: Value, expected: &[&str]| assert_eq!(told(&created(body.clone())), owned(expected), "{body}");
    check(json!({}), &[]);
    check(json!({"budget": null, "budgets": null, "rate_limit": null}), &[]);
    check(json!({"budget": {}, "budgets": [], "rate_limit": {}}), &[]);
    check(json!({"budget": {"max_limit": 0.25, "reset_duration": "1.5h"}}), &["new-1 0.25 1.5h"]);
    check(
        json!({"budget": {"max_limit": 1, "reset_duration": "1M", "calendar_aligned": true, "id": "mine"}}),
        &["new-1 1 1M!"],
    );
    // The shortest first, whatever the order.
    check(
        json!({"budgets": [{"max_limit": 7, "reset_duration": "1w"}, {"max_limit": 1, "reset_duration": "1d"}]}),
        &["new-2 1 1d", "new-1 7 1w"],
    );
    // Both forms, if they agree.
    check(
        json!({"budget": {"max_limit": 1.0, "reset_duration": "1d"}, "budgets": [{"max_limit": 1, "reset_duration": "1d"}]}),
        &["new-1 1 1d"],
    );
    check(
        json!({"rate_limit": {"token_max_limit": 5, "token_reset_duration": "1h", "request_max_limit": null}}),
        &["new-1 5/1h -"],
    );
    // A duration without a limit limits nothing.
    check(json!({"rate_limit": {"request_reset_duration": "1h"}}), &[]);
}

#[test]
fn the_file_may_bring_ids() {
    let body = json!({
        "budget": {"id": "b", "max_limit": 1, "reset_duration": "1d"},
        "rate_limit": {"id": "r", "request_max_limit": 1, "request_reset_duration": "1d"},
    });
    assert_eq!(told(&read_over(None, &body, true).unwrap()), ["b 1 1d", "r - 1/1d"]);
    assert_eq!(told(&read_over(None, &body, false).unwrap()), ["new-1 1 1d", "new-2 - 1/1d"]);
    let body = json!({"budget": {"id": "x".repeat(256), "max_limit": 1, "reset_duration": "1d"}});
    assert_eq!(
        read_over(None, &body, true),
        Err(owned(&["budget.id: an id has at most 255 bytes and no control characters"]))
    );
}

#[test]
fn an_update_keeps_what_it_does_not_name() {
    let check = |body: Value, expected: &[&str]| {
        let read = read_over(Some(&both()), &body, false);
        assert_eq!(read.as_ref().map(told), Ok(owned(expected)), "{body}");
    };
    let (day, week, rate) = ("day 10 1d", "week 70 1w", "rate 1000/1h 10/1m");
    check(json!({}), &[day, week, rate]);
    check(json!({"budget": null, "budgets": null, "rate_limit": null}), &[day, week, rate]);
    // `budget` is the one that answers show.
    check(json!({"budget": {}}), &[week, rate]);
    check(json!({"budget": {"max_limit": null, "reset_duration": null}}), &[week, rate]);
    check(json!({"budget": {"max_limit": 11}}), &["day 11 1d", week, rate]);
    check(json!({"budget": {"reset_duration": "2w"}}), &[week, "day 10 2w", rate]);
    check(json!({"budget": {"calendar_aligned": true}}), &["day 10 1d!", week, rate]);
    check(json!({"budget": {"calendar_aligned": false}}), &[day, week, rate]);
    // `budgets` is the whole list, told apart by duration and else by id.
    check(json!({"budgets": []}), &[rate]);
    check(json!({"budgets": [], "budget": {}}), &[rate]);
    check(json!({"budgets": [{"max_limit": 8, "reset_duration": "1w"}]}), &["week 8 1w", rate]);
    check(json!({"budgets": [{"max_limit": 8, "reset_duration": "1M"}]}), &["new-1 8 1M", rate]);
    check(json!({"budgets": [{"id": "day", "max_limit": 8, "reset_duration": "1M"}]}), &["day 8 1M", rate]);
    check(json!({"budgets": [{"id": "day", "max_limit": 8, "reset_duration": "1w"}]}), &["week 8 1w", rate]);
    check(
        json!({"budgets": [{"max_limit": 1, "reset_duration": "1h"}, {"max_limit": 10, "reset_duration": "1d"}]}),
        &["new-1 1 1h", day, rate],
    );
    // A duration is its length, however it is spelt.
    check(json!({"budgets": [{"max_limit": 10, "reset_duration": "24h"}]}), &["day 10 24h", rate]);
    check(
        json!({"budgets": [{"max_limit": 8, "reset_duration": "7d"}, {"max_limit": 9, "reset_duration": "1440m"}]}),
        &["day 9 1440m", "week 8 7d", rate],
    );
    check(json!({"budget": {"reset_duration": "24h"}}), &["day 10 24h", week, rate]);
    check(
        json!({"budgets": [{"id": "week", "max_limit": 8, "reset_duration": "24h", "calendar_aligned": false}]}),
        &["day 8 24h", rate],
    );
    check(
        json!({
            "budget": {"max_limit": 8, "reset_duration": "24h"}, "budgets": [{"max_limit": 8, "reset_duration": "1d"}],
        }),
        &["day 8 1d", rate],
    );
    // Each half of a rate limit on its own.
    check(json!({"rate_limit": {}}), &[day, week]);
    check(json!({"rate_limit": {"token_max_limit": null, "request_max_limit": null}}), &[day, week]);
    check(json!({"rate_limit": {"token_max_limit": null}}), &[day, week, "rate - 10/1m"]);
    check(json!({"rate_limit": {"token_max_limit": null, "token_reset_duration": "1h"}}), &[day, week, "rate - 10/1m"]);
    check(json!({"rate_limit": {"request_max_limit": 20}}), &[day, week, "rate 1000/1h 20/1m"]);
    check(json!({"rate_limit": {"request_reset_duration": "2m"}}), &[day, week, "rate 1000/1h 10/2m"]);
    check(
        json!({"rate_limit": {"token_max_limit": null, "request_max_limit": 1, "request_reset_duration": "1d"}}),
        &[day, week, "rate - 1/1d"],
    );
}

#[test]
fn what_stays_keeps_its_window_and_what_is_new_begins_now() {
    let old = both();
    let body = json!({
        "budgets": [
            {"max_limit": 99, "reset_duration": "1d"},
            {"max_limit": 70, "reset_duration": "1w"},
            {"max_limit": 5, "reset_duration": "1M", "calendar_aligned": true},
        ],
        "rate_limit": {"token_max_limit": 2000},
    });
    let new = read_over(Some(&old), &body, false).unwrap();
    let [day, week, month] = &new.budgets[..] else { panic!("{new:?}") };
    assert_eq!((day.anchor, day.created_at, day.updated_at), (NOW, NOW, LATER));
    assert_eq!(*week, old.budgets[1], "untouched");
    assert_eq!((month.anchor, month.created_at), (month.window.start(LATER, LATER), LATER));
    let rate = new.rate_limit.unwrap();
    assert_eq!((rate.created_at, rate.updated_at), (NOW, LATER));
    assert_eq!(rate.tokens.map(|half| half.anchor), Some(NOW));
    assert_eq!(rate.requests, old.rate_limit.unwrap().requests);
}

/// Stored before lengths were what told budgets apart.
#[test]
fn budgets_of_one_length_that_are_there_already_are_told_apart_by_their_spelling() {
    let budget = |id: &str, duration: &str, aligned: bool| {
        let body = json!({
            "budget": {"id": id, "max_limit": 1, "reset_duration": duration, "calendar_aligned": aligned},
        });
        let read =
            read_at(NOW, true, |change, faults| Some(read(&Object::of(&body, "", faults)?, None, change, faults)));
        read.unwrap().budgets.remove(0)
    };
    let old = Limits { budgets: vec![budget("day", "1d", true), budget("hours", "24h", false)], rate_limit: None };
    let check = |body: Value, expected: &[&str]| {
        assert_eq!(read_over(Some(&old), &body, false).as_ref().map(told), Ok(owned(expected)), "{body}");
    };
    check(json!({"budget": {"max_limit": 2}}), &["day 2 1d!", "hours 1 24h"]);
    check(json!({"budgets": [{"max_limit": 2, "reset_duration": "24h"}]}), &["hours 2 24h"]);
    check(json!({"budgets": [{"max_limit": 2, "reset_duration": "1d"}]}), &["day 2 1d"]);
    check(json!({"budgets": [{"max_limit": 2, "reset_duration": "1440m"}]}), &["hours 2 1440m"]);
}

#[test]
fn every_fault_is_named_with_its_path() {
    let check_over = |base: Option<&Limits>, body: Value, expected: &[&str]| {
        assert_eq!(read_over(base, &body, false).map(|limits| told(&limits)), Err(owned(expected)), "{body}");
    };
    let check = |body: Value, expected: &[&str]| check_over(None, body, expected);
    check(json!({"budget": 1}), &["budget: must be an object, not a number"]);
    check(json!({"budgets": {}}), &["budgets: must be an array, not an object"]);
    check(json!({"budgets": [1]}), &["budgets[0]: must be an object, not a number"]);
    check(
        json!({"budget": {"max_limit": -1, "reset_duration": "xyz"}}),
        &[
            "budget.max_limit: Budget max_limit cannot be negative: -1.00",
            "budget.reset_duration: Invalid reset duration format: xyz",
        ],
    );
    check(
        json!({"budget": {"max_limit": 0, "reset_duration": ""}}),
        &[
            "budget.max_limit: budget max limit cannot be negative or zero: 0.00",
            "budget.reset_duration: budget reset duration is required",
        ],
    );
    check(json!({"budget": {"max_limit": 1e30, "reset_duration": "1d"}}), &["budget.max_limit: '1e+30' is too large"]);
    check(
        json!({"budget": {"max_limit": "1", "reset_duration": 1}}),
        &["budget.max_limit: must be a number, not a string", "budget.reset_duration: must be a string, not a number"],
    );
    check(json!({"budget": {"max_limit": 1}}), &["budget.reset_duration: budget reset duration is required"]);
    check(json!({"budgets": [{"reset_duration": "1d"}]}), &["budgets[0].max_limit: budget max limit is required"]);
    for unaligned in ["1h", "3M"] {
        check(
            json!({"budget": {"max_limit": 1, "reset_duration": unaligned, "calendar_aligned": true}}),
            &[&format!("budget.reset_duration: calendar alignment needs exactly 1d, 1w, 1M or 1Y, not {unaligned}")],
        );
    }
    check(
        json!({"budgets": [{"max_limit": 1, "reset_duration": "1d"}, {"max_limit": 2, "reset_duration": "1d"}]}),
        &["budgets[1]: Duplicate reset_duration in budgets: 1d"],
    );
    check(
        json!({"budgets": [
            {"max_limit": 1, "reset_duration": "1d"}, {"max_limit": 2, "reset_duration": "24h"},
            {"max_limit": 3, "reset_duration": "1440m"},
        ]}),
        &[
            "budgets[1]: Duplicate reset_duration in budgets: 24h",
            "budgets[2]: Duplicate reset_duration in budgets: 1440m",
        ],
    );
    let disagreement = "budget: does not agree with 'budgets'; send one of the two";
    for (single, list) in [
        (json!({"max_limit": 1, "reset_duration": "1d"}), json!([])),
        (json!({}), json!([{"max_limit": 1, "reset_duration": "1d"}])),
        (json!({"max_limit": 2, "reset_duration": "1d"}), json!([{"max_limit": 1, "reset_duration": "1d"}])),
    ] {
        check(json!({"budget": single, "budgets": list}), &[disagreement]);
    }
    check(
        json!({"budget": {"max_limit": 1, "reset_duration": "1d"}, "budgets": [{"max_limit": 0, "reset_duration": "1d"}]}),
        &["budgets[0].max_limit: budget max limit cannot be negative or zero: 0.00"],
    );
    let many: Vec<Value> = (1..=17).map(|n| json!({"max_limit": 1, "reset_duration": format!("{n}h")})).collect();
    check(json!({"budgets": many}), &["budgets: has more than 16 entries"]);
    check(
        json!({"rate_limit": {
            "token_max_limit": 0, "token_reset_duration": "x",
            "request_max_limit": -5, "request_reset_duration": null,
        }}),
        &[
            "rate_limit.token_max_limit: Invalid rate limit: rate limit token max limit cannot be negative or zero: 0",
            "rate_limit.token_reset_duration: Invalid rate limit: invalid rate limit token reset duration format: x",
            "rate_limit.request_max_limit: Invalid rate limit: rate limit request max limit cannot be negative or zero: -5",
            "rate_limit.request_reset_duration: Invalid rate limit: rate limit request reset duration is required",
        ],
    );
    check(
        json!({"rate_limit": {"token_max_limit": 1e30, "token_reset_duration": 1, "request_max_limit": 1.5}}),
        &[
            "rate_limit.token_max_limit: must be a whole number of at most 64 bits, not 1e+30",
            "rate_limit.token_reset_duration: must be a string, not a number",
            "rate_limit.request_max_limit: must be a whole number of at most 64 bits, not 1.5",
        ],
    );
    // Of an owner that is there but has no budget yet.
    for partial in [json!({"max_limit": 1}), json!({"reset_duration": "1d"}), json!({"calendar_aligned": true})] {
        check_over(
            Some(&Limits::default()),
            json!({ "budget": partial }),
            &["budget: both max_limit and reset_duration are required when creating a new budget"],
        );
    }
    // Over an old one: what is merged must fit, and durations must stay apart.
    check_over(
        Some(&both()),
        json!({"budget": {"reset_duration": "1w"}}),
        &["budget.reset_duration: Duplicate reset_duration in budgets: 1w"],
    );
    check_over(
        Some(&both()),
        json!({"budget": {"reset_duration": "168h"}}),
        &["budget.reset_duration: Duplicate reset_duration in budgets: 168h"],
    );
    check_over(
        Some(&both()),
        json!({"budget": {"reset_duration": "2d", "calendar_aligned": true}}),
        &["budget.reset_duration: calendar alignment needs exactly 1d, 1w, 1M or 1Y, not 2d"],
    );
    check_over(
        Some(&both()),
        json!({"budget": {"max_limit": 0}}),
        &["budget.max_limit: budget max limit cannot be negative or zero: 0.00"],
    );
}

#[test]
fn replaced_limits_hand_on_their_ids() {
    let check = |old: Value, new: Value, expected: &[&str]| {
        let read = |body: &Value, now| {
            read_at(now, true, |change, faults| Some(read(&Object::of(body, "", faults)?, None, change, faults)))
                .unwrap()
        };
        let (old, mut new) = (read(&old, NOW), read(&new, LATER));
        adopt(&mut new, &old);
        assert_eq!(told(&new), owned(expected));
        new
    };
    let day = json!({"id": "day", "max_limit": 1, "reset_duration": "1d"});
    let week = json!({"id": "week", "max_limit": 7, "reset_duration": "1w"});
    // By duration, without ids.
    let new =
        check(json!({"budgets": [day]}), json!({"budget": {"max_limit": 2, "reset_duration": "1d"}}), &["day 2 1d"]);
    assert_eq!((new.budgets[0].anchor, new.budgets[0].created_at), (NOW, NOW));
    check(json!({"budgets": [day]}), json!({"budget": {"max_limit": 2, "reset_duration": "24h"}}), &["day 2 24h"]);
    check(
        json!({"budgets": [week, day]}),
        json!({"budgets": [{"max_limit": 8, "reset_duration": "168h"}, {"max_limit": 2, "reset_duration": "24h"}]}),
        &["day 2 24h", "week 8 168h"],
    );
    // By id, even where another has its duration.
    check(
        json!({"budgets": [day, week]}),
        json!({"budgets": [{"id": "day", "max_limit": 2, "reset_duration": "1w"}]}),
        &["day 2 1w"],
    );
    // What is new keeps its own.
    check(
        json!({"budgets": [day]}),
        json!({"budgets": [{"id": "month", "max_limit": 2, "reset_duration": "1M"}]}),
        &["month 2 1M"],
    );
    let rate =
        |id: &str, max: i64| json!({"rate_limit": {"id": id, "token_max_limit": max, "token_reset_duration": "1h"}});
    let new = check(rate("old", 1), rate("new", 2), &["old 2/1h -"]);
    assert_eq!(new.rate_limit.unwrap().tokens.unwrap().anchor, NOW);
}
