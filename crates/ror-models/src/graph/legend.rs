//! What colours, lines and signs mean, below the picture.

use super::canvas::{Anchor, Canvas};
use super::diagram::style;
use super::figure::{ArcKind, Figure, Nesting};
use super::geometry::NOTE;
use super::palette::FAINT;

const LINE: i32 = 20;
const SWATCH: i32 = 28;

/// Draws the legend from `at` on; returns its right and lower ends.
pub(super) fn draw(figure: &Figure, canvas: &mut Canvas, at: (i32, i32)) -> (i32, i32) {
    let arcs = figure.arcs();
    let levels = Nesting::ALL
        .into_iter()
        .filter(|&nesting| arcs.iter().any(|(n, _)| *n == nesting))
        .map(|nesting| (nesting.colour(), ArcKind::Projection, nesting.plural()));
    let kinds = ArcKind::ALL
        .into_iter()
        .filter(|&kind| arcs.iter().any(|(_, arc)| arc.kind == kind))
        .map(|kind| (FAINT, kind, kind.name()));
    let mut legend = Legend {
        canvas,
        left: at.0,
        right: at.0,
        y: at.1,
    };
    legend.row("shortcuts of", levels);
    legend.row("drawn as", kinds);
    if let Some(order) = &figure.block_order {
        legend.sentence(&format!("block: {order}"));
    }
    if figure.blocks().any(|blocks| blocks.survival.is_some()) {
        legend.sentence("p: probability that training keeps the block (stochastic depth)");
    }
    (legend.right, legend.y - LINE + 6)
}

struct Legend<'a> {
    canvas: &'a mut Canvas,
    left: i32,
    right: i32,
    y: i32,
}

impl Legend<'_> {
    fn row<'b>(
        &mut self,
        heading: &str,
        samples: impl Iterator<Item = (&'b str, ArcKind, &'b str)>,
    ) {
        let mut x = self.put(self.left, heading);
        for (colour, kind, name) in samples {
            let data = format!("M{} {}h{SWATCH}", x + 12, self.y - 4);
            self.canvas
                .over(style(Canvas::line(data, colour, 2.0), kind));
            x = self.put(x + 12 + SWATCH + 6, name);
        }
        self.y += LINE;
    }

    fn sentence(&mut self, text: &str) {
        self.put(self.left, text);
        self.y += LINE;
    }

    /// Writes `text` at `x`; returns where it ends.
    fn put(&mut self, x: i32, text: &str) -> i32 {
        self.canvas.text((x, self.y), Anchor::Start, NOTE, text);
        let end = x + NOTE.width(text);
        self.right = self.right.max(end);
        end
    }
}
