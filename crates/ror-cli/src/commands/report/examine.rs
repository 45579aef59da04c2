//! A run's best weights on its validation images.

use crate::measure::{Crops, check_classes, measure};
use crate::model::WeightsOptions;
use crate::progress::Progress;
use crate::run::data;
use crate::runner::{EngineOptions, Runner, softmax};
use anyhow::{Context, Result, bail};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use image::imageops::thumbnail;
use image::{ImageFormat, RgbImage};
use ror_data::Dataset;
use ror_train::{Evaluation, RunRecord};
use std::io::Cursor;
use std::path::Path;

const BATCH: usize = 64;
/// So many mistakes are shown.
const MISTAKES: usize = 24;
/// Pictures have at most so many rows and columns.
const SIDE: u32 = 192;

/// What the weights say of the images.
pub(crate) struct Examined {
    pub(crate) data: String,
    pub(crate) evaluation: Evaluation,
    /// Images by true class, then by predicted class.
    pub(crate) confusion: Vec<Vec<u64>>,
    pub(crate) classes: Vec<String>,
    /// The mistakes of the largest loss, the worst first.
    pub(crate) mistakes: Vec<Mistake>,
}

/// An image taken for something else.
pub(crate) struct Mistake {
    pub(crate) truth: String,
    pub(crate) said: String,
    /// The probabilities of the two.
    pub(crate) truth_probability: f32,
    pub(crate) said_probability: f32,
    /// The picture as a `data:` address.
    pub(crate) picture: String,
}

/// Runs the best weights; `moved` is where the data are now.
pub(crate) fn examine(record: &RunRecord, moved: Option<&Path>) -> Result<Examined> {
    if record.best().is_none() {
        bail!("no epoch was finished, so there are no weights to examine");
    }
    let mut source = record.config.source.clone();
    if let Some(moved) = moved {
        source.data = Some(moved.to_owned());
    }
    let images = data::validation(
        &source,
        &record.config.description,
        &record.config.training.augment,
    )?
    .context("there are no validation images")?;
    record.check_validation(&images)?;
    let weights = WeightsOptions::default().load(&record.weights, None)?;
    let mut runner = Runner::new(weights, None, EngineOptions::default(), BATCH)?;
    runner.check_has_classes(&record.weights)?;
    runner.check_takes_pictures()?;
    let data = images.data();
    check_classes(&runner, &record.weights, data)?;

    let progress = Progress::new("images");
    let mut worst: Vec<(usize, Vec<f32>)> = Vec::new();
    let metrics = measure(
        &mut runner,
        data,
        images.indices(),
        (Crops::One, BATCH),
        |index, logits| {
            let (truth, p) = (data.labels()[index] as usize, softmax(logits));
            if largest(&p) != truth {
                let place = worst.partition_point(|(i, q)| q[label(data, *i)] <= p[truth]);
                worst.insert(place, (index, p));
                worst.truncate(MISTAKES);
            }
        },
        |done| progress.set(done, images.len()),
    )?;
    let mistakes = worst.into_iter().map(|(index, p)| mistake(data, index, &p));
    Ok(Examined {
        data: data.provenance().to_string(),
        evaluation: metrics.evaluation(data.classes()),
        confusion: metrics.confusion().to_vec(),
        classes: data.classes().to_vec(),
        mistakes: mistakes.collect::<Result<_>>()?,
    })
}

fn label(data: &Dataset, index: usize) -> usize {
    data.labels()[index] as usize
}

fn largest(p: &[f32]) -> usize {
    let best = p.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(i, _)| i)
}

fn mistake(data: &Dataset, index: usize, p: &[f32]) -> Result<Mistake> {
    let (truth, said) = (label(data, index), largest(p));
    Ok(Mistake {
        truth: data.classes()[truth].clone(),
        said: data.classes()[said].clone(),
        truth_probability: p[truth],
        said_probability: p[said],
        picture: picture(data, index)?,
    })
}

/// An image as an address, made smaller if it is large.
fn picture(data: &Dataset, index: usize) -> Result<String> {
    let size = data.size();
    let (width, height) = (size.width() as u32, size.height() as u32);
    let pixels = data.image(index)?.into_owned();
    let mut image =
        RgbImage::from_raw(width, height, pixels).context("an image of another size")?;
    let longest = width.max(height);
    if longest > SIDE {
        let scaled = |side: u32| (side * SIDE / longest).max(1);
        image = thumbnail(&image, scaled(width), scaled(height));
    }
    let mut png = Cursor::new(Vec::new());
    image
        .write_to(&mut png, ImageFormat::Png)
        .context("cannot encode a picture")?;
    Ok(data_address("image/png", png.get_ref()))
}

/// Content as an address, so that a page needs no second file.
pub(crate) fn data_address(kind: &str, content: &[u8]) -> String {
    format!("data:{kind};base64,{}", BASE64_STANDARD.encode(content))
}
