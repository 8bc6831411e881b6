//! The floors of the house: a module may import only what stands below it.

use std::fs;
use std::path::{Path, PathBuf};

/// From ground to roof. Neighbours on one floor do not know each other.
const FLOORS: &[&[&str]] = &[
    &["governance"],
    &["config", "provider", "state", "telemetry", "wire"],
    &["store"],
    &["admin", "proxy"],
    &["app"],
    &["cli"],
    &["lib", "main"],
];

/// Doors that stay shut although the floors would allow them.
const SHUT: &[(&str, &str)] = &[("proxy", "store"), ("proxy", "config"), ("admin", "config")];

/// Doors between neighbours that are open: the contract's bodies show what `state` counts and are
/// what the config file is written in.
const OPEN: &[(&str, &str)] = &[("wire", "state"), ("config", "wire")];

#[test]
fn imports_point_downwards() {
    let mut faults = Vec::new();
    for (module, file, text) in sources() {
        let own = height(&module).unwrap_or_else(|| panic!("{module} stands on no floor: {}", file.display()));
        if text.contains("crate::{") {
            faults.push(format!("{}: one import line per module", file.display()));
        }
        for target in text.split("crate::").skip(1).map(first_word) {
            let Some(other) = height(target) else {
                faults.push(format!("{}: {target} stands on no floor", file.display()));
                continue;
            };
            let pair = (&*module, target);
            let climbs = target != module && other >= own && !OPEN.contains(&pair);
            if climbs || SHUT.contains(&pair) {
                faults.push(format!("{}: {module} may not import {target}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_core_is_pure() {
    let mut faults = Vec::new();
    for (module, file, text) in sources() {
        if module != "governance" {
            continue;
        }
        for word in [
            "async fn",
            "tokio::",
            "std::fs",
            "std::net",
            "std::env",
            "SystemTime",
            "Instant::",
            "pingora",
            "tracing::",
        ] {
            if text.contains(word) {
                faults.push(format!("{}: {word} has no place in the core", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn height(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn first_word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Every source file with the top-level module it belongs to.
fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the sources are there") {
            let path = entry.expect("a folder can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(&root).expect("it was found below");
                let module = inside.iter().next().and_then(|part| part.to_str()).expect("names are UTF-8");
                let module = module.trim_end_matches(".rs").to_owned();
                let text = fs::read_to_string(&path).expect("a source file is UTF-8");
                found.push((module, path, text));
            }
        }
    }
    assert!(found.len() > 10, "this test looks in the wrong place");
    found
}
