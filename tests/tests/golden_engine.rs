//! Every golden weight file, compiled, gives what the software that wrote it computed.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use candle_core::{DType, Device, Tensor};
use ror_infer::{Engine, Input, Options};
use ror_tests::golden::{fixtures, relative_difference};

#[test]
fn compiled_networks_equal_the_software_that_wrote_their_weights() {
    let mut compared = 0;
    for fixture in fixtures() {
        let images = fixture.input();
        let n = images.dims()[0];
        let images: Vec<f32> = images.flatten_all().unwrap().to_vec1().unwrap();
        for suffix in fixture.weight_files() {
            // Files after training steps have outputs of their own, which plain inference is tested on.
            let trained = suffix == ".model.h5" && fixture.path(".after_step.probs.npy").exists();
            if suffix.contains("adam") || trained {
                continue;
            }
            let weights = fixture.load(&suffix);
            let tensors = weights.var_builder(DType::F32, &Device::Cpu);
            for options in [
                Options::default().threads(2).batch_size(1),
                Options::default().threads(1).batch_size(64),
            ] {
                let network = weights.network().unwrap();
                let mut engine = Engine::compile(&network, &tensors, &options).unwrap();
                for output in ["logits", "features"] {
                    let Some(expected) = fixture.npy(&format!(".{output}.npy")) else {
                        continue;
                    };
                    let width = expected.elem_count() / n;
                    let mut found = vec![0.0; n * width];
                    if output == "logits" {
                        engine.run(Input::F32(&images), &mut found).unwrap();
                    } else {
                        let run = engine.run_features(Input::F32(&images), &mut found);
                        run.unwrap();
                    }
                    let found = Tensor::from_vec(found, (n, width), &Device::Cpu).unwrap();
                    let expected = expected.reshape((n, width)).unwrap();
                    let difference = relative_difference(&found, &expected);
                    let name = fixture.name();
                    assert!(
                        difference < 1e-4,
                        "{name}{suffix}: {output} differ by {difference}"
                    );
                    compared += 1;
                }
            }
        }
    }
    assert!(compared >= 10, "{compared} outputs compared");
}
