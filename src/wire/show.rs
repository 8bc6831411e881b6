//! Answers of the contract.

mod limits;
mod model_config;
mod owner;
mod price_override;
pub mod provider;
mod provider_limits;
mod rule;
mod virtual_key;

use crate::governance::request::Dialect;
use serde_json::{Value, json};

pub use super::client::{show_basic_auth as basic_auth, show_client_config as client_config};
pub use limits::{Live, budget, dollars, owned_budget, owned_rate_limit, picos, rate_limit};
pub use model_config::model_config;
pub use owner::{CustomerRelations, TeamRelations, customer, team};
pub use price_override::price_override;
pub use provider::{
    ModelQuery, expanded_key, models as provider_models, models_base, models_details, provider, provider_key,
};
pub use provider_limits::provider_limits;
pub use rule::rule;
pub use virtual_key::{Shown, quota, virtual_key};

/// The list of models, as the dialect writes it.
pub fn models(dialect: Dialect, ids: &[String]) -> Vec<u8> {
    let data: Vec<Value> = ids.iter().map(|id| model_object(dialect, id)).collect();
    let list = match dialect {
        Dialect::Anthropic => {
            json!({"data": data, "has_more": false, "first_id": ids.first(), "last_id": ids.last()})
        }
        Dialect::Gemini => json!({"models": data}),
        _ => json!({"object": "list", "data": data}),
    };
    list.to_string().into_bytes()
}

/// One model, as the dialect writes it.
pub fn model(dialect: Dialect, id: &str) -> Vec<u8> {
    model_object(dialect, id).to_string().into_bytes()
}

fn model_object(dialect: Dialect, id: &str) -> Value {
    match dialect {
        Dialect::Anthropic => {
            json!({"type": "model", "id": id, "display_name": id, "created_at": "1970-01-01T00:00:00Z"})
        }
        Dialect::Gemini => json!({"name": format!("models/{id}"), "displayName": id}),
        _ => {
            let owner = id.split_once('/').map_or("", |(provider, _)| provider);
            json!({"id": id, "object": "model", "created": 0, "owned_by": owner})
        }
    }
}

#[cfg(test)]
mod tests;
