//! The trained weights that come with the command, inside it.

use std::path::Path;

/// A file of weights.
pub(crate) struct Shipped {
    /// Its name in `weights/`.
    pub(crate) file: &'static str,
    /// The model that it is for.
    pub(crate) preset: &'static str,
    called: &'static str,
    bytes: &'static [u8],
}

/// What is taken where no weights are named comes first.
pub(crate) const SHIPPED: [Shipped; 1] = [Shipped {
    file: "ror-3-wrn-40-2-cifar10.safetensors",
    preset: "keras-ror-3-wrn-40-2",
    called: "the shipped ror-3-wrn-40-2-cifar10.safetensors",
    bytes: include_bytes!("../weights/ror-3-wrn-40-2-cifar10.safetensors"),
}];

const _: () = assert!(
    SHIPPED[0].bytes.len() > 1 << 20,
    "crates/ror-cli/weights has no weights but the text of a link: check out with `git config core.symlinks true`"
);

impl Shipped {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    /// What messages call it.
    pub(crate) fn path(&self) -> &'static Path {
        Path::new(self.called)
    }
}

/// The file that ships for a model.
pub(crate) fn for_preset(name: &str) -> Option<&'static Shipped> {
    SHIPPED.iter().find(|shipped| shipped.preset == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_weights_are_of_their_model_and_know_their_classes() {
        for shipped in &SHIPPED {
            let options = ror_weights::LoadOptions::default();
            let weights =
                ror_weights::load_bytes(shipped.path(), shipped.bytes(), &options).unwrap();
            let preset = ror_models::Description::preset(shipped.preset).unwrap();
            assert_eq!(weights.description, preset.with_classes(10));
            let names = weights.metadata.class_names.unwrap();
            assert_eq!(
                (names[0].as_str(), names[9].as_str()),
                ("airplane", "truck")
            );
            assert!(weights.metadata.normalisation.is_some());
        }
    }
}
