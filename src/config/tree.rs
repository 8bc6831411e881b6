//! The YAML text as one JSON value, with the place of everything in it, and `env.NAME` replaced.
//!
//! Bounded by the parser's own budget: depth, aliases and nodes.

use super::faults::Fault;
use crate::wire::env_text::is_variable;
use crate::wire::faults::Faults;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_yaml::Spanned;
use std::collections::HashMap;
use std::fmt;

const VARIABLE: &str = "environment variable";

/// A parsed file.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) value: Value,
    places: HashMap<String, Place>,
}

/// Line and column, from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// A YAML node with the place of each of its parts.
#[derive(Debug)]
enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl Tree {
    /// Parses `text`. Strings that are exactly `env.NAME` are read through `env`; the missing ones
    /// go to `faults` under the key that wanted them. Those of provider keys stay: their reader keeps the names.
    pub(super) fn parse(
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
        faults: &mut Faults,
    ) -> Result<Tree, (Place, String)> {
        let root: Spanned<Node> = serde_yaml::from_str(text).map_err(|error| {
            let at = error.location().map_or((1, 1), |location| (location.line(), location.column()));
            // Without the snippet: the line at fault may hold a secret.
            let message = error.without_snippet().to_string();
            let message = plain(message.split(" at line ").next().unwrap_or_default());
            (Place { line: at.0.max(1), column: at.1.max(1) }, message)
        })?;
        let mut grower = Grower { env, faults, places: HashMap::new() };
        let value = match root.value {
            Node::Null => Value::Object(Map::new()),
            _ => grower.grow(root, String::new()),
        };
        Ok(Tree { value, places: grower.places })
    }

    /// Where `path` stands; of what is missing, where it would belong.
    pub(super) fn place(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return *place;
            }
            match path.rfind(['.', '[']) {
                Some(cut) => path = &path[..cut],
                None => return self.places.get("").copied().unwrap_or(Place { line: 1, column: 1 }),
            }
        }
    }

    /// Faults by path as faults by place, in the order of the file.
    pub(super) fn locate(&self, file: &str, faults: &Faults) -> Vec<Fault> {
        let missing = |path: &str| faults.iter().any(|fault| fault.path == path && fault.message.starts_with(VARIABLE));
        let mut located: Vec<Fault> = faults
            .iter()
            // That a missing variable's value is also too short helps nobody.
            .filter(|fault| fault.message.starts_with(VARIABLE) || !missing(&fault.path))
            .map(|fault| {
                let Place { line, column } = self.place(&fault.path);
                Fault { file: file.to_owned(), line, column, path: fault.path.clone(), message: fault.message.clone() }
            })
            .collect();
        located.sort_by_key(|fault| (fault.line, fault.column));
        located
    }
}

/// What the parser says, without its advice to programmers.
fn plain(message: &str) -> String {
    let known = [
        ("multiple YAML documents", "the file holds more than one YAML document"),
        ("budget breached", "the file is too large or nested too deeply to be a configuration"),
        ("non-finite float", "infinity and NaN are no settings"),
    ];
    let found = known.iter().find(|(start, _)| message.starts_with(start)).map(|(_, plain)| *plain);
    found.or_else(|| message.split(", set ").next()).unwrap_or(message).to_owned()
}

struct Grower<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    faults: &'a mut Faults,
    places: HashMap<String, Place>,
}

impl Grower<'_> {
    fn grow(&mut self, node: Spanned<Node>, path: String) -> Value {
        let place = Place { line: node.referenced.line(), column: node.referenced.column() };
        self.places.entry(path.clone()).or_insert(place);
        match node.value {
            Node::Null => Value::Null,
            Node::Bool(value) => Value::Bool(value),
            Node::Number(value) => Value::Number(value),
            Node::Text(text) => Value::String(self.resolve(text, &path)),
            Node::List(nodes) => {
                let grown = nodes.into_iter().enumerate().map(|(i, node)| self.grow(node, format!("{path}[{i}]")));
                Value::Array(grown.collect())
            }
            Node::Map(members) => {
                let mut map = Map::new();
                for (key, node) in members {
                    let member = if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
                    // A key is where people look for what is wrong with its value.
                    let place = Place { line: key.referenced.line(), column: key.referenced.column() };
                    self.places.insert(member.clone(), place);
                    map.insert(key.value, self.grow(node, member));
                }
                Value::Object(map)
            }
        }
    }

    fn resolve(&mut self, text: String, path: &str) -> String {
        let Some(name) = text.strip_prefix("env.").filter(|name| is_variable(name)) else { return text };
        if keeps_its_variable(path) {
            return text;
        }
        (self.env)(name).unwrap_or_else(|| {
            self.faults.add(path, format!("{VARIABLE} {name} is not set"));
            String::new()
        })
    }
}

/// Whether a string is part of a provider key that remembers which variable it came from.
fn keeps_its_variable(path: &str) -> bool {
    let ends = ["].value", "].value.value", "].value.env_var"];
    // Of the admin listener's user, the password.
    path.contains("auth_config.admin_password")
        || path.contains("auth_config.admin_username")
        || path.starts_with("providers.")
            && (ends.iter().any(|end| path.ends_with(end)) || path.contains("_key_config."))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        Number::from_f64(value).map(Node::Number).ok_or_else(|| E::custom("infinity and NaN are no settings"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = access.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Node::Map(members))
    }
}
