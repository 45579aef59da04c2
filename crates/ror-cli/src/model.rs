//! The arguments that say which network, shared by the commands.

use crate::shipped::SHIPPED;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use ror_models::{Description, Network, ShortcutKind};
use ror_weights::{Kernels, LoadOptions, Weights};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Changes to what a preset's name says.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[command(next_help_heading = "Changes to the model")]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ModelOptions {
    /// Number of classes
    #[arg(long, value_name = "N")]
    pub(crate) classes: Option<usize>,
    /// Levels of shortcuts, 1 to 5
    #[arg(long, value_name = "M")]
    pub(crate) levels: Option<usize>,
    /// Shortcut kind of each level, the root's first, such as C,C,B
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    pub(crate) shortcuts: Vec<Kind>,
    /// Dropout after the first convolution of every block
    #[arg(long, value_name = "RATE")]
    dropout: Option<f64>,
    /// Stochastic depth: the survival probability of the last block; 0 without
    #[arg(long, value_name = "P")]
    stochastic_depth: Option<f64>,
    /// Rows and columns of the images
    #[arg(long, value_name = "SIZE")]
    image_size: Option<usize>,
    /// Without the classifier
    #[arg(long)]
    no_top: bool,
}

/// Types of He et al.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
pub(crate) enum Kind {
    /// Identity, missing channels zero
    #[value(name = "A", alias = "a")]
    A,
    /// Projection where the shape changes
    #[value(name = "B", alias = "b")]
    B,
    /// Projection everywhere
    #[value(name = "C", alias = "c")]
    C,
}

impl ModelOptions {
    /// Whether anything is to be changed.
    pub(crate) fn is_given(&self) -> bool {
        self.classes.is_some()
            || self.levels.is_some()
            || !self.shortcuts.is_empty()
            || self.dropout.is_some()
            || self.stochastic_depth.is_some()
            || self.image_size.is_some()
            || self.no_top
    }

    /// The network called `name` with these changes.
    pub(crate) fn network(&self, name: &str) -> Result<Network> {
        Ok(Network::new(&self.description(name)?)?)
    }

    fn description(&self, name: &str) -> Result<Description> {
        self.change(Description::preset(name)?)
    }

    /// A description with these changes.
    pub(crate) fn change(&self, mut d: Description) -> Result<Description> {
        if let Some(levels) = self.levels {
            d = d.with_levels(levels);
        }
        if !self.shortcuts.is_empty() {
            let kinds: Vec<ShortcutKind> = self.shortcuts.iter().map(|&k| k.into()).collect();
            if kinds.len() != d.levels {
                bail!(
                    "the model has {} levels of shortcuts, --shortcuts names {}; --levels changes \
                     that",
                    d.levels,
                    kinds.len()
                );
            }
            d = d.with_shortcuts(&kinds);
        }
        d.classes = self.classes.unwrap_or(d.classes);
        d.dropout = self.dropout.unwrap_or(d.dropout);
        if let Some(survival) = self.stochastic_depth {
            d.stochastic_depth = (survival != 0.0).then_some(survival);
        }
        if let Some(size) = self.image_size {
            d.image_size = [size, size];
        }
        d.top &= !self.no_top;
        d.validate()?;
        Ok(d)
    }
}

impl From<Kind> for ShortcutKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::A => Self::A,
            Kind::B => Self::B,
            Kind::C => Self::C,
        }
    }
}

/// Weights from a file, or those that ship.
#[derive(Debug, Clone, Args)]
pub(crate) struct ChosenWeights {
    /// Weights in any readable format [default: RoR-3-WRN-40-2, trained on CIFAR-10, which ships]
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "ROR_WEIGHTS",
        hide_env_values = true
    )]
    weights: Option<PathBuf>,
    #[command(flatten)]
    options: WeightsOptions,
}

impl ChosenWeights {
    /// The file, or what messages call the weights that ship.
    pub(crate) fn path(&self) -> &Path {
        self.weights.as_deref().unwrap_or(SHIPPED[0].path())
    }

    /// Reads them and says what is worth saying about them.
    pub(crate) fn load(&self) -> Result<Weights> {
        match &self.weights {
            Some(path) => self.options.load(path, None),
            None => {
                let (path, bytes) = (SHIPPED[0].path(), SHIPPED[0].bytes());
                let options = self.options.load_options(None)?;
                let weights = ror_weights::load_bytes(path, bytes, &options)?;
                say(&weights.notes);
                Ok(weights)
            }
        }
    }
}

/// How to read weights.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct WeightsOptions {
    /// The model, where the file is not to decide; tensors that contradict it are an error, what else
    /// does is noted
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Which backend trained Keras weights whose file does not say so
    #[arg(long, value_name = "BACKEND")]
    kernels: Option<KernelsArg>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KernelsArg {
    /// Kernels are convolutions: rotate them by 180 degrees
    Theano,
    /// Kernels are cross-correlations already
    #[value(name = "tensorflow")]
    TensorFlow,
}

impl WeightsOptions {
    /// Whether changes have a model that they change: not one that is found from a file.
    pub(crate) fn check_changes(&self, changes: &ModelOptions) -> Result<()> {
        if changes.is_given() && self.model.is_none() {
            bail!("changes to the model need --model, which says what is changed");
        }
        Ok(())
    }

    /// The model that the command line names.
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Reads weights and says what is worth saying about them.
    pub(crate) fn load(&self, path: &Path, changes: Option<&ModelOptions>) -> Result<Weights> {
        let weights = ror_weights::load(path, &self.load_options(changes)?)?;
        say(&weights.notes);
        Ok(weights)
    }

    fn load_options(&self, changes: Option<&ModelOptions>) -> Result<LoadOptions> {
        let model = match &self.model {
            Some(name) => Some(match changes {
                Some(changes) => changes.description(name)?,
                None => Description::preset(name)?,
            }),
            None => None,
        };
        Ok(LoadOptions {
            model,
            kernels: self.kernels.map(|kernels| match kernels {
                KernelsArg::Theano => Kernels::Theano,
                KernelsArg::TensorFlow => Kernels::TensorFlow,
            }),
        })
    }
}

fn say(notes: &[String]) {
    for text in notes {
        crate::output::note(&format!("note: {text}"));
    }
}

/// The network that MODEL stands for: a file of weights if there is one, else a preset's name.
pub(crate) fn network_of(model: &str, changes: &ModelOptions) -> Result<Network> {
    let path = PathBuf::from(model);
    if path.is_file() {
        if changes.is_given() {
            bail!("{model} is a file of weights: what it holds cannot be changed by options");
        }
        let weights = WeightsOptions::default().load(&path, None)?;
        return Network::new(&weights.description).context("the description of the weights");
    }
    if path.components().count() > 1 || path.extension().is_some() {
        bail!("{model}: there is no such file, and no model has such a name");
    }
    changes.network(model)
}

/// A number of images or threads.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=65_536).contains(&n) => Ok(n),
        _ => Err("expected a whole number from 1 to 65536".to_owned()),
    }
}
