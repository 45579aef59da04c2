//! Pictures of a network in which its levels of shortcuts show (RoR paper, figures 2 and 3).

mod canvas;
mod diagram;
mod dot;
mod figure;
mod geometry;
mod label;
mod legend;
mod palette;
#[cfg(test)]
mod tests;

use crate::Network;
use figure::Figure;

impl Network {
    /// Draws the network as an SVG image: the chain of blocks in a column, every level in its box,
    /// every shortcut arcing over what it skips, outermost the root's.
    ///
    /// Long runs of like blocks are drawn once, with their number. The image stands on a white
    /// ground, needs no fonts or scripts from elsewhere and is the same for the same network.
    ///
    /// ```
    /// use ror_models::{Description, Network};
    ///
    /// let network = Network::new(&Description::preset("ror-3-110")?)?;
    /// assert!(network.to_svg().starts_with("<svg"));
    /// # Ok::<(), ror_models::DescriptionError>(())
    /// ```
    pub fn to_svg(&self) -> String {
        diagram::svg(&Figure::new(self))
    }

    /// The picture of [`Network::to_svg`] as a graph in Graphviz' DOT language, with a cluster per
    /// level; for `dot -Tpdf`, or for other tools to lay out.
    ///
    /// ```
    /// use ror_models::{Description, Network};
    ///
    /// let network = Network::new(&Description::preset("ror-3-110")?)?;
    /// assert!(network.to_dot().starts_with("digraph \"ror-3-110\" {"));
    /// # Ok::<(), ror_models::DescriptionError>(())
    /// ```
    pub fn to_dot(&self) -> String {
        dot::dot(&Figure::new(self))
    }
}
