//! The golden files, see `tests/golden/README.md`.

#![allow(
    clippy::unwrap_used,
    reason = "a fixture that cannot be read fails its test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use ror_models::{Description, Dialect, Family, Model, Network, TensorRole};
use ror_weights::{Kernels, LoadOptions, Weights, load};
use serde_json::Value;

/// One model of some software: weights, and what the software computed with them.
pub struct Fixture {
    /// What the software says about it.
    pub json: Value,
    /// The common beginning of its files' paths.
    stem: PathBuf,
    /// The path of its input.
    input: PathBuf,
}

/// The fixtures in the repository.
pub fn copied_fixtures() -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut fixtures = Vec::new();
    collect(&folder, &folder.join("x.npy"), &mut fixtures);
    fixtures
}

/// The fixtures in the repository, and those of the larger set where it lies beside it.
pub fn fixtures() -> Vec<Fixture> {
    let mut fixtures = copied_fixtures();
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden");
    if shared.is_dir() {
        collect(&shared, &shared.join("dev/x.npy"), &mut fixtures);
    }
    fixtures
}

fn collect(folder: &Path, input: &Path, into: &mut Vec<Fixture>) {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, input, into);
        } else if path.extension().is_some_and(|e| e == "json") {
            let json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            if json.get("call").is_some() {
                into.push(Fixture {
                    json,
                    stem: path.with_extension(""),
                    input: input.to_owned(),
                });
            }
        }
    }
}

impl Fixture {
    /// The path of its file that ends in `suffix`, `.logits.npy` for example.
    pub fn path(&self, suffix: &str) -> PathBuf {
        let mut path = self.stem.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    /// Its name and the software's.
    pub fn name(&self) -> String {
        let parts: Vec<_> = self
            .stem
            .iter()
            .rev()
            .take(2)
            .map(|p| p.to_string_lossy())
            .collect();
        format!("{}/{}", parts[1], parts[0])
    }

    /// The suffixes of its weight files.
    pub fn weight_files(&self) -> Vec<String> {
        let stem = self.stem.file_name().unwrap().to_str().unwrap();
        let mut suffixes: Vec<String> = fs::read_dir(self.stem.parent().unwrap())
            .unwrap()
            .filter_map(|e| e.unwrap().file_name().into_string().ok())
            .filter(|name| {
                [".h5", ".keras", ".pth"]
                    .iter()
                    .any(|extension| name.ends_with(extension))
            })
            .filter_map(|name| name.strip_prefix(stem).map(str::to_owned))
            .filter(|suffix| suffix.starts_with('.'))
            .collect();
        suffixes.sort();
        suffixes
    }

    /// Loads its weight file that ends in `suffix`.
    pub fn load(&self, suffix: &str) -> Weights {
        let options = LoadOptions {
            model: None,
            kernels: self.kernels(),
        };
        load(&self.path(suffix), &options).unwrap()
    }

    /// What its file does not say: Keras 1 with TensorFlow's axis order on Theano.
    fn kernels(&self) -> Option<Kernels> {
        let is_keras1 = self.json["stack"]["keras"]
            .as_str()
            .is_some_and(|v| v.starts_with("1."));
        let is_theano = self.json["backend"] == "theano";
        (is_keras1 && is_theano && self.json["data_format"] == "tf").then_some(Kernels::Theano)
    }

    /// The images, `(N, C, H, W)`.
    pub fn input(&self) -> Tensor {
        Tensor::read_npy(&self.input).unwrap()
    }

    /// An array of the fixture, where it has it.
    pub fn npy(&self, suffix: &str) -> Option<Tensor> {
        let path = self.path(suffix);
        path.exists().then(|| Tensor::read_npy(path).unwrap())
    }

    /// Arrays by name, where the fixture has them.
    pub fn npz(&self, suffix: &str) -> Option<BTreeMap<String, Tensor>> {
        let path = self.path(suffix);
        path.exists()
            .then(|| Tensor::read_npz(path).unwrap().into_iter().collect())
    }

    /// The model by the call that built it. Dropout counts where the file can tell its rate.
    pub fn description(&self) -> Description {
        let call = self.json["call"].as_str().unwrap();
        let argument = |name: &str| -> Option<f64> {
            let rest = call.split_once(&format!("{name}="))?.1;
            rest.split([',', ')']).next()?.parse().ok()
        };
        let number = |name: &str| argument(name).map(|n| n as usize);
        let (dialect, family, depth, width) = if call.contains("create_pre_residual_of_residual") {
            (
                Dialect::Keras,
                Family::Wrn,
                6 * number("N").unwrap() + 4,
                number("k").unwrap(),
            )
        } else if call.contains("create_residual_of_residual") {
            (
                Dialect::Keras,
                Family::Ror,
                6 * (9 * number("N").unwrap() - 1) + 8,
                1,
            )
        } else {
            let depth = call
                .split_once("ror3_")
                .and_then(|(_, rest)| rest.split_once('_'));
            let depth =
                depth.map_or_else(|| number("blocks").unwrap(), |(n, _)| n.parse().unwrap());
            (Dialect::Pytorchcv, Family::Ror, depth, 1)
        };
        let classes = number("nb_classes").or_else(|| number("num_classes"));
        let classes = classes.unwrap_or(if call.contains("cifar100") { 100 } else { 10 });
        let mut description = Description::new(dialect, family, depth, width)
            .unwrap()
            .with_classes(classes)
            .with_dropout(argument("dropout").unwrap_or(0.0));
        description.top = !call.contains("minus Flatten/Dense");
        if self.json["backend"] == "theano" {
            description.norm.running_variance = ror_ops::RunningVariance::BiasedPlusEpsilon;
        }
        description
    }

    /// The software's names of the network's tensors, for Keras fixtures.
    ///
    /// By creation: sorted by the numbers in their names, layers come as the reference makes them,
    /// block by block, a block's projection first. (Files are read by another order, that of the
    /// graph's depth.)
    pub fn keras_names(&self, network: &Network) -> BTreeMap<String, String> {
        let of_class = |classes: &[&str]| -> Vec<&Value> {
            let mut layers: Vec<&Value> = self.json["layers"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|l| classes.contains(&l["class"].as_str().unwrap()))
                .filter(|l| !l["name"].as_str().unwrap().ends_with("_shortcut"))
                .collect();
            layers.sort_by_key(|l| number(l["name"].as_str().unwrap()));
            layers
        };
        let mut convs: Vec<String> = vec!["stem.conv".to_owned()];
        for (path, block) in network.blocks() {
            let projection = block
                .shortcut
                .layers()
                .into_iter()
                .map(|l| format!("shortcut.{}", l.name));
            let names = projection.chain(["conv1".to_owned(), "conv2".to_owned()]);
            convs.extend(names.map(|name| format!("{path}.{name}")));
        }
        let norms = network.tensors().into_iter().filter_map(|spec| {
            let path = spec.name.strip_suffix(".running_mean")?;
            Some(path.to_owned())
        });
        let mut layers: BTreeMap<String, String> = BTreeMap::new();
        let mut pair = |paths: Vec<String>, found: Vec<&Value>| {
            assert_eq!(paths.len(), found.len());
            for (path, layer) in paths.into_iter().zip(found) {
                layers.insert(path, layer["name"].as_str().unwrap().to_owned());
            }
        };
        pair(convs, of_class(&["Conv2D", "Convolution2D"]));
        pair(norms.collect(), of_class(&["BatchNormalization"]));
        pair(vec!["head.dense".to_owned()], of_class(&["Dense"]));
        layers.insert(
            "root.shortcut.conv".to_owned(),
            "conv0_level1_shortcut".to_owned(),
        );
        for group in 1..=3 {
            let name = format!("conv{group}_level2_shortcut");
            layers.insert(format!("root.group{group}.shortcut.conv"), name);
        }
        layers
    }

    /// The software's names of the sums, by the level or block that they belong to: sorted by
    /// number they come in the order of computation.
    pub fn keras_sums(&self, network: &Network) -> BTreeMap<String, String> {
        let mut paths = Vec::new();
        for group in 1..=3 {
            let prefix = format!("root.group{group}");
            let blocks = network.blocks();
            paths.extend(
                blocks
                    .into_iter()
                    .map(|(path, _)| path)
                    .filter(|p| p.starts_with(&prefix)),
            );
            paths.push(prefix);
        }
        paths.push("root".to_owned());
        let mut sums: Vec<&str> = self.json["layers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|l| l["class"] == "Add" || l["class"] == "Merge")
            .map(|l| l["name"].as_str().unwrap())
            .collect();
        sums.sort_by_key(|name| number(name));
        assert_eq!(paths.len(), sums.len());
        paths
            .into_iter()
            .zip(sums.into_iter().map(str::to_owned))
            .collect()
    }
}

/// Our name of a tensor as Keras's: the layer's name and the weight's. `layers` are
/// [`Fixture::keras_names`].
pub fn keras_name(
    layers: &BTreeMap<String, String>,
    name: &str,
    role: TensorRole,
) -> (String, &'static str) {
    let (path, _) = name.rsplit_once('.').unwrap();
    let weight = match role {
        TensorRole::ConvWeight | TensorRole::DenseWeight => "kernel",
        TensorRole::ConvBias | TensorRole::DenseBias => "bias",
        TensorRole::NormScale => "gamma",
        TensorRole::NormShift => "beta",
        TensorRole::RunningMean => "moving_mean",
        TensorRole::RunningVariance => "moving_variance",
    };
    (layers[path].clone(), weight)
}

/// What tf.keras holds for a tensor of this role, in our order of dimensions.
pub fn from_keras(array: &Tensor, role: TensorRole) -> Tensor {
    match role {
        TensorRole::ConvWeight => array.permute((3, 2, 0, 1)).unwrap(),
        TensorRole::DenseWeight => array.t().unwrap(),
        _ => array.clone(),
    }
}

/// The number at the end of a layer's name, 0 without.
fn number(name: &str) -> usize {
    name.rsplit_once('_')
        .and_then(|(_, n)| n.parse().ok())
        .unwrap_or(0)
}

/// All values of a tensor.
pub fn values(tensor: &Tensor) -> Vec<f32> {
    tensor
        .to_dtype(DType::F32)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap()
}

/// The largest absolute difference.
pub fn difference(found: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let pairs = values(found).into_iter().zip(values(expected));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, |a: f32, b| {
        if a.is_nan() || b.is_nan() {
            f32::NAN
        } else {
            a.max(b)
        }
    })
}

/// The largest absolute difference relative to the largest expected value.
pub fn relative_difference(found: &Tensor, expected: &Tensor) -> f32 {
    let largest = values(expected)
        .into_iter()
        .fold(0.0, |a: f32, b| a.max(b.abs()));
    difference(found, expected) / largest
}

/// A vector as an image of one pixel per channel, `(1, C, 1, 1)`.
pub fn pixel(channels: &Tensor) -> Tensor {
    channels.reshape((1, (), 1, 1)).unwrap()
}

/// The mean over batch and space, `(C)`, of `(N, C, H, W)`.
pub fn mean_per_channel(x: &Tensor) -> Tensor {
    x.mean((0, 2, 3)).unwrap()
}

/// Float32 tensors on the CPU.
pub fn var_builder(weights: &Weights) -> VarBuilder<'static> {
    weights.var_builder(DType::F32, &Device::Cpu)
}

/// The model in float32 on the CPU.
pub fn model(weights: &Weights) -> Model {
    weights.model(DType::F32, &Device::Cpu).unwrap()
}
