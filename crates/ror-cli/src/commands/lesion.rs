//! `ror lesion`

use crate::measure::{Crops, MeasureOptions, measure};
use crate::output::{note, percent, print, print_json, table};
use crate::progress::Progress;
use crate::runner::Runner;
use anyhow::{Context, Result};
use ror_data::Dataset;
use ror_models::{Lesion, Summand};
use ror_train::Metrics;
use serde::Serialize;
use std::collections::BTreeMap;

/// Measure what each shortcut and each block contributes, by removing one at a time
///
/// A level without its shortcut is its body; a block without its residual is its shortcut. Nothing
/// is trained again. Per level and block, the table says what the accuracy loses.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  ror lesion --weights run/best.safetensors --data cifar/\n  \
    ror lesion --weights w.h5 --data cifar-10-binary.tar.gz --images 1000 --json"
)]
pub(crate) struct Args {
    #[command(flatten)]
    measure: MeasureOptions,
    /// Measure on so many images, evenly spaced over the split, instead of on all
    #[arg(long, value_name = "N", value_parser = crate::model::positive)]
    images: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    images: usize,
    /// The whole network's accuracy, a fraction of 1.
    top1: f64,
    /// The whole network's mean cross-entropy in nats.
    loss: f64,
    levels: Vec<LevelReport>,
    lesions: Vec<LesionReport>,
}

/// The network without one summand.
#[derive(Serialize)]
struct LesionReport {
    #[serde(flatten)]
    lesion: Lesion,
    top1: f64,
    loss: f64,
    /// What the accuracy loses.
    top1_lost: f64,
    /// What the loss gains.
    loss_gained: f64,
}

/// All lesions of one kind on one level.
#[derive(Serialize)]
struct LevelReport {
    level: usize,
    summand: Summand,
    /// How many there are.
    count: usize,
    mean_top1_lost: f64,
    max_top1_lost: f64,
    /// Where the most is lost.
    max_at: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let (mut runner, data) = args.measure.open(Crops::One)?;
    let indices = spaced(data.len(), args.images);
    let report = study(&mut runner, &data, &indices, args.measure.batch_size)?;
    if args.json {
        print_json(&report)
    } else {
        print(&text(&report, &data))
    }
}

/// `wanted` of `len` positions, evenly spaced: folders are sorted by class.
fn spaced(len: usize, wanted: Option<usize>) -> Vec<usize> {
    let count = wanted.map_or(len, |wanted| wanted.min(len));
    (0..count).map(|i| i * len / count).collect()
}

fn study(
    runner: &mut Runner,
    data: &Dataset,
    indices: &[usize],
    batch_size: usize,
) -> Result<Report> {
    let whole = runner.network().clone();
    let lesions = whole.lesions();
    note(&format!(
        "measuring {} networks on {} images",
        lesions.len() + 1,
        indices.len()
    ));
    let progress = Progress::new("images");
    let total = (lesions.len() + 1) * indices.len();
    let mut before = 0;
    let mut figures = |runner: &mut Runner| -> Result<(f64, f64)> {
        let tell = |done| progress.set(before + done, total);
        let metrics: Metrics = measure(
            runner,
            data,
            indices,
            (Crops::One, batch_size),
            |_, _| (),
            tell,
        )?;
        before += indices.len();
        let evaluation = metrics.evaluation(data.classes());
        Ok((evaluation.top1, evaluation.loss))
    };
    let (top1, loss) = figures(runner)?;
    let mut reports = Vec::new();
    for lesion in lesions {
        let network = whole
            .without(&lesion)
            .with_context(|| format!("the network has no {lesion}"))?;
        runner.set_network(network)?;
        let (without, loss_without) = figures(runner)?;
        reports.push(LesionReport {
            lesion,
            top1: without,
            loss: loss_without,
            top1_lost: top1 - without,
            loss_gained: loss_without - loss,
        });
    }
    Ok(Report {
        images: indices.len(),
        top1,
        loss,
        levels: levels(&reports),
        lesions: reports,
    })
}

fn levels(reports: &[LesionReport]) -> Vec<LevelReport> {
    let mut groups: BTreeMap<(usize, Summand), Vec<&LesionReport>> = BTreeMap::new();
    for report in reports {
        let key = (report.lesion.level, report.lesion.summand);
        groups.entry(key).or_default().push(report);
    }
    let level = |((level, summand), group): ((usize, Summand), Vec<&LesionReport>)| {
        let most = group
            .iter()
            .max_by(|a, b| a.top1_lost.total_cmp(&b.top1_lost))?;
        Some(LevelReport {
            level,
            summand,
            count: group.len(),
            mean_top1_lost: group.iter().map(|r| r.top1_lost).sum::<f64>() / group.len() as f64,
            max_top1_lost: most.top1_lost,
            max_at: most.lesion.path.clone(),
        })
    };
    groups.into_iter().filter_map(level).collect()
}

fn text(report: &Report, data: &Dataset) -> String {
    let points = |share: f64| format!("{:.2}", 100.0 * share);
    let whole = vec![
        "nothing".to_owned(),
        percent(report.top1),
        String::new(),
        format!("{:.4}", report.loss),
        String::new(),
    ];
    let lesions = report.lesions.iter().map(|r| {
        let path = &r.lesion.path;
        let depth = path.matches('.').count();
        let name = path.rsplit('.').next().unwrap_or(path);
        vec![
            format!("{}{name} {}", "  ".repeat(depth), r.lesion.summand),
            percent(r.top1),
            points(r.top1_lost),
            format!("{:.4}", r.loss),
            format!("{:.4}", r.loss_gained),
        ]
    });
    let rows: Vec<Vec<String>> = std::iter::once(whole).chain(lesions).collect();
    let header = ["without", "top-1", "points lost", "loss", "gained"];
    let levels: Vec<Vec<String>> = report
        .levels
        .iter()
        .map(|l| {
            vec![
                l.level.to_string(),
                l.summand.to_string(),
                l.count.to_string(),
                points(l.mean_top1_lost),
                points(l.max_top1_lost),
                l.max_at.clone(),
            ]
        })
        .collect();
    let level_header = ["level", "without", "count", "mean lost", "most lost", "at"];
    format!(
        "{}: {} of {} images\n\n{}\n{}",
        data.provenance(),
        report.images,
        data.len(),
        table(&header, &rows, &[1, 2, 3, 4]),
        table(&level_header, &levels, &[0, 2, 3, 4])
    )
}

#[cfg(test)]
mod tests {
    use super::spaced;

    #[test]
    fn chosen_images_are_spread_over_all() {
        assert_eq!(spaced(10, Some(4)), [0, 2, 5, 7]);
        assert_eq!(spaced(3, Some(9)), [0, 1, 2]);
        assert_eq!(spaced(3, None), [0, 1, 2]);
        assert_eq!(spaced(0, Some(4)), [0; 0]);
    }
}
