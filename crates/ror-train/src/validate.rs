//! Measuring a network on images that it was not trained on.

use crate::error::{Result, TrainError};
use crate::{Engine, Metrics, StopFlag, Subset};
use ror_data::Normalisation;

/// Counts over all images in their order; `None` if it was asked to stop. `tell` hears how many
/// are done.
pub(crate) fn validate(
    engine: &mut dyn Engine,
    images: &Subset,
    normalise: &Normalisation,
    batch_size: usize,
    stop: &StopFlag,
    mut tell: impl FnMut(usize),
) -> Result<Option<Metrics>> {
    let data = images.data();
    let (size, classes) = (data.size(), data.classes().len());
    let mut metrics = Metrics::new(classes);
    let mut pixels = Vec::new();
    let mut done = 0;
    for indices in images.indices().chunks(batch_size) {
        if stop.is_set() {
            return Ok(None);
        }
        data.batch(indices.iter().copied(), normalise, &mut pixels)?;
        let shape = [indices.len(), 3, size.height(), size.width()];
        let logits = engine.logits(&pixels, shape)?;
        if logits.len() != indices.len() * classes {
            return Err(TrainError::Data(format!(
                "{} logits for {} images of {classes} classes",
                logits.len(),
                indices.len()
            )));
        }
        for (logits, &index) in logits.chunks_exact(classes).zip(indices) {
            metrics.add(logits, data.labels()[index] as usize);
        }
        done += indices.len();
        tell(done);
    }
    Ok(Some(metrics))
}
