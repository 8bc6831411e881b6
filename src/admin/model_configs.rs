//! Limits on models over REST.

use super::Admin;
use super::change::Lens;
use super::error::ApiError;
use super::owners::by_age;
use super::query::Query;
use super::resource::{Resource, Selection};
use crate::governance::edit::{Edit, model_config_clashes};
use crate::governance::entity::{Limits, ModelConfig};
use crate::governance::view::View;
use crate::wire::change::Change;
use crate::wire::faults::Faults;
use crate::wire::{model_config, show};
use axum::http::StatusCode;
use serde_json::Value;
use std::sync::Arc;

pub(super) struct ModelConfigs;

impl Resource for ModelConfigs {
    type Entity = ModelConfig;
    const TITLE: &'static str = "Model config";
    const ONE: &'static str = "model_config";
    const MANY: &'static str = "model_configs";

    fn find<'a>(view: &'a View, id: &str) -> Option<&'a ModelConfig> {
        view.model_config(id).map(|governed| &*governed.entity)
    }

    fn read(
        body: &Value,
        base: Option<&ModelConfig>,
        change: &mut Change<'_>,
        faults: &mut Faults,
    ) -> Option<ModelConfig> {
        model_config::model_config(body, base, change, faults)
    }

    fn check(view: &View, config: &ModelConfig) -> Result<(), ApiError> {
        if !model_config_clashes(view, config) {
            return Ok(());
        }
        let of = config.provider.as_ref().map_or("(global)".to_owned(), |name| format!("with provider '{name}'"));
        let message = format!("Model config for model '{}' {of} already exists", config.model_name);
        Err(ApiError::new(StatusCode::CONFLICT, message).about("model_name"))
    }

    fn id(config: &ModelConfig) -> &Arc<str> {
        &config.id
    }

    fn put(_: &Admin, _: &View, config: ModelConfig) -> Result<Vec<Edit>, ApiError> {
        Ok(vec![Edit::ModelConfig(Arc::new(config))])
    }

    fn remove(_: &View, config: &ModelConfig) -> Vec<Edit> {
        vec![Edit::RemoveModelConfig(Arc::clone(&config.id))]
    }

    fn limits<'a>(new: &'a ModelConfig, old: &'a ModelConfig) -> Vec<(&'a Limits, &'a Limits)> {
        vec![(&new.limits, &old.limits)]
    }

    fn select(lens: &Lens<'_>, query: &Query) -> Result<Selection, ApiError> {
        let search = query.search();
        let configs = lens.view.model_configs().map(|governed| &governed.entity);
        let found = configs.filter(|config| config.model_name.to_lowercase().contains(&search));
        let ids = by_age(found.map(|config| (config.created_at, Arc::clone(&config.id))).collect());
        Ok(Selection::of(ids, query.page(None)?))
    }

    fn show(lens: &Lens<'_>, id: &str) -> Option<Value> {
        lens.view.model_config(id).map(|config| show::model_config(config, &|limit| lens.live(limit)))
    }
}
