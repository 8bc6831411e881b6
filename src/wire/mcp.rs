//! The tools that a virtual key may use of each MCP client: checked, stored and returned; nothing of it is
//! enforced. An entry has an id within its key, so that an update can tell which one it means.

use super::faults::Faults;
use super::read::{FREE_BYTES_MAX, Given, Object};
use serde_json::{Map, Value, json};

/// Each is compared with all others.
const ENTRIES_MAX: usize = 1_000;

/// An entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    id: i64,
    /// A number or a text, as it was given.
    client_id: Option<Value>,
    client_name: Option<String>,
    tools: Vec<String>,
}

/// `mcp_configs` in the stored form. Entries of an update replace the set; they are matched by id, and without
/// one by client.
pub fn read(body: &Object<'_>, base: Option<&str>, faults: &mut Faults) -> String {
    let Given::Value(entries) = body.objects("mcp_configs", faults) else {
        return base.unwrap_or("[]").to_owned();
    };
    if entries.len() > ENTRIES_MAX {
        faults.add(body.path("mcp_configs"), format!("has more than {ENTRIES_MAX} entries"));
        return base.unwrap_or("[]").to_owned();
    }
    let olds = base.map_or_else(Vec::new, rows);
    let mut found: Vec<Row> = Vec::with_capacity(entries.len());
    for entry in &entries {
        // Ids are the server's to give; those of a new key mean nothing yet.
        let id = entry.integer("id", faults).value().filter(|id| *id != 0 && base.is_some());
        let name = entry.name("mcp_client_name", "mcp_client_name is required", faults).value();
        let old = olds.iter().find(|old| match id {
            Some(id) => old.id == id,
            None => name.is_some() && old.client_name.as_deref() == name,
        });
        if let (Some(id), None) = (id, old) {
            faults.add(entry.path("id"), format!("this virtual key has no MCP config {id}"));
            continue;
        }
        let row = read_row(entry, name, old, faults);
        if row.client_name.is_some() && found.iter().any(|other| other.client_name == row.client_name) {
            let name = row.client_name.as_deref().unwrap_or_default();
            faults.add(entry.path("mcp_client_name"), format!("there are two configs for MCP client '{name}'"));
        } else if row.id != 0 && found.iter().any(|other| other.id == row.id) {
            faults.add(entry.path("id"), format!("MCP config {} is listed twice", row.id));
        }
        found.push(row);
    }
    let text = written(found, &olds);
    if text.len() > FREE_BYTES_MAX {
        faults.add(body.path("mcp_configs"), format!("is longer than {FREE_BYTES_MAX} bytes"));
    }
    text
}

/// Gives the entries of `new` the ids of those in `old` that are for the same client.
pub fn adopt(new: &str, old: &str) -> String {
    let (mut news, olds) = (rows(new), rows(old));
    for row in &mut news {
        let same = |was: &&Row| row.client_name.is_some() && was.client_name == row.client_name;
        row.id = olds.iter().find(same).map_or(0, |was| was.id);
    }
    written(news, &olds)
}

/// As answers show them.
pub fn show(stored: &str, virtual_key: &str) -> Value {
    let shown = rows(stored).into_iter().map(|row| {
        let mut object = object(row);
        object.insert("virtual_key_id".into(), virtual_key.into());
        Value::Object(object)
    });
    shown.collect()
}

fn read_row(entry: &Object<'_>, name: Option<&str>, old: Option<&Row>, faults: &mut Faults) -> Row {
    let client_id = match entry.raw("mcp_client_id") {
        Given::Value(id @ (Value::String(_) | Value::Number(_))) => Some(id.clone()),
        Given::Value(_) => {
            entry.text("mcp_client_id", faults);
            None
        }
        Given::Absent | Given::Null => old.and_then(|old| old.client_id.clone()),
    };
    let client_name = name.map(str::to_owned).or_else(|| old.and_then(|old| old.client_name.clone()));
    let named = client_name.is_some() || client_id.is_some();
    if !named && entry.raw("mcp_client_name").value().is_none() && entry.raw("mcp_client_id").value().is_none() {
        faults.add(entry.path("mcp_client_name"), "mcp_client_name is required");
    }
    let tools = entry.whitelist("tools_to_execute", faults).value();
    let tools = tools.or_else(|| old.map(|old| old.tools.clone())).unwrap_or_default();
    Row { id: old.map_or(0, |old| old.id), client_id, client_name, tools }
}

/// Gives ids to those without, above all that were ever seen, and writes the list.
fn written(mut rows: Vec<Row>, olds: &[Row]) -> String {
    let last = rows.iter().chain(olds).map(|row| row.id).max().unwrap_or(0).max(0);
    let mut next = last.saturating_add(1);
    for row in rows.iter_mut().filter(|row| row.id == 0) {
        row.id = next;
        next = next.saturating_add(1);
    }
    rows.into_iter().map(|row| Value::Object(object(row))).collect::<Value>().to_string()
}

fn object(row: Row) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("id".into(), row.id.into());
    if let Some(id) = row.client_id {
        object.insert("mcp_client_id".into(), id);
    }
    if let Some(name) = row.client_name {
        object.insert("mcp_client_name".into(), name.into());
    }
    object.insert("tools_to_execute".into(), json!(row.tools));
    object
}

/// What is stored, whoever wrote it.
fn rows(stored: &str) -> Vec<Row> {
    let entries: Vec<Value> = serde_json::from_str(stored).unwrap_or_default();
    let row = |entry: &Value| {
        let texts = |value: &Value| {
            value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Row {
            id: entry["id"].as_i64().unwrap_or(0),
            client_id: entry.get("mcp_client_id").filter(|id| !id.is_null()).cloned(),
            client_name: entry["mcp_client_name"].as_str().map(str::to_owned),
            tools: texts(&entry["tools_to_execute"]),
        }
    };
    entries.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::change::fixture::{NOW, owned, read_at};

    fn read_over(base: Option<&str>, entries: Value) -> Result<Value, Vec<String>> {
        let body = json!({ "mcp_configs": entries });
        let read = read_at(NOW, false, |_, faults| Some(read(&Object::of(&body, "", faults)?, base, faults)));
        read.map(|text| serde_json::from_str(&text).unwrap())
    }

    fn old() -> String {
        json!([
            {"id": 1, "mcp_client_name": "a", "tools_to_execute": ["*"]},
            {"id": 2, "mcp_client_name": "b", "tools_to_execute": ["x"]},
        ])
        .to_string()
    }

    #[test]
    fn entries_are_made_and_reconciled() {
        let made = read_over(
            None,
            json!([{"id": 7, "mcp_client_name": "a"}, {"mcp_client_id": 5, "tools_to_execute": ["t"]}]),
        );
        let expected = json!([
            {"id": 1, "mcp_client_name": "a", "tools_to_execute": []},
            {"id": 2, "mcp_client_id": 5, "tools_to_execute": ["t"]},
        ]);
        assert_eq!(made, Ok(expected));
        let check = |entries: Value, expected: Value| assert_eq!(read_over(Some(&old()), entries), Ok(expected));
        let stored: Value = serde_json::from_str(&old()).unwrap();
        check(json!(null), stored.clone());
        check(show(&old(), "v1"), stored);
        check(json!([]), json!([]));
        check(
            json!([{"mcp_client_name": "b"}, {"id": 1, "mcp_client_name": "z"}, {"mcp_client_name": "c"}]),
            json!([
                {"id": 2, "mcp_client_name": "b", "tools_to_execute": ["x"]},
                {"id": 1, "mcp_client_name": "z", "tools_to_execute": ["*"]},
                {"id": 3, "mcp_client_name": "c", "tools_to_execute": []},
            ]),
        );
    }

    #[test]
    fn the_file_keeps_ids_by_client() {
        let new = json!([
            {"id": 1, "mcp_client_name": "c", "tools_to_execute": []},
            {"id": 2, "mcp_client_name": "a", "tools_to_execute": []},
        ]);
        let adopted: Value = serde_json::from_str(&adopt(&new.to_string(), &old())).unwrap();
        assert_eq!((&adopted[0]["id"], &adopted[1]["id"]), (&json!(3), &json!(1)));
    }

    #[test]
    fn every_fault_is_named_with_its_path() {
        let check = |entries: Value, expected: &[&str]| {
            assert_eq!(read_over(Some(&old()), entries.clone()), Err(owned(expected)), "{entries}");
        };
        check(json!({}), &["mcp_configs: must be an array, not an object"]);
        check(json!([{}]), &["mcp_configs[0].mcp_client_name: mcp_client_name is required"]);
        check(json!([{"mcp_client_name": " "}]), &["mcp_configs[0].mcp_client_name: mcp_client_name is required"]);
        check(json!([{"mcp_client_name": 1}]), &["mcp_configs[0].mcp_client_name: must be a string, not a number"]);
        check(json!([{"mcp_client_id": []}]), &["mcp_configs[0].mcp_client_id: must be a string, not an array"]);
        check(json!([{"id": 9}]), &["mcp_configs[0].id: this virtual key has no MCP config 9"]);
        check(
            json!([{"mcp_client_name": "a", "tools_to_execute": ["*", "x"]}, {"mcp_client_name": "a"}, {"id": 2}, {"id": 2, "mcp_client_name": "y"}]),
            &[
                "mcp_configs[0].tools_to_execute: '*' means everything and stands alone",
                "mcp_configs[1].mcp_client_name: there are two configs for MCP client 'a'",
                "mcp_configs[3].id: MCP config 2 is listed twice",
            ],
        );
        let many = |count: u32| -> Value {
            (0..count).map(|n| json!({"mcp_client_name": format!("client-{n:060}")})).collect()
        };
        check(many(1_000), &["mcp_configs: is longer than 65536 bytes"]);
        check(many(1_001), &["mcp_configs: has more than 1000 entries"]);
    }
}
