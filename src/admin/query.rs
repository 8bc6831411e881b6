//! What a list is asked for: page, search, switches.

use super::error::ApiError;
use axum::extract::Query as Pairs;
use axum::http::Uri;

const PAGE: usize = 25;
const PAGE_MAX: usize = 100;

impl Default for Page {
    fn default() -> Page {
        Page { offset: 0, limit: PAGE }
    }
}

/// The query of a request. The first value of a name counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(Vec<(String, String)>);

/// A part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) offset: usize,
    pub(super) limit: usize,
}

impl Query {
    pub(super) fn read(uri: &Uri) -> Result<Query, ApiError> {
        Pairs::try_from_uri(uri).map(|pairs| Query(pairs.0)).map_err(|_| ApiError::bad_request("Invalid query"))
    }

    /// Absent and empty are the same.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.raw(name).filter(|value| !value.is_empty())
    }

    /// Refuses what is none of `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        let Some((name, _)) = self.0.iter().find(|(name, _)| !known.contains(&&**name)) else { return Ok(()) };
        let near = known.iter().map(|known| (strsim::damerau_levenshtein(known, name), known)).min();
        let hint = near.filter(|(distance, _)| *distance <= 3).map(|(_, near)| format!("; did you mean {near}?"));
        let name: String = name.chars().take(64).collect();
        let message = format!("Unknown parameter {name}{}", hint.unwrap_or_default());
        Err(ApiError::bad_request(message).about(name))
    }

    pub(super) fn is_there(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// Absent and empty are different.
    pub(super) fn raw(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// A switch. Anything but `true` and `false` is a mistake that would otherwise go unseen.
    pub(super) fn switch(&self, name: &str) -> Result<bool, ApiError> {
        match self.raw(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => {
                Err(ApiError::bad_request(format!("Invalid {name} parameter: must be true or false")).about(name))
            }
        }
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.raw(name) else { return Ok(None) };
        let wrong = |what: &str| ApiError::bad_request(format!("Invalid {name} parameter: must be {what}")).about(name);
        let number: i64 = text.parse().map_err(|_| wrong("a number"))?;
        usize::try_from(number).map(Some).map_err(|_| wrong("non-negative"))
    }

    /// What is searched for, in lower case.
    pub(super) fn search(&self) -> String {
        self.get("search").unwrap_or_default().to_lowercase()
    }

    /// The page asked for; absent where the whole list is wanted. `most` replaces the usual cap.
    pub(super) fn page(&self, most: Option<usize>) -> Result<Option<Page>, ApiError> {
        let (limit, offset) = (self.number("limit")?, self.number("offset")?);
        let paged = most.is_some() || ["limit", "offset", "search"].iter().any(|name| self.raw(name).is_some());
        let cap = most.unwrap_or(PAGE_MAX);
        let limit = limit.filter(|limit| *limit > 0).map_or(most.unwrap_or(PAGE), |limit| limit.min(cap));
        Ok(paged.then_some(Page { offset: offset.unwrap_or(0), limit }))
    }

    /// Whether the order is turned round.
    pub(super) fn descending(&self) -> Result<bool, ApiError> {
        match self.get("order") {
            None | Some("asc") => Ok(false),
            Some("desc") => Ok(true),
            Some(_) => Err(ApiError::bad_request("order must be asc or desc").about("order")),
        }
    }
}
