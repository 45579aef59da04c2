//! From 8-bit pixels to the numbers a network was trained on.

use serde::{Deserialize, Serialize};

/// Per-channel normalisation: `(pixel / 255 - mean) / std`, channels in the order R, G, B.
///
/// Serialises as `{"mean": [r, g, b], "std": [r, g, b]}`; reading refuses a deviation that is not
/// positive and any number that is not finite.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Normalisation {
    /// Mean of `pixel / 255`.
    pub mean: [f32; 3],
    /// Standard deviation of `pixel / 255`.
    pub std: [f32; 3],
}

impl Normalisation {
    /// Scaling to 0..1 only, as the Keras implementation of RoR trains.
    pub const fn unit() -> Self {
        Self {
            mean: [0.0; 3],
            std: [1.0; 3],
        }
    }

    /// Mean and deviation over CIFAR-10's training pixels, as in fb.resnet.torch.
    pub const fn cifar10() -> Self {
        Self {
            mean: [0.4914, 0.4822, 0.4465],
            std: [0.2470, 0.2435, 0.2616],
        }
    }

    /// Mean and deviation over CIFAR-100's training pixels, as in fb.resnet.torch.
    pub const fn cifar100() -> Self {
        Self {
            mean: [0.5071, 0.4865, 0.4409],
            std: [0.2673, 0.2564, 0.2762],
        }
    }

    /// What pytorchcv's CIFAR-10 and CIFAR-100 models take: CIFAR-10's mean, and the mean
    /// deviation *within* an image in place of the deviation over all pixels.
    pub const fn pytorchcv_cifar() -> Self {
        Self {
            mean: [0.4914, 0.4822, 0.4465],
            std: [0.2023, 0.1994, 0.2010],
        }
    }

    /// ImageNet's usual mean and deviation, as in torchvision.
    pub const fn imagenet() -> Self {
        Self {
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
    }

    /// Appends images to a batch: (H, W, 3) bytes in, (3, H, W) floats out, for each image.
    ///
    /// Bytes beyond the last whole pixel of an image are left out.
    pub fn append<'a>(&self, images: impl IntoIterator<Item = &'a [u8]>, batch: &mut Vec<f32>) {
        // There are only 3 x 256 possible results.
        let table: [[f32; 256]; 3] = std::array::from_fn(|c| {
            std::array::from_fn(|byte| (byte as f32 / 255.0 - self.mean[c]) / self.std[c])
        });
        for image in images {
            let (pixels, _) = image.as_chunks::<3>();
            for (c, row) in table.iter().enumerate() {
                batch.extend(pixels.iter().map(|pixel| row[usize::from(pixel[c])]));
            }
        }
    }
}

#[derive(Deserialize)]
struct Unchecked {
    mean: [f32; 3],
    std: [f32; 3],
}

impl TryFrom<Unchecked> for Normalisation {
    type Error = String;

    fn try_from(Unchecked { mean, std }: Unchecked) -> Result<Self, String> {
        let sound =
            mean.iter().all(|m| m.is_finite()) && std.iter().all(|s| s.is_finite() && *s > 0.0);
        if sound {
            Ok(Self { mean, std })
        } else {
            Err(format!(
                "normalisation needs finite means and positive deviations, found mean {mean:?} and std {std:?}"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_scaled_and_channels_separated() {
        let normalisation = Normalisation {
            mean: [0.0, 0.5, 1.0],
            std: [1.0, 0.5, 2.0],
        };
        let mut batch = vec![7.0];
        normalisation.append(
            [[0, 0, 0, 255, 255, 255].as_slice(), &[51, 51, 51]],
            &mut batch,
        );
        let expected = [7.0, 0.0, 1.0, -1.0, 1.0, -0.5, 0.0, 0.2, -0.6, -0.4];
        assert_eq!(batch.len(), expected.len());
        for (found, expected) in batch.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{batch:?}");
        }
    }

    #[test]
    fn it_survives_json_and_refuses_a_zero_deviation() {
        let json = serde_json::to_string(&Normalisation::cifar10()).unwrap();
        assert_eq!(
            json,
            r#"{"mean":[0.4914,0.4822,0.4465],"std":[0.247,0.2435,0.2616]}"#
        );
        assert_eq!(
            serde_json::from_str::<Normalisation>(&json).unwrap(),
            Normalisation::cifar10()
        );
        let zero = json.replace("0.2435", "0.0");
        let error = serde_json::from_str::<Normalisation>(&zero).unwrap_err();
        assert!(error.to_string().contains("positive deviations"), "{error}");
    }
}
