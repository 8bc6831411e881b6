//! Texts that may come from the environment, and secrets as they are shown and sent back.
//!
//! A secret goes out redacted; a redacted text that comes in means that the stored one stays.

use super::faults::Faults;
use super::read::Object;
use crate::governance::entity::KeyValue;
use crate::governance::secret::Secret;
use serde_json::{Value, json};

/// What stands for a secret of which nothing at all is shown.
pub const HIDDEN: &str = "<REDACTED>";

const HEAD: usize = 4;
const STARS: usize = 24;
const TAIL: usize = 4;
/// Shorter secrets show none of their own letters.
const SHORT: usize = 8;

/// Looks environment variables up.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The fault of a text that the environment is not asked for.
pub const BY_FILE_ONLY: &str = "names an environment variable, which only the config file can use here";

/// Tollgate's own variables begin so: its encryption key, its admin token.
const OWN: &str = "TOLLGATE_";

/// Which variables a text may name. Whoever administers over the API is not who runs the machine, and must not
/// learn what its environment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Any: the config file's.
    All,
    /// Any but Tollgate's own: a secret of the API's, which is never shown.
    Foreign,
    /// None: a text of the API's that answers show.
    Nothing,
}

impl Reach {
    /// That of a secret, or of a text that is none.
    pub fn of(from_file: bool, is_secret: bool) -> Reach {
        match (from_file, is_secret) {
            (true, _) => Reach::All,
            (false, true) => Reach::Foreign,
            (false, false) => Reach::Nothing,
        }
    }

    fn fault(self, variable: &str) -> Option<String> {
        match self {
            Reach::All => None,
            Reach::Foreign if !variable.starts_with(OWN) => None,
            Reach::Foreign => Some(format!("environment variable {variable} is Tollgate's own and is not used here")),
            Reach::Nothing => Some(BY_FILE_ONLY.to_owned()),
        }
    }
}

/// A secret as answers show it: its length if it is short, its ends if it is not.
pub fn redact(secret: &str) -> String {
    let letters: Vec<char> = secret.chars().collect();
    if letters.len() <= SHORT {
        return "*".repeat(letters.len());
    }
    let head: String = letters[..HEAD].iter().collect();
    let tail: String = letters[letters.len() - TAIL..].iter().collect();
    format!("{head}{}{tail}", "*".repeat(STARS))
}

/// Whether a text is what answers show in place of a secret.
pub fn is_redacted(text: &str) -> bool {
    if text == HIDDEN {
        return true;
    }
    if text.is_empty() {
        return false;
    }
    let is_star = |letter: char| letter == '*';
    let has_ends = text.chars().count() == HEAD + STARS + TAIL && text.chars().skip(HEAD).take(STARS).all(is_star);
    has_ends || text.chars().all(is_star)
}

/// Reads a text, `env.NAME`, or the object that answers show. A redacted text is `stored`, and so is a
/// variable that was not set when it was stored and is not set now, or that is out of `reach`.
pub fn read(
    object: &Object<'_>,
    name: &str,
    stored: Option<&KeyValue>,
    (reach, env): (Reach, Env<'_>),
    faults: &mut Faults,
) -> Option<KeyValue> {
    let path = object.path(name);
    let env = (reach, env);
    match object.raw(name).value()? {
        Value::String(text) => read_text(text, path, stored, env, faults),
        Value::Object(_) => {
            let parts = object.object(name, faults).value()?;
            let text = parts.text("value", faults).value().unwrap_or_default();
            let variable = parts.text("env_var", faults).value().filter(|name| !name.is_empty());
            let from_env = parts.boolean("from_env", faults).value();
            match variable {
                Some(variable) if from_env == Some(true) || text.is_empty() || is_redacted(text) => {
                    let variable = variable.strip_prefix("env.").unwrap_or(variable);
                    if !is_variable(variable) {
                        faults.add(parts.path("env_var"), "is no name of an environment variable");
                        return None;
                    }
                    read_variable(variable, path, stored, env, faults)
                }
                _ => read_text(text, path, stored, env, faults),
            }
        }
        _ => {
            // Says what it must be, and what it is.
            object.text(name, faults);
            None
        }
    }
}

fn read_text(
    text: &str,
    path: String,
    stored: Option<&KeyValue>,
    env: (Reach, Env<'_>),
    faults: &mut Faults,
) -> Option<KeyValue> {
    if let Some(variable) = text.strip_prefix("env.").filter(|name| is_variable(name)) {
        return read_variable(variable, path, stored, env, faults);
    }
    if !is_redacted(text) {
        return Some(KeyValue::text(text));
    }
    if stored.is_none() {
        faults.add(path, "is a redacted text, and nothing is stored that it could stand for");
    }
    stored.cloned()
}

fn read_variable(
    name: &str,
    path: String,
    stored: Option<&KeyValue>,
    (reach, env): (Reach, Env<'_>),
    faults: &mut Faults,
) -> Option<KeyValue> {
    let fault = reach.fault(name);
    if let Some(text) = env(name).filter(|text| fault.is_none() && !text.is_empty()) {
        return Some(KeyValue::variable(name, Some(Secret::new(text))));
    }
    if stored.is_some_and(|stored| stored.env_var.as_deref() == Some(name)) {
        return stored.cloned();
    }
    faults.add(path, fault.unwrap_or_else(|| format!("environment variable {name} is not set")));
    None
}

/// A secret, as answers show it.
pub fn show_secret(value: &KeyValue) -> Value {
    show(&redact(value.expose()), value.env_var.as_deref())
}

/// A text that is no secret.
pub fn show_text(value: &KeyValue) -> Value {
    show(value.expose(), value.env_var.as_deref())
}

fn show(text: &str, variable: Option<&str>) -> Value {
    let name = variable.map(|name| format!("env.{name}")).unwrap_or_default();
    json!({"value": text, "env_var": name, "from_env": variable.is_some()})
}

pub fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_show_their_length_or_their_ends() {
        let check = |secret: &str, shown: &str| {
            assert_eq!(redact(secret), shown);
            assert_eq!(is_redacted(shown), !shown.is_empty());
        };
        check("", "");
        check("a", "*");
        check("12345678", "********");
        check("123456789", "1234************************6789");
        check("sk-proj-abcdefghijklmnopqrstuvwxyz-0123456789", "sk-p************************6789");
        check("schlüßel-mit-ümlaut", "schl************************laut");
    }

    #[test]
    fn only_what_answers_show_is_taken_for_redacted() {
        let check = |text: &str, redacted: bool| assert_eq!(is_redacted(text), redacted, "{text}");
        check("<REDACTED>", true);
        check("***", true);
        check("abcd************************wxyz", true);
        check("abcd***********************wxyz", false);
        check("abcd************************wxy", false);
        check("abcd*********-**************wxyz", false);
        check("sk-1", false);
        check("", false);
    }

    #[test]
    fn a_text_is_read_in_all_its_forms() {
        let env = |name: &str| match name {
            "SET" => Some("from outside".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let lost = KeyValue::variable("LOST", None);
        let check = |value: Value, stored: Option<&KeyValue>, expected: Result<KeyValue, &str>| {
            let (body, mut faults) = (json!({"value": value}), Faults::default());
            let object = Object::of(&body, "", &mut faults).unwrap();
            let read = read(&object, "value", stored, (Reach::Foreign, &env), &mut faults);
            match expected {
                Ok(expected) => assert_eq!((read, faults.to_string()), (Some(expected), String::new()), "{body}"),
                Err(fault) => assert_eq!((read, faults.to_string()), (None, fault.to_owned()), "{body}"),
            }
        };
        let set = || Ok(KeyValue::variable("SET", Some(Secret::new("from outside"))));
        let old = KeyValue::text("an old secret");
        check(json!("plain"), None, Ok(KeyValue::text("plain")));
        check(json!("env.SET"), None, set());
        check(json!("env.not-a-name"), None, Ok(KeyValue::text("env.not-a-name")));
        check(json!({"value": "plain", "env_var": "", "from_env": false}), None, Ok(KeyValue::text("plain")));
        check(json!({"value": "env.SET"}), None, set());
        check(json!({"env_var": "env.SET"}), None, set());
        check(json!({"value": "", "env_var": "SET", "from_env": true}), None, set());
        check(json!({"value": "from****", "env_var": "env.SET", "from_env": true}), None, set());
        check(json!({"value": "plain", "env_var": "env.SET", "from_env": false}), None, Ok(KeyValue::text("plain")));
        check(json!("an o************************cret"), Some(&old), Ok(old.clone()));
        check(json!({"value": "****"}), Some(&old), Ok(old.clone()));
        check(json!("env.LOST"), Some(&lost), Ok(lost.clone()));
        check(json!("env.GONE"), Some(&lost), Err("value: environment variable GONE is not set"));
        check(json!("env.EMPTY"), None, Err("value: environment variable EMPTY is not set"));
        check(json!("****"), None, Err("value: is a redacted text, and nothing is stored that it could stand for"));
        check(json!({"env_var": "no name"}), None, Err("value.env_var: is no name of an environment variable"));
        check(json!(5), None, Err("value: must be a string, not a number"));
    }

    #[test]
    fn the_api_does_not_reach_all_of_the_environment() {
        let env = |name: &str| (name != "LOST").then(|| format!("value of {name}"));
        let check = |reach: Reach, name: &str, stored: Option<&KeyValue>, expected: Result<KeyValue, &str>| {
            for value in [json!(format!("env.{name}")), json!({"value": "", "env_var": name, "from_env": true})] {
                let (body, mut faults) = (json!({ "value": value }), Faults::default());
                let object = Object::of(&body, "", &mut faults).unwrap();
                let read = read(&object, "value", stored, (reach, &env), &mut faults);
                let read = read.ok_or_else(|| faults.to_string());
                assert_eq!(read, expected.clone().map_err(str::to_owned), "{reach:?} {body}");
            }
        };
        let found = |name: &str| Ok(KeyValue::variable(name, Some(Secret::new(format!("value of {name}")))));
        let (file_only, old) = (format!("value: {BY_FILE_ONLY}"), KeyValue::variable("A", Some(Secret::new("old"))));
        let own = "value: environment variable TOLLGATE_A is Tollgate's own and is not used here";
        check(Reach::All, "A", None, found("A"));
        check(Reach::All, "TOLLGATE_A", None, found("TOLLGATE_A"));
        check(Reach::Foreign, "A", None, found("A"));
        check(Reach::Foreign, "TOLLGATE_A", None, Err(own));
        check(Reach::Nothing, "A", None, Err(&file_only));
        check(Reach::Nothing, "LOST", None, Err(&file_only));
        // What the file declared comes back as it was.
        check(Reach::Nothing, "A", Some(&old), Ok(old.clone()));
        check(Reach::Nothing, "B", Some(&old), Err(&file_only));
        check(Reach::Foreign, "A", Some(&old), found("A"));
    }
}
