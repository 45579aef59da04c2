//! What pictures show, whoever draws them: the tree with long runs of like blocks folded.

use super::label;
use crate::network::{Level, Member};
use crate::{Network, Visit};
use ror_blocks::{Block, Shape3, Shortcut};
use std::collections::BTreeMap;

/// The shortest run of like blocks that is drawn once instead of block by block.
const FOLD: usize = 3;

/// Which level of nesting a shortcut belongs to, outermost first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nesting {
    Root,
    Group,
    Half,
    Quarter,
    Block,
}

impl Nesting {
    pub(super) const ALL: [Self; 5] = [
        Self::Root,
        Self::Group,
        Self::Half,
        Self::Quarter,
        Self::Block,
    ];

    fn of_depth(depth: usize) -> Self {
        Self::ALL[depth.min(Self::Quarter as usize)]
    }

    /// What legends call the shortcuts of this level.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Group => "groups",
            Self::Half => "halves",
            Self::Quarter => "quarters",
            Self::Block => "blocks",
        }
    }
}

/// A network as a picture shows it.
pub(super) struct Figure {
    pub(super) name: String,
    /// Counts and sizes in one line.
    pub(super) subtitle: String,
    pub(super) input: String,
    pub(super) stem: Vec<String>,
    /// The shape that enters the root level.
    pub(super) stem_output: Option<String>,
    pub(super) root: Part,
    pub(super) head: Vec<String>,
    pub(super) output: String,
    /// The order of layers in blocks.
    pub(super) block_order: Option<String>,
}

/// A residual level above the block.
pub(super) struct Part {
    pub(super) path: String,
    pub(super) name: String,
    pub(super) nesting: Nesting,
    pub(super) steps: Vec<Step>,
    pub(super) arc: Option<Arc>,
    pub(super) relu: bool,
    pub(super) output: Option<String>,
}

/// A member of a level's chain.
pub(super) enum Step {
    Part(Part),
    Blocks(Blocks),
    Layer { path: String, text: String },
}

/// A block, or a run of like ones.
pub(super) struct Blocks {
    pub(super) path: String,
    pub(super) name: String,
    pub(super) count: usize,
    pub(super) convolutions: String,
    pub(super) survival: Option<String>,
    pub(super) arc: Option<Arc>,
    pub(super) relu: bool,
}

/// A shortcut.
pub(super) struct Arc {
    pub(super) kind: ArcKind,
    /// What happens on the way; empty for the identity.
    pub(super) label: String,
    /// How many shortcuts it stands for.
    pub(super) count: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ArcKind {
    Projection,
    Identity,
    Padded,
}

impl ArcKind {
    pub(super) const ALL: [Self; 3] = [Self::Projection, Self::Identity, Self::Padded];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Projection => "1×1 projection",
            Self::Identity => "identity",
            Self::Padded => "zero-padded identity",
        }
    }
}

impl Arc {
    fn new(shortcut: &Shortcut, count: usize) -> Option<Self> {
        let (kind, label) = match *shortcut {
            Shortcut::None => return None,
            Shortcut::Identity => (ArcKind::Identity, String::new()),
            Shortcut::Pad { stride, .. } => {
                let stride = label::strided(", ", stride);
                (ArcKind::Padded, format!("zero-pad{stride}"))
            }
            Shortcut::Projection(p) => {
                let norm = if p.norm { " – BN" } else { "" };
                let stride = label::strided(", ", p.stride);
                (ArcKind::Projection, format!("1×1{stride}{norm}"))
            }
        };
        Some(Self { kind, label, count })
    }
}

impl Figure {
    pub(super) fn new(network: &Network) -> Self {
        let mut outputs = Outputs::default();
        let walked = network.walk(&mut outputs);
        debug_assert!(walked.is_ok());
        let Outputs(outputs) = outputs;
        let head = &network.head;
        let [height, width] = network.description.image_size;
        let pooled = label::chain(&head.layers).into_iter();
        let pooled: Vec<_> = pooled.chain(["average pool".to_owned()]).collect();
        let mut tail = vec![pooled.join(" – ")];
        tail.extend(head.classes.map(|classes| format!("dense, {classes}")));
        Self {
            name: network.description.to_string(),
            subtitle: format!(
                "{} parameters, {} multiply-adds for {height} × {width} images",
                label::count(network.parameters()),
                label::count(network.multiply_adds()),
            ),
            input: format!("image, {}", label::shape(network.input_shape())),
            stem: label::chain(&network.stem),
            stem_output: outputs.get("stem").map(|&shape| label::shape(shape)),
            root: Part::new(&network.root, network.root.name.clone(), 0, &outputs),
            head: tail,
            output: match head.classes {
                Some(classes) => format!("{classes} logits"),
                None => format!("{} features", head.features),
            },
            block_order: network.blocks().first().map(|(_, b)| label::order(b)),
        }
    }

    /// Every level, each before those within it.
    pub(super) fn parts(&self) -> Vec<&Part> {
        fn collect<'a>(part: &'a Part, into: &mut Vec<&'a Part>) {
            into.push(part);
            for step in &part.steps {
                if let Step::Part(inner) = step {
                    collect(inner, into);
                }
            }
        }
        let mut parts = Vec::new();
        collect(&self.root, &mut parts);
        parts
    }

    /// Every block or run of blocks.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &Blocks> {
        let steps = self.parts().into_iter().flat_map(|part| &part.steps);
        steps.filter_map(|step| match step {
            Step::Blocks(blocks) => Some(blocks),
            _ => None,
        })
    }

    /// Every shortcut drawn, with the level it belongs to.
    pub(super) fn arcs(&self) -> Vec<(Nesting, &Arc)> {
        let parts = self.parts().into_iter();
        let levels = parts.filter_map(|part| Some((part.nesting, part.arc.as_ref()?)));
        let blocks = self.blocks();
        let blocks = blocks.filter_map(|blocks| Some((Nesting::Block, blocks.arc.as_ref()?)));
        levels.chain(blocks).collect()
    }
}

/// The shape that leaves each level and the stem, by path.
#[derive(Default)]
struct Outputs(BTreeMap<String, Shape3>);

impl Visit for Outputs {
    fn leave_level(&mut self, path: &str, _level: &Level, output: Shape3) {
        self.0.insert(path.to_owned(), output);
    }

    fn leave_part(&mut self, name: &str, output: Shape3) {
        self.0.insert(name.to_owned(), output);
    }
}

impl Part {
    /// Whether it is drawn as a box: a root that nothing spans is the trunk and no more.
    pub(super) fn boxed(&self) -> bool {
        self.arc.is_some() || self.nesting != Nesting::Root
    }

    fn new(level: &Level, path: String, depth: usize, outputs: &BTreeMap<String, Shape3>) -> Self {
        let nesting = Nesting::of_depth(depth);
        let mut steps = Vec::new();
        let both_blocks =
            |a: &Member, b: &Member| matches!((a, b), (Member::Block(_), Member::Block(_)));
        for run in level.body.chunk_by(both_blocks) {
            match run {
                [Member::Level(inner)] => {
                    let path = format!("{path}.{}", inner.name);
                    steps.push(Step::Part(Self::new(inner, path, depth + 1, outputs)));
                }
                [Member::Layer(named)] => steps.push(Step::Layer {
                    path: format!("{path}.{}", named.name),
                    text: label::chain(std::slice::from_ref(named)).concat(),
                }),
                members => {
                    let blocks = members.iter().filter_map(|member| match member {
                        Member::Block(block) => Some(block),
                        _ => None,
                    });
                    let blocks: Vec<&Block> = blocks.collect();
                    let folded = fold(&blocks, nesting <= Nesting::Group).into_iter();
                    steps.extend(folded.map(|run| Step::Blocks(Blocks::new(run, &path))));
                }
            }
        }
        Self {
            name: level.name.clone(),
            nesting,
            steps,
            arc: Arc::new(&level.shortcut, 1),
            relu: level.activation,
            output: outputs.get(&path).map(|&shape| label::shape(shape)),
            path,
        }
    }
}

/// Splits a level's blocks into what is drawn as one; `open` keeps the first and the last alone.
fn fold<'a, 'b>(blocks: &'a [&'b Block], open: bool) -> Vec<&'a [&'b Block]> {
    let ends = usize::from(open).min(blocks.len() / 2);
    let (first, rest) = blocks.split_at(ends);
    let (middle, last) = rest.split_at(rest.len() - ends);
    let like = |a: &&Block, b: &&Block| bare(a) == bare(b);
    let folded = middle.chunk_by(like).flat_map(|run| {
        let size = if run.len() < FOLD { 1 } else { run.len() };
        run.chunks(size)
    });
    first
        .chunks(1)
        .chain(folded)
        .chain(last.chunks(1))
        .collect()
}

/// A block without what may differ within a run.
fn bare(block: &Block) -> Block {
    Block {
        name: String::new(),
        survival: 1.0,
        ..block.clone()
    }
}

impl Blocks {
    /// `run` is not empty.
    fn new(run: &[&Block], level: &str) -> Self {
        let (first, last) = (run[0], run[run.len() - 1]);
        let (from, to) = (
            format!("{:.2}", first.survival),
            format!("{:.2}", last.survival),
        );
        let range = |from: &str, to: &str| {
            if from == to {
                from.to_owned()
            } else {
                format!("{from} – {to}")
            }
        };
        let dropped = first.survival < 1.0 || last.survival < 1.0;
        Self {
            path: format!("{level}.{}", first.name),
            name: range(&first.name, &last.name),
            count: run.len(),
            convolutions: label::convolutions(first),
            survival: dropped.then(|| format!("p {}", range(&from, &to))),
            arc: Arc::new(&first.shortcut, run.len()),
            relu: first.activation,
        }
    }
}
