//! A run: what it consists of, how it begins and how it goes on.

mod agree;
mod resume;
mod run;
mod together;

use crate::checkpoint::DataStamp;
use crate::error::{Result, TrainError};
use crate::event::Callbacks;
use crate::output::Output;
use crate::progress::Progress;
use crate::ranks::{Alone, Buckets, Ranks, together};
use crate::{
    Ema, Engine, EpochReport, Event, FlatLayout, Gradients, KernelEngine, Loader, Optimizer,
    RunConfig, Schedule, Source, StopFlag, Subset, TrainConfig,
};
use ror_models::{Description, Network, Parameters};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// What a run learns from and is measured on.
#[derive(Debug, Clone)]
pub struct TrainingData {
    /// Images to train on.
    pub train: Subset,
    /// Images to validate on; never trained on.
    pub validation: Option<Subset>,
}

/// Trains a network.
///
/// The same settings, data and number of threads give the same weights, also if the run was
/// stopped or killed in between and went on from its last checkpoint.
///
/// ```
/// use candle_core::{DType, Device};
/// use ror_data::{Augment, Dataset, Size};
/// use ror_models::{Description, Network, Parameters};
/// use ror_train::{Event, Outcome, Recipe, Subset, TrainConfig, Trainer, TrainingData};
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Eight dark and eight light images.
/// let pixels = (0..16).flat_map(|i| vec![if i % 2 == 0 { 20 } else { 230 }; 8 * 8 * 3]).collect();
/// let labels = (0..16).map(|i| i % 2).collect();
/// let classes = ["dark", "light"].map(String::from).to_vec();
/// let size = Size::new(8, 8).ok_or("no size")?;
/// let data = Arc::new(Dataset::from_pixels("shades", pixels, labels, classes, size)?);
///
/// let mut description = Description::preset("ror-3-wrn-10-1")?.with_classes(2);
/// description.image_size = [8, 8];
/// let network = Network::new(&description)?;
/// let parameters = Parameters::init(&network, 1, DType::F32, &Device::Cpu)?;
///
/// let config = TrainConfig { epochs: 3, batch_size: 8, lr: 0.02, ..Recipe::Fast.config() };
/// let data = TrainingData { train: Subset::all(data.clone()), validation: Some(Subset::all(data)) };
/// let mut trainer = Trainer::new(&network, parameters, config, data)?;
/// trainer.on_event(|event| {
///     if let Event::EpochFinished { report, .. } = event {
///         println!("epoch {}: loss {:.3}", report.epoch, report.train_loss);
///     }
/// });
/// assert_eq!(trainer.run()?, Outcome::Finished);
/// assert_eq!(trainer.history().len(), 3);
/// # Ok(())
/// # }
/// ```
pub struct Trainer {
    config: RunConfig,
    network: Network,
    parameters: Parameters,
    engine: Box<dyn Engine>,
    optimizer: Optimizer,
    gradients: Gradients,
    ema: Option<Ema>,
    loader: Loader,
    validation: Option<Subset>,
    schedule: Schedule,
    progress: Progress,
    stamp: DataStamp,
    output: Option<Output>,
    callbacks: Callbacks,
    stop: StopFlag,
    ranks: Box<dyn Ranks>,
    buckets: Buckets,
    /// What the ranks agreed to do after the last step.
    agreed: Agreed,
}

impl fmt::Debug for Trainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trainer")
            .field("config", &self.config)
            .field("step", &self.progress.step)
            .finish_non_exhaustive()
    }
}

/// What one rank asks for and all do.
#[derive(Debug, Clone, Copy, Default)]
struct Agreed {
    stop: bool,
    checkpoint: bool,
}

impl Trainer {
    /// A run that begins with these parameters, changes them, and keeps everything in memory. It computes
    /// on as many threads as rayon has at this moment.
    ///
    /// # Errors
    /// Settings out of their ranges, data that do not fit the network, parameters that are not float32
    /// on the processor.
    pub fn new(
        network: &Network,
        parameters: Parameters,
        config: TrainConfig,
        data: TrainingData,
    ) -> Result<Self> {
        Self::on(Box::new(Alone), network, parameters, config, data)
    }

    /// As [`Trainer::new`], for one rank of several that share every batch and every validation. All must be
    /// given the same parameters, settings and data, and be driven alike; they end with the same weights.
    /// [`TrainConfig::batch_size`] is that of all ranks together. Only rank 0 writes; all tell events.
    ///
    /// # Errors
    /// As [`Trainer::new`]; ranks that have been given something else.
    pub fn on(
        ranks: Box<dyn Ranks>,
        network: &Network,
        parameters: Parameters,
        config: TrainConfig,
        data: TrainingData,
    ) -> Result<Self> {
        let made = Self::make(network, parameters, config, data, &*ranks);
        let mut trainer = together(&*ranks, made)?;
        trainer.ranks = ranks;
        trainer.agree()?;
        Ok(trainer)
    }

    fn make(
        network: &Network,
        parameters: Parameters,
        config: TrainConfig,
        data: TrainingData,
        ranks: &dyn Ranks,
    ) -> Result<Self> {
        let description = &network.description;
        check(description, &data.train)?;
        if let Some(validation) = &data.validation {
            check(description, validation)?;
            if validation.is_empty() {
                let text = "there are no images to validate on";
                return Err(TrainError::Data(text.to_owned()));
            }
            let (ours, theirs) = (data.train.data().classes(), validation.data().classes());
            if let Some((ours, theirs)) = ours.iter().zip(theirs).find(|(a, b)| a != b) {
                return Err(TrainError::Data(format!(
                    "the training images have a class `{ours}` where the validation images have \
                     `{theirs}`"
                )));
            }
        }
        let layout = Arc::new(FlatLayout::new(&parameters));
        let loader = Loader::on(ranks, data.train, &config)?;
        let largest = config.batch_size.min(loader.images());
        let own = largest.div_ceil(ranks.size());
        Ok(Self {
            engine: engine(network, &parameters, own)?,
            buckets: Buckets::new(network, &layout),
            ranks: Box::new(Alone),
            agreed: Agreed::default(),
            optimizer: Optimizer::new(config.optimizer, layout.clone())?,
            gradients: Gradients::new(layout),
            ema: config
                .ema
                .map(|decay| Ema::new(decay, &parameters))
                .transpose()?,
            schedule: Schedule::new(
                config.schedule.clone(),
                config.lr,
                config.epochs,
                loader.batches(),
            ),
            stamp: DataStamp::of(loader.subset(), data.validation.as_ref()),
            loader,
            validation: data.validation,
            progress: Progress::default(),
            output: None,
            callbacks: Callbacks::default(),
            stop: StopFlag::default(),
            config: RunConfig {
                version: Some(env!("CARGO_PKG_VERSION").to_owned()),
                source: Source::default(),
                training: config,
                description: description.clone(),
            },
            network: network.clone(),
            parameters,
        })
    }

    /// Keeps the run in a folder: `config.toml`, `metrics.csv`, TensorBoard's event files,
    /// `curves.svg`, `best.safetensors`, and `last/`, from which [`Trainer::resume`] goes on.
    /// `source` is recorded in the configuration.
    ///
    /// # Errors
    /// A folder that holds a run already or cannot be written.
    pub fn with_output(mut self, folder: &Path, source: Source) -> Result<Self> {
        self.config.source = source;
        // Before anything is written.
        let size = self.loader.subset().data().size();
        let image = [
            self.config.description.channels,
            size.height(),
            size.width(),
        ];
        let prepared = self.engine.prepare(image).map_err(TrainError::from);
        together(&*self.ranks, prepared)?;
        let written = if self.ranks.rank() == 0 {
            self.create(folder)
        } else {
            Ok(())
        };
        together(&*self.ranks, written)?;
        Ok(self)
    }

    fn create(&mut self, folder: &Path) -> Result<()> {
        self.output = Some(Output::create(folder)?);
        self.checkpoint()?;
        // Last, so that a folder with a configuration has a checkpoint.
        self.config.write(folder)
    }

    /// Another engine than [`KernelEngine`], made from the network and its variables.
    ///
    /// # Errors
    /// What `make` reports.
    pub fn with_engine(
        mut self,
        make: impl FnOnce(&Network, &Parameters) -> candle_core::Result<Box<dyn Engine>>,
    ) -> Result<Self> {
        self.engine = make(&self.network, &self.parameters)?;
        Ok(self)
    }

    /// Has `callback` hear of everything that happens.
    pub fn on_event(&mut self, callback: impl FnMut(&Event<'_>) + Send + 'static) {
        self.callbacks.add(Box::new(callback));
    }

    /// Stopped by this flag, which other runs may have too.
    #[must_use]
    pub fn with_stop_flag(mut self, stop: StopFlag) -> Self {
        self.stop = stop;
        self
    }

    /// The flag that stops the run.
    pub fn stop_flag(&self) -> StopFlag {
        self.stop.clone()
    }

    /// The settings of the run.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// The parameters as they are now.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The epochs that are done.
    pub fn history(&self) -> &[EpochReport] {
        &self.progress.history
    }

    /// The epoch whose weights are the best so far.
    pub fn best(&self) -> Option<&EpochReport> {
        self.progress.best()
    }

    /// Steps that are done.
    pub fn step(&self) -> u64 {
        self.progress.step
    }

    /// Images that are trained on, by all ranks.
    pub fn images(&self) -> usize {
        self.loader.images()
    }
}

/// The kernels, on as many threads as rayon has.
fn engine(
    network: &Network,
    parameters: &Parameters,
    batch_size: usize,
) -> Result<Box<dyn Engine>> {
    let threads = rayon::current_num_threads();
    let engine = KernelEngine::new(network, parameters, threads)?;
    Ok(Box::new(engine.for_batches_of(batch_size)))
}

/// Whether a network can take these images.
fn check(description: &Description, images: &Subset) -> Result<()> {
    let data = images.data();
    let size = data.size();
    let error = |text: String| Err(TrainError::Data(text));
    if !description.top {
        return error("the network ends at the average pool and knows no classes".to_owned());
    }
    if data.classes().len() != description.classes {
        return error(format!(
            "the data have {} classes, the network {}",
            data.classes().len(),
            description.classes
        ));
    }
    let [h, w] = description.image_size;
    if description.channels != 3 || (size.height(), size.width()) != (h, w) {
        return error(format!(
            "the images are 3 x {} x {}, the network takes {} x {h} x {w}",
            size.height(),
            size.width(),
            description.channels
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
