//! The file that describes a grid, and its cells.

use crate::model::ModelOptions;
use anyhow::{Context, Result, anyhow, bail};
use ror_train::{Recipe, Source, overlay};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use toml::{Table, Value};

/// More cells than anyone trains.
const MOST_CELLS: usize = 1000;
/// Of a folder's name.
const LONGEST_NAME: usize = 100;

/// Settings, some of which have several values: the axes. A cell has one value of each.
#[derive(Debug)]
pub(crate) struct Grid {
    pub(crate) axes: Vec<Axis>,
    /// The axis whose values are columns of the table, if one is.
    pub(crate) columns: Option<usize>,
    pub(crate) cells: Vec<Cell>,
}

#[derive(Debug)]
pub(crate) struct Axis {
    /// The setting, `training.lr`.
    pub(crate) path: String,
    values: Vec<Value>,
    /// What the values are called.
    pub(crate) labels: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Cell {
    /// The folder's name.
    pub(crate) name: String,
    /// Which value of each axis.
    pub(crate) at: Vec<usize>,
    pub(crate) settings: Settings,
}

/// What a cell is told: the file without its axes, with the cell's values in their places.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Settings {
    /// Evaluates these instead of training.
    pub(crate) weights: Option<PathBuf>,
    pub(crate) model: Option<String>,
    pub(crate) recipe: Option<Recipe>,
    /// Changes to the model.
    pub(crate) network: ModelOptions,
    pub(crate) training: Table,
    pub(crate) source: Source,
}

impl Grid {
    /// Reads a grid and spells out its cells, the last axis fastest.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut base: Table = text.parse()?;
        let mut axes = Vec::new();
        match base.remove("axes") {
            Some(Value::Table(table)) => collect("", table, &mut axes)?,
            Some(_) => bail!("`axes` is no table"),
            None => {}
        }
        if axes.is_empty() {
            bail!("there is no axis: a table `axes` with a list of values for each setting");
        }
        let columns = match base.remove("columns") {
            Some(Value::String(path)) => {
                let found = axes.iter().position(|axis| axis.path == path);
                Some(found.with_context(|| format!("columns: there is no axis `{path}`"))?)
            }
            Some(_) => bail!("`columns` must be the name of an axis"),
            None => None,
        };
        let count = axes.iter().try_fold(1usize, |count, axis| {
            let count = count.saturating_mul(axis.values.len());
            (count <= MOST_CELLS).then_some(count)
        });
        let count = count.with_context(|| format!("the grid has more than {MOST_CELLS} cells"))?;
        let mut cells = Vec::new();
        let mut names = BTreeSet::new();
        for i in 0..count {
            let mut rest = i;
            let mut at = vec![0; axes.len()];
            for (place, axis) in at.iter_mut().zip(&axes).rev() {
                *place = rest % axis.values.len();
                rest /= axis.values.len();
            }
            cells.push(cell(&base, &axes, at, &mut names)?);
        }
        Ok(Self {
            axes,
            columns,
            cells,
        })
    }
}

impl Axis {
    /// Its heading in a table; the paper calls networks methods.
    pub(crate) fn heading(&self) -> &str {
        match self.path.as_str() {
            "network" => "method",
            path => path.rsplit('.').next().unwrap_or(path),
        }
    }
}

fn collect(path: &str, table: Table, into: &mut Vec<Axis>) -> Result<()> {
    for (key, value) in table {
        let path = match path {
            "" => key,
            path => format!("{path}.{key}"),
        };
        // No setting lies deeper than three.
        if path.split('.').count() > 8 {
            let start: String = path.chars().take(80).collect();
            bail!("there is no setting `{start}...`");
        }
        match value {
            Value::Table(inner) => collect(&path, inner, into)?,
            Value::Array(mut values) if !values.is_empty() => {
                let labels = values.iter_mut().map(label).collect();
                into.push(Axis {
                    path,
                    values,
                    labels,
                });
            }
            _ => bail!("axes.{path} must be a list of values"),
        }
    }
    Ok(())
}

/// What a value is called; takes away the name that a table has for that.
fn label(value: &mut Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            let labels: Vec<String> = values.iter_mut().map(label).collect();
            labels.join(" ")
        }
        Value::Table(table) => match table.remove("name") {
            Some(Value::String(name)) => name,
            _ => {
                let pairs = table.iter_mut();
                let pairs: Vec<String> = pairs
                    .map(|(key, value)| format!("{key} {}", label(value)))
                    .collect();
                pairs.join(", ")
            }
        },
        value => value.to_string(),
    }
}

fn cell(base: &Table, axes: &[Axis], at: Vec<usize>, names: &mut BTreeSet<String>) -> Result<Cell> {
    let mut table = base.clone();
    let mut parts = Vec::new();
    for (axis, &i) in axes.iter().zip(&at) {
        put(&mut table, &axis.path, axis.values[i].clone())?;
        parts.push(format!("{}-{}", axis.heading(), axis.labels[i]));
    }
    let name = parts.join("_");
    let mut settings: Settings = table.try_into().map_err(|error| {
        anyhow!(
            "{name}: {}",
            error.to_string().trim_end().replace('\n', " ")
        )
    })?;
    let network = &mut settings.network;
    if network.levels.is_none() && !network.shortcuts.is_empty() {
        network.levels = Some(network.shortcuts.len());
    }
    Ok(Cell {
        name: folder(&name, names),
        at,
        settings,
    })
}

/// Sets what stands at `path`; a table joins the table that is there.
fn put(table: &mut Table, path: &str, value: Value) -> Result<()> {
    let Some((key, rest)) = path.split_once('.') else {
        match (table.get_mut(path), value) {
            (Some(Value::Table(old)), Value::Table(new)) => overlay(old, new),
            (_, value) => {
                table.insert(path.to_owned(), value);
            }
        }
        return Ok(());
    };
    let inner = table
        .entry(key)
        .or_insert_with(|| Value::Table(Table::new()));
    match inner {
        Value::Table(inner) => put(inner, rest, value),
        _ => bail!("`{key}` is no table, but there is an axis `{path}` in it"),
    }
}

/// A name that every file system takes, unlike those before it.
fn folder(name: &str, names: &mut BTreeSet<String>) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_-.+".contains(c);
    let plain: String = name
        .chars()
        .map(|c| if safe(c) { c } else { '-' })
        .take(LONGEST_NAME)
        .collect();
    let mut name = plain.clone();
    let mut n = 1;
    while !names.insert(name.to_lowercase()) {
        n += 1;
        name = format!("{plain}_{n}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: &str = r#"
        model = "ror-3-8"
        columns = "training.lr"
        [training]
        epochs = 2
        [axes.network]
        stochastic-depth = [0, 0.5]
        [axes.training]
        lr = [0.1, 0.2, 0.3]
    "#;

    #[test]
    fn cells_have_every_combination_in_the_order_of_the_file() {
        let grid = Grid::parse(GRID).unwrap();
        let names: Vec<&str> = grid.cells.iter().map(|cell| cell.name.as_str()).collect();
        assert_eq!(names.len(), 6);
        assert_eq!(names[0], "stochastic-depth-0_lr-0.1");
        assert_eq!(names[5], "stochastic-depth-0.5_lr-0.3");
        assert_eq!(grid.columns, Some(1));
        let training = &grid.cells[1].settings.training;
        assert_eq!(training["epochs"].as_integer(), Some(2));
        assert_eq!(training["lr"].as_float(), Some(0.2));
    }

    #[test]
    fn tables_on_an_axis_join_those_of_the_grid_at_every_depth() {
        let text = "[training.optimizer]\nweight-decay = 0.5\n[axes]\n\
                    training = [{ optimizer = { kind = \"adam\" }, lr = 0.1 }]";
        let grid = Grid::parse(text).unwrap();
        let optimizer = &grid.cells[0].settings.training["optimizer"];
        assert_eq!(optimizer["weight-decay"].as_float(), Some(0.5));
        assert_eq!(optimizer["kind"].as_str(), Some("adam"));
    }

    #[test]
    fn kinds_of_shortcuts_say_the_number_of_levels() {
        let text = "[axes.network]\nshortcuts = [[\"B\"], [\"C\", \"A\", \"B\"]]";
        let grid = Grid::parse(text).unwrap();
        let levels: Vec<_> = grid
            .cells
            .iter()
            .map(|c| c.settings.network.levels)
            .collect();
        assert_eq!(levels, [Some(1), Some(3)]);
        assert_eq!(grid.cells[1].name, "shortcuts-C-A-B");
    }

    #[test]
    fn a_table_is_a_value_with_a_name() {
        let text = "[network]\nclasses = 7\n\
                    [axes]\nnetwork = [{ name = \"plain\", levels = 1 }, { levels = 2 }]\n\
                    \"network.dropout\" = [0, 0.1]";
        let grid = Grid::parse(text).unwrap();
        assert_eq!(grid.axes[0].labels, ["plain", "levels 2"]);
        let network = &grid.cells[1].settings.network;
        assert_eq!((network.levels, network.classes), (Some(1), Some(7)));
        assert_ne!(grid.cells[0].settings.network, *network);
    }

    #[test]
    fn equal_names_are_told_apart() {
        let text = "[axes.source]\ndata = [\"a/b\", \"a b\"]";
        let grid = Grid::parse(text).unwrap();
        assert_eq!(grid.cells[1].name, "data-a-b_2");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("model = \"ror-3-8\"", "axis"),
            ("[axes]\nmodel = []", "axes.model"),
            ("[axes]\nmodel = \"ror-3-8\"", "axes.model"),
            ("axes = 3", "axes"),
            ("columns = \"lr\"\n[axes]\nmodel = [\"a\"]", "`lr`"),
            ("epochs = 2\n[axes]\nmodel = [\"a\"]", "epochs"),
            ("[axes.network]\nlevel = [1]", "level"),
            ("[axes.network]\nshortcuts = [[\"D\"]]", "D"),
            ("network = 1\n[axes.network]\nlevels = [1]", "`network`"),
            ("[axes.training]\nlr = [1]\nlr = [2]", "duplicate"),
            ("[axes", "axes"),
        ] {
            let error = format!("{:#}", Grid::parse(text).unwrap_err());
            assert!(error.contains(word), "{text}: {error}");
        }
        let many = (0..40).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
        let text = format!("[axes.training]\nlr = [{many}]\nseed = [{many}]");
        let error = Grid::parse(&text).unwrap_err().to_string();
        assert!(error.contains("1000"), "{error}");
    }
}
