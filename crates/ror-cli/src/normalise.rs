//! The `--normalise` argument.

use ror_data::Normalisation;

/// How pixels become the model's input.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NormaliseOption {
    /// Normalisation of pixels scaled to 0..1: unit, cifar10, cifar100, pytorchcv-cifar, imagenet, or six numbers, the
    /// means of red, green, blue, their deviations [default: that of the weights; in training of --init, or else of the
    /// recipe]
    #[arg(long, value_name = "NAME", value_parser = parse, allow_hyphen_values = true)]
    normalise: Option<Normalisation>,
}

impl NormaliseOption {
    pub(crate) fn get(&self) -> Option<Normalisation> {
        self.normalise
    }
}

fn parse(text: &str) -> Result<Normalisation, String> {
    Ok(match text {
        "unit" => Normalisation::unit(),
        "cifar10" => Normalisation::cifar10(),
        "cifar100" => Normalisation::cifar100(),
        "pytorchcv-cifar" => Normalisation::pytorchcv_cifar(),
        "imagenet" => Normalisation::imagenet(),
        numbers => {
            let numbers: Result<Vec<f32>, _> = numbers
                .split(',')
                .map(|n| n.trim().parse::<f32>())
                .collect();
            match numbers.as_deref() {
                Ok(&[r, g, b, sr, sg, sb])
                    if [r, g, b].iter().all(|m| m.is_finite())
                        && [sr, sg, sb].iter().all(|s| s.is_finite() && *s > 0.0) =>
                {
                    Normalisation {
                        mean: [r, g, b],
                        std: [sr, sg, sb],
                    }
                }
                _ => {
                    return Err(
                        "expected unit, cifar10, cifar100, pytorchcv-cifar, imagenet, or \
                                six numbers such as 0.49,0.48,0.45,0.25,0.24,0.26 with positive \
                                deviations"
                            .to_owned(),
                    );
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn six_numbers_are_means_and_deviations() {
        let n = parse("0.5,0.4,0.3,0.2,0.25,1").unwrap();
        assert_eq!((n.mean, n.std), ([0.5, 0.4, 0.3], [0.2, 0.25, 1.0]));
    }

    #[test]
    fn a_deviation_of_zero_or_a_wrong_count_is_refused() {
        for text in [
            "0.5,0.4,0.3,0.2,0.25,0",
            "1,2,3",
            "nan,0,0,1,1,1",
            "imagnet",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
