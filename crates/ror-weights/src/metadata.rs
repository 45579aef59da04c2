//! Description and metadata as the string pairs that safetensors headers and HDF5 attributes hold.

use std::collections::BTreeMap;

use ror_models::Description;
use serde::de::DeserializeOwned;

use crate::error::{Result, damaged};
use crate::weights::Metadata;

const DESCRIPTION: &str = "ror.description";
const CLASS_NAMES: &str = "ror.class_names";
const NORMALISATION: &str = "ror.normalisation";

/// Writes the pairs; values of ours are JSON, the others are taken as they are.
pub(crate) fn to_pairs(
    description: &Description,
    metadata: &Metadata,
) -> Result<BTreeMap<String, String>> {
    fn json(value: &impl serde::Serialize) -> Result<String> {
        serde_json::to_string(value).map_err(|e| damaged("metadata", e))
    }
    let mut pairs = metadata.extra.clone();
    pairs.insert(DESCRIPTION.to_owned(), json(description)?);
    if let Some(names) = &metadata.class_names {
        pairs.insert(CLASS_NAMES.to_owned(), json(names)?);
    }
    if let Some(normalisation) = &metadata.normalisation {
        pairs.insert(NORMALISATION.to_owned(), json(normalisation)?);
    }
    Ok(pairs)
}

/// Reads pairs back; without a description the weights are bare.
pub(crate) fn from_pairs(
    mut pairs: BTreeMap<String, String>,
) -> Result<(Option<Description>, Metadata)> {
    fn json<T: DeserializeOwned>(
        pairs: &mut BTreeMap<String, String>,
        key: &str,
    ) -> Result<Option<T>> {
        pairs
            .remove(key)
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|e| damaged("metadata", format_args!("`{key}`: {e}")))
    }
    let description = json(&mut pairs, DESCRIPTION)?;
    let metadata = Metadata {
        class_names: json(&mut pairs, CLASS_NAMES)?,
        normalisation: json(&mut pairs, NORMALISATION)?,
        extra: pairs,
    };
    Ok((description, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Normalisation;

    #[test]
    fn pairs_read_back_what_was_written() {
        let description = Description::preset("pre-ror-3-164-sd")
            .unwrap()
            .with_classes(2);
        let metadata = Metadata {
            class_names: Some(vec!["cat".into(), "d\u{f6}g".into()]),
            normalisation: Some(Normalisation {
                mean: vec![0.5, 0.25, 0.125],
                std: vec![0.2, 0.3, 0.4],
            }),
            extra: BTreeMap::from([("recipe".into(), "sgd".into())]),
        };
        let pairs = to_pairs(&description, &metadata).unwrap();
        assert_eq!(from_pairs(pairs).unwrap(), (Some(description), metadata));
    }

    #[test]
    fn a_broken_description_is_an_error() {
        let pairs = BTreeMap::from([(DESCRIPTION.to_owned(), "{\"depth\": 1".to_owned())]);
        let error = from_pairs(pairs).unwrap_err();
        assert!(error.to_string().contains("`ror.description`"), "{error}");
    }
}
