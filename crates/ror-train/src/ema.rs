//! Exponential moving average of the weights, running statistics included.

use crate::error::{Result, TrainError};
use crate::flat;
use ror_models::Parameters;
use std::collections::BTreeMap;

/// `average = d average + (1 - d) weights` after every step, where `d` grows with the steps up to
/// the decay asked for: `d = min(decay, (1 + steps) / (10 + steps))`, so that the first weights do
/// not linger.
#[derive(Debug, Clone, PartialEq)]
pub struct Ema {
    decay: f64,
    steps: u64,
    average: BTreeMap<String, Vec<f32>>,
}

impl Ema {
    /// Starts at the present weights.
    ///
    /// # Errors
    /// A decay outside 0 to below 1; parameters that are not float32 on the CPU.
    pub fn new(decay: f64, parameters: &Parameters) -> Result<Self> {
        if !(0.0..1.0).contains(&decay) {
            return Err(TrainError::Config(format!(
                "the decay of the moving average is {decay}; allowed: 0 to below 1"
            )));
        }
        let mut average = BTreeMap::new();
        for (name, _, var) in parameters.iter() {
            average.insert(name.to_owned(), flat::read(var, <[f32]>::to_vec)?);
        }
        Ok(Self {
            decay,
            steps: 0,
            average,
        })
    }

    /// Follows the weights by one step.
    ///
    /// # Errors
    /// Parameters of another network.
    pub fn update(&mut self, parameters: &Parameters) -> Result<()> {
        self.steps += 1;
        let steps = self.steps as f64;
        let new = (1.0 - self.decay.min((1.0 + steps) / (10.0 + steps))) as f32;
        self.each(parameters, |average, weights| {
            for (a, &w) in average.iter_mut().zip(&*weights) {
                *a += new * (w - *a);
            }
        })
    }

    /// Exchanges average and weights: once to use the average, once more to train on.
    ///
    /// # Errors
    /// Parameters of another network.
    pub fn swap(&mut self, parameters: &Parameters) -> Result<()> {
        self.each(parameters, |average, weights| {
            average.swap_with_slice(weights)
        })
    }

    fn each(
        &mut self,
        parameters: &Parameters,
        mut f: impl FnMut(&mut [f32], &mut [f32]),
    ) -> Result<()> {
        for (name, _, var) in parameters.iter() {
            let average = self.average.get_mut(name).map(Vec::as_mut_slice);
            match average {
                Some(average) if average.len() == var.elem_count() => {
                    flat::update(var, |weights| f(average, weights))?;
                }
                _ => {
                    return Err(TrainError::Config(format!(
                        "the moving average has no tensor like `{name}`"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Steps followed.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The average of every tensor, by name.
    pub fn average(&self) -> &BTreeMap<String, Vec<f32>> {
        &self.average
    }

    /// Goes on from a saved average.
    ///
    /// # Errors
    /// The average of another network.
    pub fn restore(&mut self, steps: u64, average: BTreeMap<String, Vec<f32>>) -> Result<()> {
        let shape = |a: &BTreeMap<String, Vec<f32>>| -> Vec<(String, usize)> {
            a.iter().map(|(k, v)| (k.clone(), v.len())).collect()
        };
        if shape(&average) != shape(&self.average) {
            return Err(TrainError::Config(
                "the saved moving average is that of another network".to_owned(),
            ));
        }
        self.steps = steps;
        self.average = average;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use ror_models::{Description, Network};

    fn parameters() -> Parameters {
        let network = Network::new(&Description::preset("ror-3-wrn-10-1").unwrap()).unwrap();
        Parameters::init(&network, 1, DType::F32, &Device::Cpu).unwrap()
    }

    fn set(parameters: &Parameters, value: f32) {
        for (_, _, var) in parameters.iter() {
            flat::update(var, |w| w.fill(value)).unwrap();
        }
    }

    #[test]
    fn the_average_follows_its_formula_running_statistics_included() {
        let parameters = parameters();
        set(&parameters, 1.0);
        let mut ema = Ema::new(0.5, &parameters).unwrap();
        let mut expected = 1f64;
        for step in 1..=20 {
            set(&parameters, step as f32);
            ema.update(&parameters).unwrap();
            let d = (0.5f64).min((1.0 + step as f64) / (10.0 + step as f64));
            expected = d * expected + (1.0 - d) * step as f64;
        }
        for name in ["stem.conv.weight", "head.norm.running_var"] {
            let found = f64::from(ema.average()[name][0]);
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn swapping_twice_changes_nothing() {
        let parameters = parameters();
        let mut ema = Ema::new(0.9, &parameters).unwrap();
        set(&parameters, 3.0);
        let before = ema.clone();
        ema.swap(&parameters).unwrap();
        let var = parameters.get("stem.conv.weight").unwrap();
        assert_ne!(flat::read(var, |w| w[0]).unwrap(), 3.0);
        ema.swap(&parameters).unwrap();
        assert_eq!(flat::read(var, |w| w[0]).unwrap(), 3.0);
        assert_eq!(ema, before);
    }

    #[test]
    fn a_decay_of_one_is_refused() {
        assert!(Ema::new(1.0, &parameters()).is_err());
    }
}
