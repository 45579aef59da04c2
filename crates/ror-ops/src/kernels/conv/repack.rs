//! Packing other weights into a convolution that exists, as every training step does.

use super::{Conv2d, Filters, Method, by_method};
use crate::kernels::blocked::LANES;
use crate::kernels::error::{Result, check_len};
use crate::kernels::threads::Pool;

impl Conv2d {
    /// Packs other weights `[out][in][kh][kw]` and another bias, without allocating. Values are not looked at: what
    /// is not finite goes into the result.
    ///
    /// # Errors
    /// Slices of another length.
    pub fn repack(&mut self, weight: &[f32], bias: Option<&[f32]>) -> Result<()> {
        self.fill(weight, false, None)?;
        match bias {
            Some(bias) => self.set_bias(bias),
            None => Ok(()),
        }
    }

    /// Another bias.
    ///
    /// # Errors
    /// A slice of another length.
    pub(crate) fn set_bias(&mut self, bias: &[f32]) -> Result<()> {
        check_len("bias", self.geometry.outputs, bias.len())?;
        for (block, values) in self.bias.iter_mut().zip(bias.chunks(LANES)) {
            block.0[..values.len()].copy_from_slice(values);
        }
        Ok(())
    }

    /// Packs other weights, as [`Conv2d::pack`] would.
    ///
    /// # Errors
    /// A slice of another length.
    pub(crate) fn repack_on(
        &mut self,
        pool: &Pool,
        weight: &[f32],
        transposed: bool,
    ) -> Result<()> {
        self.fill(weight, transposed, Some(pool))
    }

    /// Packs the weights `[in][out][kh][kw]` of a convolution with stride 1 and padding `p`, whose input gradient this
    /// one, with padding `kernel - 1 - p`, then computes.
    ///
    /// # Errors
    /// A slice of another length.
    pub(crate) fn repack_transposed(&mut self, weight: &[f32]) -> Result<()> {
        self.fill(weight, true, None)
    }

    fn fill(&mut self, data: &[f32], transposed: bool, pool: Option<&Pool>) -> Result<()> {
        let (inputs, outputs) = (self.geometry.inputs, self.geometry.outputs);
        let taps = self.geometry.kernel.0 * self.geometry.kernel.1;
        check_len("weight", inputs * outputs * taps, data.len())?;
        let filters = Filters {
            data,
            inputs,
            outputs,
            taps,
            transposed,
        };
        by_method!(
            &mut self.method,
            m => m.fill(filters, pool),
            m => m.fill(filters, pool)
        );
        Ok(())
    }
}
