//! What descriptions of two networks disagree on, since their names may not tell.

use ror_models::Description;
use serde_json::{Map, Value};

/// The first field that differs: its name, its value in `a`, that in `b`; `None` between equals.
pub fn first_difference(a: &Description, b: &Description) -> Option<String> {
    let (Ok(Value::Object(a)), Ok(Value::Object(b))) =
        (serde_json::to_value(a), serde_json::to_value(b))
    else {
        return None;
    };
    let value = |fields: &Map<String, Value>, key| match fields.get(key) {
        Some(value) => value.to_string(),
        None => "none".to_owned(),
    };
    let key = a.keys().chain(b.keys()).find(|&k| a.get(k) != b.get(k))?;
    Some(format!("{key}: {}, {}", value(&a, key), value(&b, key)))
}

/// The network that was asked for, or else the one that the file describes; notes where they differ.
/// Batch norms, which names of models do not tell, are the file's.
pub(crate) fn as_asked(
    described: Description,
    asked: Option<&Description>,
    notes: &mut Vec<String>,
) -> Description {
    let Some(asked) = asked else {
        return described;
    };
    let asked = Description {
        norm: described.norm,
        ..asked.clone()
    };
    if let Some(difference) = first_difference(&described, &asked) {
        notes.push(format!(
            "the file describes another network than is asked for ({difference}); it is taken as \
             asked"
        ));
    }
    asked
}
