//! Where columns stand: the trunk's half width, and per level its box and the lane of its arcs.

use super::canvas::Type;
use super::figure::{Blocks, Figure, Nesting, Step};
use super::palette::{FAINT, INK};

pub(super) const BLOCK_NAME: Type = Type::bold(12, INK);
pub(super) const NODE: Type = Type::new(11, INK);
pub(super) const NOTE: Type = Type::new(11, FAINT);

/// Around the picture.
pub(super) const MARGIN: i32 = 24;
/// Between a box and what it encloses.
pub(super) const PADDING: i32 = 12;
/// Between a node's outline and its text.
pub(super) const INSET: i32 = 10;

/// Blocks narrower than this would look lost between their arcs.
const MIN_WIDTH: i32 = 200;

/// How far a level reaches from the trunk's axis.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Column {
    pub(super) left: i32,
    pub(super) right: i32,
    /// Where its arcs run.
    pub(super) lane: i32,
}

/// Distances from the trunk's axis, and the axis' place.
pub(super) struct Geometry {
    pub(super) axis: i32,
    /// Half the width of blocks.
    pub(super) half: i32,
    columns: [Column; Nesting::ALL.len()],
}

impl Geometry {
    pub(super) fn new(figure: &Figure) -> Self {
        let half = half_width(figure);
        let arcs = figure.arcs();
        let mut columns = [Column::default(); Nesting::ALL.len()];
        let (mut left, mut right) = (half, half);
        let parts = figure.parts();
        for nesting in Nesting::ALL.into_iter().rev() {
            let labels = arcs.iter().filter(|(n, _)| *n == nesting);
            let widest = labels.map(|(_, arc)| pill_width(&arc.label)).max();
            let mut boxes = parts.iter().filter(|part| part.boxed());
            if nesting != Nesting::Block && !boxes.any(|part| part.nesting == nesting) {
                continue;
            }
            left += PADDING;
            let mut lane = 0;
            if let Some(width) = widest {
                lane = right + PADDING + width / 2;
                right = lane + width / 2;
            }
            right += PADDING;
            columns[nesting as usize] = Column { left, right, lane };
        }
        Self {
            axis: MARGIN + left,
            half,
            columns,
        }
    }

    pub(super) fn column(&self, nesting: Nesting) -> Column {
        self.columns[nesting as usize]
    }

    /// The right end of the outermost box.
    pub(super) fn right(&self) -> i32 {
        let reach = self.columns.iter().map(|c| c.right).max();
        self.axis + reach.unwrap_or_default()
    }
}

/// The width of a label on an arc; of an arc without one, its bend.
pub(super) fn pill_width(label: &str) -> i32 {
    if label.is_empty() {
        16
    } else {
        // Even, so that both halves are whole pixels.
        (NODE.width(label) + 16) & !1
    }
}

pub(super) fn block_width(blocks: &Blocks) -> i32 {
    let survival = blocks.survival.as_ref();
    let survival = survival.map_or(0, |s| 2 * INSET + NOTE.width(s));
    let heading = BLOCK_NAME.width(&blocks.name) + survival;
    heading.max(NODE.width(&blocks.convolutions)) + 2 * INSET
}

fn half_width(figure: &Figure) -> i32 {
    let parts = figure.parts();
    let layers = parts.iter().flat_map(|part| &part.steps);
    let layers = layers.filter_map(|step| match step {
        Step::Layer { text, .. } => Some(text),
        _ => None,
    });
    let ends = figure
        .stem
        .iter()
        .chain(&figure.head)
        .chain([&figure.input]);
    let nodes = layers.chain(ends).map(|text| NODE.width(text) + 2 * INSET);
    // Names and shapes of levels stand between the box's edge and the trunk.
    let notes = parts.iter().map(|part| {
        let output = part.output.as_ref().map_or(0, |output| NOTE.width(output));
        2 * output.max(BLOCK_NAME.width(&part.name))
    });
    let widths = figure.blocks().map(block_width).chain(nodes).chain(notes);
    (widths.fold(MIN_WIDTH, i32::max) + 1) / 2
}
