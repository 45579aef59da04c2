//! The fully connected layer at the end: features in blocks to plain scores.

use super::blocked::{Block, LANES, as_flat, blocks, shape_error};
use super::error::{Result, check_at_least, check_finite, check_len, product};
use super::gemm::{Panels, Product, Walk};
use super::simd::Isa;

/// A packed fully connected layer.
#[derive(Clone)]
pub struct Dense {
    isa: Isa,
    inputs: usize,
    outputs: usize,
    panels: Panels,
    bias: Vec<f32>,
}

impl std::fmt::Debug for Dense {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dense")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

/// Rows of features that share one pass over the weights.
const ROWS: usize = 40;

impl Dense {
    /// Packs weights `[out][in]` and a bias per output.
    ///
    /// # Errors
    /// Sizes of zero; slices of another length; values that are not finite.
    pub fn new(
        isa: Isa,
        inputs: usize,
        outputs: usize,
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        if inputs == 0 || outputs == 0 {
            return Err(shape_error(
                "dense layer",
                format!("{inputs} inputs and {outputs} outputs"),
            ));
        }
        product(
            "dense weight",
            &[blocks(inputs) * LANES, blocks(outputs) * LANES],
        )?;
        check_len("dense weight", inputs * outputs, weight.len())?;
        check_finite("dense weight", weight)?;
        let bias = bias.map_or_else(|| vec![0.0; outputs], <[f32]>::to_vec);
        check_len("dense bias", outputs, bias.len())?;
        check_finite("dense bias", &bias)?;
        let mut panels = Panels::zeroed(isa, 1, blocks(inputs) * LANES, outputs);
        panels.fill(outputs, None, |k, o| {
            if k < inputs {
                weight[o * inputs + k]
            } else {
                0.0
            }
        });
        Ok(Self {
            isa,
            inputs,
            outputs,
            panels,
            bias,
        })
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Memory of the packed weights, in bytes.
    pub fn weight_bytes(&self) -> usize {
        self.panels.bytes()
    }

    /// Blocks of scratch for `n` rows.
    pub fn scratch_len(&self, n: usize) -> usize {
        n.min(ROWS) * (blocks(self.inputs) + self.isa.panel() / LANES)
    }

    /// Computes `n` rows: `x` has `blocks(inputs)` blocks per row, `out` `outputs` values.
    ///
    /// # Errors
    /// Slices of another length.
    pub fn run(&self, n: usize, x: &[Block], out: &mut [f32], scratch: &mut [Block]) -> Result<()> {
        let per_row = blocks(self.inputs);
        check_len(
            "dense input",
            product("dense input", &[n, per_row])?,
            x.len(),
        )?;
        check_len(
            "dense output",
            product("dense output", &[n, self.outputs])?,
            out.len(),
        )?;
        check_at_least("scratch", self.scratch_len(n), scratch.len())?;
        for (x, out) in x
            .chunks(ROWS * per_row)
            .zip(out.chunks_mut(ROWS * self.outputs))
        {
            let rows = x.len() / per_row;
            let (a, c) = scratch.split_at_mut(rows * per_row);
            for (i, block) in x.iter().enumerate() {
                a[i % per_row * rows + i / per_row] = *block;
            }
            for panel in 0..self.panels.count() {
                let (first, width) = self.panels.columns(panel);
                let c_stride = rows * LANES;
                let walk = Walk::<LANES> {
                    a: a.as_ptr().cast(),
                    stride: c_stride,
                    runs: per_row,
                    depth: LANES,
                };
                let (b, to) = (self.panels.panel(panel), c.as_mut_ptr().cast());
                // SAFETY: A has `rows` rows of `per_row` blocks, C room for as many rows of a panel.
                unsafe {
                    self.isa.dispatch(Product {
                        walk,
                        rows,
                        b,
                        next: b,
                        width,
                        c: to,
                        c_stride,
                    })
                };
                let columns = first * LANES..self.outputs.min(first * LANES + width);
                for (row, out) in out.chunks_exact_mut(self.outputs).enumerate() {
                    for o in columns.clone() {
                        let lane = o - first * LANES;
                        out[o] = as_flat(c)[(lane / LANES * rows + row) * LANES + lane % LANES]
                            + self.bias[o];
                    }
                }
            }
        }
        Ok(())
    }
}
