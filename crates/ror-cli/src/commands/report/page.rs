//! The page, in HTML. Whatever comes from runs and data is escaped by [`maud`] or by [`svg`].

use super::examine::{Examined, data_address};
use super::runs::{Run, differences};
use crate::confusion;
use crate::output::percent;
use indicatif::HumanDuration;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use ror_train::EpochReport;
use ror_train::chart::{Chart, Curve};
use std::time::Duration;

/// Nothing is fetched, nothing runs.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/// More classes than that are told by their most frequent confusions alone.
const DRAWN_CLASSES: usize = 128;
/// So many confusions are told.
const CONFUSIONS: usize = 12;

pub(crate) fn page(runs: &[Run]) -> String {
    let title = match runs {
        [run] => run.name.clone(),
        runs => format!("{} runs", runs.len()),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="generator" content={ "ror " (env!("CARGO_PKG_VERSION")) };
                title { (title) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                h1 { (title) }
                @match runs {
                    [run] => { p.faint { (run.model()) } (figures(run)) }
                    runs => { (overview(runs)) }
                }
                h2 { "Curves" }
                (charts(runs))
                @if runs.len() > 1 { (compared(runs)) }
                h2 { "Levels" }
                div.grid { @for run in distinct(runs) { (topology(run, runs)) } }
                @for (heading, part) in [("Confusions", confusions as Part), ("Worst mistakes", mistakes)] {
                    @let parts: Vec<Markup> = runs.iter().filter_map(|run| examined(run, runs, part)).collect();
                    @if !parts.is_empty() {
                        h2 { (heading) }
                        div.grid { @for part in &parts { (part) } }
                    }
                }
                h2 { "Configuration" }
                div.grid { @for run in runs { (configuration(run, runs)) } }
            }
        }
    };
    page.into_string()
}

type Part = fn(&Examined) -> Markup;

/// The name of a run where there are several.
fn heading(run: &Run, runs: &[Run]) -> Markup {
    html! { @if runs.len() > 1 { h3 { (named(run)) } } }
}

fn named(run: &Run) -> Markup {
    html! { span.swatch style={ "background:" (run.colour) } {} (run.name) }
}

/// What is told of a run in numbers, by name.
fn numbers(run: &Run) -> Vec<(&'static str, String)> {
    let best = run.record.best();
    let validation = best.and_then(|r| r.validation);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    vec![
        ("epochs", run.state()),
        ("error", or_dash(validation.map(|v| percent(1.0 - v.top1)))),
        (
            "top-5 error",
            or_dash(validation.map(|v| percent(1.0 - v.top5))),
        ),
        (
            "loss",
            or_dash(validation.map(|v| format!("{:.4}", v.loss))),
        ),
        ("best epoch", or_dash(best.map(|r| r.epoch.to_string()))),
        (
            "training loss",
            or_dash(last(run).map(|r| format!("{:.4}", r.train_loss))),
        ),
        (
            "parameters",
            format!("{:.3} M", run.network.parameters() as f64 / 1e6),
        ),
        (
            "images/s",
            or_dash(
                run.record
                    .images_per_second()
                    .map(|speed| format!("{speed:.0}")),
            ),
        ),
        (
            "time",
            or_dash(last(run).map(|r| {
                let time = Duration::try_from_secs_f64(r.seconds).unwrap_or_default();
                HumanDuration(time).to_string()
            })),
        ),
    ]
}

fn last(run: &Run) -> Option<&EpochReport> {
    run.record.history().last()
}

fn figures(run: &Run) -> Markup {
    html! {
        div.card {
            dl { @for (name, value) in numbers(run) { div { dt { (name) } dd { (value) } } } }
            p.faint { "Validation: " (validated_on(run)) "." }
        }
    }
}

fn validated_on(run: &Run) -> Markup {
    html! {
        @match &run.examined {
            Some(Ok(examined)) => {
                (examined.evaluation.images) " images of " (examined.data)
                "; the best weights err on " (percent(1.0 - examined.evaluation.top1)) " of them"
            }
            Some(Err(error)) => { "not measured again: " (format!("{error:#}")) }
            None => { "not measured again" }
        }
    }
}

fn overview(runs: &[Run]) -> Markup {
    let columns = runs.first().map(numbers).unwrap_or_default();
    html! {
        div.card.wide { table {
            thead { tr {
                th { "run" } th { "model" }
                @for (name, _) in &columns { th.number { (name) } }
            } }
            tbody { @for run in runs { tr {
                td.name { (named(run)) } td.name { (run.model()) }
                @for (_, value) in numbers(run) { td.number { (value) } }
            } } }
        } }
        @for run in runs {
            @if let Some(Err(error)) = &run.examined {
                p.faint { (run.name) ": not measured again: " (format!("{error:#}")) }
            }
        }
    }
}

fn charts(runs: &[Run]) -> Markup {
    type Value = fn(&EpochReport) -> Option<f64>;
    let kinds: [(&str, Option<Value>, Value); 4] = [
        ("loss (nats)", Some(|r| Some(r.train_loss)), |r| {
            r.validation.map(|v| v.loss)
        }),
        (
            "error (%)",
            Some(|r| Some(100.0 * (1.0 - r.train_top1))),
            |r| r.validation.map(|v| 100.0 * (1.0 - v.top1)),
        ),
        ("learning rate", None, |r| Some(r.lr)),
        ("images per second", None, |r| Some(r.images_per_second)),
    ];
    let single = runs.len() == 1;
    let chart = |(title, dashed, solid): (&str, Option<Value>, Value)| {
        let mut curves = Vec::new();
        for run in runs {
            let curve = |what: &str, dashed, value: Value| Curve {
                name: if single {
                    what.to_owned()
                } else {
                    format!("{} {what}", run.name)
                },
                colour: run.colour,
                dashed,
                points: run
                    .record
                    .history()
                    .iter()
                    .filter_map(|r| Some((r.epoch as f64, value(r)?)))
                    .collect(),
            };
            if let Some(dashed) = dashed {
                curves.push(curve("training", true, dashed));
            }
            let what = if dashed.is_some() { "validation" } else { "" };
            curves.push(curve(what, false, solid));
        }
        let chart = Chart::new(title, curves);
        if single && dashed.is_some() {
            chart.with_names().to_svg()
        } else {
            chart.to_svg()
        }
    };
    html! {
        @if !single {
            p.faint {
                @for run in runs { (named(run)) " \u{2003}" }
                "validation solid, training dashed"
            }
        }
        div.grid { @for kind in kinds { div.card.chart { (PreEscaped(chart(kind))) } } }
    }
}

fn compared(runs: &[Run]) -> Markup {
    let differences = differences(runs);
    html! {
        h2 { "What differs" }
        @if differences.is_empty() { p.faint { "No setting." } }
        @else {
            div.card.wide { table {
                thead { tr { th { "setting" } @for run in runs { th { (named(run)) } } } }
                tbody { @for (key, values) in &differences { tr {
                    td.name { (key) } @for value in values { td { (value) } }
                } } }
            } }
        }
    }
}

fn same_network(a: &Run, b: &Run) -> bool {
    a.record.config.description == b.record.config.description
}

/// The first run of each network.
fn distinct(runs: &[Run]) -> impl Iterator<Item = &Run> {
    let seen = |i: usize, run| runs[..i].iter().any(|other| same_network(other, run));
    let numbered = runs.iter().enumerate();
    numbered.filter_map(move |(i, run)| (!seen(i, run)).then_some(run))
}

fn topology(run: &Run, runs: &[Run]) -> Markup {
    let same = runs.iter().filter(|other| same_network(other, run));
    let picture = data_address("image/svg+xml", run.network.to_svg().as_bytes());
    html! {
        div.card {
            @if runs.len() > 1 { h3 { @for run in same { (named(run)) " " } } }
            img.picture src=(picture) alt={ "The levels of " (run.model()) };
        }
    }
}

/// A part of a page that needs a run's data.
fn examined(run: &Run, runs: &[Run], part: Part) -> Option<Markup> {
    let examined = run.examined.as_ref()?.as_ref().ok()?;
    Some(html! { div.card { (heading(run, runs)) (part(examined)) } })
}

fn confusions(examined: &Examined) -> Markup {
    let names = &examined.classes;
    let mut pairs = Vec::new();
    for (truth, counts) in examined.confusion.iter().enumerate() {
        let others = counts.iter().enumerate();
        pairs.extend(
            others
                .filter(|&(said, &count)| said != truth && count > 0)
                .map(|(said, &count)| (count, truth, said)),
        );
    }
    pairs.sort_by(|a, b| b.cmp(a));
    let hidden = pairs.len().saturating_sub(CONFUSIONS);
    pairs.truncate(CONFUSIONS);
    html! {
        @if names.len() <= DRAWN_CLASSES {
            @let svg = confusion::to_svg(&examined.confusion, names);
            img.picture src=(data_address("image/svg+xml", svg.as_bytes()))
                alt="The confusion matrix: true classes in rows, predicted classes in columns";
        }
        details open[names.len() > DRAWN_CLASSES] {
            summary { "Most frequent confusions" }
            table {
                thead { tr { th { "true" } th { "predicted" } th.number { "images" } } }
                tbody { @for (count, truth, said) in pairs { tr {
                    td { (names[truth]) } td { (names[said]) } td.number { (count) }
                } } }
            }
            @if hidden > 0 { p.faint { "and " (hidden) " less frequent" } }
        }
    }
}

fn mistakes(examined: &Examined) -> Markup {
    html! {
        @if examined.mistakes.is_empty() { p { "None." } }
        div.mistakes { @for mistake in &examined.mistakes {
            figure {
                img src=(mistake.picture) alt=(mistake.truth);
                figcaption {
                    (mistake.truth) span.faint { " " (percent(mistake.truth_probability.into())) } br;
                    "taken for " (mistake.said)
                    span.faint { " " (percent(mistake.said_probability.into())) }
                }
            }
        } }
    }
}

fn configuration(run: &Run, runs: &[Run]) -> Markup {
    let text = run.record.config.to_toml().unwrap_or_default();
    html! {
        div.card {
            (heading(run, runs))
            p.faint { (run.folder.display()) }
            details open[runs.len() == 1] { summary { "config.toml" } pre { (text) } }
        }
    }
}
