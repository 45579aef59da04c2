//! What must hold of every picture, whatever the network.

use super::canvas::Type;
use super::figure::{Figure, Nesting};
use crate::network::{Level, Member};
use crate::{Description, Network, ShortcutKind, presets};
use ror_blocks::Shortcut;
use roxmltree::{Document, Node};
use std::collections::{BTreeMap, BTreeSet};

fn preset(name: &str) -> Description {
    Description::preset(name).unwrap()
}

/// Every preset, and each family and dialect with one to five levels.
fn networks() -> Vec<Network> {
    use ShortcutKind::{A, B, C};
    let mut descriptions: Vec<_> = presets().iter().map(|name| preset(name)).collect();
    for family in [
        "ror-3-110-sd",
        "pre-ror-3-164",
        "pre-ror-3-bottleneck-164",
        "ror-3-wrn-40-2",
        "keras-ror-3-56",
        "keras-ror-3-wrn-28-10",
        "pytorchcv-ror-3-56",
        "imagenet-ror-3-101",
    ] {
        for levels in 1..=5 {
            let description = preset(family).with_levels(levels);
            if description.validate().is_ok() {
                descriptions.push(description);
            }
        }
    }
    descriptions.extend([
        preset("ror-3-56").with_shortcuts(&[A, A, A]),
        preset("ror-3-56")
            .with_shortcuts(&[B, B, C])
            .with_dropout(0.3),
        preset("ror-1-8").without_top(),
        preset("ror-3-wrn-580-1024-sd"),
    ]);
    let networks = descriptions.iter().map(Network::new);
    networks.collect::<Result<_, _>>().unwrap()
}

/// Shortcuts of the network's tree per level of nesting.
fn shortcuts(network: &Network) -> BTreeMap<&'static str, usize> {
    fn count(level: &Level, depth: usize, into: &mut BTreeMap<&'static str, usize>) {
        let mut add = |name, shortcut: &Shortcut| {
            *into.entry(name).or_default() += usize::from(*shortcut != Shortcut::None);
        };
        let name = ["root", "groups", "halves", "quarters"][depth];
        add(name, &level.shortcut);
        for member in &level.body {
            match member {
                Member::Block(block) => add("blocks", &block.shortcut),
                Member::Level(_) | Member::Layer(_) => {}
            }
        }
        for member in &level.body {
            if let Member::Level(inner) = member {
                count(inner, depth + 1, into);
            }
        }
    }
    let mut counts = BTreeMap::new();
    count(&network.root, 0, &mut counts);
    counts.retain(|_, &mut n| n > 0);
    counts
}

fn arcs<'a, 'b>(image: &'b Document<'a>) -> impl Iterator<Item = Node<'b, 'a>> {
    let elements = image.descendants();
    elements.filter(|node| node.attribute("class") == Some("shortcut"))
}

fn number(node: Node, attribute: &str) -> i32 {
    node.attribute(attribute).unwrap().parse().unwrap()
}

#[test]
fn an_image_shows_every_shortcut_of_the_tree() {
    for network in networks() {
        let image = network.to_svg();
        let image = Document::parse(&image).unwrap();
        let mut drawn = BTreeMap::new();
        for arc in arcs(&image) {
            let level = arc.attribute("data-level").unwrap();
            *drawn.entry(level).or_default() += number(arc, "data-count") as usize;
        }
        assert_eq!(drawn, shortcuts(&network), "{}", network.description);
    }
}

/// The whole numbers in a path's data.
fn numbers(path: Node) -> Vec<i32> {
    let data = path.attribute("d").unwrap();
    let numbers = data.split(|c: char| !c.is_ascii_digit());
    numbers.filter_map(|text| text.parse().ok()).collect()
}

/// Where an arc leaves and reaches the trunk, and the trunk's and its own columns. Its data is
/// `M axis from H ... Q lane from lane ... V ... Q lane to ... H ...`.
fn place(arc: Node) -> [i32; 4] {
    let [axis, from, _, lane, .., to, _] = numbers(arc)[..] else {
        panic!("{:?}", arc.attribute("d"));
    };
    [from, to, axis, lane]
}

/// A rectangle: left, top, right, bottom.
type Bounds = [i32; 4];

fn apart(a: &Bounds, b: &Bounds) -> bool {
    a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1]
}

fn within(inner: &Bounds, outer: &Bounds) -> bool {
    inner[0] >= outer[0] && inner[1] >= outer[1] && inner[2] <= outer[2] && inner[3] <= outer[3]
}

fn text_bounds(node: Node) -> Bounds {
    let size = number(node, "font-size");
    let kind = match node.attribute("font-weight") {
        Some(_) => Type::bold(size, ""),
        None => Type::new(size, ""),
    };
    let width = kind.width(node.text().unwrap_or_default());
    let (x, y) = (number(node, "x"), number(node, "y"));
    let left = match node.attribute("text-anchor") {
        Some("middle") => x - width / 2,
        Some("end") => x - width,
        _ => x,
    };
    [left, y - size * 3 / 4, left + width, y + size / 4]
}

fn rectangle(node: Node) -> Bounds {
    let (left, top) = (number(node, "x"), number(node, "y"));
    let (width, height) = (number(node, "width"), number(node, "height"));
    [left, top, left + width, top + height]
}

#[test]
fn an_outer_levels_arc_runs_outside_those_that_it_spans() {
    for network in networks() {
        let image = network.to_svg();
        let image = Document::parse(&image).unwrap();
        let places: Vec<_> = arcs(&image).map(place).collect();
        for a in &places {
            assert!(a[0] < a[1], "{}: {a:?}", network.description);
            for b in &places {
                let spans = a[0] < b[0] && b[1] < a[1];
                let spanned = b[0] <= a[0] && a[1] <= b[1];
                let disjoint = a[1] < b[0] || b[1] < a[0];
                assert!(disjoint || spanned || spans && a[3] > b[3]);
            }
        }
    }
}

#[test]
fn texts_neither_overlap_nor_lie_on_lines_nor_leave_the_image() {
    for network in networks() {
        let image = network.to_svg();
        let image = Document::parse(&image).unwrap();
        let layers: Vec<_> = image
            .descendants()
            .filter(|n| n.has_tag_name("g"))
            .collect();
        let [_, lines, nodes] = layers[..] else {
            panic!("an image has three layers");
        };
        let ground = image.descendants().find(|n| n.has_tag_name("rect"));
        let ground = rectangle(ground.unwrap());
        let mut strokes = Vec::new();
        for line in lines.children() {
            match line.attribute("class") {
                Some("shortcut") => {
                    let [from, to, axis, lane] = place(line);
                    strokes.push([lane - 1, from, lane + 1, to]);
                    strokes.extend([from, to].map(|y| [axis, y - 1, lane, y + 1]));
                }
                Some("trunk") => {
                    let [x, top, bottom] = numbers(line)[..] else {
                        panic!("{:?}", line.attribute("d"));
                    };
                    strokes.push([x - 1, top, x + 1, bottom]);
                }
                _ => {}
            }
        }
        let rectangles = nodes.children().filter(|n| n.has_tag_name("rect"));
        let rectangles: Vec<_> = rectangles.map(rectangle).collect();
        let texts = nodes.children().filter(|n| n.has_tag_name("text"));
        let texts: Vec<_> = texts.map(|n| (text_bounds(n), n.text())).collect();
        for (i, (area, text)) in texts.iter().enumerate() {
            let name = &network.description;
            assert!(within(area, &ground), "{name}: {text:?}");
            for (other, earlier) in &texts[..i] {
                assert!(apart(area, other), "{name}: {text:?} on {earlier:?}");
            }
            // A node hides the lines below it.
            let hidden = rectangles.iter().any(|node| within(area, node));
            let free = strokes.iter().all(|stroke| apart(area, stroke));
            assert!(hidden || free, "{name}: {text:?} on a line");
        }
    }
}

#[test]
fn long_networks_are_folded() {
    let network = Network::new(&preset("pre-ror-3-164-sd")).unwrap();
    let figure = Figure::new(&network);
    let blocks: Vec<_> = figure
        .blocks()
        .map(|b| (b.name.as_str(), b.count))
        .collect();
    let group = [("block1", 1), ("block2 – block26", 25), ("block27", 1)];
    assert_eq!(blocks, group.repeat(3));
    let survival: Vec<_> = figure
        .blocks()
        .filter_map(|b| b.survival.as_deref())
        .collect();
    assert_eq!(survival[..3], ["p 0.99", "p 0.99 – 0.84", "p 0.83"]);
    let image = network.to_svg();
    let image = Document::parse(&image).unwrap();
    assert!(number(image.root_element(), "height") < 1600);
}

#[test]
fn a_block_that_differs_from_its_neighbours_is_not_folded() {
    // The reference leaves out one rectifier in the last group.
    let network = Network::new(&preset("keras-ror-3-110")).unwrap();
    let figure = Figure::new(&network);
    let blocks: Vec<_> = figure.blocks().map(|b| (b.name.as_str(), b.relu)).collect();
    assert_eq!(
        blocks[6..],
        [
            ("block1", true),
            ("block2", false),
            ("block3 – block16", true),
            ("block17", true)
        ]
    );
}

#[test]
fn a_network_without_a_root_shortcut_has_no_root_box() {
    let network = Network::new(&preset("ror-1-20")).unwrap();
    let figure = Figure::new(&network);
    assert!(figure.arcs().iter().all(|(n, _)| *n == Nesting::Block));
    assert!(!network.to_svg().contains(">root<"));
    assert!(!network.to_dot().contains("cluster_root\""));
}

/// The ends of a DOT edge, if the statement is one.
fn edge(line: &str) -> Option<(&str, &str)> {
    let (from, rest) = line.trim().split_once(" -> ")?;
    let to = rest.split(" [").next()?;
    Some((from.trim_matches('"'), to.trim_matches('"')))
}

#[test]
fn a_graph_declares_its_nodes_closes_its_clusters_and_has_every_arc() {
    for network in networks() {
        let graph = network.to_dot();
        let mut depth = 0;
        let mut declared = BTreeSet::new();
        let mut arcs: BTreeMap<&str, usize> = BTreeMap::new();
        let mut joined = BTreeSet::new();
        for line in graph.lines() {
            assert_eq!(line.matches('"').count() % 2, 0, "{line}");
            depth += line.ends_with('{') as i32 - (line.trim() == "}") as i32;
            assert!(depth >= 0);
            if let Some((from, to)) = edge(line) {
                assert!(declared.contains(from) && declared.contains(to), "{line}");
                joined.extend([from, to]);
                if let Some((_, style)) = line.split_once("class=\"shortcut ") {
                    *arcs.entry(style.split('"').next().unwrap()).or_default() += 1;
                }
            } else if let Some(id) = line.trim().strip_prefix('"') {
                let new = declared.insert(id.split('"').next().unwrap());
                assert!(new, "{line}");
            }
        }
        assert_eq!(depth, 0);
        assert_eq!(declared, joined);
        let mut drawn: BTreeMap<&str, usize> = BTreeMap::new();
        for (nesting, _) in Figure::new(&network).arcs() {
            *drawn.entry(nesting.plural()).or_default() += 1;
        }
        assert_eq!(arcs, drawn, "{}", network.description);
    }
}
