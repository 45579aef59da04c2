//! The table of a grid, as text, Markdown, CSV and JSON.

use super::grid::{Cell, Grid};
use crate::output::{table, write_file};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What came out of a cell; fractions of 1.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CellResult {
    pub(crate) cell: String,
    /// The value of each axis.
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) state: State,
    pub(crate) model: String,
    pub(crate) parameters: u64,
    /// The share of validation images that the best weights get wrong.
    pub(crate) error: Option<f64>,
    pub(crate) top5_error: Option<f64>,
    pub(crate) loss: Option<f64>,
    /// The epoch of the best weights.
    pub(crate) best_epoch: Option<u64>,
    /// The error after the last epoch.
    pub(crate) last_error: Option<f64>,
    pub(crate) images_per_second: Option<f64>,
    /// The folder of the run, if one was trained.
    pub(crate) run: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// Trained to the end.
    Finished,
    /// Not trained: its weights were given.
    Evaluated,
    /// A number stopped being one.
    Diverged,
}

#[derive(Serialize)]
struct Results<'a> {
    axes: Vec<&'a str>,
    cells: Vec<&'a CellResult>,
}

/// Rows of methods, columns of errors in per cent.
struct Errors {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    /// How many columns name the method.
    names: usize,
}

/// A result, or none yet, for each cell.
type Found = [Option<CellResult>];

impl Errors {
    fn new(grid: &Grid, results: &Found) -> Self {
        let rows_of = |cell: &Cell| -> Vec<usize> {
            let places = cell.at.iter().enumerate();
            places
                .filter(|(axis, _)| Some(*axis) != grid.columns)
                .map(|(_, &place)| place)
                .collect()
        };
        let named: Vec<_> = grid
            .axes
            .iter()
            .enumerate()
            .filter(|(axis, _)| Some(*axis) != grid.columns)
            .map(|(_, axis)| axis)
            .collect();
        let mut header: Vec<String> = named.iter().map(|a| a.heading().to_owned()).collect();
        let names = header.len();
        let columns = match grid.columns.map(|axis| &grid.axes[axis]) {
            Some(axis) => {
                let heading = axis.heading();
                header.extend(
                    axis.labels
                        .iter()
                        .map(|l| format!("{heading} {l}: error (%)")),
                );
                axis.labels.len()
            }
            None => {
                header.push("error (%)".to_owned());
                1
            }
        };
        let mut rows: BTreeMap<Vec<usize>, Vec<String>> = BTreeMap::new();
        for (cell, result) in grid.cells.iter().zip(results) {
            let places = rows_of(cell);
            let row = rows.entry(places.clone()).or_insert_with(|| {
                let names = places.iter().zip(&named);
                let mut row: Vec<String> = names.map(|(&i, axis)| axis.labels[i].clone()).collect();
                row.resize(row.len() + columns, String::new());
                row
            });
            let column = grid.columns.map_or(0, |axis| cell.at[axis]);
            row[names + column] = shown(result.as_ref());
        }
        Self {
            header,
            rows: rows.into_values().collect(),
            names,
        }
    }

    fn text(&self) -> String {
        let header: Vec<&str> = self.header.iter().map(String::as_str).collect();
        let right: Vec<usize> = (self.names..header.len()).collect();
        table(&header, &self.rows, &right)
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells
                .iter()
                .map(|cell| cell.replace('|', "\\|").replace(['\n', '\r'], " "))
                .collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = (0..self.header.len()).map(|i| match i < self.names {
            true => "---".to_owned(),
            false => "---:".to_owned(),
        });
        let rule: Vec<String> = rule.collect();
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        line(&self.header) + &line(&rule) + &rows
    }
}

fn shown(result: Option<&CellResult>) -> String {
    match result {
        None => "-".to_owned(),
        Some(r) if r.state == State::Diverged => "diverged".to_owned(),
        Some(r) => r
            .error
            .map_or("-".to_owned(), |error| format!("{:.2}", 100.0 * error)),
    }
}

/// The table for people.
pub(crate) fn text(grid: &Grid, results: &Found) -> String {
    Errors::new(grid, results).text()
}

pub(crate) fn json<'a>(grid: &'a Grid, results: &'a Found) -> impl Serialize + 'a {
    Results {
        axes: grid.axes.iter().map(|axis| axis.path.as_str()).collect(),
        cells: results.iter().flatten().collect(),
    }
}

/// Writes `results.md`, `results.csv`, `results.json` into `folder`.
pub(crate) fn write(folder: &Path, grid: &Grid, results: &Found) -> Result<()> {
    let put = |name: &str, content: &[u8]| write_file(&folder.join(name), content);
    put(
        "results.md",
        Errors::new(grid, results).markdown().as_bytes(),
    )?;
    put("results.csv", &csv(grid, results)?)?;
    let mut text = serde_json::to_string_pretty(&json(grid, results))?;
    text.push('\n');
    put("results.json", text.as_bytes())
}

/// A row per cell.
fn csv(grid: &Grid, results: &Found) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let axes = grid.axes.iter().map(|axis| axis.path.as_str());
    let figures = [
        "state",
        "error",
        "top5_error",
        "loss",
        "best_epoch",
        "last_error",
        "parameters",
        "images_per_second",
    ];
    writer.write_record(std::iter::once("cell").chain(axes.clone()).chain(figures))?;
    for result in results.iter().flatten() {
        let number = |value: Option<f64>| value.map_or(String::new(), |v| format!("{v:.6}"));
        let state = serde_json::to_value(result.state)?;
        let mut row = vec![result.cell.clone()];
        row.extend(
            axes.clone()
                .map(|a| result.settings.get(a).cloned().unwrap_or_default()),
        );
        row.extend([
            state.as_str().unwrap_or_default().to_owned(),
            number(result.error),
            number(result.top5_error),
            number(result.loss),
            result
                .best_epoch
                .map_or(String::new(), |epoch| epoch.to_string()),
            number(result.last_error),
            result.parameters.to_string(),
            number(result.images_per_second),
        ]);
        writer.write_record(row)?;
    }
    Ok(writer.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_methods_and_an_axis_may_be_the_columns() {
        let grid = Grid::parse(
            "columns = \"source.data\"\n[axes]\nmodel = [\"a|b\", \"c\"]\n\
             source.data = [\"x\", \"y\"]",
        )
        .unwrap();
        let result = |cell: &Cell, error| {
            Some(CellResult {
                cell: cell.name.clone(),
                settings: BTreeMap::from([("model".to_owned(), "a,b".to_owned())]),
                state: State::Finished,
                model: String::new(),
                parameters: 7,
                error: Some(error),
                top5_error: None,
                loss: None,
                best_epoch: None,
                last_error: None,
                images_per_second: None,
                run: None,
            })
        };
        let results = [
            result(&grid.cells[0], 0.0501),
            None,
            None,
            result(&grid.cells[3], 0.5),
        ];
        let markdown = Errors::new(&grid, &results).markdown();
        assert_eq!(
            markdown,
            "| model | data x: error (%) | data y: error (%) |\n| --- | ---: | ---: |\n\
             | a\\|b | 5.01 | - |\n| c | - | 50.00 |\n"
        );
        let csv = String::from_utf8(csv(&grid, &results).unwrap()).unwrap();
        assert!(
            csv.lines()
                .nth(1)
                .unwrap()
                .contains("\"a,b\",,finished,0.050100"),
            "{csv}"
        );
    }
}
