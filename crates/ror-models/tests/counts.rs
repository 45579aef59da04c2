//! Counts from the description alone equal the published ones.

#![allow(clippy::unwrap_used)]

use ror_models::{Description, Network};

fn network(name: &str) -> Network {
    Network::new(&Description::preset(name).unwrap()).unwrap()
}

#[test]
fn pytorchcv_parameters_equal_its_published_counts() {
    for (name, classes, parameters) in [
        ("pytorchcv-ror-3-56", 10, 762_746),
        ("pytorchcv-ror-3-56", 100, 768_596),
        ("pytorchcv-ror-3-110", 10, 1_637_690),
        ("pytorchcv-ror-3-110", 100, 1_643_540),
        ("pytorchcv-ror-3-164", 10, 2_512_634),
        ("pytorchcv-ror-3-164", 100, 2_518_484),
    ] {
        let description = Description::preset(name).unwrap().with_classes(classes);
        let network = Network::new(&description).unwrap();
        assert_eq!(
            network.parameters(),
            parameters,
            "{name}, {classes} classes"
        );
    }
}

#[test]
fn keras_parameters_equal_what_keras_counted() {
    for (name, classes, trainable, other) in [
        ("keras-ror-3-wrn-16-1", 10, 179_914, 928),
        ("keras-ror-3-wrn-10-2", 100, 329_156, 928),
        ("keras-ror-3-56", 10, 764_554, 3_616),
    ] {
        let description = Description::preset(name).unwrap().with_classes(classes);
        let network = Network::new(&description).unwrap();
        assert_eq!(network.parameters(), trainable, "{name}");
        let statistics: usize = network
            .tensors()
            .iter()
            .filter(|t| !t.role.is_trainable())
            .map(|t| t.shape.iter().product::<usize>())
            .sum();
        assert_eq!(statistics, other, "{name}");
    }
}

#[test]
fn tensors_add_up_to_the_parameters_of_every_preset() {
    for name in ror_models::presets() {
        let network = network(name);
        let sum: usize = network
            .tensors()
            .iter()
            .filter(|t| t.role.is_trainable())
            .map(|t| t.shape.iter().product::<usize>())
            .sum();
        assert_eq!(sum as u64, network.parameters(), "{name}");
    }
}

#[test]
fn a_residual_network_of_one_level_has_the_parameters_of_resnet() {
    // torchvision's counts, less the batch norms that it puts on projections.
    let less_norms = |parameters: u64, widths: &[u64]| parameters - 2 * widths.iter().sum::<u64>();
    for (name, expected) in [
        (
            "imagenet-ror-1-18",
            less_norms(11_689_512, &[128, 256, 512]),
        ),
        (
            "imagenet-ror-1-34",
            less_norms(21_797_672, &[128, 256, 512]),
        ),
        (
            "imagenet-ror-1-50",
            less_norms(25_557_032, &[256, 512, 1024, 2048]),
        ),
        (
            "imagenet-ror-1-152",
            less_norms(60_192_808, &[256, 512, 1024, 2048]),
        ),
    ] {
        assert_eq!(network(name).parameters(), expected, "{name}");
    }
}

#[test]
fn multiply_adds_of_the_wide_network_are_a_third_of_a_billion() {
    let n = network("keras-ror-3-wrn-40-2").multiply_adds();
    assert!((320_000_000..345_000_000).contains(&n), "{n}");
}
