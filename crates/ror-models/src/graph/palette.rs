//! Colours of pictures: one per level of nesting, greys for the rest.

use super::figure::{Nesting, Part};

/// Text and the trunk.
pub(super) const INK: &str = "#24292f";
/// Text that explains.
pub(super) const FAINT: &str = "#59636e";
/// Outlines of layers and blocks.
pub(super) const OUTLINE: &str = "#8c959f";
/// The ground of rectifiers, of the image and of the logits.
pub(super) const SOFT: &str = "#eaeef2";
pub(super) const WHITE: &str = "#ffffff";

impl Nesting {
    /// Arcs, sums and names of the level.
    pub(super) fn colour(self) -> &'static str {
        match self {
            Self::Root => "#24508f",
            Self::Group => "#12806f",
            Self::Half => "#a06c00",
            Self::Quarter => "#85489c",
            Self::Block => "#c2502a",
        }
    }

    fn tint(self) -> &'static str {
        match self {
            Self::Root => "#f2f5fa",
            Self::Group => "#e9f4f1",
            Self::Half => "#f9f3e4",
            Self::Quarter => "#f5edf8",
            Self::Block => WHITE,
        }
    }
}

impl Part {
    /// Outline and ground of the level's box; grey where no shortcut spans it.
    pub(super) fn colours(&self) -> (&'static str, &'static str) {
        match self.arc {
            Some(_) => (self.nesting.colour(), self.nesting.tint()),
            None => (FAINT, "#f6f8fa"),
        }
    }
}
