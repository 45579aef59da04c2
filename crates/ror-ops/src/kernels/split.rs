//! How one convolution is dealt to threads.

use std::ops::Range;

/// A grid of parts: units of pixels by panels of output channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Split {
    units: usize,
    panels: usize,
    unit_parts: usize,
    panel_parts: usize,
}

/// What a thread spends, in any one unit of time.
#[derive(Clone, Copy)]
pub(super) struct Costs {
    /// Per unit of work, whatever the panels.
    pub input: usize,
    /// Per unit and panel.
    pub product: usize,
    /// To read a panel's weights once.
    pub weights: usize,
}

impl Split {
    /// By rows alone.
    pub(super) fn rows(rows: usize, threads: usize) -> Self {
        Self {
            units: rows,
            panels: 1,
            unit_parts: threads,
            panel_parts: 1,
        }
    }

    /// The grid of at most `threads` parts whose largest part costs least.
    pub(super) fn cheapest(units: usize, panels: usize, threads: usize, costs: Costs) -> Self {
        let grid = |panel_parts: usize| Self {
            units,
            panels,
            unit_parts: threads / panel_parts,
            panel_parts,
        };
        let cost = |split: &Self| {
            let units = split.units.div_ceil(split.unit_parts);
            let panels = split.panels.div_ceil(split.panel_parts);
            let product = (units as f64 * costs.product as f64).max(costs.weights as f64);
            units as f64 * costs.input as f64 + panels as f64 * product
        };
        let grids = (1..=threads.min(panels)).map(grid);
        grids
            .min_by(|a, b| cost(a).total_cmp(&cost(b)))
            .unwrap_or(Self::rows(units, threads))
    }

    /// The units and panels of part `i`; empty for parts that got nothing.
    pub(super) fn part(&self, i: usize) -> (Range<usize>, Range<usize>) {
        let (row, column) = (i / self.panel_parts, i % self.panel_parts);
        if row >= self.unit_parts {
            return (0..0, 0..0);
        }
        let share =
            |total: usize, parts: usize, i: usize| total * i / parts..total * (i + 1) / parts;
        (
            share(self.units, self.unit_parts, row),
            share(self.panels, self.panel_parts, column),
        )
    }
}
