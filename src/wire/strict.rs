//! Members that nobody knows: the config file takes none, for a misspelt limit would be no limit.

use super::faults::Faults;
use super::read::Object;

/// Every member must be known; of one that is not, the nearest known name is suggested.
pub fn only_known(object: &Object<'_>, known: &[&str], faults: &mut Faults) {
    for name in object.names().filter(|name| !known.contains(name)) {
        let nearest = known.iter().map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
        let hint = match nearest {
            Some((distance, known)) if distance <= 2.max(name.len() / 3) => format!("; did you mean '{known}'?"),
            _ => String::new(),
        };
        faults.add(object.path(name), format!("unknown key{hint}"));
    }
}
