//! Names of networks: `[dialect-]family-depth[-width][-sd]`.

use crate::family::{Dialect, Family};
use crate::{Description, DescriptionError};
use ror_blocks::BlockKind;
use std::fmt;
use std::str::FromStr;

/// The names worth listing; any depth and width that a family's formula allows has one too.
const LISTED: &[&str] = &[
    "ror-3-20",
    "ror-3-56",
    "ror-3-110",
    "ror-3-164",
    "ror-3-110-sd",
    "ror-3-164-sd",
    "pre-ror-3-110",
    "pre-ror-3-164",
    "pre-ror-3-164-sd",
    "pre-ror-3-bottleneck-164",
    "ror-3-wrn-16-2",
    "ror-3-wrn-16-8",
    "ror-3-wrn-28-10",
    "ror-3-wrn-40-2",
    "ror-3-wrn-40-2-sd",
    "ror-3-wrn-40-4",
    "ror-3-wrn-58-2",
    "ror-3-wrn-58-4",
    "ror-3-wrn-58-4-sd",
    "keras-ror-3-56",
    "keras-ror-3-110",
    "keras-ror-3-164",
    "keras-ror-3-wrn-16-2",
    "keras-ror-3-wrn-28-10",
    "keras-ror-3-wrn-40-2",
    "pytorchcv-ror-3-56",
    "pytorchcv-ror-3-110",
    "pytorchcv-ror-3-164",
    "imagenet-ror-3-18",
    "imagenet-ror-3-34",
    "imagenet-ror-3-50",
    "imagenet-ror-3-101",
    "imagenet-ror-3-152",
];

/// The survival probability of the last block in presets that end in `-sd` (paper, section 4).
const STOCHASTIC_DEPTH: f64 = 0.5;

/// The names of the networks of the paper and of the known implementations.
pub fn presets() -> &'static [&'static str] {
    LISTED
}

impl Description {
    /// The description that a name stands for, such as `ror-3-164`, `ror-3-wrn-58-4-sd`,
    /// `keras-ror-3-wrn-40-2`, `imagenet-ror-3-50`. The digit after `ror` is the number of levels.
    ///
    /// # Errors
    /// An unknown name (with the nearest known one), or a depth that the formula forbids (with the
    /// nearest two that it allows).
    pub fn preset(name: &str) -> Result<Self, DescriptionError> {
        let unknown = || DescriptionError::UnknownPreset {
            name: name.to_owned(),
            nearest: nearest(name),
        };
        let parts: Vec<&str> = name.split('-').collect();
        let mut parts = parts.as_slice();
        let dialect = match parts.first() {
            Some(&"keras") => Dialect::Keras,
            Some(&"pytorchcv") => Dialect::Pytorchcv,
            _ => Dialect::Paper,
        };
        let mut skip = usize::from(dialect != Dialect::Paper);
        let mut family = Family::Ror;
        match parts.get(skip) {
            Some(&"pre") => family = Family::PreRor,
            Some(&"imagenet") => family = Family::ImageNet,
            _ => {}
        }
        skip += usize::from(family != Family::Ror);
        parts = parts.get(skip..).unwrap_or_default();
        let ["ror", levels, rest @ ..] = parts else {
            return Err(unknown());
        };
        let number = |text: &str| -> Result<usize, DescriptionError> {
            if text.is_empty() || text.starts_with('0') || text.starts_with('+') {
                return Err(unknown());
            }
            text.parse().map_err(|_| unknown())
        };
        let levels = number(levels)?;
        let (stochastic_depth, rest) = match rest {
            [rest @ .., "sd"] => (true, rest),
            rest => (false, rest),
        };
        let (block, depth, width) = match (family, rest) {
            (Family::Ror, ["wrn", depth, width]) => {
                family = Family::Wrn;
                (None, depth, number(width)?)
            }
            (_, ["bottleneck", depth]) => (Some(BlockKind::Bottleneck), depth, 1),
            (_, [depth]) => (None, depth, 1),
            _ => return Err(unknown()),
        };
        let depth = number(depth)?;
        let block = block.unwrap_or_else(|| family.default_block(dialect, depth));
        let mut description =
            Self::of_block(dialect, family, block, depth, width)?.with_levels(levels);
        if stochastic_depth {
            description.stochastic_depth = Some(STOCHASTIC_DEPTH);
        }
        description.validate()?;
        Ok(description)
    }
}

impl FromStr for Description {
    type Err = DescriptionError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::preset(name)
    }
}

impl fmt::Display for Description {
    /// The preset's name; what names do not carry (classes, channels, image size, dropout, the last
    /// block's survival, shortcut kinds, batch norms, the top) is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dialect {
            Dialect::Paper => {}
            dialect => write!(f, "{dialect}-")?,
        }
        match self.family {
            Family::PreRor => f.write_str("pre-")?,
            Family::ImageNet => f.write_str("imagenet-")?,
            Family::Ror | Family::Wrn => {}
        }
        write!(f, "ror-{}-", self.levels)?;
        if self.block != self.family.default_block(self.dialect, self.depth) {
            f.write_str("bottleneck-")?;
        }
        match self.family {
            Family::Wrn => write!(f, "wrn-{}-{}", self.depth, self.width)?,
            _ => write!(f, "{}", self.depth)?,
        }
        if self.stochastic_depth.is_some() {
            f.write_str("-sd")?;
        }
        Ok(())
    }
}

/// The listed name most similar to `name`, if any is similar at all.
fn nearest(name: &str) -> Option<String> {
    LISTED
        .iter()
        .map(|&listed| (strsim::jaro_winkler(name, listed), listed))
        .filter(|&(similarity, _)| similarity > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, listed)| listed.to_owned())
}
