//! The document as tests ask it: which operation a request was, and what may be answered to it.

use super::Reply;
use crate::admin::docs;
use axum::http::Method;
use jsonschema::{Registry, Validator};
use once_cell::sync::Lazy;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

const URI: &str = "https://tollgate.test/openapi.json";
/// Headers that an answer bears only where the document says so.
const NOTED: [&str; 4] = ["etag", "idempotency-replayed", "www-authenticate", "retry-after"];

pub(super) static DOCUMENT: Lazy<Document> = Lazy::new(|| Document::new(docs::document()));

pub(super) struct Document {
    pub(super) root: Value,
    registry: Registry<'static>,
    operations: Vec<Operation>,
    /// Those asked for already, by the pointer to the schema.
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

pub(super) struct Operation {
    pub(super) id: String,
    pub(super) method: Method,
    /// With its parameters in braces.
    pub(super) path: String,
    pointer: String,
}

impl Document {
    fn new(root: Value) -> Document {
        let registry = Registry::new().add(URI, root.clone()).unwrap().prepare().unwrap();
        let mut operations = Vec::new();
        for (path, item) in root["paths"].as_object().unwrap() {
            for (name, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
                operations.push(Operation {
                    id: operation["operationId"].as_str().unwrap().to_owned(),
                    method: name.to_uppercase().parse().unwrap(),
                    path: path.clone(),
                    pointer: format!("/paths/{}/{name}", escaped(path)),
                });
            }
        }
        Document { root, registry, operations, validators: Mutex::default() }
    }

    pub(super) fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Every path with its methods.
    pub(super) fn methods(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for operation in &self.operations {
            all.entry(&operation.path).or_default().insert(operation.method.as_str());
        }
        all
    }

    /// The operation that a request was. A path without parameters goes before one with them.
    pub(super) fn operation(&self, method: &Method, path: &str) -> Option<&Operation> {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        let template = self.template(path)?;
        self.operations.iter().find(|operation| operation.path == template && operation.method == *method)
    }

    fn template(&self, path: &str) -> Option<&str> {
        let fits = |template: &str| {
            let (given, wanted) = (path.split('/'), template.split('/'));
            given.clone().count() == wanted.clone().count()
                && given.zip(wanted).all(
                    |(given, wanted)| {
                        if wanted.starts_with('{') { !given.is_empty() } else { given == wanted }
                    },
                )
        };
        let found = self.operations.iter().map(|operation| &*operation.path).filter(|template| fits(template));
        found.min_by_key(|template| template.matches('{').count())
    }

    /// Follows a reference at `pointer`, if one is there.
    pub(super) fn resolve(&self, pointer: &str) -> Option<String> {
        let found = self.root.pointer(pointer)?;
        Some(found.get("$ref").map_or_else(|| pointer.to_owned(), |to| to.as_str().unwrap()[1..].to_owned()))
    }

    /// What is wrong with `value`, by the schema at `pointer`.
    pub(super) fn faults(&self, pointer: &str, value: &Value) -> Vec<String> {
        let known = self.validators.lock().unwrap().get(pointer).cloned();
        let validator = known.unwrap_or_else(|| {
            let made = Arc::new(self.validator(pointer));
            self.validators.lock().unwrap().insert(pointer.to_owned(), Arc::clone(&made));
            made
        });
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }

    fn validator(&self, pointer: &str) -> Validator {
        let fragment = pointer.replace('{', "%7B").replace('}', "%7D");
        let schema = json!({ "$ref": format!("{URI}#{fragment}") });
        let options = jsonschema::options().with_registry(&self.registry);
        let options = options.should_validate_formats(true).should_ignore_unknown_formats(true).offline();
        options.build(&schema).unwrap_or_else(|error| panic!("{pointer}: {error}"))
    }

    /// Holds an answer to the document.
    pub(super) fn check(&self, method: &Method, path: &str, reply: &Reply) {
        let what = format!("{method} {path} was answered {} {:?} {}", reply.status, reply.headers, reply.text);
        let Some(operation) = self.operation(method, path) else { return self.check_elsewhere(path, reply, &what) };
        if method == Method::HEAD {
            return assert!(reply.text.is_empty(), "{what}");
        }
        let pointer = self
            .resolve(&format!("{}/responses/{}", operation.pointer, reply.status))
            .unwrap_or_else(|| panic!("{} has no such answer: {what}", operation.id));
        self.check_headers(&pointer, reply, &what);
        self.check_body(&pointer, reply, &what);
    }

    fn check_headers(&self, response: &str, reply: &Reply, what: &str) {
        let documented = self.root.pointer(&format!("{response}/headers")).and_then(Value::as_object);
        for name in documented.iter().flat_map(|headers| headers.keys()) {
            let header = self.resolve(&format!("{response}/headers/{name}")).unwrap();
            match reply.headers.get(name) {
                Some(value) => {
                    let faults = self.faults(&format!("{header}/schema"), &value.to_str().unwrap().into());
                    assert!(faults.is_empty(), "{name}: {faults:?}: {what}");
                }
                None => {
                    let required = &self.root.pointer(&header).unwrap()["required"];
                    assert_ne!(*required, true, "{name} is missing: {what}");
                }
            }
        }
        for name in NOTED.into_iter().filter(|name| reply.headers.contains_key(*name)) {
            let known = documented.is_some_and(|headers| headers.keys().any(|known| known.eq_ignore_ascii_case(name)));
            assert!(known, "{name} is not documented: {what}");
        }
    }

    fn check_body(&self, response: &str, reply: &Reply, what: &str) {
        let kind = reply.headers.get("content-type").map_or("", |kind| kind.to_str().unwrap());
        let kind = kind.split(';').next().unwrap();
        let schema = format!("{response}/content/{}/schema", escaped(kind));
        assert!(self.root.pointer(&schema).is_some(), "'{kind}' is not documented: {what}");
        let body = if kind == "application/json" { reply.json() } else { reply.text.clone().into() };
        let faults = self.faults(&schema, &body);
        assert!(faults.is_empty(), "{faults:#?}: {what}");
    }

    /// What is no operation is refused, or sent to where it is one.
    fn check_elsewhere(&self, path: &str, reply: &Reply, what: &str) {
        match reply.status {
            204 => return assert!(reply.headers.contains_key("access-control-allow-origin"), "{what}"),
            308 => return assert!(reply.headers.contains_key("location"), "{what}"),
            405 => {
                let known = self.methods();
                let known = self.template(path).map(|template| &known[template]);
                let known = known.unwrap_or_else(|| panic!("there is no such path: {what}"));
                assert_eq!(allowed(reply), *known, "{what}");
            }
            401 | 403 => {}
            status => assert_eq!((status, self.template(path)), (404, None), "{what}"),
        }
        let faults = self.faults("/components/schemas/Error", &reply.json());
        assert!(faults.is_empty(), "{faults:#?}: {what}");
    }
}

/// The methods that an answer allows, of which `HEAD` is part of `GET`.
pub(super) fn allowed(reply: &Reply) -> BTreeSet<&str> {
    let allow = reply.headers.get("allow").map_or("", |allow| allow.to_str().unwrap());
    allow.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "HEAD").collect()
}

/// As a part of a JSON pointer.
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
