//! Opening data sets.

use crate::output::note;
use crate::progress::Progress;
use anyhow::Result;
use clap::ValueEnum;
use ror_data::{Dataset, Options, Split};
use ror_models::{Description, Family};
use std::path::Path;

/// Which of a data set's labels and images, and how they are read.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct DataOptions {
    /// CIFAR-100's 20 coarse classes instead of its 100
    #[arg(long)]
    pub(crate) coarse: bool,
    /// SVHN's extra images beside its training images
    #[arg(long)]
    pub(crate) extra: bool,
    /// Decode the images of a folder when they are needed, each time, not once at the start; folders
    /// of more than 8 GiB of pixels are read so anyway, and those to cut random regions out of
    #[arg(long)]
    pub(crate) lazy: bool,
}

/// Which part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SplitArg {
    Train,
    #[value(alias = "val")]
    Test,
}

impl From<SplitArg> for Split {
    fn from(split: SplitArg) -> Self {
        match split {
            SplitArg::Train => Self::Train,
            SplitArg::Test => Self::Test,
        }
    }
}

impl DataOptions {
    /// With everything else as by default.
    pub(crate) fn options(self) -> Options<'static> {
        Options {
            coarse: self.coarse,
            extra: self.extra,
            lazy: self.lazy,
            ..Options::default()
        }
    }
}

/// Opens a split, and says how far it is and what was done to the images.
pub(crate) fn open(
    path: &Path,
    split: Split,
    options: &Options<'_>,
) -> Result<Dataset, ror_data::Error> {
    let progress = Progress::new("read");
    let data = Dataset::open(
        path,
        split,
        &Options {
            progress: &|done, total| progress.set(done, total),
            ..*options
        },
    )?;
    drop(progress);
    if data.is_lazy() {
        note(&format!(
            "note: {} images of {} are decoded when they are needed",
            data.len(),
            data.provenance()
        ));
    } else if data.resized() > 0 {
        note(&format!(
            "note: {} images were resized to {}",
            data.resized(),
            options.size
        ));
    }
    Ok(data)
}

/// The share of a picture's shorter side that a network looks at: 224 of 256 pixels for ImageNet,
/// as such networks are measured, else all of it.
pub(crate) fn centre_crop(description: &Description) -> f64 {
    if description.family == Family::ImageNet {
        0.875
    } else {
        1.0
    }
}

/// A share above 0, at most 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("expected a share above 0, at most 1, such as 0.875".to_owned()),
    }
}
