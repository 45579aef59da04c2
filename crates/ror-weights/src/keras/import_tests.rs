use std::collections::{BTreeMap, HashMap};

use ror_models::{Description, Network};

use super::super::{KerasLayer, graph};
use super::*;
use crate::array::Array;

/// What Keras would save of the network `name`, kernels H,W,I,O, and the tensors to be found in it.
fn saved(description: &Description) -> (KerasFile, BTreeMap<String, Array>) {
    let network = Network::new(description).unwrap();
    let mut count = 0;
    let arrays: Vec<Array> = network
        .tensors()
        .into_iter()
        .map(|spec| {
            let data = spec.shape.iter().product::<usize>();
            let data = (0..data)
                .map(|_| {
                    count += 1;
                    count as f32
                })
                .collect();
            Array::new(spec.name, spec.shape, data).unwrap()
        })
        .collect();
    let tensors = arrays.iter().map(|a| (a.name.clone(), a.clone())).collect();
    let layers = graph::nodes(&network, arrays)
        .into_iter()
        .map(|node| KerasLayer {
            name: node.name,
            named: true,
            weights: node.weights,
        })
        .collect();
    let file = KerasFile {
        layers,
        order: LayerOrder::Model,
        backend: Some("tensorflow".to_owned()),
        keras_version: None,
        config: None,
        text: None,
    };
    (file, tensors)
}

/// The same as the newer layout has it.
fn by_class(file: KerasFile) -> KerasFile {
    let class = |layer: &KerasLayer| match layer.weights.first().map(|w| w.shape.len()) {
        Some(4) => "conv2d",
        Some(2) => "dense",
        Some(_) => "batch_normalization",
        None if layer.name.contains("relu") => "activation",
        None if layer.name.contains("dropout") => "dropout",
        None => "add",
    };
    let mut layers = file.layers;
    layers.sort_by_key(class);
    let mut counts = HashMap::new();
    for layer in &mut layers {
        let class = class(layer);
        let k = counts.entry(class).and_modify(|k| *k += 1).or_insert(0);
        layer.name = if *k == 0 {
            class.to_owned()
        } else {
            format!("{class}_{k}")
        };
    }
    KerasFile {
        layers,
        order: LayerOrder::ByClass,
        backend: None,
        ..file
    }
}

fn preset(name: &str) -> Description {
    Description::preset(name).unwrap()
}

fn import_alone(file: KerasFile) -> Result<Found> {
    import(file, &LoadOptions::default())
}

fn data(tensors: &BTreeMap<String, Array>) -> Vec<(&str, &[usize], &[f32])> {
    tensors
        .iter()
        .map(|(k, a)| (k.as_str(), a.shape.as_slice(), a.data.as_slice()))
        .collect()
}

#[test]
fn the_network_is_told_and_every_tensor_is_placed() {
    // The last two have the very same shapes.
    for name in [
        "keras-ror-3-wrn-10-1",
        "keras-ror-3-wrn-16-2",
        "keras-ror-3-wrn-52-1",
        "keras-ror-3-56",
    ] {
        for description in [preset(name).with_classes(7), preset(name).without_top()] {
            for layout in [|f| f, by_class] {
                let (file, tensors) = saved(&description);
                let found = import_alone(layout(file)).unwrap();
                assert_eq!(found.description, description);
                assert_eq!(data(&found.tensors), data(&tensors));
                assert_eq!(found.notes, [""; 0]);
            }
        }
    }
}

#[test]
fn dropout_layers_are_noted() {
    let (file, _) = saved(&preset("keras-ror-3-wrn-10-1").with_dropout(0.5));
    let found = import_alone(by_class(file)).unwrap();
    assert_eq!(found.description.dropout, 0.3);
    assert!(found.notes[0].contains("dropout"), "{:?}", found.notes);
}

#[test]
fn kernels_follow_caller_then_attribute_then_layout() {
    let description = preset("keras-ror-3-wrn-10-1");
    let first = |backend: Option<&str>, order, kernels| {
        let (mut file, _) = saved(&description);
        file.backend = backend.map(str::to_owned);
        file.order = order;
        let options = LoadOptions {
            model: None,
            kernels,
        };
        let found = import(file, &options).unwrap();
        (found.tensors["stem.conv.weight"].data[0], found.notes.len())
    };
    use Kernels::{TensorFlow, Theano};
    let (plain, rotated) = (1.0, 9.0);
    assert_eq!(
        first(Some("tensorflow"), LayerOrder::Model, None),
        (plain, 0)
    );
    assert_eq!(first(Some("theano"), LayerOrder::Model, None), (rotated, 0));
    assert_eq!(first(None, LayerOrder::Model, None), (plain, 1));
    assert_eq!(first(None, LayerOrder::ByClass, None), (plain, 0));
    assert_eq!(first(None, LayerOrder::Model, Some(Theano)), (rotated, 0));
    assert_eq!(
        first(Some("theano"), LayerOrder::Model, Some(TensorFlow)),
        (plain, 1)
    );
}

#[test]
fn silent_files_with_outputs_first_are_taken_as_theanos() {
    let description = preset("keras-ror-3-wrn-10-1");
    let (mut file, tensors) = saved(&description);
    file.backend = None;
    let kernels = file
        .layers
        .iter_mut()
        .filter(|l| l.weights.first().is_some_and(|w| w.shape.len() == 4));
    for (i, kernel) in kernels.map(|l| &mut l.weights[0]).enumerate() {
        let [h, w, inputs, outputs] = kernel.shape[..] else {
            panic!()
        };
        kernel.shape = vec![outputs, inputs, h, w];
        // Keras 1 shapes; the values do not matter but for the first.
        if i == 0 {
            kernel.data = tensors["stem.conv.weight"].data.clone();
        }
    }
    let found = import_alone(file).unwrap();
    assert_eq!(found.tensors["stem.conv.weight"].data[0], 9.0);
    assert!(
        found.notes[0].contains("O,I,H,W kernels are taken as Theano's"),
        "{:?}",
        found.notes
    );
    let variance = found.description.norm.running_variance;
    assert_eq!(variance, ror_ops::RunningVariance::BiasedPlusEpsilon);
}

fn error(change: impl FnOnce(&mut KerasFile)) -> String {
    let (mut file, _) = saved(&preset("keras-ror-3-wrn-16-1"));
    change(&mut file);
    import_alone(file).unwrap_err().to_string()
}

#[test]
fn a_missing_surplus_or_misshapen_layer_is_named() {
    let at =
        |file: &KerasFile, name: &str| file.layers.iter().position(|l| l.name == name).unwrap();
    let model = "`keras-ror-3-wrn-16-1`";
    assert_eq!(
        error(|f| drop(f.layers.remove(at(f, "root_group3_block2_conv2")))),
        format!(
            "tensor `root.group3.block2.conv2.weight` of shape [64, 64, 3, 3] is missing; \
             {model} has it"
        )
    );
    assert_eq!(
        error(|f| drop(f.layers.remove(at(f, "head_norm")))),
        format!("tensor `head.norm.weight` of shape [64] is missing; {model} has it")
    );
    assert_eq!(
        error(|f| drop(f.layers[1].weights.pop())),
        format!("tensor `stem.conv.bias` of shape [16] is missing; {model} has it")
    );
    assert_eq!(
        error(|f| f.layers.insert(
            2,
            KerasLayer {
                name: "more".into(),
                ..f.layers[1].clone()
            }
        )),
        format!(
            "tensor `root.group1.block1.conv1.weight` (stored as `stem_conv/kernel:0`): \
             {model} expects the shape [16, 16, 3, 3], found [16, 3, 3, 3]"
        )
    );
    assert_eq!(
        error(|f| f.layers.push(KerasLayer {
            name: "more".into(),
            ..f.layers[at(f, "root_shortcut_conv")].clone()
        })),
        format!(
            "tensor `root_shortcut_conv/kernel:0` of shape [64, 16, 1, 1] has no place in {model}"
        )
    );
    assert_eq!(
        error(|f| f.layers[2].weights.truncate(2)),
        "layer `root_group1_block1_norm1` has weights of the shapes [[16], [16]], which no \
         layer of a RoR network has"
    );
}

#[test]
fn layers_out_of_order_are_refused() {
    let message = error(|f| {
        // Two convolutions of a block.
        let (a, b) = (4, 5);
        let numbered = f
            .layers
            .iter_mut()
            .filter(|l| l.weights.first().is_some_and(|w| w.shape.len() == 4));
        for (i, layer) in numbered.enumerate() {
            let number = match i {
                _ if i == a => b,
                _ if i == b => a,
                i => i,
            };
            layer.name = format!("conv2d_{number}");
        }
    });
    assert!(message.contains("which was made later"), "{message}");
}

#[test]
fn another_network_is_contradicted_by_its_first_tensor() {
    let (file, _) = saved(&preset("keras-ror-3-wrn-16-1"));
    let options = LoadOptions {
        model: Some(preset("keras-ror-3-wrn-40-2")),
        kernels: None,
    };
    assert_eq!(
        import(file, &options).unwrap_err().to_string(),
        "tensor `root.group1.block1.conv1.weight` (stored as `root_group1_block1_conv1/kernel:0`): \
         `keras-ror-3-wrn-40-2` expects the shape [32, 16, 3, 3], found [16, 16, 3, 3]"
    );
}

#[test]
fn strides_in_the_configuration_are_checked() {
    let description = preset("keras-ror-3-wrn-10-1");
    let (mut file, _) = saved(&description);
    let config = |strides: usize| {
        serde_json::json!({ "config": { "layers": [
            {
                "class_name": "Conv2D",
                "config": { "name": "root_shortcut_conv", "strides": [4, 4] }
            },
            {
                "class_name": "Conv2D",
                "config": { "name": "root_group2_block1_conv1", "strides": [strides, strides] }
            },
        ] } })
    };
    file.config = Some(config(1));
    assert!(import_alone(file.clone()).is_ok());
    file.config = Some(config(2));
    let error = import_alone(file.clone()).unwrap_err().to_string();
    assert!(
        error.contains("strides by [2, 2], `keras-ror-3-wrn-10-1` by 1"),
        "{error}"
    );
    // The names of groups count layers in another way than the configuration.
    file.layers.iter_mut().for_each(|layer| layer.named = false);
    assert!(import_alone(file).is_ok());
}

/// The configuration that an export of ours has, as a file that Keras saved again keeps it.
fn saved_again(description: &Description) -> KerasFile {
    let (mut file, _) = saved(description);
    let network = Network::new(description).unwrap();
    let survivals = |index: usize| {
        let blocks = 6.0;
        1.0 - (index + 1) as f64 / blocks * (1.0 - description.stochastic_depth.unwrap_or(1.0))
    };
    let mut layers = vec![serde_json::json!({
        "class_name": "InputLayer",
        "config": { "name": "input", "batch_shape": [null, 64, 48, 3] }
    })];
    let blocks = file.layers.iter().filter(|l| l.name.ends_with("_conv1"));
    for (i, block) in blocks.enumerate() {
        let name = block.name.replace("_conv1", "_survival");
        layers.push(serde_json::json!({
            "class_name": "Rescaling",
            "config": { "name": name, "scale": survivals(i), "offset": 0.0 }
        }));
    }
    assert_eq!(layers.len(), 7, "{}", network.description);
    file.config = Some(serde_json::json!({ "config": { "layers": layers } }));
    file
}

#[test]
fn survivals_and_image_size_come_from_the_configuration() {
    let mut description = preset("keras-ror-3-wrn-16-1").with_stochastic_depth(0.4);
    description.image_size = [64, 48];
    let file = saved_again(&description);
    let found = import_alone(file.clone()).unwrap().description;
    assert!((found.stochastic_depth.unwrap() - 0.4).abs() < 1e-12);
    assert_eq!(found.image_size, [64, 48]);
    let asked = |model: Description| {
        let options = LoadOptions {
            model: Some(model),
            ..LoadOptions::default()
        };
        import(file.clone(), &options)
    };
    assert!(asked(description).is_ok());
    let error = asked(preset("keras-ror-3-wrn-16-1"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("residuals are scaled by"), "{error}");
}

#[test]
fn batch_norms_are_those_of_the_file_whatever_model_is_asked_for() {
    let description = preset("keras-ror-3-wrn-10-1");
    let (mut file, _) = saved(&description);
    file.config = Some(serde_json::json!({ "config": { "layers": [{
        "class_name": "BatchNormalization",
        "config": { "name": "head_norm", "epsilon": 1e-5, "momentum": 0.9 }
    }] } }));
    let options = LoadOptions {
        model: Some(description),
        ..LoadOptions::default()
    };
    let found = import(file, &options).unwrap().description;
    assert_eq!(found.norm.epsilon, 1e-5);
}
