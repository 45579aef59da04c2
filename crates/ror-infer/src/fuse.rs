//! From single operations to steps, each one kernel with everything that its epilogue can take.
//!
//! A step starts at a convolution and follows its result as long as nothing else reads it: sums with shortcuts, their
//! ReLUs, a 2x2 max pool. At the end it may write two tensors: the result, and the batch-normalised ReLU of it that
//! the next pre-activation block starts with. A step stands in the order where its last operation stood, so that the
//! shortcuts it adds are there.

use crate::graph::{Filters, Graph, Node, Op, unsupported};
use crate::tensors::Affine;
use crate::{Error, Result};
use ror_models::blocks::Shape3;
use ror_ops::kernels::{MAX_TERMS, MaxPool};

/// A kernel and what is fused with it. Tensors are named by the node whose result they are.
#[derive(Debug)]
pub(crate) struct Step {
    /// Where in the network it comes from.
    pub path: String,
    pub kind: Kind,
    /// What it reads.
    pub input: usize,
    /// The shape of that.
    pub from: Shape3,
    /// The shape of its result before [`Self::pool`].
    pub to: Shape3,
    /// ReLU after the bias.
    pub relu: bool,
    /// Tensors to add, each perhaps with a ReLU.
    pub terms: Vec<(usize, bool)>,
    /// 2x2 max pool.
    pub pool: bool,
    /// The result, if anything reads it.
    pub raw: Option<usize>,
    /// Its pre-activation.
    pub preact: Option<(usize, Affine)>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// The convolution of the images themselves.
    Stem(Filters),
    Conv(Filters),
    /// The epilogue alone.
    Merge,
    MaxPool(MaxPool),
    Pad {
        stride: usize,
    },
}

impl Step {
    /// The shape of its results.
    pub(crate) fn written(&self) -> Shape3 {
        if self.pool {
            Shape3 {
                height: self.to.height / 2,
                width: self.to.width / 2,
                ..self.to
            }
        } else {
            self.to
        }
    }

    /// Tensors that it reads.
    pub(crate) fn reads(&self) -> impl Iterator<Item = usize> + '_ {
        std::iter::once(self.input).chain(self.terms.iter().map(|&(term, _)| term))
    }

    /// Tensors that it writes.
    pub(crate) fn writes(&self) -> impl Iterator<Item = usize> + '_ {
        self.raw.into_iter().chain(self.preact.iter().map(|p| p.0))
    }
}

/// Fuses the graph; `can_pool` says of a convolution of images of that shape whether its kernel can pool.
pub(crate) fn fuse(
    graph: &Graph,
    can_pool: impl Fn(&Filters, Shape3) -> bool,
) -> Result<Vec<Step>> {
    let mut fuse = Fuse {
        nodes: &graph.nodes,
        readers: vec![Vec::new(); graph.nodes.len()],
        taken: vec![false; graph.nodes.len()],
        can_pool,
    };
    for (i, node) in graph.nodes.iter().enumerate() {
        for &input in &node.inputs {
            fuse.readers[input].push(i);
        }
    }
    // Convolutions first: what they do not take is left to steps of its own.
    let mut steps = Vec::new();
    for convolutions in [true, false] {
        for (i, node) in graph.nodes.iter().enumerate() {
            if matches!(node.op, Op::Conv(_)) == convolutions && !fuse.taken[i] {
                steps.extend(fuse.step(i)?);
            }
        }
    }
    steps.sort_by_key(|&(order, _)| order);
    Ok(steps.into_iter().map(|(_, step)| step).collect())
}

struct Fuse<'a, P> {
    nodes: &'a [Node],
    readers: Vec<Vec<usize>>,
    /// Nodes that some step computes.
    taken: Vec<bool>,
    can_pool: P,
}

impl<P: Fn(&Filters, Shape3) -> bool> Fuse<'_, P> {
    /// The step that starts at node `start`, and its place in the order.
    fn step(&mut self, start: usize) -> Result<Option<(usize, Step)>> {
        let node = &self.nodes[start];
        if matches!(node.op, Op::Input) {
            return Ok(None);
        }
        self.taken[start] = true;
        let input = node.inputs[0];
        let from = self.nodes[input].shape;
        let of_images = matches!(self.nodes[input].op, Op::Input);
        let mut step = Step {
            path: node.path.clone(),
            kind: Kind::Merge,
            input,
            from,
            to: node.shape,
            relu: false,
            terms: Vec::new(),
            pool: false,
            raw: None,
            preact: None,
        };
        // Whether the kernel has an epilogue, and whether that can pool.
        let (mut epilogue, mut poolable) = (true, false);
        match &node.op {
            Op::Conv(filters) if of_images => step.kind = Kind::Stem(filters.clone()),
            _ if of_images => {
                return Err(unsupported(
                    &node.path,
                    "only a convolution can read images",
                ));
            }
            Op::Conv(filters) => {
                poolable = (self.can_pool)(filters, from);
                step.kind = Kind::Conv(filters.clone());
            }
            Op::MaxPool(pool) => {
                step.kind = Kind::MaxPool(*pool);
                epilogue = false;
            }
            &Op::Pad { stride } => {
                step.kind = Kind::Pad { stride };
                epilogue = false;
            }
            Op::Relu => step.relu = true,
            Op::Add => step.terms.push((node.inputs[1], false)),
            Op::Norm(affine) => {
                let Some(relu) = self.rectifier(start) else {
                    return Err(unsupported(&node.path, "a batch norm without a rectifier"));
                };
                self.taken[relu] = true;
                step.preact = Some((relu, affine.clone()));
                return Ok(Some((relu, step)));
            }
            Op::Input => {}
        }
        let end = if epilogue {
            self.follow(start, &mut step, poolable)
        } else {
            start
        };
        let read_otherwise = if epilogue {
            self.preactivation(end, &mut step)
        } else {
            true
        };
        if read_otherwise || step.preact.is_none() {
            step.raw = Some(end);
        }
        Ok(Some((end, step)))
    }

    /// Takes what follows node `at` into the step's epilogue; returns the last one taken.
    fn follow(&mut self, mut at: usize, step: &mut Step, poolable: bool) -> usize {
        while let [reader] = self.readers[at][..] {
            let node = &self.nodes[reader];
            match &node.op {
                Op::Relu => match step.terms.last_mut() {
                    Some(term) => term.1 = true,
                    None => step.relu = true,
                },
                Op::Add if node.inputs[0] == at && step.terms.len() < MAX_TERMS => {
                    step.terms.push((node.inputs[1], false));
                }
                Op::MaxPool(pool) if poolable && is_2x2(pool) => step.pool = true,
                _ => break,
            }
            self.taken[reader] = true;
            at = reader;
            if step.pool {
                break;
            }
        }
        at
    }

    /// Takes one batch-normalised ReLU of node `at` into the epilogue; returns whether anything else reads the node.
    fn preactivation(&mut self, at: usize, step: &mut Step) -> bool {
        let found = self.readers[at].iter().find_map(|&norm| {
            let Op::Norm(affine) = &self.nodes[norm].op else {
                return None;
            };
            Some((norm, self.rectifier(norm)?, affine.clone()))
        });
        let others = self.readers[at].len() - usize::from(found.is_some());
        if let Some((norm, relu, affine)) = found {
            self.taken[norm] = true;
            self.taken[relu] = true;
            step.preact = Some((relu, affine));
        }
        others > 0
    }

    /// The ReLU that alone reads a node.
    fn rectifier(&self, node: usize) -> Option<usize> {
        match self.readers[node][..] {
            [reader] if matches!(self.nodes[reader].op, Op::Relu) => Some(reader),
            _ => None,
        }
    }
}

fn is_2x2(pool: &MaxPool) -> bool {
    *pool
        == MaxPool {
            size: 2,
            stride: 2,
            padding: 0,
        }
}

/// The node that nothing reads: the network's last.
pub(crate) fn output(graph: &Graph) -> Result<usize> {
    match graph.nodes.len() {
        0 | 1 => Err(Error::Unsupported {
            path: "stem".to_owned(),
            why: "no layers".to_owned(),
        }),
        n => Ok(n - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use candle_nn::VarBuilder;
    use ror_models::{Description, Network};

    fn steps(name: &str) -> Vec<Step> {
        let network = Network::new(&Description::preset(name).unwrap()).unwrap();
        let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
        let graph = Graph::new(&network, &vb, network.description.image_size).unwrap();
        fuse(&graph, |f, _| {
            f.geometry.stride == 1 && f.geometry.kernel == (3, 3)
        })
        .unwrap()
    }

    #[test]
    fn a_pre_activation_network_is_its_convolutions_alone() {
        for name in [
            "keras-ror-3-wrn-16-2",
            "ror-3-wrn-16-2",
            "pre-ror-3-20",
            "ror-5-wrn-28-1",
        ] {
            for step in steps(name) {
                assert!(
                    matches!(step.kind, Kind::Stem(_) | Kind::Conv(_)),
                    "{name}: {step:?}"
                );
            }
        }
    }

    #[test]
    fn the_last_convolution_adds_the_shortcuts_of_all_levels() {
        for (name, terms) in [("ror-1-20", 1), ("ror-3-20", 3), ("ror-5-32", 5)] {
            let steps = steps(name);
            let last = &steps[steps.len() - 1];
            assert_eq!(last.terms.len(), terms, "{name}");
            assert!(
                last.terms[terms - 1].1,
                "{name}: rectified after the root's sum"
            );
        }
    }

    #[test]
    fn groups_end_with_a_fused_pool() {
        let pools = |name| steps(name).iter().filter(|s| s.pool).count();
        assert_eq!(pools("keras-ror-3-wrn-16-2"), 2);
        assert_eq!(pools("pytorchcv-ror-3-56"), 2);
        assert_eq!(pools("ror-3-20"), 0);
    }

    #[test]
    fn every_tensor_is_written_before_it_is_read() {
        for name in [
            "keras-ror-3-56",
            "pytorchcv-ror-3-56",
            "imagenet-ror-3-50",
            "ror-5-wrn-28-2",
        ] {
            let mut written = vec![0];
            for step in steps(name) {
                assert!(
                    step.reads().all(|t| written.contains(&t)),
                    "{name}: {step:?}"
                );
                written.extend(step.writes());
            }
        }
    }
}
