//! Parameters by name, and their initialisation.

use crate::tensors::{TensorRole, TensorSpec};
use crate::{Model, Network};
use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The variables of a network, sorted by name, so that every walk over them has one order.
///
/// A clone shares the variables: training one trains the other. [`Parameters::copied`] makes others.
#[derive(Debug, Clone)]
pub struct Parameters(Arc<BTreeMap<String, Parameter>>);

#[derive(Debug, Clone)]
struct Parameter {
    var: Var,
    role: TensorRole,
}

impl Parameters {
    /// He-normal convolutions (He et al., 2015, fan-in), a Glorot-uniform classifier, unit gammas,
    /// zeros elsewhere. The same seed gives the same weights on every machine; each tensor has its
    /// own sequence, so that a tensor of one network equals its namesake of another.
    ///
    /// # Errors
    /// More than this machine or the device can hold.
    pub fn init(network: &Network, seed: u64, dtype: DType, device: &Device) -> Result<Self> {
        let count = usize::try_from(network.parameters()).unwrap_or(usize::MAX);
        let bytes = count.saturating_mul(size_of::<f32>());
        if Vec::<u8>::new().try_reserve_exact(bytes).is_err() {
            candle_core::bail!("the network's weights take {bytes} bytes of memory");
        }
        Self::collect(network, |spec| {
            Tensor::from_vec(initial(spec, seed), spec.shape.as_slice(), device)?.to_dtype(dtype)
        })
    }

    /// Variables that start as the tensors that `vb` has.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn from_tensors(network: &Network, vb: &VarBuilder) -> Result<Self> {
        // A tensor that is a variable would stay the other's.
        Self::collect(network, |spec| {
            Ok(vb.get(spec.shape.as_slice(), &spec.name)?.detach())
        })
    }

    /// Variables with the same values on another device, each of the type that `dtype` gives to its role.
    ///
    /// # Errors
    /// A device that cannot hold them.
    pub fn copied(&self, device: &Device, dtype: impl Fn(TensorRole) -> DType) -> Result<Self> {
        let mut parameters = BTreeMap::new();
        for (name, role, var) in self.iter() {
            let values = var.as_detached_tensor().to_device(device)?;
            let values = values.to_dtype(dtype(role))?;
            let var = Var::from_tensor(&values)?;
            parameters.insert(name.to_owned(), Parameter { var, role });
        }
        Ok(Self(Arc::new(parameters)))
    }

    fn collect(
        network: &Network,
        mut tensor: impl FnMut(&TensorSpec) -> Result<Tensor>,
    ) -> Result<Self> {
        let mut parameters = BTreeMap::new();
        for spec in network.tensors() {
            let parameter = Parameter {
                var: Var::from_tensor(&tensor(&spec)?)?,
                role: spec.role,
            };
            parameters.insert(spec.name, parameter);
        }
        Ok(Self(Arc::new(parameters)))
    }

    /// The model over these variables: what is set in them, the model sees.
    ///
    /// # Errors
    /// Variables of another network.
    pub fn model(&self, network: &Network) -> Result<Model> {
        Model::new(network, self.var_builder())
    }

    /// As [`Parameters::model`], for evaluation alone: no gradient reaches the variables, so that nothing is kept for
    /// one.
    ///
    /// # Errors
    /// Variables of another network.
    pub fn evaluator(&self, network: &Network) -> Result<Model> {
        let backend: Box<dyn SimpleBackend> = Box::new(Untracked(self.clone()));
        let (dtype, device) = self.kind();
        Model::new(network, VarBuilder::from_backend(backend, dtype, device))
    }

    /// The variables as a source of tensors.
    pub fn var_builder(&self) -> VarBuilder<'static> {
        let (dtype, device) = self.kind();
        let backend: Box<dyn SimpleBackend> = Box::new(self.clone());
        VarBuilder::from_backend(backend, dtype, device)
    }

    /// The type and the device of the first variable.
    fn kind(&self) -> (DType, Device) {
        match self.0.values().next() {
            Some(p) => (p.var.dtype(), p.var.device().clone()),
            None => (DType::F32, Device::Cpu),
        }
    }

    /// Every variable by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, TensorRole, &Var)> {
        self.0
            .iter()
            .map(|(name, p)| (name.as_str(), p.role, &p.var))
    }

    /// The variables that gradients train, by name.
    pub fn trainable(&self) -> impl Iterator<Item = (&str, TensorRole, &Var)> {
        self.iter().filter(|(_, role, _)| role.is_trainable())
    }

    /// The variable called `name`.
    pub fn get(&self, name: &str) -> Option<&Var> {
        self.0.get(name).map(|p| &p.var)
    }
}

impl SimpleBackend for Parameters {
    fn get(&self, s: Shape, name: &str, _: Init, dtype: DType, dev: &Device) -> Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, dev)?;
        if tensor.shape() != &s {
            candle_core::bail!(
                "`{name}`: expected the shape {s:?}, found {:?}",
                tensor.shape()
            )
        }
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        match self.0.get(name) {
            Some(p) => Ok(p.var.as_tensor().clone()),
            None => candle_core::bail!("no tensor `{name}`"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// The variables without gradients. They share their values with the variables.
struct Untracked(Parameters);

impl SimpleBackend for Untracked {
    fn get(&self, s: Shape, name: &str, init: Init, dtype: DType, dev: &Device) -> Result<Tensor> {
        let tensor = SimpleBackend::get(&self.0, s, name, init, dtype, dev)?;
        self.detached(name, tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, dev: &Device) -> Result<Tensor> {
        let tensor = self.0.get_unchecked(name, dtype, dev)?;
        self.detached(name, tensor)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains_tensor(name)
    }
}

impl Untracked {
    /// Running statistics have no gradients, and as variables they are seen as they change.
    fn detached(&self, name: &str, tensor: Tensor) -> Result<Tensor> {
        match self.0.0.get(name) {
            Some(p) if p.role.is_trainable() => Ok(tensor.detach()),
            _ => Ok(tensor),
        }
    }
}

fn initial(spec: &TensorSpec, seed: u64) -> Vec<f32> {
    let count = spec.shape.iter().product();
    match spec.role {
        TensorRole::ConvWeight => {
            let fan_in: usize = spec.shape[1..].iter().product();
            let deviation = (2.0 / fan_in as f64).sqrt();
            let mut source = source(seed, &spec.name);
            let mut values = Vec::with_capacity(count + 1);
            while values.len() < count {
                values.extend(normal_pair(&mut source).map(|v| (v * deviation) as f32));
            }
            values.truncate(count);
            values
        }
        TensorRole::DenseWeight => {
            let bound = (6.0 / spec.shape.iter().sum::<usize>() as f64).sqrt();
            let mut source = source(seed, &spec.name);
            (0..count)
                .map(|_| ((2.0 * unit(&mut source) - 1.0) * bound) as f32)
                .collect()
        }
        TensorRole::NormScale | TensorRole::RunningVariance => vec![1.0; count],
        TensorRole::ConvBias
        | TensorRole::NormShift
        | TensorRole::RunningMean
        | TensorRole::DenseBias => vec![0.0; count],
    }
}

/// The sequence that belongs to a tensor's name: a PCG stream chosen by its FNV-1a hash.
fn source(seed: u64, name: &str) -> Pcg64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let mut state = [0; 32];
    state[..8].copy_from_slice(&seed.to_le_bytes());
    state[16..24].copy_from_slice(&hash.to_le_bytes());
    Pcg64::from_seed(state)
}

/// A number in `[0, 1)` with 53 random bits.
fn unit(source: &mut Pcg64) -> f64 {
    (source.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Two standard normal numbers (Box-Muller). `libm` instead of the platform's, so that the last
/// bit does not depend on it.
fn normal_pair(source: &mut Pcg64) -> [f64; 2] {
    let radius = (-2.0 * libm::log(1.0 - unit(source))).sqrt();
    let angle = 2.0 * std::f64::consts::PI * unit(source);
    [radius * libm::cos(angle), radius * libm::sin(angle)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Description;

    fn parameters(seed: u64) -> Parameters {
        let network = Network::new(&Description::preset("ror-3-wrn-10-2").unwrap()).unwrap();
        Parameters::init(&network, seed, DType::F32, &Device::Cpu).unwrap()
    }

    fn conv(seed: u64) -> Vec<f32> {
        let parameters = parameters(seed);
        let weight = parameters.get("root.group3.block1.conv2.weight").unwrap();
        weight.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn a_seed_repeats_and_another_differs() {
        assert_eq!(conv(1), conv(1));
        assert_ne!(conv(1), conv(2));
    }

    #[test]
    fn first_weights_of_seed_one_never_change() {
        let bits: Vec<u32> = conv(1)[..4].iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits, FIRST_WEIGHTS);
    }

    #[test]
    fn an_evaluator_sees_changes_and_records_nothing() {
        let network = Network::new(&Description::preset("ror-3-wrn-10-1").unwrap()).unwrap();
        let parameters = Parameters::init(&network, 1, DType::F32, &Device::Cpu).unwrap();
        let (model, evaluator) = (
            parameters.model(&network).unwrap(),
            parameters.evaluator(&network).unwrap(),
        );
        let images = Tensor::ones((1, 3, 32, 32), DType::F32, &Device::Cpu).unwrap();
        let logits = |model: &Model| model.forward(&images).unwrap();
        let values = |logits: &Tensor| logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let before = values(&logits(&evaluator));
        assert_eq!(values(&logits(&model)), before);
        for name in ["stem.conv.weight", "head.norm.running_mean"] {
            let var = parameters.get(name).unwrap();
            var.set(&(var.as_detached_tensor() + 0.5).unwrap()).unwrap();
        }
        let after = values(&logits(&evaluator));
        assert_eq!(values(&logits(&model)), after);
        assert_ne!(after, before);
        assert!(logits(&model).track_op() && !logits(&evaluator).track_op());
    }

    #[test]
    fn a_copy_has_the_values_and_goes_its_own_way() {
        let parameters = parameters(1);
        let copy = parameters.copied(&Device::Cpu, |_| DType::F64).unwrap();
        let name = "stem.conv.weight";
        let sum = |p: &Parameters| {
            let values = p.get(name).unwrap().to_dtype(DType::F64).unwrap();
            values.sum_all().unwrap().to_scalar::<f64>().unwrap()
        };
        assert_eq!(sum(&copy), sum(&parameters));
        assert_eq!(copy.get(name).unwrap().dtype(), DType::F64);
        let same = parameters.copied(&Device::Cpu, |_| DType::F32).unwrap();
        let var = same.get(name).unwrap();
        var.set(&var.zeros_like().unwrap()).unwrap();
        assert_eq!(sum(&same), 0.0);
        assert_eq!(sum(&copy), sum(&parameters));
    }

    #[test]
    fn convolutions_have_the_deviation_of_he() {
        let values = conv(3);
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = values
            .iter()
            .map(|&v| (f64::from(v) - mean).powi(2))
            .sum::<f64>()
            / n;
        let expected = 2.0 / (128.0 * 9.0);
        assert!(mean.abs() < 3.0 * (expected / n).sqrt());
        assert!((variance / expected - 1.0).abs() < 0.02);
    }

    const FIRST_WEIGHTS: [u32; 4] = [1_008_237_785, 3_171_603_941, 982_686_517, 970_126_769];
}
