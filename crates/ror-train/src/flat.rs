//! Gradients, and everything else that there is one number of per trained weight, in one buffer.
//!
//! Tensors lie behind one another in the order of their names, so that sums over all of them, an
//! optimiser's pass and a reduction between machines have one order, whatever computed them.

use candle_core::{CpuStorage, InplaceOp1, Layout as TensorLayout, Storage, Var};
use ror_models::{Parameters, TensorRole};
use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

/// Where each trainable tensor lies in a flat buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlatLayout {
    entries: Vec<Entry>,
    len: usize,
}

/// One tensor of a [`FlatLayout`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The tensor's name.
    pub name: String,
    /// What it is for.
    pub role: TensorRole,
    /// Where its values lie, in the tensor's own (row-major) order.
    pub range: Range<usize>,
}

impl FlatLayout {
    /// The layout of the trainable tensors, sorted by name.
    pub fn new(parameters: &Parameters) -> Self {
        let mut len = 0;
        let entries = parameters
            .trainable()
            .map(|(name, role, var)| {
                let start = len;
                len += var.elem_count();
                Entry {
                    name: name.to_owned(),
                    role,
                    range: start..len,
                }
            })
            .collect();
        Self { entries, len }
    }

    /// The tensors in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many numbers there are in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing can be trained.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The place of the tensor called `name` in [`FlatLayout::entries`].
    pub fn index(&self, name: &str) -> Option<usize> {
        let at = self.entries.binary_search_by(|e| e.name.as_str().cmp(name));
        at.ok()
    }

    /// The range of the tensor called `name`.
    pub fn range(&self, name: &str) -> Option<Range<usize>> {
        self.index(name).map(|i| self.entries[i].range.clone())
    }
}

/// The gradient of the loss, for every trainable tensor.
#[derive(Debug, Clone)]
pub struct Gradients {
    layout: Arc<FlatLayout>,
    values: Vec<f32>,
}

impl Gradients {
    /// Zeros.
    pub fn new(layout: Arc<FlatLayout>) -> Self {
        let values = vec![0.0; layout.len()];
        Self { layout, values }
    }

    /// Where each tensor's gradient lies.
    pub fn layout(&self) -> &FlatLayout {
        &self.layout
    }

    /// The gradient of the tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&[f32]> {
        self.layout.range(name).map(|range| &self.values[range])
    }

    /// The gradient of the tensor called `name`, to be set.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut [f32]> {
        self.layout.range(name).map(|range| &mut self.values[range])
    }

    /// The gradient of the tensor at `index` in [`FlatLayout::entries`], to be set.
    pub(crate) fn at_mut(&mut self, index: usize) -> &mut [f32] {
        &mut self.values[self.layout.entries[index].range.clone()]
    }

    /// Names and gradients, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[f32])> {
        let entries = self.layout.entries.iter();
        entries.map(|e| (e.name.as_str(), &self.values[e.range.clone()]))
    }

    /// All of them, one behind the other.
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }

    /// All of them, to be set or reduced.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The Euclidean norm over all of them.
    pub fn norm(&self) -> f64 {
        // Sixteen sums side by side: fast, and always the same order.
        let mut sums = [0f64; 16];
        let (chunks, rest) = self.values.as_chunks::<16>();
        for chunk in chunks {
            for (sum, &v) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(v) * f64::from(v);
            }
        }
        for (sum, &v) in sums.iter_mut().zip(rest) {
            *sum += f64::from(v) * f64::from(v);
        }
        sums.iter().sum::<f64>().sqrt()
    }
}

/// Looks at the values of a float32 variable on the CPU, without a copy.
///
/// # Errors
/// A variable of another type, on another device, or not contiguous.
pub fn read<T>(var: &Var, f: impl FnOnce(&[f32]) -> T) -> candle_core::Result<T> {
    let (storage, layout) = var.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((from, to))) => Ok(f(&values[from..to])),
        _ => candle_core::bail!("expected a contiguous f32 variable on the CPU"),
    }
}

/// Changes the values of a float32 variable on the CPU in place.
///
/// # Errors
/// As [`read`].
pub fn update(var: &Var, f: impl FnOnce(&mut [f32])) -> candle_core::Result<()> {
    var.inplace_op1(&Update(RefCell::new(Some(f))))
}

struct Update<F>(RefCell<Option<F>>);

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Update<F> {
    fn name(&self) -> &'static str {
        "ror-update"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &TensorLayout) -> candle_core::Result<()> {
        match (storage, layout.contiguous_offsets(), self.0.take()) {
            (CpuStorage::F32(values), Some((from, to)), Some(f)) => {
                f(&mut values[from..to]);
                Ok(())
            }
            _ => candle_core::bail!("expected a contiguous f32 variable on the CPU"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use ror_models::{Description, Network};

    #[test]
    fn tensors_lie_in_the_order_of_their_names_without_gaps() {
        let network = Network::new(&Description::preset("ror-3-wrn-10-1").unwrap()).unwrap();
        let parameters = Parameters::init(&network, 1, DType::F32, &Device::Cpu).unwrap();
        let layout = FlatLayout::new(&parameters);
        assert_eq!(layout.len() as u64, network.parameters());
        let mut end = 0;
        for pair in layout.entries().windows(2) {
            assert!(pair[0].name < pair[1].name);
        }
        for entry in layout.entries() {
            assert_eq!(entry.range.start, end);
            assert_eq!(layout.range(&entry.name), Some(entry.range.clone()));
            end = entry.range.end;
        }
        assert_eq!(layout.range("stem.conv.running_mean"), None);
    }

    #[test]
    fn the_norm_is_over_all_values() {
        let layout = FlatLayout {
            entries: Vec::new(),
            len: 35,
        };
        let mut gradients = Gradients::new(Arc::new(layout));
        gradients.as_mut_slice().fill(-2.0);
        assert!((gradients.norm() - (35f64 * 4.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn a_variable_is_changed_in_place() -> candle_core::Result<()> {
        let var = Var::new(&[1f32, 2.0], &Device::Cpu)?;
        update(&var, |v| v[1] = 5.0)?;
        assert_eq!(read(&var, <[f32]>::to_vec)?, [1.0, 5.0]);
        assert!(read(&Var::new(&[1f64], &Device::Cpu)?, |_| ()).is_err());
        Ok(())
    }
}
