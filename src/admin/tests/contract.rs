//! The document, the router and the page about the tests say the same.

use super::document::{DOCUMENT, allowed, escaped};
use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

#[tokio::test]
async fn the_router_and_the_document_have_the_same_operations() {
    let house = House::new();
    let mut served: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (path, _) in routes() {
        let reply = house.call("PROBE".parse().unwrap(), path, "").await;
        assert_eq!(reply.status, 405, "{path}");
        served.insert(path, allowed(&reply).into_iter().map(str::to_owned).collect());
    }
    let documented = DOCUMENT.methods();
    assert_eq!(served.keys().collect::<Vec<_>>(), documented.keys().collect::<Vec<_>>());
    for (path, methods) in documented {
        assert!(served[path].iter().eq(methods), "{path}: {:?}", served[path]);
    }
}

#[test]
fn operations_have_names_of_their_own() {
    let names: BTreeSet<&str> = DOCUMENT.operations().iter().map(|operation| &*operation.id).collect();
    assert_eq!(names.len(), DOCUMENT.operations().len());
}

/// Visits every example of the document with the pointer to the schema that it illustrates.
fn examples(pointer: &str, node: &Value, visit: &mut dyn FnMut(&str, &str, &Value)) {
    let Value::Object(members) = node else {
        if let Value::Array(items) = node {
            for (i, item) in items.iter().enumerate() {
                examples(&format!("{pointer}/{i}"), item, visit);
            }
        }
        return;
    };
    let schema = if members.contains_key("schema") { format!("{pointer}/schema") } else { pointer.to_owned() };
    // A map of properties may have a property of this name.
    let is_map = pointer.ends_with("/properties") || pointer.ends_with("/examples");
    for (name, member) in members {
        let place = format!("{pointer}/{}", escaped(name));
        match (&**name, member) {
            ("example", example) if !is_map => visit(&schema, &place, example),
            ("examples", Value::Array(values)) if !is_map => {
                values.iter().for_each(|value| visit(&schema, &place, value))
            }
            ("examples", Value::Object(named)) if members.contains_key("schema") => {
                for name in named.keys() {
                    let place = DOCUMENT.resolve(&format!("{place}/{}", escaped(name))).unwrap();
                    visit(&schema, &place, &DOCUMENT.root.pointer(&place).unwrap()["value"]);
                }
            }
            ("default" | "enum" | "const", _) if !is_map => {}
            _ if place == "/components/examples" => {}
            _ => examples(&place, member, visit),
        }
    }
}

#[test]
fn every_example_fits_its_schema() {
    let mut seen = 0;
    let mut faults = Vec::new();
    examples("", &DOCUMENT.root, &mut |schema, place, value| {
        seen += 1;
        faults.extend(DOCUMENT.faults(schema, value).into_iter().map(|fault| format!("{place}: {fault}")));
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(seen > 140, "only {seen} examples were found");
}

#[test]
fn every_example_on_the_shelf_is_used() {
    let text = DOCUMENT.root.to_string();
    for name in DOCUMENT.root["components"]["examples"].as_object().unwrap().keys() {
        assert!(text.contains(&format!("\"#/components/examples/{name}\"")), "{name}");
    }
}

/// The page's tables: each operation with its request and the tests that call it.
pub(super) fn covered() -> BTreeMap<&'static str, (&'static str, Vec<&'static str>)> {
    let page = include_str!("../../../docs/rest-api.md");
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [operation, request, tests] = cells[..] else { return None };
        let bare = |text: &'static str| text.trim().trim_matches('`');
        operation.starts_with('`').then(|| (bare(operation), (bare(request), tests.split(',').map(bare).collect())))
    });
    rows.collect()
}

#[test]
fn the_page_names_a_test_for_every_operation() {
    let covered = covered();
    let documented: BTreeMap<&str, String> = DOCUMENT
        .operations()
        .iter()
        .map(|operation| (&*operation.id, format!("{} {}", operation.method, operation.path)))
        .collect();
    assert!(covered.iter().map(|(id, (request, _))| (*id, (*request).to_owned())).eq(documented), "{covered:#?}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/tests");
    for (operation, (_, tests)) in covered {
        for test in tests {
            let (module, name) = test.split_once("::").unwrap_or_else(|| panic!("{operation}: {test}"));
            let source = fs::read_to_string(folder.join(format!("{module}.rs"))).unwrap();
            let is_there = source.contains(&format!("test]\nasync fn {name}()"));
            assert!(is_there, "{operation}: there is no test {test}");
        }
    }
}

#[test]
fn answers_that_the_document_does_not_have_are_noticed() {
    let health = r#"{"status": "ok"}"#;
    let json = [("content-type", "application/json")];
    let is_fine = |method: Method, path: &str, status: u16, headers: &[(&'static str, &'static str)], text: &str| {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let reply = Reply { status, headers, text: text.to_owned() };
        // What it panics with is told by those who meant it to be fine.
        catch_unwind(AssertUnwindSafe(|| DOCUMENT.check(&method, path, &reply))).is_ok()
    };
    let get = |path: &str, status, headers: &[_], text: &str| is_fine(Method::GET, path, status, headers, text);
    assert!(get("/healthz", 200, &json, health));
    assert!(!get("/healthz", 201, &json, health), "a status");
    assert!(!get("/healthz", 200, &json, r#"{"status": "well"}"#), "a value");
    assert!(!get("/healthz", 200, &json, "{}"), "a member that is missing");
    assert!(!get("/healthz", 200, &json, "ok"), "no JSON");
    assert!(!get("/healthz", 200, &[("content-type", "text/plain")], health), "a kind of body");
    assert!(!get("/healthz", 200, &[json[0], ("etag", "\"a\"")], health), "a header");
    let message = DOCUMENT.root["paths"]["/api/config"]["get"]["responses"]["200"]["content"]["application/json"]
        ["examples"]["defaults"]["value"]
        .to_string();
    assert!(get("/api/config", 200, &[json[0], ("etag", "\"a\"")], &message), "{message}");
    assert!(!get("/api/config", 200, &json, &message), "a header that is missing");
    assert!(!get("/api/config", 200, &[json[0], ("etag", "a")], &message), "a header that is none");
    let error = |status: u16| {
        let error = json!({"type": "x", "code": "x", "message": "m"});
        json!({"type": "x", "is_bifrost_error": false, "status_code": status, "error": error, "extra_fields": {}})
            .to_string()
    };
    assert!(get("/nowhere", 404, &json, &error(404)));
    assert!(!get("/nowhere", 200, &json, "{}"), "an answer from nowhere");
    let put = |allow| is_fine(Method::PUT, "/healthz", 405, &[json[0], ("allow", allow)], &error(405));
    assert!(put("GET, HEAD") && put("GET") && !put("GET, POST") && !put(""));
}

#[test]
fn the_document_has_every_price_that_a_patch_may_set() {
    use crate::governance::entity::PRICE_FIELDS;
    let all: serde_json::Map<String, Value> = PRICE_FIELDS.iter().map(|name| ((*name).to_owned(), json!(1))).collect();
    let all = Value::Object(all);
    assert_eq!(DOCUMENT.faults("/components/schemas/PricePatch", &all), Vec::<String>::new());
    for wrong in ["input_cost_per_token_above_9k_tokens", "input_cost_per_token_fast", "mode"] {
        assert!(!PRICE_FIELDS.contains(&wrong));
        assert!(!DOCUMENT.faults("/components/schemas/PricePatch", &json!({ wrong: 1 })).is_empty(), "{wrong}");
    }
    // And no others: each name that it lists is one.
    let listed = DOCUMENT.root["components"]["schemas"]["PricePatch"]["properties"].as_object().unwrap();
    assert!(listed.keys().all(|name| PRICE_FIELDS.contains(&name.as_str())));
}
