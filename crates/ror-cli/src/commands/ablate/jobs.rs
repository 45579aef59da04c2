//! The work of every cell, checked before any of it is done.

use super::grid::{Cell, Grid};
use crate::data::centre_crop;
use crate::measure::check_classes;
use crate::model::WeightsOptions;
use crate::run::{self, Plan, data};
use crate::runner::{EngineOptions, Runner};
use anyhow::{Context, Result, bail};
use ror_data::Augment;
use ror_models::{Description, Network};
use ror_train::{
    Precision, Recipe, RunConfig, RunRecord, Source, Subset, TrainingData, fine_tuning,
};
use ror_weights::Weights;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Images per step where nothing is trained.
pub(crate) const BATCH: usize = 64;

/// A cell that can be done.
pub(crate) struct Job {
    /// The run's folder, if it is trained.
    pub(crate) folder: PathBuf,
    pub(crate) network: Network,
    pub(crate) work: Work,
}

pub(crate) enum Work {
    /// All epochs are done.
    Done,
    /// To be trained, from the beginning or from where it stopped.
    Train {
        plan: Box<Plan>,
        data: TrainingData,
        /// What training starts from.
        init: Option<Rc<Weights>>,
        begun: bool,
    },
    /// To be measured with weights that are given.
    Evaluate {
        weights: Rc<Weights>,
        images: Subset,
    },
}

/// The jobs of a grid whose runs are in `out`; `moved` is where the data are, if the grid does not
/// say it.
pub(crate) fn prepare(grid: &Grid, out: &Path, moved: Option<&Path>) -> Result<Vec<Job>> {
    if moved.is_some() && grid.axes.iter().any(|axis| axis.path == "source.data") {
        bail!("the grid has an axis `source.data`, which --data would make equal");
    }
    let mut reader = Reader::default();
    let mut seen: Vec<(&str, Plan, Option<&PathBuf>)> = Vec::new();
    let mut plans = Vec::new();
    for cell in &grid.cells {
        let name = || cell.name.clone();
        let plan = plan(cell, &mut reader, moved).with_context(name)?;
        let weights = cell.settings.weights.as_ref();
        let same = seen.iter().find(|(_, p, w)| (p, *w) == (&plan, weights));
        if let Some((other, ..)) = same {
            bail!("{}: the same as {other}", cell.name);
        }
        seen.push((&cell.name, plan.clone(), weights));
        plans.push(plan);
    }
    let threads: Vec<Option<usize>> = plans.iter().map(|plan| plan.source.threads).collect();
    if threads.windows(2).any(|pair| pair[0] != pair[1]) {
        bail!("`source.threads` must be the same in every cell");
    }
    run::set_threads(threads.first().copied().flatten())?;
    let cells = grid.cells.iter().zip(plans);
    cells
        .map(|(cell, plan)| {
            let folder = out.join(&cell.name);
            job(cell, plan, folder, &mut reader).with_context(|| cell.name.clone())
        })
        .collect()
}

/// The settings of a cell, as far as they are known without the data.
fn plan(cell: &Cell, reader: &mut Reader, moved: Option<&Path>) -> Result<Plan> {
    let settings = &cell.settings;
    if settings.weights.is_some() {
        let trains = [
            ("recipe", settings.recipe.is_some()),
            ("training", !settings.training.is_empty()),
            ("source.init", settings.source.init.is_some()),
            ("source.device", settings.source.device.is_some()),
            ("source.precision", settings.source.precision.is_some()),
        ];
        if let Some((key, _)) = trains.into_iter().find(|(_, given)| *given) {
            bail!("`{key}` is for training, `weights` are evaluated as they are");
        }
        if settings.model.is_some() {
            bail!("`weights` bring their model; remove `model`");
        }
    }
    let mut source = settings.source.clone();
    if let Some(moved) = moved {
        source.data = Some(moved.to_owned());
    }
    if source.data.is_none() {
        bail!("which data? give `source.data` or --data");
    }
    let source = run::absolute(source)?;
    let recipe = settings.recipe.unwrap_or(Recipe::Fast);
    let mut training = recipe.config().with(settings.training.clone())?;
    if settings.weights.is_none() {
        let place = run::Place::open(&source)?;
        run::check_synchronised(place.is_device(), &training)?;
    }
    let file = settings.weights.as_ref().or(source.init.as_ref());
    let weights = file.map(|file| reader.weights(file)).transpose()?;
    if let Some(weights) = weights.as_ref()
        && !settings.training.contains_key("normalise")
    {
        run::normalise_as(&mut training, weights);
    }
    let description = run::description(settings.model.as_ref(), None, weights.as_deref())
        .context("which network? give `model`, `source.init` or `weights`")??;
    Ok(Plan {
        description: settings.network.change(description)?,
        training,
        source,
    })
}

fn job(cell: &Cell, mut plan: Plan, folder: PathBuf, reader: &mut Reader) -> Result<Job> {
    if let Some(file) = &cell.settings.weights {
        let weights = reader.weights(file)?;
        let network = Network::new(&plan.description)?;
        fits(&network, &weights)?;
        let images = reader.validation(&plan.source, &plan.description)?;
        let runner = Runner::new(
            Weights::clone(&weights),
            None,
            EngineOptions::default(),
            BATCH,
        )?;
        runner.check_has_classes(file)?;
        check_top(&plan.description)?;
        runner.check_takes_pictures()?;
        check_classes(&runner, file, images.data())?;
        return Ok(Job {
            folder,
            network,
            work: Work::Evaluate { weights, images },
        });
    }
    let data = reader.training(&plan.source, &plan.description, &plan.training.augment)?;
    let classes = data.train.data().classes().len();
    if let Some(asked) = cell
        .settings
        .network
        .classes
        .filter(|&asked| asked != classes)
    {
        bail!("network.classes is {asked}, but the data have {classes}");
    }
    plan.description.classes = classes;
    let network = Network::new(&plan.description)?;
    let size = data.train.data().size();
    let augment = plan.training.augment.validate(size);
    augment.map_err(anyhow::Error::msg)?;
    check_top(&plan.description)?;
    let init = match &plan.source.init {
        Some(file) => Some(reader.weights(file)?),
        None => None,
    };
    if let Some(init) = &init {
        fine_tuning(&network, init, plan.training.seed)?;
    }
    let begun = folder.join("config.toml").exists();
    let record = match begun {
        true => {
            let record = begun_run(&folder, &plan)?;
            record.check_data(&data)?;
            if !record.is_finished() {
                run::note_threads(record.config.source.threads, plan.source.threads);
            }
            Some(record)
        }
        false => None,
    };
    let work = match record {
        Some(record) if record.is_finished() => Work::Done,
        _ => Work::Train {
            plan: Box::new(plan),
            data,
            init,
            begun,
        },
    };
    Ok(Job {
        folder,
        network,
        work,
    })
}

fn check_top(description: &Description) -> Result<()> {
    if !description.top {
        bail!("the network ends at the average pool and knows no classes");
    }
    Ok(())
}

/// The run in a cell's folder, which must be that cell's.
fn begun_run(folder: &Path, plan: &Plan) -> Result<RunRecord> {
    let record = RunRecord::read(folder)?;
    let config = &record.config;
    let default = |precision: Option<Precision>| precision.unwrap_or_default();
    let same = default(config.source.precision) == default(plan.source.precision);
    // Data may have moved, and the number of threads changes no more than the last bits.
    let wanted = RunConfig {
        version: config.version.clone(),
        source: Source {
            data: config.source.data.clone(),
            threads: config.source.threads,
            device: config.source.device.clone(),
            precision: if same {
                config.source.precision
            } else {
                plan.source.precision
            },
            ..plan.source.clone()
        },
        training: plan.training.clone(),
        description: plan.description.clone(),
    };
    let (there, wanted) = (run::settings(config), run::settings(&wanted));
    let mut keys = there.keys().chain(wanted.keys());
    if let Some(key) = keys.find(|&key| there.get(key) != wanted.get(key)) {
        let shown =
            |value: Option<&String>| value.map_or("nothing".to_owned(), |v| format!("`{v}`"));
        bail!(
            "{} holds another run: {key} is {} there, {} in the grid; choose another --out",
            folder.display(),
            shown(there.get(key)),
            shown(wanted.get(key))
        );
    }
    Ok(record)
}

/// Whether a network has all its tensors among the weights.
fn fits(network: &Network, weights: &Weights) -> Result<()> {
    for spec in network.tensors() {
        match weights.tensors.get(&spec.name) {
            Some(tensor) if tensor.dims() == spec.shape => {}
            Some(tensor) => bail!(
                "the weights have `{}` in the shape {:?}, the network needs {:?}",
                spec.name,
                tensor.dims(),
                spec.shape
            ),
            None => bail!(
                "the network needs `{}`, which the weights do not have",
                spec.name
            ),
        }
    }
    Ok(())
}

/// What several cells read, read once.
#[derive(Default)]
struct Reader {
    weights: Vec<(PathBuf, Rc<Weights>)>,
    training: Vec<(Images, TrainingData)>,
    validation: Vec<(Images, Subset)>,
}

/// What images depend on.
#[derive(PartialEq)]
struct Images {
    source: Source,
    size: [usize; 2],
    /// The share of a picture's shorter side that is looked at.
    centre_crop: f64,
    /// Whether those to train on stay in their files.
    lazy: bool,
}

impl Images {
    fn new(source: &Source, description: &Description) -> Self {
        Self {
            source: Source {
                init: None,
                device: None,
                precision: None,
                ..source.clone()
            },
            size: description.image_size,
            centre_crop: centre_crop(description),
            lazy: source.lazy,
        }
    }
}

impl Reader {
    fn weights(&mut self, file: &Path) -> Result<Rc<Weights>> {
        if let Some((_, weights)) = self.weights.iter().find(|(read, _)| read == file) {
            return Ok(weights.clone());
        }
        let weights = Rc::new(WeightsOptions::default().load(file, None)?);
        self.weights.push((file.to_owned(), weights.clone()));
        Ok(weights)
    }

    fn training(
        &mut self,
        source: &Source,
        description: &Description,
        augment: &Augment,
    ) -> Result<TrainingData> {
        let mut images = Images::new(source, description);
        // Resized crops are cut out of files.
        images.lazy |= augment.resized_crop > 0.0;
        if let Some((_, data)) = self.training.iter().find(|(read, _)| *read == images) {
            return Ok(data.clone());
        }
        let data = data::open(source, description, augment)?;
        if data.validation.is_none() {
            bail!(
                "without validation images there are no errors to compare; `source.holdout` holds some back"
            );
        }
        self.training.push((images, data.clone()));
        Ok(data)
    }

    fn validation(&mut self, source: &Source, description: &Description) -> Result<Subset> {
        let images = Images::new(source, description);
        if let Some((_, subset)) = self.validation.iter().find(|(read, _)| *read == images) {
            return Ok(subset.clone());
        }
        let subset = data::validation(source, description, &Augment::NONE)?
            .context("there are no validation images")?;
        self.validation.push((images, subset.clone()));
        Ok(subset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_share_images_only_where_they_look_at_the_same_part_of_pictures() {
        let images = |name: &str| {
            let mut description = Description::preset(name).unwrap();
            description.image_size = [32, 32];
            Images::new(&Source::default(), &description)
        };
        assert!(images("ror-3-20") == images("ror-3-wrn-16-2"));
        assert!(images("ror-3-20") != images("imagenet-ror-3-18"));
    }
}
