//! Whether the ranks of a job do the same.

use super::Trainer;
use crate::error::{Result, TrainError};
use crate::flat;
use crate::ranks::{agree, together};

impl Trainer {
    /// Makes sure that all ranks are at the same place of the same run.
    pub(super) fn agree(&self) -> Result<()> {
        let config = &self.config;
        self.agree_on("settings", toml::to_string(&config.training))?;
        self.agree_on("network", toml::to_string(&config.description))?;
        self.agree_on("images", Ok(self.stamp.to_string()))?;
        self.agree_on("place in the run", Ok(self.progress.step.to_string()))?;
        self.agree_on_weights()
    }

    fn agree_on(&self, what: &str, text: Result<String, toml::ser::Error>) -> Result<()> {
        let text = text.map_err(|e| TrainError::Config(e.to_string()));
        let text = together(&*self.ranks, text)?;
        agree(&*self.ranks, what, crc32c::crc32c(text.as_bytes()))
    }

    /// Makes sure that the weights are the same on all ranks.
    pub(super) fn agree_on_weights(&self) -> Result<()> {
        if self.ranks.size() == 1 {
            return Ok(());
        }
        let mut sum = Ok(0);
        for (_, _, var) in self.parameters.iter() {
            sum = sum.and_then(|sum| flat::read(var, |values| checksum(sum, values)));
        }
        let sum = together(&*self.ranks, sum.map_err(Into::into))?;
        agree(&*self.ranks, "weights", sum)
    }
}

fn checksum(sum: u32, values: &[f32]) -> u32 {
    let (chunks, rest) = values.as_chunks::<64>();
    let append = |sum, values: &[f32]| {
        let mut bytes = [0; 256];
        for (to, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *to = value.to_le_bytes();
        }
        crc32c::crc32c_append(sum, &bytes[..4 * values.len()])
    };
    let sum = chunks.iter().fold(sum, |sum, chunk| append(sum, chunk));
    append(sum, rest)
}
