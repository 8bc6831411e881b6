//! The ledger asked.

use super::*;
use crate::governance::money::Rate;
use crate::governance::pricing::{Price, Prices};
use crate::state::outbox::{ChargeId, Entry};

const LEDGER: &str = "/api/ledger";
const HOUR: i64 = 3_600_000;

/// A settled call, as it comes into the books.
fn call(id: u128, model: &str, at: i64, ending: Ending) -> Entry {
    let price = Price {
        standard: Prices {
            input: Some(Rate::new(2_500_000)),
            output: Some(Rate::new(10_000_000)),
            cache_read: Some(Rate::new(1_250_001)),
            ..Prices::default()
        },
        ..Price::default()
    };
    let usage = Usage { input: 100, cache_read: 3, output: 10, reasoning: 4, ..Usage::default() };
    let cost = price.cost(&usage);
    Entry {
        id: ChargeId(id),
        tag: CallTag {
            virtual_key: (id != 4).then(|| "vk".into()),
            team: (id != 4).then(|| "blue".into()),
            customer: (id == 2).then(|| "acme".into()),
            provider: "local".into(),
            model: model.into(),
            kind: if id == 3 { RequestKind::Embedding } else { RequestKind::ChatCompletion },
            admitted_at: Timestamp::from_millis(at),
            price: (ending == Ending::Completed).then(|| Arc::new(price)),
        },
        settled_at: Timestamp::from_millis(at + 1_500),
        ending,
        usage,
        cost,
        deltas: [].into_iter().collect(),
        place: None,
    }
}

/// Four calls within two hours.
fn books() -> House {
    let house = House::new();
    let calls = [
        call(1, "m", NOW, Ending::Completed),
        call(2, "n", NOW + 5, Ending::Completed),
        call(3, "m", NOW + 5, Ending::ClientGone),
        call(4, "=m,\"x\"", NOW + HOUR, Ending::Completed),
    ];
    house.admin.store.ledger().unwrap().append(&calls).unwrap();
    house
}

fn ids(page: &Value) -> Vec<u64> {
    let entries = page["entries"].as_array().unwrap_or_else(|| panic!("{page}"));
    entries.iter().map(|entry| u64::from_str_radix(text(&entry["id"]), 16).unwrap()).collect()
}

#[tokio::test]
async fn entries_come_by_page_and_filter() {
    let house = books();
    let all = house.get(LEDGER).await.good();
    assert_eq!((ids(&all), &all["count"], &all["limit"]), (vec![4, 3, 2, 1], &json!(4), &json!(100)));
    assert_eq!(all["next"], Value::Null);
    let usage = json!({
        "input": 100, "cache_read": 3, "cache_write": 0, "cache_write_long": 0, "audio_input": 0, "image_input": 0,
        "output": 10, "reasoning": 4, "audio_output": 0, "image_output": 0,
    });
    let second = json!({
        "id": format!("{:032x}", 2), "admitted_at": "2023-11-14T22:13:20.005Z", "settled_at": "2023-11-14T22:13:21.505Z",
        "virtual_key_id": "vk", "team_id": "blue", "customer_id": "acme", "provider": "local", "model": "n",
        "request_type": "chat_completion", "ending": "completed", "estimated": false, "tier": "standard",
        "usage": usage, "other": {}, "cost": 0.000353751, "corrects": null,
    });
    assert_eq!(all["entries"][2], second);
    let mut path = format!("{LEDGER}?limit=3");
    let mut paged = Vec::new();
    loop {
        let page = house.get(&path).await.good();
        paged.push(ids(&page));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("{LEDGER}?limit=3&after={next}");
    }
    assert_eq!(paged, [vec![4, 3, 2], vec![1]]);
    for (query, expected) in [
        ("from=2023-11-14T22:13:20.005Z", vec![4, 3, 2]),
        ("to=2023-11-14T22:13:20.005Z", vec![1]),
        ("from=2023-11-14T22:13:20.005Z&to=2023-11-14T22:13:21Z", vec![3, 2]),
        // An offset, with its plus sign escaped and not.
        ("from=2023-11-15T00:00:00%2B01:00", vec![4]),
        ("from=2023-11-15T00:00:00+01:00", vec![4]),
        ("virtual_key_id=vk&team_id=blue", vec![3, 2, 1]),
        ("virtual_key_id=", vec![4, 3, 2, 1]),
        ("customer_id=acme", vec![2]),
        ("provider=local&model=m", vec![3, 1]),
        ("provider=other", vec![]),
        ("kind=embedding", vec![3]),
        ("ending=client_gone", vec![3]),
        ("ending=nothing_like_it", vec![]),
        ("estimated=true", vec![]),
        ("estimated=false&limit=1", vec![4]),
        ("limit=0&format=json", vec![4, 3, 2, 1]),
        ("limit=9999", vec![4, 3, 2, 1]),
    ] {
        assert_eq!(ids(&house.get(&format!("{LEDGER}?{query}")).await.good()), expected, "{query}");
    }
}

#[tokio::test]
async fn sums_are_told_apart_by_what_is_asked() {
    let house = books();
    let sums = async |query: &str| house.get(&format!("{LEDGER}?{query}")).await.good();
    let by_model = sums("group_by=model").await;
    let calls = |sums: &Value, member: &str| -> Vec<(Value, i64)> {
        let groups = sums["groups"].as_array().unwrap();
        groups.iter().map(|group| (group[member].clone(), group["calls"].as_i64().unwrap())).collect()
    };
    assert_eq!(calls(&by_model, "model"), [(json!("=m,\"x\""), 1), (json!("m"), 2), (json!("n"), 1)]);
    assert_eq!((&by_model["count"], &by_model["total"]["calls"]), (&json!(3), &json!(4)));
    assert_eq!((&by_model["group_by"], &by_model["complete_from"]), (&json!(["model"]), &Value::Null));
    assert_eq!(
        (&by_model["groups"][1]["cost"], &by_model["total"]["cost"]),
        (&json!(0.000707502), &json!(0.001415004))
    );
    assert_eq!(by_model["total"]["usage"]["output"], 40);
    let hours = sums("group_by=hour,virtual_key").await;
    assert_eq!(calls(&hours, "virtual_key_id"), [(json!("vk"), 3), (Value::Null, 1)]);
    assert_eq!(hours["groups"][1]["hour"], "2023-11-14T23:00:00Z");
    let day = json!("2023-11-14T00:00:00Z");
    assert_eq!(calls(&sums("group_by=day").await, "day"), [(day.clone(), 4)]);
    assert_eq!(calls(&sums("group_by=day&kind=embedding").await, "day"), [(day, 1)]);
    assert_eq!(calls(&sums("group_by=team").await, "team_id"), [(Value::Null, 1), (json!("blue"), 3)]);
    let customers = sums("group_by=customer,provider&team_id=blue").await;
    assert_eq!(calls(&customers, "customer_id"), [(Value::Null, 2), (json!("acme"), 1)]);
    let part = sums("group_by=provider&from=2023-11-14T22:13:20.001Z&to=2023-11-14T23:00:00Z").await;
    assert_eq!(calls(&part, "provider"), [(json!("local"), 2)]);
    assert_eq!(sums("group_by=model&provider=none").await["total"]["calls"], 0);
}

#[tokio::test]
async fn both_come_as_csv() {
    let house = books();
    let reply = house.get(&format!("{LEDGER}?format=csv&to=2023-11-14T22:13:20.005Z")).await;
    assert_eq!(reply.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    assert_eq!(reply.header("content-disposition"), Some("attachment; filename=\"ledger.csv\""));
    let expected = "id,admitted_at,settled_at,virtual_key_id,team_id,customer_id,provider,model,request_type,ending,\
                    estimated,tier,input,cache_read,cache_write,cache_write_long,audio_input,image_input,output,\
                    reasoning,audio_output,image_output,cost,corrects,other\r\n\
                    00000000000000000000000000000001,2023-11-14T22:13:20Z,2023-11-14T22:13:21.500Z,vk,blue,,local,m,\
                    chat_completion,completed,false,standard,100,3,0,0,0,0,10,4,0,0,0.000353751,,\r\n";
    assert_eq!(reply.text, expected);
    let sums = house.call_with(Method::GET, &format!("{LEDGER}?group_by=model"), &[("accept", "text/csv")], "").await;
    let expected = "model,calls,input,cache_read,cache_write,cache_write_long,audio_input,image_input,output,\
                    reasoning,audio_output,image_output,cost\r\n\
                    \"'=m,\"\"x\"\"\",1,100,3,0,0,0,0,10,4,0,0,0.000353751\r\n\
                    m,2,200,6,0,0,0,0,20,8,0,0,0.000707502\r\n\
                    n,1,100,3,0,0,0,0,10,4,0,0,0.000353751\r\n";
    assert_eq!(sums.text, expected);
    // More than a page is streamed, and no entry is lost or told twice.
    let many: Vec<Entry> = (100..2_300).map(|id| call(id, "m", NOW + 9, Ending::Completed)).collect();
    house.admin.store.ledger().unwrap().append(&many).unwrap();
    let lines = async |query: &str| {
        let reply = house.get(&format!("{LEDGER}?format=csv{query}")).await;
        let lines: BTreeSet<String> = reply.text.lines().skip(1).map(str::to_owned).collect();
        assert_eq!(lines.len() + 1, reply.text.lines().count());
        lines.len()
    };
    assert_eq!((lines("").await, lines("&limit=1500").await, lines("&limit=2").await), (2_204, 1_500, 2));
}

#[tokio::test]
async fn a_wrong_question_is_refused_by_name() {
    let house = books();
    for (query, param, says) in [
        ("from=yesterday", "from", "Invalid from parameter: must be an instant like 2026-11-21T00:00:00Z"),
        ("to=", "to", "Invalid to parameter: must be an instant like 2026-11-21T00:00:00Z"),
        ("kind=chat", "kind", "Invalid kind parameter: must be a kind like chat_completion"),
        ("ending=Completed", "ending", "Invalid ending parameter: must be an ending like completed"),
        ("estimated=yes", "estimated", "Invalid estimated parameter: must be true or false"),
        ("explain=1", "explain", "Invalid explain parameter: must be true or false"),
        ("limit=many", "limit", "Invalid limit parameter: must be a number"),
        ("limit=-1", "limit", "Invalid limit parameter: must be non-negative"),
        ("after=x", "after", "Invalid after parameter: must be what an answer gave as next"),
        ("format=xml", "format", "Invalid format parameter: must be json or csv"),
        ("modle=m", "modle", "Unknown parameter modle; did you mean model?"),
        ("something_else=1", "something_else", "Unknown parameter something_else"),
    ] {
        let reply = house.get(&format!("{LEDGER}?{query}")).await;
        reply.refused(400, says);
        assert_eq!(reply.json()["error"]["param"], param, "{query}");
    }
    let names = "hour, day, virtual_key, team, customer, provider, model";
    for wrong in ["", "week", "model,model", "hour,day,model", "model,"] {
        let reply = house.get(&format!("{LEDGER}?group_by={wrong}")).await;
        reply.refused(400, &format!("Invalid group_by parameter: must be one or two of: {names}"));
    }
}

#[tokio::test]
async fn a_cost_is_explained() {
    let house = books();
    let page = house.get(&format!("{LEDGER}?explain=true")).await.good();
    let parts = json!([
        {"kind": "input", "units": 100, "price": 0.0000025, "cost": 0.00025},
        {"kind": "cache_read", "units": 3, "price": 0.000001250001, "cost": 0.000003750003},
        {"kind": "output", "units": 10, "price": 0.00001, "cost": 0.0001},
    ]);
    assert_eq!((&page["entries"][3]["parts"], &page["entries"][3]["cost"]), (&parts, &json!(0.000353751)));
    // Nobody knows what that one was charged by.
    assert_eq!(page["entries"][1]["parts"], Value::Null);
    let plain = house.get(LEDGER).await.good();
    assert!(plain["entries"].as_array().unwrap().iter().all(|entry| entry.get("parts").is_none()));
}

#[tokio::test]
async fn a_settled_call_is_in_the_ledger_with_its_team() {
    let house = House::new();
    let team = house.post("/api/governance/teams", json!({"name": "t"})).await.one("team");
    let key =
        house.create(json!({"name": "k", "team_id": team["id"], "budget": {"max_limit": 1, "reset_duration": "1d"}}));
    let key = key.await.key();
    house.spend(text(&key["value"]), 7);
    let mut page = Value::Null;
    for _ in 0..200 {
        page = house.get(LEDGER).await.good();
        if page["count"] == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let entry = &page["entries"][0];
    assert_eq!((&entry["virtual_key_id"], &entry["team_id"]), (&key["id"], &team["id"]));
    assert_eq!(entry["cost"], 0.000000007);
}
