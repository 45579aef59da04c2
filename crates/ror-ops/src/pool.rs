//! Pooling.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, DType, Layout, Result, Shape, Tensor};

/// The mean over rows and columns: `(N, C, H, W)` to `(N, C)`, of 16-bit values in float32.
///
/// # Errors
/// An input that is not four-dimensional.
pub fn global_average_pool(x: &Tensor) -> Result<Tensor> {
    x.dims4()?;
    let x = x.flatten_from(2)?;
    match x.dtype() {
        DType::F16 | DType::BF16 => x.to_dtype(DType::F32)?.mean(D::Minus1),
        _ => x.mean(D::Minus1),
    }
}

/// The largest value of each window; positions outside the image never win.
///
/// The gradient goes to the first largest value of each window, row by row, as in PyTorch and
/// TensorFlow. (candle's CPU gradient gives a unique maximum a share only.) On a CUDA device cuDNN chooses among equal
/// values, and without cuDNN they share it.
///
/// # Shapes
/// `(N, C, H, W)` to `(N, C, H', W')`, `H' = (H + 2 padding - kernel) / stride + 1`, rounded down.
///
/// # Errors
/// A window larger than the padded image, `padding` of more than half a window, a stride of zero.
pub fn max_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let window = Window::new(h, w, kernel, stride, padding)?;
    #[cfg(feature = "cudnn")]
    if crate::cudnn::takes(x) {
        return crate::cudnn::max_pool2d(x, window);
    }
    if x.device().is_cpu() {
        x.contiguous()?.apply_op1(MaxPool(window))
    } else {
        composed(x, &window)
    }
}

/// Rows and columns before and after a pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) input: (usize, usize),
    pub(crate) output: (usize, usize),
}

impl Window {
    fn new(h: usize, w: usize, kernel: usize, stride: usize, padding: usize) -> Result<Self> {
        let (windowless, pixelless) = (stride == 0 || kernel == 0, h == 0 || w == 0);
        let sound = !windowless && !pixelless && padding <= kernel / 2;
        if !sound || h.min(w) + 2 * padding < kernel {
            candle_core::bail!(
                "max_pool2d: kernel {kernel}, stride {stride}, padding {padding} on {h} x {w} pixels"
            )
        }
        let out = |size: usize| (size + 2 * padding - kernel) / stride + 1;
        Ok(Self {
            kernel,
            stride,
            padding,
            input: (h, w),
            output: (out(h), out(w)),
        })
    }

    /// Calls `f(output index, input index of the first maximum)` for every window of one plane.
    fn for_each_maximum<T: PartialOrd + Copy>(&self, plane: &[T], mut f: impl FnMut(usize, usize)) {
        let (h, w) = self.input;
        for oy in 0..self.output.0 {
            let y0 = (oy * self.stride).saturating_sub(self.padding);
            let y1 = (oy * self.stride + self.kernel - self.padding).min(h);
            for ox in 0..self.output.1 {
                let x0 = (ox * self.stride).saturating_sub(self.padding);
                let x1 = (ox * self.stride + self.kernel - self.padding).min(w);
                let mut best = y0 * w + x0;
                for y in y0..y1 {
                    for i in y * w + x0..y * w + x1 {
                        // A NaN wins and stays: `a != a` is true for it alone.
                        let (a, b) = (plane[i], plane[best]);
                        #[allow(clippy::eq_op)]
                        if a > b || (a != a && b == b) {
                            best = i;
                        }
                    }
                }
                f(oy * self.output.1 + ox, best);
            }
        }
    }

    fn forward<T: PartialOrd + Copy + Default>(&self, x: &[T], planes: usize) -> Vec<T> {
        let (n_in, n_out) = (self.input.0 * self.input.1, self.output.0 * self.output.1);
        let mut y = vec![T::default(); planes * n_out];
        for (x, y) in x.chunks_exact(n_in).zip(y.chunks_exact_mut(n_out)) {
            self.for_each_maximum(x, |o, i| y[o] = x[i]);
        }
        y
    }

    fn backward<T>(&self, x: &[T], grad: &[T]) -> Vec<T>
    where
        T: PartialOrd + Copy + Default + std::ops::AddAssign,
    {
        let (n_in, n_out) = (self.input.0 * self.input.1, self.output.0 * self.output.1);
        let mut dx = vec![T::default(); x.len()];
        for ((x, dy), dx) in x
            .chunks_exact(n_in)
            .zip(grad.chunks_exact(n_out))
            .zip(dx.chunks_exact_mut(n_in))
        {
            self.for_each_maximum(x, |o, i| dx[i] += dy[o]);
        }
        dx
    }
}

fn range(layout: &Layout) -> Result<std::ops::Range<usize>> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(from..to),
        None => candle_core::bail!("max_pool2d: the input is not contiguous"),
    }
}

struct MaxPool(Window);

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "ror-max-pool2d"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, c, _, _) = layout.shape().dims4()?;
        let r = range(layout)?;
        let y = match storage {
            CpuStorage::F32(x) => CpuStorage::F32(self.0.forward(&x[r], n * c)),
            CpuStorage::F64(x) => CpuStorage::F64(self.0.forward(&x[r], n * c)),
            CpuStorage::F16(x) => CpuStorage::F16(self.0.forward(&x[r], n * c)),
            CpuStorage::BF16(x) => CpuStorage::BF16(self.0.forward(&x[r], n * c)),
            _ => candle_core::bail!("max_pool2d: expected floating-point numbers"),
        };
        Ok((y, Shape::from((n, c, self.0.output.0, self.0.output.1))))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let dx = arg.apply_op2_no_bwd(&grad.contiguous()?, &MaxPoolGrad(self.0))?;
        Ok(Some(dx))
    }
}

struct MaxPoolGrad(Window);

impl CustomOp2 for MaxPoolGrad {
    fn name(&self) -> &'static str {
        "ror-max-pool2d-grad"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rx, rg) = (range(x_layout)?, range(grad_layout)?);
        let dx = match (x, grad) {
            (CpuStorage::F32(x), CpuStorage::F32(g)) => {
                CpuStorage::F32(self.0.backward(&x[rx], &g[rg]))
            }
            (CpuStorage::F64(x), CpuStorage::F64(g)) => {
                CpuStorage::F64(self.0.backward(&x[rx], &g[rg]))
            }
            (CpuStorage::F16(x), CpuStorage::F16(g)) => {
                CpuStorage::F16(self.0.backward(&x[rx], &g[rg]))
            }
            (CpuStorage::BF16(x), CpuStorage::BF16(g)) => {
                CpuStorage::BF16(self.0.backward(&x[rx], &g[rg]))
            }
            _ => candle_core::bail!("max_pool2d: expected floating-point numbers of one type"),
        };
        Ok((dx, x_layout.shape().clone()))
    }
}

/// The same pool out of candle's operations, for devices without the custom one: the maximum over
/// the shifted and strided copies of the image, one per position in the window.
fn composed(x: &Tensor, window: &Window) -> Result<Tensor> {
    let Window {
        kernel,
        stride,
        padding,
        output,
        ..
    } = *window;
    let x = pad_with_lowest(&pad_with_lowest(x, 2, padding)?, 3, padding)?;
    let positions = |offset: usize, count: usize| -> Result<Tensor> {
        let at: Vec<u32> = (0..count).map(|i| (offset + i * stride) as u32).collect();
        Tensor::new(at, x.device())
    };
    let mut y: Option<Tensor> = None;
    for dy in 0..kernel {
        let rows = x.index_select(&positions(dy, output.0)?, 2)?;
        for dx in 0..kernel {
            let shifted = rows.index_select(&positions(dx, output.1)?, 3)?;
            y = Some(match y {
                Some(y) => y.maximum(&shifted)?,
                None => shifted,
            });
        }
    }
    match y {
        Some(y) => Ok(y),
        None => candle_core::bail!("max_pool2d: empty window"),
    }
}

fn pad_with_lowest(x: &Tensor, dim: usize, padding: usize) -> Result<Tensor> {
    if padding == 0 {
        return Ok(x.clone());
    }
    let mut dims = x.dims().to_vec();
    dims[dim] = padding;
    let edge = Tensor::full(f32::NEG_INFINITY, dims, x.device())?.to_dtype(x.dtype())?;
    Tensor::cat(&[&edge, x, &edge], dim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    /// Distinct values in a scrambled order.
    fn distinct(n: usize) -> Vec<f64> {
        (0..n)
            .map(|i| ((i * 7919) % 1009) as f64 / 100.0 - 5.0)
            .collect()
    }

    #[test]
    fn custom_and_composed_pools_agree_in_value_and_gradient() -> Result<()> {
        for (h, w, k, s, p) in [
            (4, 6, 2, 2, 0),
            (5, 7, 3, 2, 1),
            (6, 5, 2, 1, 1),
            (7, 7, 3, 3, 0),
        ] {
            let x = Var::from_vec(distinct(2 * 3 * h * w), (2, 3, h, w), &Device::Cpu)?;
            let window = Window::new(h, w, k, s, p)?;
            let (a, b) = (max_pool2d(&x, k, s, p)?, composed(&x, &window)?);
            assert_eq!(
                a.flatten_all()?.to_vec1::<f64>()?,
                b.flatten_all()?.to_vec1::<f64>()?
            );
            let weights = Tensor::from_vec(distinct(a.elem_count()), a.shape(), &Device::Cpu)?;
            let ga = a.mul(&weights)?.sum_all()?.backward()?;
            let gb = b.mul(&weights)?.sum_all()?.backward()?;
            let (ga, gb) = (ga.get(&x).unwrap(), gb.get(&x).unwrap());
            let off = ga.sub(gb)?.abs()?.max_all()?.to_scalar::<f64>()?;
            assert!(off < 1e-12, "{off}");
        }
        Ok(())
    }

    #[test]
    fn gradient_equals_finite_differences() -> Result<()> {
        let values = distinct(5 * 5);
        let at = |v: Vec<f64>| -> Result<f64> {
            let x = Tensor::from_vec(v, (1, 1, 5, 5), &Device::Cpu)?;
            max_pool2d(&x, 3, 2, 1)?
                .sqr()?
                .sum_all()?
                .to_scalar::<f64>()
        };
        let x = Var::from_vec(values.clone(), (1, 1, 5, 5), &Device::Cpu)?;
        let grads = max_pool2d(&x, 3, 2, 1)?.sqr()?.sum_all()?.backward()?;
        let grad = grads.get(&x).unwrap().flatten_all()?.to_vec1::<f64>()?;
        for i in 0..values.len() {
            let (mut up, mut down) = (values.clone(), values.clone());
            up[i] += 1e-5;
            down[i] -= 1e-5;
            let difference = (at(up)? - at(down)?) / 2e-5;
            assert!(
                (difference - grad[i]).abs() < 1e-6,
                "{i}: {difference} {}",
                grad[i]
            );
        }
        Ok(())
    }

    #[test]
    fn first_of_equal_maxima_gets_the_whole_gradient() -> Result<()> {
        let x = Var::ones((1, 1, 2, 2), candle_core::DType::F32, &Device::Cpu)?;
        let grads = max_pool2d(&x, 2, 2, 0)?.sum_all()?.backward()?;
        let g = grads.get(&x).unwrap().flatten_all()?.to_vec1::<f32>()?;
        assert_eq!(g, [1.0, 0.0, 0.0, 0.0]);
        Ok(())
    }

    #[test]
    fn nan_wins_its_window() -> Result<()> {
        let x = Tensor::new(&[[[[1f32, f32::NAN], [3.0, 2.0]]]], &Device::Cpu)?;
        assert!(max_pool2d(&x, 2, 2, 0)?.flatten_all()?.to_vec1::<f32>()?[0].is_nan());
        Ok(())
    }

    #[test]
    fn a_window_larger_than_the_image_is_an_error() {
        let x = Tensor::zeros((1, 1, 1, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(max_pool2d(&x, 2, 2, 0).is_err());
    }
}
