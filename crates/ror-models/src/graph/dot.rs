//! The picture as a graph in Graphviz' DOT language: a cluster per level.

use super::figure::{Arc, ArcKind, Blocks, Figure, Nesting, Part, Step};
use super::palette::{INK, OUTLINE, SOFT, WHITE};
use std::fmt::{Display, Write as _};

pub(super) fn dot(figure: &Figure) -> String {
    let mut graph = Graph {
        statements: String::new(),
        edges: String::new(),
        depth: 1,
        last: None,
    };
    let terminal = format!("color=\"{SOFT}\", fillcolor=\"{SOFT}\"");
    graph.node("image", &figure.input, &terminal);
    graph.chain("stem", &figure.stem);
    graph.part(&figure.root);
    graph.chain("head", &figure.head);
    graph.node("output", &figure.output, &terminal);
    let Graph {
        statements, edges, ..
    } = graph;
    format!(
        "digraph {name} {{\n\
         \x20 graph [label={title}, labelloc=t, labeljust=l, bgcolor=white, fontname=\"Helvetica\", \
         fontcolor=\"{INK}\", nodesep=0.4, ranksep=0.25]\n\
         \x20 node [shape=box, style=\"rounded,filled\", fillcolor=white, color=\"{OUTLINE}\", \
         fontname=\"Helvetica\", fontcolor=\"{INK}\", fontsize=11, height=0.3]\n\
         \x20 edge [color=\"{INK}\", fontname=\"Helvetica\", fontsize=11, weight=20]\n\
         {statements}{edges}}}\n",
        name = Quoted(&figure.name),
        title = Quoted(&format!("{}\n{}", figure.name, figure.subtitle)),
    )
}

/// Statements so far. Edges come last: one that stood in a cluster would draw both its ends in.
struct Graph {
    statements: String,
    edges: String,
    /// How far the statements are indented.
    depth: usize,
    /// The node whose result comes next.
    last: Option<String>,
}

impl Graph {
    /// A node that takes the last one's result.
    fn node(&mut self, id: &str, label: &str, style: &str) {
        let comma = if style.is_empty() { "" } else { ", " };
        self.state(format_args!(
            "{} [label={}{comma}{style}]",
            Quoted(id),
            Quoted(label)
        ));
        if let Some(last) = self.last.replace(id.to_owned()) {
            self.edge(&last, id, "");
        }
    }

    fn chain(&mut self, name: &str, texts: &[String]) {
        for (i, text) in (1..).zip(texts) {
            self.node(&format!("{name}{i}"), text, "");
        }
    }

    fn part(&mut self, part: &Part) {
        let input = self.last.clone();
        if part.boxed() {
            let (colour, tint) = part.colours();
            let output = part.output.as_deref().unwrap_or_default();
            let label = format!("{}\n{output}", part.name);
            self.open(&part.path, &label, colour, tint);
        }
        for step in &part.steps {
            match step {
                Step::Part(inner) => self.part(inner),
                Step::Blocks(blocks) => self.blocks(blocks),
                Step::Layer { path, text } => self.node(path, text, ""),
            }
        }
        self.sum(
            part.nesting,
            &part.path,
            part.arc.as_ref(),
            input,
            part.relu,
        );
        if part.boxed() {
            self.close();
        }
    }

    fn blocks(&mut self, blocks: &Blocks) {
        let input = self.last.clone();
        let plate = blocks.count > 1;
        if plate {
            let label = format!("× {}", blocks.count);
            self.open(&blocks.path, &label, OUTLINE, WHITE);
        }
        let survival = blocks.survival.iter();
        let lines = [&blocks.name, &blocks.convolutions].into_iter();
        let label: Vec<&str> = lines.chain(survival).map(String::as_str).collect();
        self.node(&blocks.path, &label.join("\n"), "");
        let arc = blocks.arc.as_ref();
        self.sum(Nesting::Block, &blocks.path, arc, input, blocks.relu);
        if plate {
            self.close();
        }
    }

    /// The sum that ends a level, where a shortcut arrives from `input`, and its ReLU.
    fn sum(
        &mut self,
        nesting: Nesting,
        path: &str,
        arc: Option<&Arc>,
        input: Option<String>,
        relu: bool,
    ) {
        let colour = nesting.colour();
        if let Some(arc) = arc {
            let sum = format!("{path}.sum");
            let round = "shape=circle, fixedsize=true, width=0.25, margin=0";
            self.node(&sum, "+", &format!("{round}, color=\"{colour}\""));
            let style = match arc.kind {
                ArcKind::Projection => "solid",
                ArcKind::Identity => "dashed",
                ArcKind::Padded => "dotted",
            };
            let label = Quoted(&arc.label);
            let style = format!(
                " [class=\"shortcut {}\", style={style}, color=\"{colour}\", penwidth=1.8, \
                 label={label}, fontcolor=\"{colour}\", weight=1]",
                nesting.plural(),
            );
            if let Some(input) = input {
                self.edge(&input, &sum, &style);
            }
        }
        if relu {
            let style = format!("fontsize=10, height=0.2, fillcolor=\"{SOFT}\"");
            self.node(&format!("{path}.relu"), "ReLU", &style);
        }
    }

    fn open(&mut self, path: &str, label: &str, colour: &str, tint: &str) {
        self.state(format_args!(
            "subgraph {} {{",
            Quoted(&format!("cluster_{path}"))
        ));
        self.depth += 1;
        self.state(format_args!(
            "label={}; fontcolor=\"{colour}\"; style=\"rounded,filled\"; color=\"{colour}\"; \
             fillcolor=\"{tint}\"; fontsize=10; margin=20",
            Quoted(label)
        ));
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.state(format_args!("}}"));
    }

    fn state(&mut self, statement: std::fmt::Arguments) {
        let indent = 2 * self.depth;
        // Writing to a string cannot fail.
        let _ = writeln!(self.statements, "{:indent$}{statement}", "");
    }

    fn edge(&mut self, from: &str, to: &str, style: &str) {
        let _ = writeln!(self.edges, "  {} -> {}{style}", Quoted(from), Quoted(to));
    }
}

/// A DOT string; line ends become DOT's.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let escaped = self.0.replace('\\', "\\\\").replace('"', "\\\"");
        write!(f, "\"{}\"", escaped.replace('\n', "\\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped() {
        let quoted = Quoted("a \"b\" \\ c\nd").to_string();
        assert_eq!(quoted, r#""a \"b\" \\ c\nd""#);
    }
}
