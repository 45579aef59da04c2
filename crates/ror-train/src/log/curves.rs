//! `curves.svg`: loss and accuracy over the epochs.

use crate::EpochReport;
use crate::chart::{Chart, Curve, picture};

/// Draws the epochs of a run.
pub(crate) fn curves(history: &[EpochReport]) -> String {
    let chart = |title: &str, train: &Value, validation: &Value| {
        let curve = |name: &str, colour, dashed, value: &Value| Curve {
            name: name.to_owned(),
            colour,
            dashed,
            points: history
                .iter()
                .filter_map(|r| Some((r.epoch as f64, value(r)?)))
                .collect(),
        };
        let curves = vec![
            curve("training", "#7a869a", true, train),
            curve("validation", "#1f5fbf", false, validation),
        ];
        Chart::new(title, curves).with_names()
    };
    let loss = chart("loss (nats)", &|r| Some(r.train_loss), &|r| {
        r.validation.map(|v| v.loss)
    });
    let accuracy = chart("accuracy (%)", &|r| Some(100.0 * r.train_top1), &|r| {
        r.validation.map(|v| 100.0 * v.top1)
    });
    picture(&[loss, accuracy], "Loss and accuracy by epoch")
}

type Value<'a> = dyn Fn(&EpochReport) -> Option<f64> + 'a;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Validation;

    #[test]
    fn training_and_validation_are_named_where_they_are_drawn() {
        let report = |validated: bool| EpochReport {
            epoch: 1,
            step: 1,
            lr: 0.1,
            train_loss: 1.0,
            train_top1: 0.5,
            validation: validated.then_some(Validation {
                top1: 0.25,
                top5: 1.0,
                loss: 2.0,
            }),
            images_per_second: 1.0,
            seconds: 1.0,
        };
        for (validated, count) in [(true, 2), (false, 0)] {
            let svg = curves(&[report(validated)]);
            let document = roxmltree::Document::parse(&svg).unwrap();
            let texts = document
                .descendants()
                .filter(|node| node.has_tag_name("text"));
            let texts = texts.filter_map(|node| node.text());
            let named = texts.filter(|text| text.trim() == "validation");
            assert_eq!(named.count(), count);
        }
    }
}
