//! Damaged weight files end in an error that names the file, or in weights that are whole: never in
//! a panic.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use ror_tests::golden::{copied_fixtures, model};
use ror_weights::{LoadOptions, load};

const MUTATIONS: usize = 300;

/// Steele and Vigna's splitmix64: the same numbers everywhere.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// Starts of the stretches that hold structure: unlike weights, most of their bytes are zeros or
/// text.
fn structure(bytes: &[u8]) -> Vec<usize> {
    let is_plain = |b: &&u8| **b == 0 || **b == 0xff || b.is_ascii_graphic();
    let stretches = bytes.chunks(64).enumerate();
    let structured = stretches.filter(|(_, chunk)| chunk.iter().filter(is_plain).count() > 48);
    structured.map(|(i, _)| 64 * i).collect()
}

/// Cuts the file, or flips or overwrites a few bytes, mostly where its structure is.
fn damage(bytes: &mut Vec<u8>, structure: &[usize], kind: usize, numbers: &mut Numbers) {
    if kind == 0 {
        bytes.truncate(numbers.below(bytes.len()));
        return;
    }
    for _ in 0..=numbers.below(3) {
        let at = match kind {
            1 => numbers.below(bytes.len()),
            _ => structure[numbers.below(structure.len())] + numbers.below(64),
        };
        let Some(byte) = bytes.get_mut(at) else {
            continue;
        };
        *byte = match kind {
            2 => [0x00, 0x7f, 0x80, 0xff][numbers.below(4)],
            _ => *byte ^ 1 << numbers.below(8),
        };
    }
}

/// Damages a file in many ways, and counts how often that is an error.
fn errors(whole: &[u8], numbers: &mut Numbers) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged");
    let structure = structure(whole);
    let mut errors = 0;
    for mutation in 0..MUTATIONS {
        let mut bytes = whole.to_vec();
        damage(&mut bytes, &structure, mutation % 4, numbers);
        std::fs::write(&path, &bytes).unwrap();
        match load(&path, &LoadOptions::default()) {
            Ok(weights) => drop(model(&weights)),
            Err(error) => {
                assert!(error.to_string().starts_with(path.to_str().unwrap()));
                errors += 1;
            }
        }
    }
    errors
}

#[test]
fn damaged_files_end_in_errors_or_whole_weights() {
    let mut numbers = Numbers(2);
    for fixture in copied_fixtures() {
        for suffix in fixture.weight_files() {
            let whole = std::fs::read(fixture.path(&suffix)).unwrap();
            let errors = errors(&whole, &mut numbers);
            // Every cut at the least.
            let name = fixture.name();
            assert!(errors >= MUTATIONS / 4, "{name}{suffix}: {errors}");
        }
    }
}

#[test]
fn damaged_safetensors_end_in_errors_or_whole_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let fixture = &copied_fixtures()[0];
    let weights = fixture.load(&fixture.weight_files()[0]);
    let read = || std::fs::read(&path).unwrap();
    let files = [
        {
            ror_weights::save_safetensors(&path, &weights).unwrap();
            read()
        },
        {
            let names = ror_weights::PytorchNames::Levels;
            ror_weights::save_pytorch(&path, &weights, names).unwrap();
            read()
        },
    ];
    let mut numbers = Numbers(3);
    for whole in files {
        let errors = errors(&whole, &mut numbers);
        assert!(errors >= MUTATIONS / 4, "{errors}");
    }
}

#[test]
fn a_weight_that_is_not_a_number_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nan.h5");
    for fixture in copied_fixtures() {
        for suffix in fixture.weight_files().iter().filter(|s| s.ends_with(".h5")) {
            let mut bytes = std::fs::read(fixture.path(suffix)).unwrap();
            // Twelve weights that no structure looks like.
            let weights = fixture.load(suffix);
            let (name, tensor) = weights
                .tensors
                .iter()
                .find(|(n, _)| n.ends_with("conv2.bias"))
                .unwrap();
            let values: Vec<f32> = tensor.to_vec1().unwrap();
            let stored: Vec<u8> = values[..12].iter().flat_map(|v| v.to_le_bytes()).collect();
            let at = bytes.windows(48).position(|w| w == stored).unwrap();
            bytes[at + 8..at + 12].copy_from_slice(&f32::NAN.to_le_bytes());
            std::fs::write(&path, &bytes).unwrap();
            let error = load(&path, &LoadOptions::default())
                .unwrap_err()
                .to_string();
            assert!(error.contains("holds NaN at element 2"), "{name}: {error}");
        }
    }
}
