//! `ror convert`

use crate::model::{ModelOptions, WeightsOptions};
use crate::normalise::NormaliseOption;
use crate::output::note;
use anyhow::{Context, Result, bail};
use ror_weights::{Metadata, Normalisation};
use std::fs;
use std::path::{Path, PathBuf};

/// Convert weights of any readable format to safetensors or Keras HDF5
///
/// The model is found from the file where that is possible. Metadata (class names, normalisation)
/// is carried on where both formats have it.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  ror convert keras-1-theano.h5 ror.safetensors\n  \
    ror convert ror3_56_cifar10.pth ror.safetensors --class-names names.txt\n  \
    ror convert ror.safetensors for-keras.h5"
)]
pub(crate) struct Args {
    /// Weights to read
    input: PathBuf,
    /// Where to write; the ending .safetensors, .h5 or .hdf5 chooses the format
    output: PathBuf,
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

enum Target {
    Safetensors,
    Keras,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let target = target(&args.output)?;
    if same_file(&args.input, &args.output) {
        bail!(
            "{} is the input; choose another output",
            args.output.display()
        );
    }
    let mut weights = args
        .weights_options
        .load(&args.input, Some(&args.model_options))?;
    add_metadata(args, &mut weights.metadata, weights.description.classes)?;
    match target {
        Target::Safetensors => ror_weights::save_safetensors(&args.output, &weights)?,
        Target::Keras => ror_weights::save_keras_h5(&args.output, &weights)?,
    }
    note(&format!(
        "{}: {}, {} tensors, from {}",
        args.output.display(),
        weights.description,
        weights.tensors.len(),
        weights.format
    ));
    Ok(())
}

fn target(path: &Path) -> Result<Target> {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    match ending.as_deref() {
        Some("safetensors") => Ok(Target::Safetensors),
        Some("h5" | "hdf5") => Ok(Target::Keras),
        _ => bail!(
            "{}: the name must end in .safetensors, .h5 or .hdf5",
            path.display()
        ),
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
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
    Ok(())
}
