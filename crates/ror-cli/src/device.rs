//! The device that computes.

use crate::ranks;
use anyhow::{Result, anyhow, bail};
use candle_core::Device;
use clap::ValueEnum;
use ror_train::Precision;
use std::fmt;
use std::str::FromStr;

/// `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum DeviceArg {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA device; without a number the first, or that of the rank on its machine.
    Cuda(Option<usize>),
}

impl DeviceArg {
    pub(crate) fn is_cpu(self) -> bool {
        self == Self::Cpu
    }

    /// Makes it ready.
    pub(crate) fn open(self) -> Result<Device> {
        let Self::Cuda(number) = self else {
            return Ok(Device::Cpu);
        };
        if !candle_core::utils::cuda_is_available() {
            bail!(
                "this ror was built for processors only; docs/cuda.md says how it is built with \
                 `--features cudnn` for {self}"
            );
        }
        let number = number.unwrap_or_else(|| {
            // Ranks take turns; where each sees a device of its own, that is number 0 to all of them.
            ranks::on_this_machine_number() % devices().unwrap_or(1).max(1)
        });
        Device::new_cuda(number)
            .map_err(|error| anyhow!("cannot use cuda:{number}: {}", in_words(&error.to_string())))
    }
}

/// How many devices the driver shows to this process.
fn devices() -> Option<usize> {
    #[cfg(feature = "cuda")]
    {
        let count = candle_core::cuda_backend::cudarc::driver::CudaContext::device_count();
        usize::try_from(count.ok()?).ok()
    }
    #[cfg(not(feature = "cuda"))]
    None
}

/// What the driver's commonest errors mean.
fn in_words(error: &str) -> &str {
    const WORDS: [(&str, &str); 4] = [
        ("STUB_LIBRARY", "there is no NVIDIA driver"),
        ("NO_DEVICE", "the NVIDIA driver finds no device"),
        (
            "INVALID_DEVICE",
            "there is no such device; `nvidia-smi -L` lists them, from 0",
        ),
        ("OUT_OF_MEMORY", "the device has no memory left"),
    ];
    match WORDS.iter().find(|(name, _)| error.contains(name)) {
        Some((_, words)) => words,
        None => error.lines().next().unwrap_or_default(),
    }
}

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = match text.split_once(':') {
            None if text == "cpu" => return Ok(Self::Cpu),
            None if text == "cuda" => return Ok(Self::Cuda(None)),
            Some(("cuda", number)) => number.parse().ok(),
            _ => None,
        };
        match number {
            Some(number) if number < 1024 => Ok(Self::Cuda(Some(number))),
            _ => Err("expected cpu, cuda or cuda:N".to_owned()),
        }
    }
}

impl fmt::Display for DeviceArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(number)) => write!(f, "cuda:{number}"),
        }
    }
}

/// `--precision`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PrecisionArg {
    /// float32
    F32,
    /// Activations and convolutions in bfloat16, on a CUDA device
    Bf16,
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::Bf16 => Self::Bf16,
        }
    }
}

/// Whether a device trains in a precision.
pub(crate) fn check(device: DeviceArg, precision: Precision) -> Result<()> {
    if device.is_cpu() && precision != Precision::F32 {
        bail!("the processor trains in float32; --precision bf16 needs --device cuda");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_driver_are_told_in_words() {
        let text = "DriverError(CUDA_ERROR_NO_DEVICE, \"no CUDA-capable device\")\n 0: backtrace";
        assert_eq!(in_words(text), "the NVIDIA driver finds no device");
        assert_eq!(in_words("another\n 0: backtrace"), "another");
    }

    #[test]
    fn devices_are_read_and_shown_alike() {
        for text in ["cpu", "cuda", "cuda:0", "cuda:7"] {
            assert_eq!(text.parse::<DeviceArg>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "gpu",
            "cuda:",
            "cuda:x",
            "cuda:-1",
            "cpu:0",
            "cuda:99999",
        ] {
            assert!(text.parse::<DeviceArg>().is_err(), "{text}");
        }
    }
}
