//! Which models there are: as in pi, those for which there is a key. The agent's own need none.

use serde_json::{Value, json};

/// Ids of the providers whose models need a key.
const CLAUDES: [&str; 6] = [
    "claude-opus-4-6-thinking",
    "claude-opus-4-6",
    "claude-sonnet-4-6",
    "claude-sonnet-4-5",
    "claude-sonnet-4-20250514",
    "claude-haiku-4-5",
];
/// Providers, and the variable that holds their key.
const PROVIDERS: [(&str, &str); 2] = [
    ("vers", "LLM_PROXY_KEY"),
    ("anthropic", "ANTHROPIC_API_KEY"),
];

/// A model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) provider: String,
    pub(super) id: String,
}

impl Model {
    fn new(provider: &str, id: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            id: id.to_owned(),
        }
    }

    /// As pi shows it.
    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id, "name": self.id, "api": "scripted", "provider": self.provider, "baseUrl": "",
            "reasoning": false, "input": ["text"],
            "cost": { "input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0 },
            "contextWindow": 200_000, "maxTokens": 8192,
        })
    }
}

/// The models there are, given which variables are set. The first one is what an agent without a choice has.
pub(super) fn available(is_set: impl Fn(&str) -> bool) -> Vec<Model> {
    let mut models = vec![
        Model::new("scripted", "scripted-1"),
        Model::new("scripted", "scripted-2"),
    ];
    for (provider, key) in PROVIDERS {
        if is_set(key) {
            models.extend(CLAUDES.iter().map(|id| Model::new(provider, id)));
        }
    }
    models
}

/// The model that is meant by `--model`, which may name the provider, too, and `--provider`.
pub(super) fn meant<'a>(
    models: &'a [Model],
    provider: Option<&str>,
    pattern: Option<&str>,
) -> Option<&'a Model> {
    let (provider, id) = match (provider, pattern.and_then(|text| text.split_once('/'))) {
        (None, Some((provider, id))) => (Some(provider), Some(id)),
        _ => (provider, pattern),
    };
    models.iter().find(|model| {
        provider.is_none_or(|provider| model.provider == provider)
            && id.is_none_or(|id| model.id == id)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_models_with_a_key_are_there() {
        assert_eq!(available(|_| false).len(), 2);
        let models = available(|name| name == "LLM_PROXY_KEY");
        assert!(models.iter().all(|model| model.provider != "anthropic"));
        let named = |provider, pattern| meant(&models, provider, pattern).map(|model| model.json());
        assert!(named(None, Some("claude-opus-4-6-thinking")).is_some());
        assert!(named(None, Some("vers/claude-haiku-4-5")).is_some());
        assert!(named(Some("vers"), Some("claude-haiku-4-5")).is_some());
        assert!(named(Some("anthropic"), Some("claude-haiku-4-5")).is_none());
        assert!(named(None, Some("claude-9")).is_none());
        assert_eq!(meant(&models, None, None).unwrap().id, "scripted-1");
    }
}
