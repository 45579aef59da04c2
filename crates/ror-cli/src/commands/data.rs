//! `ror data`

use crate::data::{DataOptions, SplitArg};
use crate::output::{note, print, print_json, table, target, write_file};
use crate::progress::Progress;
use anyhow::Result;
use clap::Subcommand;
use ror_data::{Dataset, Options, Size, Statistics};
use serde::Serialize;
use std::path::PathBuf;

/// Look at data sets
#[derive(clap::Args)]
#[command(after_help = "Example:\n  ror data info cifar-10-binary.tar.gz")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Info(Info),
}

/// Describe a data set: format, sizes, images per class, mean and deviation of its pixels
///
/// Means and deviations are those of pixels scaled to 0..1, over all images at the size of --size; the
/// line `normalise` is what `ror train` takes. Images of folders are decoded one after the
/// other and not kept, so that a folder may be of any size.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  ror data info cifar-10-binary.tar.gz --split test\n  \
    ror data info flowers/ --size 224 --sheet flowers.png"
)]
struct Info {
    /// The data set: whatever `ror eval --data` takes
    path: PathBuf,
    /// Which part of it
    #[arg(long, value_enum, default_value_t = SplitArg::Train)]
    split: SplitArg,
    /// CIFAR-100's 20 coarse classes instead of its 100
    #[arg(long)]
    coarse: bool,
    /// SVHN's extra images beside its training images
    #[arg(long)]
    extra: bool,
    /// Fit images to this size: a side, or WIDTHxHEIGHT
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "32")]
    size: Size,
    /// Draw some images of every class: a row per class, in the order of the table, the first 50
    /// classes in one column, the next beside them
    #[arg(long, value_name = "FILE.png")]
    sheet: Option<PathBuf>,
    /// Images of every class on the sheet
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = crate::model::positive)]
    per_class: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Serialize)]
struct Report {
    name: String,
    path: PathBuf,
    format: String,
    split: Option<String>,
    images: usize,
    /// Width and height to which images are fitted.
    size: [usize; 2],
    /// How many had another size.
    resized: usize,
    /// Least and largest width and height of the images themselves, where they are known.
    originals: Option<Originals>,
    mean: [f64; 3],
    std: [f64; 3],
    classes: Vec<Class>,
}

#[derive(Serialize)]
struct Originals {
    least: [usize; 2],
    largest: [usize; 2],
}

#[derive(Serialize)]
struct Class {
    class: String,
    index: usize,
    images: usize,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Info(args) => info(args),
    }
}

fn info(args: &Info) -> Result<()> {
    let sheet = args
        .sheet
        .as_deref()
        .map(|path| target(path, &["png"], &[&args.path]))
        .transpose()?;
    let data = open(args)?;
    let statistics = {
        let progress = Progress::new("images");
        Statistics::of(&data, &|done, total| progress.set(done, total))?
    };
    if let Some(path) = &sheet {
        write_file(path, &data.contact_sheet(args.per_class)?)?;
        note(&format!(
            "{}: a row per class, in the order of the classes{}",
            path.display(),
            if data.classes().len() > 50 {
                ", 50 to a column"
            } else {
                ""
            }
        ));
    }
    let report = Report::new(&data, statistics);
    if args.json {
        print_json(&report)
    } else {
        print(&text(&report, &data))
    }
}

fn open(args: &Info) -> Result<Dataset> {
    let progress = Progress::new("read");
    let data_options = DataOptions {
        coarse: args.coarse,
        extra: args.extra,
        lazy: true,
    };
    let options = Options {
        size: args.size,
        progress: &|done, total| progress.set(done, total),
        ..data_options.options()
    };
    Ok(Dataset::open(&args.path, args.split.into(), &options)?)
}

impl Report {
    fn new(data: &Dataset, statistics: Statistics) -> Self {
        let sides = |size: Size| [size.width(), size.height()];
        let provenance = data.provenance();
        Self {
            name: provenance.name.clone(),
            path: provenance.path.clone(),
            format: provenance.format.to_string(),
            split: provenance.split.map(|split| split.to_string()),
            images: data.len(),
            size: sides(data.size()),
            resized: statistics.resized,
            originals: statistics.originals.map(|[least, largest]| Originals {
                least: sides(least),
                largest: sides(largest),
            }),
            mean: statistics.mean,
            std: statistics.std,
            classes: data
                .classes()
                .iter()
                .zip(statistics.counts)
                .enumerate()
                .map(|(index, (class, images))| Class {
                    class: class.clone(),
                    index,
                    images,
                })
                .collect(),
        }
    }
}

fn text(report: &Report, data: &Dataset) -> String {
    let rgb = |values: [f64; 3]| values.map(|v| format!("{v:.4}"));
    let (mean, std) = (rgb(report.mean), rgb(report.std));
    let originals = match &report.originals {
        Some(Originals { least, largest }) if least != largest => {
            let [[w, h], [most_w, most_h]] = [least, largest];
            format!("; themselves {w} to {most_w} wide, {h} to {most_h} high")
        }
        _ => String::new(),
    };
    let rows: Vec<Vec<String>> = report
        .classes
        .iter()
        .map(|c| vec![c.index.to_string(), c.class.clone(), c.images.to_string()])
        .collect();
    format!(
        "{}\nformat     {}\nimages     {} of {} classes\nsize       {}, {} resized{originals}\n\
         mean       {}\ndeviation  {}\nnormalise  --normalise {},{}\n\n{}",
        data.provenance(),
        report.format,
        report.images,
        report.classes.len(),
        data.size(),
        report.resized,
        mean.join(" "),
        std.join(" "),
        mean.join(","),
        std.join(","),
        table(&["index", "class", "images"], &rows, &[0, 2])
    )
}

/// A side, or width and height.
fn size(text: &str) -> Result<Size, String> {
    let (width, height) = text.split_once(['x', 'X']).unwrap_or((text, text));
    let side = |text: &str| text.trim().parse::<usize>().ok();
    side(height)
        .zip(side(width))
        .and_then(|(height, width)| Size::new(height, width))
        .ok_or_else(|| "expected a side such as 224, or WIDTHxHEIGHT, up to 32768".to_owned())
}
