//! Limits on a model as administrators see them.

use super::limits::{Live, insert_hash, insert_limits, insert_times};
use crate::governance::entity::ModelConfig;
use crate::governance::view::Governed;
use serde_json::{Map, Value};

pub fn model_config(config: &Governed<ModelConfig>, live: Live<'_>) -> Value {
    let entity = &*config.entity;
    let mut object = Map::new();
    object.insert("id".into(), (*entity.id).into());
    object.insert("model_name".into(), (*entity.model_name).into());
    if let Some(provider) = &entity.provider {
        object.insert("provider".into(), (**provider).into());
    }
    insert_limits(&mut object, &entity.limits, &config.limits, live);
    insert_hash(&mut object, &entity.config_hash);
    insert_times(&mut object, entity.created_at, entity.updated_at);
    Value::Object(object)
}
