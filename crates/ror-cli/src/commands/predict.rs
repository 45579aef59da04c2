//! `ror predict`

use crate::data::{centre_crop, share};
use crate::model::ChosenWeights;
use crate::normalise::NormaliseOption;
use crate::output::{note, print, print_json, table, target};
use crate::progress::Progress;
use crate::runner::{EngineOptions, Runner, softmax};
use anyhow::{Context, Result, bail};
use ror_data::{Image, image_files, npy};
use serde::Serialize;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Classify images
///
/// Pictures of any size are fitted to the model's: the largest centred region of its proportions,
/// scaled; for ImageNet networks without the edges (--centre-crop). A .npy file holds float32 arrays (N, 3, H, W), taken as already normalised.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  ror predict photo.jpg\n  ror predict --weights w.h5 photo.jpg\n  \
    ror predict --weights w.h5 --json folder/ > classes.json\n  \
    ror predict --weights w.h5 x.npy --output probabilities.npy"
)]
pub(crate) struct Args {
    /// JPEG or PNG files, folders of them, .npy arrays
    #[arg(required = true)]
    input: Vec<PathBuf>,
    #[command(flatten)]
    weights: ChosenWeights,
    #[command(flatten)]
    normalise: NormaliseOption,
    /// Look at this share of a picture's shorter side, in the centre [default: 0.875, as 224 of 256,
    /// for ImageNet networks, else 1]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    centre_crop: Option<f64>,
    /// Average the probabilities of an image and of its mirror image, which takes twice the time
    #[arg(long)]
    mirror: bool,
    #[command(flatten)]
    engine: EngineOptions,
    /// How many classes to show per image
    #[arg(short = 'k', long, default_value_t = 5, value_name = "K", value_parser = crate::model::positive)]
    top: usize,
    /// Write the probabilities of all classes, float32 (N, classes)
    #[arg(short, long, value_name = "FILE.npy")]
    output: Option<PathBuf>,
    /// Write logits instead of probabilities; with --mirror, the logarithms of probabilities
    #[arg(long, requires = "output")]
    logits: bool,
    /// Images per step
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = crate::model::positive)]
    batch_size: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The answer for one image.
#[derive(Serialize)]
struct Prediction {
    input: String,
    top: Vec<Class>,
}

#[derive(Serialize)]
struct Class {
    class: String,
    index: usize,
    probability: f32,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let inputs: Vec<&Path> = args
        .input
        .iter()
        .map(PathBuf::as_path)
        .chain([args.weights.path()])
        .collect();
    let output = args
        .output
        .as_deref()
        .map(|path| target(path, &["npy"], &inputs))
        .transpose()?;
    let weights = args.weights.load()?;
    let crop = args
        .centre_crop
        .unwrap_or_else(|| centre_crop(&weights.description));
    let batch_size = args.batch_size;
    let mut runner = Runner::new(weights, args.normalise.get(), args.engine, batch_size)?;
    if !runner.description.top && args.output.is_none() {
        bail!(
            "{} ends at the average pool and knows no classes; --output FILE.npy writes its features",
            args.weights.path().display()
        );
    }
    if args.mirror {
        if !runner.description.top {
            bail!("--mirror averages probabilities, which features are not");
        }
        runner.mirror();
    }
    let mut names = Vec::new();
    let mut outputs = Vec::new();
    for source in sources(&args.input)? {
        let logits = match &source {
            Source::Array(path) => predict_array(&mut runner, path, batch_size, &mut names)?,
            Source::Pictures(paths) => {
                predict_pictures(&mut runner, paths, (batch_size, crop), &mut names)?
            }
        };
        outputs.extend(logits);
    }
    let width = runner.outputs();
    if outputs.iter().any(|v| v.is_nan()) {
        note("note: some results are not numbers (NaN); so is something in the input");
    }
    let raw = args.logits || !runner.description.top;
    if let Some(path) = &output {
        let values: Cow<[f32]> = if raw {
            Cow::Borrowed(&outputs)
        } else {
            outputs.chunks_exact(width).flat_map(softmax).collect()
        };
        npy::write(path, &[names.len(), width], &values)?;
    }
    if runner.description.top {
        report(args, &runner, &names, &outputs)
    } else {
        Ok(())
    }
}

/// Inputs in order, with runs of pictures together.
enum Source {
    Pictures(Vec<PathBuf>),
    Array(PathBuf),
}

fn sources(inputs: &[PathBuf]) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for input in inputs {
        let ending = input
            .extension()
            .map(|e| e.to_string_lossy().to_lowercase());
        if ending.as_deref() == Some("npy") && !input.is_dir() {
            sources.push(Source::Array(input.clone()));
            continue;
        }
        let pictures = if input.is_dir() {
            image_files(input)?
        } else {
            vec![input.clone()]
        };
        match sources.last_mut() {
            Some(Source::Pictures(before)) => before.extend(pictures),
            _ => sources.push(Source::Pictures(pictures)),
        }
    }
    Ok(sources)
}

fn predict_array(
    runner: &mut Runner,
    path: &Path,
    batch_size: usize,
    names: &mut Vec<String>,
) -> Result<Vec<f32>> {
    let array = npy::read(path)?;
    let &[n, channels, h, w] = array.shape.as_slice() else {
        bail!(
            "{}: expected an array (N, {}, H, W), found {:?}",
            path.display(),
            runner.description.channels,
            array.shape
        );
    };
    let [height, width] = runner.description.image_size;
    let any_size = runner.description.family == ror_models::Family::ImageNet;
    let fits = if any_size {
        h > 0 && w > 0
    } else {
        (h, w) == (height, width)
    };
    if channels != runner.description.channels || !fits {
        bail!(
            "{}: expected an array (N, {}, {height}, {width}), found {:?}",
            path.display(),
            runner.description.channels,
            array.shape
        );
    }
    names.extend((0..n).map(|i| format!("{}[{i}]", path.display())));
    let progress = Progress::new("images");
    let mut outputs = Vec::new();
    if n == 0 {
        return Ok(outputs);
    }
    let image = array.data.len() / n;
    let batch_size = batch_size.min(n);
    for (i, images) in array.data.chunks(batch_size * image).enumerate() {
        let count = images.len() / image;
        outputs.extend(
            runner
                .logits(images, count, (h, w))
                .with_context(|| path.display().to_string())?,
        );
        progress.set(i * batch_size + count, n);
    }
    Ok(outputs)
}

fn predict_pictures(
    runner: &mut Runner,
    paths: &[PathBuf],
    (batch_size, centre_crop): (usize, f64),
    names: &mut Vec<String>,
) -> Result<Vec<f32>> {
    runner.check_takes_pictures()?;
    let (size, normalisation) = (runner.size, runner.normalisation());
    let progress = Progress::new("images");
    let (mut outputs, mut pixels, mut resized) = (Vec::new(), Vec::new(), Vec::new());
    for (i, batch) in paths.chunks(batch_size).enumerate() {
        pixels.clear();
        for path in batch {
            let image = Image::open(path)?.fit_centre(size, centre_crop);
            if image.original() != size {
                resized.push((path, image.original()));
            }
            normalisation.append([image.pixels()], &mut pixels);
        }
        outputs.extend(runner.logits(&pixels, batch.len(), (size.height(), size.width()))?);
        progress.set(i * batch_size + batch.len(), paths.len());
    }
    match resized.as_slice() {
        [] => {}
        [(path, original)] => note(&format!(
            "note: {} was resized from {original} to {size}",
            path.display()
        )),
        [(path, original), ..] => note(&format!(
            "note: {} images were resized to {size}, {} from {original} for example",
            resized.len(),
            path.display()
        )),
    }
    names.extend(paths.iter().map(|path| path.display().to_string()));
    Ok(outputs)
}

fn report(args: &Args, runner: &Runner, names: &[String], outputs: &[f32]) -> Result<()> {
    let predictions: Vec<Prediction> = names
        .iter()
        .zip(outputs.chunks_exact(runner.outputs()))
        .map(|(input, logits)| Prediction {
            input: input.clone(),
            top: top(&runner.class_names, &softmax(logits), args.top),
        })
        .collect();
    if args.json {
        return print_json(&predictions);
    }
    let mut rows = Vec::new();
    for prediction in predictions {
        for (i, class) in prediction.top.into_iter().enumerate() {
            let input = if i == 0 {
                prediction.input.as_str()
            } else {
                ""
            };
            let probability = format!("{:.2} %", class.probability * 100.0);
            rows.push(vec![input.to_owned(), class.class, probability]);
        }
    }
    print(&table(&["input", "class", "probability"], &rows, &[2]))
}

/// The `k` most probable classes, the lower index first among equals.
fn top(classes: &[String], probabilities: &[f32], k: usize) -> Vec<Class> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    order
        .into_iter()
        .take(k)
        .map(|index| Class {
            class: classes[index].clone(),
            index,
            probability: probabilities[index],
        })
        .collect()
}
