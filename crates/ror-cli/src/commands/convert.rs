//! `ror convert`

use crate::model::{ModelOptions, WeightsOptions};
use crate::normalise::NormaliseOption;
use crate::output::{self, note};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use ror_models::{Description, Dialect};
use ror_weights::{Mean, Metadata, Normalisation, OnnxOptions, PytorchNames, Weights};
use std::fs;
use std::path::{Path, PathBuf};

/// Convert weights of any readable format to safetensors, Keras HDF5 or ONNX
///
/// The model is found from the file where that is possible. Metadata (class names, normalisation)
/// is carried on where both formats have it.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  ror convert keras-1-theano.h5 ror.safetensors\n  \
    ror convert ror3_56_cifar10.pth ror.safetensors --class-names names.txt\n  \
    ror convert ror.safetensors for-keras.h5\n  \
    ror convert ror.safetensors for-any-runtime.onnx --softmax\n  \
    ror convert ror.safetensors for-pytorchcv.safetensors --format pytorchcv\n  \
    ror convert ror-3-110-sd.safetensors plain.safetensors --to ror-3-110\n  \
    ror convert monday.safetensors mean.safetensors --average tuesday.safetensors"
)]
pub(crate) struct Args {
    /// Weights to read
    input: PathBuf,
    /// Where to write; the ending .safetensors, .h5, .hdf5 or .onnx chooses the format
    output: PathBuf,
    /// Which state dict a .safetensors is to be
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "ror",
        hide_default_value = true
    )]
    format: StateDict,
    /// Express the weights as another model, or as the one of dialect paper, keras or pytorchcv,
    /// if that computes exactly the same; otherwise the first difference is named
    #[arg(long, value_name = "MODEL", value_parser = parse_target)]
    to: Option<Destination>,
    /// Write the mean of the input and of these weights, parts of one training or tuned from the
    /// same weights; may be repeated. Remarks are not carried on
    #[arg(long, value_name = "FILE")]
    average: Vec<PathBuf>,
    /// End an .onnx in softmax: probabilities instead of logits
    #[arg(long)]
    softmax: bool,
    /// Fold batch norms of an .onnx into the convolutions before them
    #[arg(long)]
    fold_norms: bool,
    /// Store the kernels of a .safetensors in 16 bits, for half the size
    #[arg(long)]
    half: bool,
    /// Put a remark into the metadata, such as data=CIFAR-10
    #[arg(long = "remark", value_name = "KEY=TEXT", value_parser = parse_remark)]
    remarks: Vec<(String, String)>,
    #[command(flatten)]
    weights_options: WeightsOptions,
    #[command(flatten)]
    normalise: NormaliseOption,
    /// Put these class names into the metadata: a text file, a name per line
    #[arg(long, value_name = "FILE")]
    class_names: Option<PathBuf>,
    #[command(flatten)]
    model_options: ModelOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StateDict {
    /// Only what ror needs (the default)
    Ror,
    /// A whole PyTorch state dict, with num_batches_tracked, named as the levels nest
    Pytorch,
    /// The same with pytorchcv's names, for its ror3_56_*, ror3_110_*, ror3_164_*
    Pytorchcv,
}

/// What `--to` names.
#[derive(Debug, Clone)]
enum Destination {
    Dialect(Dialect),
    Model(Box<Description>),
}

fn parse_target(text: &str) -> Result<Destination, String> {
    Ok(match text {
        "paper" => Destination::Dialect(Dialect::Paper),
        "keras" => Destination::Dialect(Dialect::Keras),
        "pytorchcv" => Destination::Dialect(Dialect::Pytorchcv),
        name => Destination::Model(Box::new(
            Description::preset(name).map_err(|e| e.to_string())?,
        )),
    })
}

fn parse_remark(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=TEXT".to_owned()),
    }
}

enum Target {
    Safetensors,
    Keras,
    Onnx,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let (target, file) = target(args)?;
    args.weights_options.check_changes(&args.model_options)?;
    let load = |path: &Path| args.weights_options.load(path, Some(&args.model_options));
    let mut weights = load(&args.input)?;
    let mut source = weights.format.to_string();
    if !args.average.is_empty() {
        let mut mean = Mean::of(&weights)?;
        for path in &args.average {
            let other = load(path)?;
            mean.add(&other)
                .with_context(|| path.display().to_string())?;
        }
        weights = mean.weights()?;
        source = format!("the mean of {}", 1 + args.average.len());
    }
    if let Some(to) = &args.to {
        weights = match to {
            Destination::Dialect(dialect) => weights.in_dialect(*dialect),
            Destination::Model(description) => weights.expressed_as(description),
        }
        .with_context(|| args.input.display().to_string())?;
    }
    add_metadata(args, &mut weights.metadata, weights.description.classes)?;
    write(args, &target, &file, &weights)?;
    note(&format!(
        "{}: {}, {} tensors, from {source}",
        args.output.display(),
        weights.description,
        weights.tensors.len()
    ));
    Ok(())
}

/// What the output's name asks for; options of other formats are a mistake.
fn target(args: &Args) -> Result<(Target, PathBuf)> {
    let path = &args.output;
    let endings = ["safetensors", "h5", "hdf5", "onnx"];
    let others = args.average.iter().map(PathBuf::as_path);
    let inputs: Vec<_> = [args.input.as_path()].into_iter().chain(others).collect();
    let file = output::target(path, &endings, &inputs)?;
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    let target = match ending.as_deref() {
        Some("safetensors") => Target::Safetensors,
        Some("onnx") => Target::Onnx,
        _ => Target::Keras,
    };
    let foreign = match target {
        Target::Onnx => args.format != StateDict::Ror || args.half,
        Target::Safetensors => args.softmax || args.fold_norms,
        Target::Keras => {
            args.format != StateDict::Ror || args.half || args.softmax || args.fold_norms
        }
    };
    if args.half && args.format != StateDict::Ror {
        bail!("--half is for the format ror: PyTorch's modules keep all tensors in 32 bits");
    }
    if foreign {
        bail!(
            "{}: --softmax and --fold-norms are for .onnx, --format and --half for .safetensors",
            path.display()
        );
    }
    Ok((target, file))
}

fn write(args: &Args, target: &Target, path: &Path, weights: &Weights) -> Result<()> {
    match (target, args.format) {
        (Target::Keras, _) => ror_weights::save_keras_h5(path, weights)?,
        (Target::Onnx, _) => {
            let options = OnnxOptions {
                softmax: args.softmax,
                fold_norms: args.fold_norms,
            };
            ror_weights::save_onnx(path, weights, &options)?;
        }
        (Target::Safetensors, StateDict::Ror) if args.half => {
            ror_weights::save_safetensors_half(path, weights)?;
        }
        (Target::Safetensors, StateDict::Ror) => ror_weights::save_safetensors(path, weights)?,
        (Target::Safetensors, StateDict::Pytorch) => {
            ror_weights::save_pytorch(path, weights, PytorchNames::Levels)?;
        }
        (Target::Safetensors, StateDict::Pytorchcv) => {
            ror_weights::save_pytorch(path, weights, PytorchNames::Pytorchcv)?;
        }
    }
    Ok(())
}

fn add_metadata(args: &Args, metadata: &mut Metadata, classes: usize) -> Result<()> {
    if let Some(n) = args.normalise.get() {
        metadata.normalisation = Some(Normalisation {
            mean: n.mean.to_vec(),
            std: n.std.to_vec(),
        });
    }
    if let Some(path) = &args.class_names {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        if names.len() != classes || names.iter().any(String::is_empty) {
            bail!(
                "{}: expected {classes} names, one per line, found {}",
                path.display(),
                names.iter().filter(|name| !name.is_empty()).count()
            );
        }
        metadata.class_names = Some(names);
    }
    metadata.extra.extend(args.remarks.iter().cloned());
    Ok(())
}
