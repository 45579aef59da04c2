//! Description and metadata as the text that safetensors headers and HDF5 attributes hold.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ror_models::Description;
use serde::{Deserialize, Serialize};

use crate::error::{Result, damaged};
use crate::weights::{Metadata, Normalisation};

/// What the text is called in files.
pub(crate) const KEY: &str = "ror";

/// The text's content, as JSON. One text instead of several pairs, because safetensors writes pairs
/// in random order.
#[derive(Serialize, Deserialize)]
struct Header<'a> {
    description: Cow<'a, Description>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    class_names: Option<Cow<'a, [String]>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    normalisation: Option<Cow<'a, Normalisation>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    extra: Cow<'a, BTreeMap<String, String>>,
}

pub(crate) fn to_text(description: &Description, metadata: &Metadata) -> Result<String> {
    serde_json::to_string(&Header {
        description: Cow::Borrowed(description),
        class_names: metadata.class_names.as_deref().map(Cow::Borrowed),
        normalisation: metadata.normalisation.as_ref().map(Cow::Borrowed),
        extra: Cow::Borrowed(&metadata.extra),
    })
    .map_err(|e| damaged("metadata", e))
}

pub(crate) fn from_text(text: &str) -> Result<(Description, Metadata)> {
    let header: Header = serde_json::from_str(text)
        .map_err(|e| damaged("metadata", format_args!("`{KEY}`: {e}")))?;
    let metadata = Metadata {
        class_names: header.class_names.map(Cow::into_owned),
        normalisation: header.normalisation.map(Cow::into_owned),
        extra: header.extra.into_owned(),
    };
    Ok((header.description.into_owned(), metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_reads_back_what_was_written() {
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
        for metadata in [metadata, Metadata::default()] {
            let text = to_text(&description, &metadata).unwrap();
            assert_eq!(from_text(&text).unwrap(), (description.clone(), metadata));
        }
    }

    #[test]
    fn a_broken_description_is_an_error() {
        let error = from_text("{\"description\": {\"depth\": 1}}").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("damaged metadata: `ror`: missing field"),
            "{error}"
        );
    }
}
