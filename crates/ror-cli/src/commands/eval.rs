//! `ror eval`

use crate::measure::{Crops, MeasureOptions, measure};
use crate::output::{percent, print, print_json, table, target, write_file};
use crate::progress::Progress;
use crate::ranks;
use anyhow::Result;
use ror_data::Dataset;
use ror_train::{Evaluation, Ranks, ranks::share};
use std::path::{Path, PathBuf};

/// Measure accuracy on a labelled data set
///
/// The data is an image folder (train/ and test/ or val/, a folder per class), CIFAR-10 or CIFAR-100
/// in the official binary or python layout, unpacked or as .tar.gz, or a folder with SVHN's .mat files.
///
/// Started by mpirun (in a build with the feature mpi), the processes share the images.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  \
    ror eval --weights w.safetensors --data cifar-10-binary.tar.gz --confusion confusion.svg")]
pub(crate) struct Args {
    #[command(flatten)]
    measure: MeasureOptions,
    /// Average the probabilities of ten crops of an image: corners and centre, each also mirrored, cut
    /// out of the image at a size of which each is 0.875 (or the share of --centre-crop): 224 of 256
    /// pixels, 32 of 37. For ImageNet networks: those trained on whole images of 32 pixels lose by it
    #[arg(long, conflicts_with = "mirror")]
    ten_crop: bool,
    /// Average the probabilities of an image and of its mirror image, which takes twice the time
    #[arg(long)]
    mirror: bool,
    /// Draw the confusion matrix
    #[arg(long, value_name = "FILE.svg")]
    confusion: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let options = &args.measure;
    let inputs: [&Path; 2] = [options.weights.path(), &options.data];
    let confusion = args
        .confusion
        .as_deref()
        .map(|path| target(path, &["svg"], &inputs))
        .transpose()?;
    let crops = if args.ten_crop {
        Crops::Ten
    } else {
        Crops::One
    };
    ranks::joined(|ranks| evaluate(args, &*ranks, crops, confusion.as_deref()))
}

fn evaluate(args: &Args, ranks: &dyn Ranks, crops: Crops, confusion: Option<&Path>) -> Result<()> {
    let options = &args.measure;
    let (mut runner, data) = options.open(crops)?;
    if args.mirror {
        runner.mirror();
    }
    let indices: Vec<usize> = share(ranks, data.len()).collect();
    let progress = Progress::new("images");
    let mut metrics = measure(
        &mut runner,
        &data,
        &indices,
        (crops, options.batch_size),
        |_, _| (),
        |done| progress.set(done, indices.len()),
    )?;
    metrics.sum(ranks);
    let evaluation = metrics.evaluation(data.classes());
    if args.json {
        print_json(&evaluation)?;
    } else {
        print(&text(&evaluation, &data))?;
    }
    if let Some(path) = confusion {
        let svg = crate::confusion::to_svg(metrics.confusion(), data.classes());
        write_file(path, svg.as_bytes())?;
    }
    Ok(())
}

fn text(evaluation: &Evaluation, data: &Dataset) -> String {
    let rows: Vec<Vec<String>> = evaluation
        .per_class
        .iter()
        .map(|c| {
            vec![
                c.class.clone(),
                c.images.to_string(),
                percent(c.top1),
                percent(c.precision),
            ]
        })
        .collect();
    let header = ["class", "images", "top-1", "precision"];
    format!(
        "{}: {} images\ntop-1 {}  top-5 {}  loss {:.4}\n\n{}",
        data.provenance(),
        evaluation.images,
        percent(evaluation.top1),
        percent(evaluation.top5),
        evaluation.loss,
        table(&header, &rows, &[1, 2, 3])
    )
}
