//! `ror eval`

use crate::data::{self, DataOptions, SplitArg, centre_crop, share};
use crate::model::WeightsOptions;
use crate::normalise::NormaliseOption;
use crate::output::{print, print_json, table, target, write_file};
use crate::progress::Progress;
use crate::runner::{EngineOptions, Runner, averaged};
use anyhow::{Result, bail};
use rayon::prelude::*;
use ror_data::{Dataset, Normalisation, Options, Size, ten_crops};
use ror_train::{Evaluation, Metrics};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The share of an image's side that each of ten crops has.
const TEN_CROP_SHARE: f64 = 0.875;

/// Measure accuracy on a labelled data set
///
/// The data is an image folder (train/ and test/ or val/, a folder per class), CIFAR-10 or CIFAR-100
/// in the official binary or python layout, unpacked or as .tar.gz, or a folder with SVHN's .mat files.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  \
    ror eval --weights w.safetensors --data cifar-10-binary.tar.gz --confusion confusion.svg")]
pub(crate) struct Args {
    /// Weights in any readable format
    #[arg(short, long, value_name = "FILE")]
    weights: PathBuf,
    /// The data set
    #[arg(short, long, value_name = "PATH")]
    data: PathBuf,
    /// Which part of it
    #[arg(long, value_enum, default_value_t = SplitArg::Test)]
    split: SplitArg,
    #[command(flatten)]
    data_options: DataOptions,
    /// Look at this share of a picture's shorter side, in the centre [default: 0.875, as 224 of 256,
    /// for ImageNet networks, else 1]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    centre_crop: Option<f64>,
    /// Average the probabilities of ten crops of an image: corners and centre, each also mirrored, cut
    /// out of the image at a size of which each is 0.875 (or the share of --centre-crop): 224 of 256
    /// pixels, 32 of 37
    #[arg(long)]
    ten_crop: bool,
    #[command(flatten)]
    weights_options: WeightsOptions,
    #[command(flatten)]
    normalise: NormaliseOption,
    #[command(flatten)]
    engine: EngineOptions,
    /// Draw the confusion matrix
    #[arg(long, value_name = "FILE.svg")]
    confusion: Option<PathBuf>,
    /// Images per step
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = crate::model::positive)]
    batch_size: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let inputs: [&Path; 2] = [&args.weights, &args.data];
    let confusion = args
        .confusion
        .as_deref()
        .map(|path| target(path, &["svg"], &inputs))
        .transpose()?;
    let weights = args.weights_options.load(&args.weights, None)?;
    let mut runner = Runner::new(weights, args.normalise.get(), args.engine, args.batch_size)?;
    if !runner.description.top {
        bail!(
            "{} ends at the average pool and knows no classes",
            args.weights.display()
        );
    }
    runner.check_takes_pictures()?;
    let data = open(args, &runner)?;
    check_classes(args, &runner, &data)?;
    let metrics = measure(args, &mut runner, &data)?;
    let evaluation = metrics.evaluation(data.classes());
    if let Some(path) = &confusion {
        let svg = crate::confusion::to_svg(metrics.confusion(), data.classes());
        write_file(path, svg.as_bytes())?;
    }
    if args.json {
        print_json(&evaluation)
    } else {
        print(&text(&evaluation, &data))
    }
}

fn open(args: &Args, runner: &Runner) -> Result<Dataset> {
    let (size, centre_crop) = if args.ten_crop {
        let share = args.centre_crop.unwrap_or(TEN_CROP_SHARE);
        (runner.size.enlarged(share), 1.0)
    } else {
        let usual = || centre_crop(&runner.description);
        (runner.size, args.centre_crop.unwrap_or_else(usual))
    };
    let options = Options {
        size,
        centre_crop,
        ..args.data_options.options()
    };
    Ok(data::open(&args.data, args.split.into(), &options)?)
}

fn check_classes(args: &Args, runner: &Runner, data: &Dataset) -> Result<()> {
    let (ours, theirs) = (&runner.class_names, data.classes());
    if ours.len() != theirs.len() {
        bail!(
            "{} is for {} classes, {} has {}",
            args.weights.display(),
            ours.len(),
            args.data.display(),
            theirs.len()
        );
    }
    if runner.named
        && let Some(i) = (0..ours.len()).find(|&i| ours[i] != theirs[i])
    {
        bail!(
            "class {i} is `{}` in {}, `{}` in {}",
            ours[i],
            args.weights.display(),
            theirs[i],
            args.data.display()
        );
    }
    Ok(())
}

fn measure(args: &Args, runner: &mut Runner, data: &Dataset) -> Result<Metrics> {
    let mut metrics = Metrics::new(data.classes().len());
    let progress = Progress::new("images");
    let size = (runner.size.height(), runner.size.width());
    let normalisation = runner.normalisation();
    let crops = if args.ten_crop { 10 } else { 1 };
    let step = (args.batch_size / crops).max(1);
    let mut pixels = Vec::new();
    let mut done = 0;
    while done < data.len() {
        let end = (done + step).min(data.len());
        if args.ten_crop {
            ten_crops_of(data, done..end, runner.size, &normalisation, &mut pixels)?;
        } else {
            data.batch(done..end, &normalisation, &mut pixels)?;
        }
        let logits = runner.logits(&pixels, (end - done) * crops, size)?;
        let outputs = runner.outputs();
        for (logits, &label) in logits
            .chunks_exact(outputs * crops)
            .zip(&data.labels()[done..end])
        {
            if args.ten_crop {
                metrics.add(&averaged(logits, outputs), label as usize);
            } else {
                metrics.add(logits, label as usize);
            }
        }
        done = end;
        progress.set(done, data.len());
    }
    Ok(metrics)
}

/// Fills `batch` with the ten crops of each image, (10 N, 3, H, W).
fn ten_crops_of(
    data: &Dataset,
    indices: Range<usize>,
    size: Size,
    normalisation: &Normalisation,
    batch: &mut Vec<f32>,
) -> Result<()> {
    let crops = indices.into_par_iter().map(|index| {
        let image = data.image(index)?;
        Ok(ten_crops(&image, data.size(), size))
    });
    let crops: Vec<[Vec<u8>; 10]> = crops.collect::<Result<_>>()?;
    batch.clear();
    normalisation.append(crops.as_flattened().iter().map(Vec::as_slice), batch);
    Ok(())
}

fn text(evaluation: &Evaluation, data: &Dataset) -> String {
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
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
