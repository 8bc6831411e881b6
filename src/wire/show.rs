//! Answers of the contract.

mod limits;
mod model_config;
mod owner;
mod price_override;
pub mod provider;
mod provider_limits;
mod rule;
mod virtual_key;

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

/// The list of models, as OpenAI writes it.
pub fn models(ids: &[String]) -> Vec<u8> {
    let data: Vec<Value> = ids.iter().map(|id| model_object(id)).collect();
    json!({"object": "list", "data": data}).to_string().into_bytes()
}

/// One model, as OpenAI writes it.
pub fn model(id: &str) -> Vec<u8> {
    model_object(id).to_string().into_bytes()
}

fn model_object(id: &str) -> Value {
    let owner = id.split_once('/').map_or("", |(provider, _)| provider);
    json!({"id": id, "object": "model", "created": 0, "owned_by": owner})
}

#[cfg(test)]
mod tests;
