//! The picture as SVG: a column of nodes, boxes for levels, arcs for shortcuts.

use super::canvas::{Anchor, Area, Canvas, Type};
use super::figure::{Arc, ArcKind, Blocks, Figure, Nesting, Part, Step};
use super::geometry::{
    BLOCK_NAME, Geometry, INSET, MARGIN, NODE, NOTE, PADDING, block_width, pill_width,
};
use super::legend;
use super::palette::{INK, OUTLINE, SOFT, WHITE};
use svg::Node as _;
use svg::node::element::{Path, Title};

const TITLE: Type = Type::bold(18, INK);
/// Between a node and the next, with room for an arrow's head.
const GAP: i32 = 12;
const BLOCK_HEIGHT: i32 = 36;
const NODE_HEIGHT: i32 = 24;
const SUM_RADIUS: i32 = 8;
const RELU_HEIGHT: i32 = 15;

pub(super) fn svg(figure: &Figure) -> String {
    let mut diagram = Diagram {
        geometry: Geometry::new(figure),
        canvas: Canvas::default(),
        y: MARGIN,
    };
    diagram.heading(figure);
    let top = diagram.y;
    diagram.terminal(&figure.input);
    for text in &figure.stem {
        diagram.chain_node(text);
    }
    diagram.wire_label(figure.stem_output.as_deref());
    diagram.part(&figure.root);
    for text in &figure.head {
        diagram.chain_node(text);
    }
    diagram.y += GAP;
    diagram.arrow();
    diagram.terminal(&figure.output);
    let Diagram {
        geometry,
        mut canvas,
        y,
    } = diagram;
    canvas.trunk(geometry.axis, top, y - NODE_HEIGHT);
    let legend = legend::draw(figure, &mut canvas, (MARGIN, y + MARGIN));
    let headings = [TITLE.width(&figure.name), NOTE.width(&figure.subtitle)];
    let width = headings
        .into_iter()
        .map(|width| MARGIN + width)
        .chain([geometry.right(), legend.0])
        .max()
        .unwrap_or_default();
    let about = "A residual network of residual networks: blocks in a column from the image down \
                 to the logits, shortcuts of every level to their right.";
    canvas.finish((width + MARGIN, legend.1 + MARGIN), &figure.name, about)
}

struct Diagram {
    geometry: Geometry,
    canvas: Canvas,
    /// How far down the picture is drawn.
    y: i32,
}

impl Diagram {
    fn heading(&mut self, figure: &Figure) {
        let y = self.y;
        let start = Anchor::Start;
        self.canvas
            .text((MARGIN, y + 14), start, TITLE, &figure.name);
        self.canvas
            .text((MARGIN, y + 34), start, NOTE, &figure.subtitle);
        self.y = y + 52;
    }

    /// The image or the logits.
    fn terminal(&mut self, text: &str) {
        let area = self.centred(NODE.width(text) + 2 * INSET, NODE_HEIGHT);
        self.canvas.node(area, NODE_HEIGHT / 2, SOFT, "none");
        self.centred_text(NODE, 16, text);
        self.y += NODE_HEIGHT;
    }

    /// A node of the stem or the head, or a pool between groups.
    fn chain_node(&mut self, text: &str) {
        self.y += GAP;
        self.arrow();
        let area = self.centred(NODE.width(text) + 2 * INSET, NODE_HEIGHT);
        self.canvas.node(area, 5, WHITE, OUTLINE);
        self.centred_text(NODE, 16, text);
        self.y += NODE_HEIGHT;
    }

    fn wire_label(&mut self, text: Option<&str>) {
        let at = (self.geometry.axis + INSET, self.y + 17);
        self.canvas
            .text(at, Anchor::Start, NOTE, text.unwrap_or_default());
        self.y += GAP;
    }

    /// A level with its box, from the wire above it to the wire below.
    fn part(&mut self, part: &Part) {
        let column = self.geometry.column(part.nesting);
        let top = self.y + GAP;
        let (colour, tint) = part.colours();
        let left = self.geometry.axis - column.left;
        if part.boxed() {
            let name = Type::bold(BLOCK_NAME.size, colour);
            let at = (left + INSET, top + 18);
            self.canvas.text(at, Anchor::Start, name, &part.name);
            self.y = top + 24;
        }
        for step in &part.steps {
            match step {
                Step::Part(inner) => self.part(inner),
                Step::Blocks(blocks) => self.blocks(blocks),
                Step::Layer { text, .. } => self.chain_node(text),
            }
        }
        if !part.boxed() {
            return;
        }
        let output = part.output.as_deref().unwrap_or_default();
        if let Some(arc) = &part.arc {
            self.y += GAP + 2;
            let sum = self.sum(part.nesting, part.relu);
            let at = (left + INSET, sum + 4);
            self.canvas.text(at, Anchor::Start, NOTE, output);
            self.arc(part.nesting, &part.path, arc, (top + 14, sum));
        } else {
            let at = (left + INSET, self.y + 16);
            self.canvas.text(at, Anchor::Start, NOTE, output);
            self.y += GAP;
        }
        self.y += PADDING;
        let area = Area {
            left,
            top,
            right: self.geometry.axis + column.right,
            bottom: self.y,
        };
        self.canvas.enclose(area, tint, colour);
    }

    /// A block, or a plate with a run of like ones.
    fn blocks(&mut self, blocks: &Blocks) {
        let axis = self.geometry.axis;
        let column = self.geometry.column(Nesting::Block);
        let plate = (blocks.count > 1).then(|| {
            self.y += GAP - 4;
            self.y
        });
        let tap = self.y + 10;
        self.y += GAP + 10;
        self.arrow();
        let top = self.y;
        let area = self.centred(2 * self.geometry.half, BLOCK_HEIGHT);
        debug_assert!(block_width(blocks) <= area.right - area.left + 1);
        self.canvas.node(area, 6, WHITE, OUTLINE);
        let start = Anchor::Start;
        let at = (area.left + INSET, top + 16);
        self.canvas.text(at, start, BLOCK_NAME, &blocks.name);
        if let Some(survival) = &blocks.survival {
            let at = (area.right - INSET, top + 16);
            self.canvas.text(at, Anchor::End, NOTE, survival);
        }
        let at = (area.left + INSET, top + 30);
        self.canvas.text(at, start, NODE, &blocks.convolutions);
        self.y += BLOCK_HEIGHT;
        if let Some(arc) = &blocks.arc {
            self.y += GAP;
            let sum = self.sum(Nesting::Block, blocks.relu);
            self.arc(Nesting::Block, &blocks.path, arc, (tap, sum));
        }
        let Some(top) = plate else { return };
        let at = (area.left + INSET, self.y - 4);
        let count = format!("× {}", blocks.count);
        self.canvas.text(at, start, Type::bold(14, INK), &count);
        self.y += 8;
        let area = Area {
            left: axis - column.left + 4,
            top,
            right: axis + column.right - 4,
            bottom: self.y,
        };
        self.canvas.enclose(area, WHITE, OUTLINE);
        self.y -= 2;
    }

    /// The sum that ends a level, and its ReLU; returns the height of its centre.
    fn sum(&mut self, nesting: Nesting, relu: bool) -> i32 {
        self.arrow();
        let centre = (self.geometry.axis, self.y + SUM_RADIUS);
        let (x, y) = centre;
        let colour = nesting.colour();
        self.canvas.circle(centre, SUM_RADIUS, WHITE, colour);
        let plus = format!("M{} {y}h8M{x} {}v8", x - 4, y - 4);
        self.canvas.over(Canvas::line(plus, colour, 1.5));
        self.y += 2 * SUM_RADIUS;
        if relu {
            self.y += 3;
            let area = self.centred(40, RELU_HEIGHT);
            self.canvas.node(area, 4, SOFT, OUTLINE);
            self.centred_text(Type::new(10, INK), 11, "ReLU");
            self.y += RELU_HEIGHT;
        }
        y
    }

    /// A shortcut from the trunk at height `from` to the sum at height `to`.
    fn arc(&mut self, nesting: Nesting, path: &str, arc: &Arc, (from, to): (i32, i32)) {
        const BEND: i32 = 8;
        let axis = self.geometry.axis;
        let lane = axis + self.geometry.column(nesting).lane;
        let end = axis + SUM_RADIUS + 1;
        let colour = nesting.colour();
        let data = format!(
            "M{axis} {from}H{}Q{lane} {from} {lane} {}V{}Q{lane} {to} {} {to}H{}",
            lane - BEND,
            from + BEND,
            to - BEND,
            lane - BEND,
            end + 6,
        );
        let about = match arc.label.as_str() {
            "" => arc.kind.name(),
            label => label,
        };
        let mut line = style(Canvas::line(data, colour, 2.0), arc.kind)
            .set("class", "shortcut")
            .set("data-level", nesting.plural())
            .set("data-count", arc.count);
        line.append(Title::new(format!("{path}: {about}")));
        self.canvas.under(line);
        self.canvas.arrow_left((end, to), colour);
        self.canvas.circle((axis, from), 2, colour, colour);
        if arc.label.is_empty() {
            return;
        }
        let (middle, width) = ((from + to) / 2, pill_width(&arc.label));
        let area = Area {
            left: lane - width / 2,
            top: middle - 10,
            right: lane + width / 2,
            bottom: middle + 10,
        };
        self.canvas.node(area, 10, WHITE, colour);
        let at = (lane, middle + 4);
        let kind = Type::new(NODE.size, colour);
        self.canvas.text(at, Anchor::Middle, kind, &arc.label);
    }

    fn arrow(&mut self) {
        self.canvas.arrow_down((self.geometry.axis, self.y), INK);
    }

    fn centred(&self, width: i32, height: i32) -> Area {
        let left = self.geometry.axis - width / 2;
        Area {
            left,
            top: self.y,
            right: left + width,
            bottom: self.y + height,
        }
    }

    fn centred_text(&mut self, kind: Type, baseline: i32, text: &str) {
        let at = (self.geometry.axis, self.y + baseline);
        self.canvas.text(at, Anchor::Middle, kind, text);
    }
}

impl Canvas {
    fn trunk(&mut self, x: i32, top: i32, bottom: i32) {
        let line = Self::line(format!("M{x} {top}V{bottom}"), INK, 1.5);
        self.under(line.set("class", "trunk"));
    }
}

/// Solid for projections, dashed for identities, dotted for zero-padded ones.
pub(super) fn style(line: Path, kind: ArcKind) -> Path {
    match kind {
        ArcKind::Projection => line,
        ArcKind::Identity => line.set("stroke-dasharray", "6 4"),
        ArcKind::Padded => line.set("stroke-dasharray", "2 3"),
    }
}
