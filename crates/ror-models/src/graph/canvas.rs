//! Shapes and text on an SVG image, in whole pixels.

use super::palette::WHITE;
use svg::Document;
use svg::node::element::{Circle, Description, Element, Group, Path, Rectangle, Text, Title};

const FONT: &str = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif";

/// Where the point that places a text is in it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Type {
    pub(super) size: i32,
    pub(super) bold: bool,
    pub(super) fill: &'static str,
}

impl Type {
    pub(super) const fn new(size: i32, fill: &'static str) -> Self {
        Self {
            size,
            bold: false,
            fill,
        }
    }

    pub(super) const fn bold(size: i32, fill: &'static str) -> Self {
        Self {
            size,
            bold: true,
            fill,
        }
    }

    /// Room for `text`, enough in the widest of the usual sans-serif fonts.
    pub(super) fn width(self, text: &str) -> i32 {
        let hundredths: i32 = text
            .chars()
            .map(|c| match c {
                ' ' | ',' | '.' | '/' | 'i' | 'l' | 'j' | 'f' | 't' | '(' | ')' => 35,
                'm' | 'w' | 'M' | 'W' | '×' | '+' => 88,
                'A'..='Z' => 72,
                _ => 62,
            })
            .sum();
        let hundredths = hundredths * if self.bold { 110 } else { 100 } / 100;
        (hundredths * self.size + 99) / 100
    }
}

/// An image that is being drawn: boxes lie under lines, lines under nodes.
#[derive(Default)]
pub(super) struct Canvas {
    boxes: Vec<Element>,
    lines: Vec<Element>,
    nodes: Vec<Element>,
}

/// A rectangle's place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    pub(super) left: i32,
    pub(super) top: i32,
    pub(super) right: i32,
    pub(super) bottom: i32,
}

impl Area {
    fn rounded(self, radius: i32) -> Rectangle {
        Rectangle::new()
            .set("x", self.left)
            .set("y", self.top)
            .set("width", self.right - self.left)
            .set("height", self.bottom - self.top)
            .set("rx", radius)
    }
}

impl Canvas {
    /// A box that encloses what was drawn before: later boxes lie under earlier ones.
    pub(super) fn enclose(&mut self, area: Area, fill: &str, stroke: &str) {
        let rectangle = area
            .rounded(10)
            .set("fill", fill)
            .set("stroke", stroke)
            .set("stroke-opacity", 0.5);
        self.boxes.push(rectangle.into());
    }

    /// A node's outline.
    pub(super) fn node(&mut self, area: Area, radius: i32, fill: &str, stroke: &str) {
        let rectangle = area.rounded(radius).set("fill", fill).set("stroke", stroke);
        self.nodes.push(rectangle.into());
    }

    pub(super) fn text(&mut self, at: (i32, i32), anchor: Anchor, kind: Type, text: &str) {
        let mut element = Text::new(text)
            .set("x", at.0)
            .set("y", at.1)
            .set("font-size", kind.size)
            .set("fill", kind.fill);
        match anchor {
            Anchor::Start => {}
            Anchor::Middle => element = element.set("text-anchor", "middle"),
            Anchor::End => element = element.set("text-anchor", "end"),
        }
        if kind.bold {
            element = element.set("font-weight", "bold");
        }
        self.nodes.push(element.into());
    }

    pub(super) fn circle(&mut self, at: (i32, i32), radius: i32, fill: &str, stroke: &str) {
        let circle = Circle::new()
            .set("cx", at.0)
            .set("cy", at.1)
            .set("r", radius)
            .set("fill", fill)
            .set("stroke", stroke)
            .set("stroke-width", 1.5);
        self.nodes.push(circle.into());
    }

    /// An open line; what else distinguishes it is set on it afterwards.
    pub(super) fn line(data: String, stroke: &str, width: f64) -> Path {
        Path::new()
            .set("d", data)
            .set("fill", "none")
            .set("stroke", stroke)
            .set("stroke-width", width)
    }

    pub(super) fn under(&mut self, element: impl Into<Element>) {
        self.lines.push(element.into());
    }

    pub(super) fn over(&mut self, element: impl Into<Element>) {
        self.nodes.push(element.into());
    }

    /// An arrow's head that points down, its tip at `at`.
    pub(super) fn arrow_down(&mut self, (x, y): (i32, i32), fill: &str) {
        let data = format!("M{x} {y}l-4 -7h8z");
        self.under(Path::new().set("d", data).set("fill", fill));
    }

    /// An arrow's head that points left, its tip at `at`.
    pub(super) fn arrow_left(&mut self, (x, y): (i32, i32), fill: &str) {
        let data = format!("M{x} {y}l7 -4v8z");
        self.under(Path::new().set("d", data).set("fill", fill));
    }

    /// The image, on rounded white ground.
    pub(super) fn finish(self, (width, height): (i32, i32), title: &str, about: &str) -> String {
        let ground = Area {
            left: 0,
            top: 0,
            right: width,
            bottom: height,
        };
        let layer = |elements: Vec<Element>| {
            elements
                .into_iter()
                .fold(Group::new(), |group, element| group.add(element))
        };
        let Self {
            mut boxes,
            lines,
            nodes,
        } = self;
        boxes.reverse();
        Document::new()
            .set("width", width)
            .set("height", height)
            .set("viewBox", (0, 0, width, height))
            .set("role", "img")
            .set("font-family", FONT)
            .add(Title::new(title))
            .add(Description::new().add(svg::node::Text::new(about)))
            .add(ground.rounded(12).set("fill", WHITE))
            .add(layer(boxes))
            .add(layer(lines))
            .add(layer(nodes))
            .to_string()
    }
}
