//! A Keras file's weighted layers, told apart by what their weights look like.

use std::collections::VecDeque;

use super::{KerasFile, KerasLayer, LayerOrder};
use crate::array::Array;
use crate::error::{ErrorKind, Result};
use crate::infer::unknown;
use crate::load::Kernels;

/// What a layer with weights is.
///
/// Layers of one kind come in the order of computation, whichever order Keras chose among layers of
/// equal depth: each kind forms a chain of its own. Convolutions of one pixel, which are the
/// shortcuts, stand apart from the others for that reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A convolution over neighbours, 3x3 in all known files.
    Spatial,
    /// A 1x1 convolution.
    Pointwise,
    /// Batch normalisation.
    Norm,
    Dense,
}

/// A layer with weights, in our axis order: kernels O,I,H,W, the classifier O,I.
#[derive(Debug)]
pub(super) struct WeightedLayer {
    pub(super) name: String,
    /// Whether it is the layer's own, by which a model's configuration knows it.
    pub(super) named: bool,
    pub(super) kind: Kind,
    pub(super) arrays: Vec<Array>,
}

/// The axis order of a file's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axes {
    /// Keras 1 with `dim_ordering="th"`.
    Oihw,
    /// Everything else.
    Hwio,
}

impl Axes {
    /// The axis order that makes `shape` a square window of at most 7 pixels.
    fn of(shape: &[usize]) -> Option<Self> {
        let window = |h: usize, w: usize| h == w && (1..=7).contains(&h);
        let &[a, b, c, d] = shape else {
            return None;
        };
        match (window(a, b), window(c, d)) {
            (true, false) => Some(Self::Hwio),
            (false, true) => Some(Self::Oihw),
            _ => None,
        }
    }
}

/// All that a file's layers tell.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) weighted: Vec<WeightedLayer>,
    pub(super) order: LayerOrder,
    /// Layers without weights that are activations, by their names.
    pub(super) activations: usize,
    pub(super) dropouts: usize,
}

impl Layers {
    /// The axis order of the file's kernels; the first that is unlike the others is an error.
    pub(super) fn axes(file: &KerasFile) -> Result<Axes> {
        let mut found = None;
        for kernel in file
            .layers
            .iter()
            .filter_map(|l| l.weights.first())
            .filter(|w| w.shape.len() == 4)
        {
            let axes = Axes::of(&kernel.shape);
            if axes.is_none() || found.is_some_and(|f| Some(f) != axes) {
                return Err(ErrorKind::Tensor {
                    tensor: kernel.name.clone(),
                    expected: match found {
                        Some(Axes::Oihw) => {
                            "a square kernel O,I,H,W like the ones before".to_owned()
                        }
                        Some(Axes::Hwio) => {
                            "a square kernel H,W,I,O like the ones before".to_owned()
                        }
                        None => "a square kernel, O,I,H,W or H,W,I,O".to_owned(),
                    },
                    found: format!("{:?}", kernel.shape),
                });
            }
            found = axes;
        }
        found.ok_or_else(|| unknown("it has no convolutions"))
    }

    /// Tells the layers apart and brings their weights into our form.
    pub(super) fn of(
        layers: Vec<KerasLayer>,
        order: LayerOrder,
        axes: Axes,
        kernels: Kernels,
    ) -> Result<Self> {
        let mut result = Self {
            weighted: Vec::new(),
            order,
            activations: 0,
            dropouts: 0,
        };
        for layer in layers {
            if layer.weights.is_empty() {
                result.activations += usize::from(layer.name.starts_with("activation"));
                result.dropouts += usize::from(layer.name.starts_with("dropout"));
            } else {
                result
                    .weighted
                    .push(WeightedLayer::of(layer, axes, kernels)?);
            }
        }
        Ok(result)
    }

    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &WeightedLayer> {
        self.weighted.iter().filter(move |l| l.kind == kind)
    }

    /// The layers of each kind, to be taken one by one.
    pub(super) fn into_queues(self) -> Queues {
        let mut queues = Queues(Default::default());
        for layer in self.weighted {
            queues.0[layer.kind as usize].push_back(layer);
        }
        queues
    }
}

/// Layers by kind, in the order of computation.
pub(super) struct Queues([VecDeque<WeightedLayer>; 4]);

impl Queues {
    pub(super) fn next(&mut self, kind: Kind) -> Option<WeightedLayer> {
        self.0[kind as usize].pop_front()
    }

    /// A layer that nobody took.
    pub(super) fn left(self) -> Option<WeightedLayer> {
        self.0.into_iter().flatten().next()
    }
}

impl WeightedLayer {
    fn of(layer: KerasLayer, axes: Axes, kernels: Kernels) -> Result<Self> {
        let ranks: Vec<usize> = layer.weights.iter().map(|w| w.shape.len()).collect();
        let mut arrays = layer.weights;
        let kind = match ranks.as_slice() {
            [4] | [4, 1] => {
                kernel_to_ours(&mut arrays[0], axes, kernels);
                match arrays[0].shape[2..] {
                    [1, 1] => Kind::Pointwise,
                    _ => Kind::Spatial,
                }
            }
            [1, 1, 1, 1] => Kind::Norm,
            [2] | [2, 1] => {
                transpose(&mut arrays[0]);
                Kind::Dense
            }
            _ => {
                let shapes: Vec<_> = arrays.iter().map(|w| &w.shape).collect();
                return Err(ErrorKind::Architecture(format!(
                    "layer `{}` has weights of the shapes {shapes:?}, which no layer of a RoR \
                     network has",
                    layer.name
                )));
            }
        };
        Ok(Self {
            name: layer.name,
            named: layer.named,
            kind,
            arrays,
        })
    }
}

/// Brings a kernel of rank 4 into the form O,I,H,W of cross-correlation.
fn kernel_to_ours(kernel: &mut Array, axes: Axes, kernels: Kernels) {
    let [a, b, c, d] = kernel.shape[..] else {
        return;
    };
    if axes == Axes::Hwio {
        let (pixels, inputs, outputs) = (a * b, c, d);
        let source = std::mem::take(&mut kernel.data);
        kernel.data = (0..outputs * inputs * pixels)
            .map(|i| {
                let (pixel, input, output) = (i % pixels, i / pixels % inputs, i / pixels / inputs);
                source[(pixel * inputs + input) * outputs + output]
            })
            .collect();
        kernel.shape = vec![outputs, inputs, a, b];
    }
    let pixels = kernel.shape[2] * kernel.shape[3];
    if kernels == Kernels::Theano && pixels > 1 {
        for window in kernel.data.chunks_exact_mut(pixels) {
            window.reverse();
        }
    }
}

fn transpose(matrix: &mut Array) {
    let [rows, columns] = matrix.shape[..] else {
        return;
    };
    let source = std::mem::take(&mut matrix.data);
    matrix.data = (0..rows * columns)
        .map(|i| source[i % rows * columns + i / rows])
        .collect();
    matrix.shape.reverse();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(shape: &[usize]) -> Array {
        let len: usize = shape.iter().product();
        Array::new(
            "w".into(),
            shape.to_vec(),
            (0..len).map(|i| i as f32).collect(),
        )
        .unwrap()
    }

    #[test]
    fn a_channels_last_kernel_is_transposed() {
        let mut kernel = ramp(&[3, 3, 2, 5]);
        let source = kernel.data.clone();
        kernel_to_ours(&mut kernel, Axes::Hwio, Kernels::TensorFlow);
        assert_eq!(kernel.shape, [5, 2, 3, 3]);
        let at = |o, i, h, w| kernel.data[((o * 2 + i) * 3 + h) * 3 + w];
        for (o, i, h, w) in [(0, 0, 0, 0), (4, 1, 2, 0), (3, 0, 1, 2)] {
            assert_eq!(at(o, i, h, w), source[((h * 3 + w) * 2 + i) * 5 + o]);
        }
    }

    #[test]
    fn a_theano_kernel_is_rotated() {
        let mut kernel = ramp(&[1, 2, 3, 3]);
        kernel_to_ours(&mut kernel, Axes::Oihw, Kernels::Theano);
        assert_eq!(kernel.data[..9], [8., 7., 6., 5., 4., 3., 2., 1., 0.]);
        assert_eq!(kernel.data[9], 17.);
    }

    #[test]
    fn a_matrix_is_transposed() {
        let mut matrix = ramp(&[2, 3]);
        transpose(&mut matrix);
        assert_eq!(
            (matrix.shape, matrix.data),
            (vec![3, 2], vec![0., 3., 1., 4., 2., 5.])
        );
    }

    #[test]
    fn axes_are_told_by_the_window() {
        assert_eq!(Axes::of(&[16, 3, 3, 3]), Some(Axes::Oihw));
        assert_eq!(Axes::of(&[3, 3, 3, 16]), Some(Axes::Hwio));
        assert_eq!(Axes::of(&[1, 1, 16, 16]), Some(Axes::Hwio));
        assert_eq!(Axes::of(&[16, 16, 16, 16]), None);
    }
}
