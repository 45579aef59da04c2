//! `curves.svg`: loss and accuracy over the epochs.

use crate::EpochReport;
use svg::Document;
use svg::node::element::{Circle, Group, Path, Rectangle, Text, Title};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 44.0;
const GAP: f64 = 70.0;
const INK: &str = "#555555";
/// Training and validation: colour and dashes, which tell them apart without colour.
const TRAIN: (&str, &str) = ("#7a869a", "5 4");
const VALIDATION: (&str, &str) = ("#1f5fbf", "none");

/// A curve: (epoch, value).
type Curve = Vec<(f64, f64)>;

/// Draws the epochs of a run.
pub(crate) fn curves(history: &[EpochReport]) -> String {
    let curve = |value: &dyn Fn(&EpochReport) -> Option<f64>| -> Curve {
        let points = history.iter();
        points
            .filter_map(|r| Some((r.epoch as f64, value(r)?)))
            .collect()
    };
    let loss = Panel::new(
        "loss (nats)",
        LEFT,
        curve(&|r| Some(r.train_loss)),
        curve(&|r| r.validation.map(|v| v.loss)),
    );
    let accuracy = Panel::new(
        "accuracy (%)",
        2.0 * LEFT + WIDTH + GAP / 2.0,
        curve(&|r| Some(100.0 * r.train_top1)),
        curve(&|r| r.validation.map(|v| 100.0 * v.top1)),
    );
    let (width, height) = (2.0 * (LEFT + WIDTH) + GAP, TOP + HEIGHT + 44.0);
    let background = Rectangle::new()
        .set("width", width)
        .set("height", height)
        .set("rx", 8)
        .set("fill", "#ffffff");
    let picture = Document::new()
        .set("viewBox", (0, 0, width, height))
        .set("width", width)
        .set("height", height)
        .set("font-family", "sans-serif")
        .set("font-size", 12)
        .add(Title::new("Loss and accuracy by epoch"))
        .add(background)
        .add(loss.draw())
        .add(accuracy.draw());
    format!("{picture}\n")
}

/// One pair of axes.
struct Panel {
    title: &'static str,
    left: f64,
    train: Curve,
    validation: Curve,
    epochs: (f64, f64),
    values: (f64, f64),
    step: f64,
}

impl Panel {
    fn new(title: &'static str, left: f64, train: Curve, validation: Curve) -> Self {
        let range = |of: &dyn Fn(&(f64, f64)) -> f64| {
            let all = train.iter().chain(&validation).map(of);
            all.filter(|v| v.is_finite())
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
                    (low.min(v), high.max(v))
                })
        };
        let (first, last) = range(&|p| p.0);
        let epochs = match first < last {
            true => (first, last),
            false => (0.0, 1.0_f64.max(last)),
        };
        let (low, high) = range(&|p| p.1);
        let (low, high) = if low < high {
            (low, high)
        } else if low.is_finite() {
            (low - 0.5, low + 0.5)
        } else {
            (0.0, 1.0)
        };
        let step = round_step((high - low) / 5.0);
        Self {
            title,
            left,
            train,
            validation,
            epochs,
            values: ((low / step).floor() * step, (high / step).ceil() * step),
            step,
        }
    }

    fn x(&self, epoch: f64) -> f64 {
        self.left + WIDTH * (epoch - self.epochs.0) / (self.epochs.1 - self.epochs.0)
    }

    fn y(&self, value: f64) -> f64 {
        TOP + HEIGHT * (self.values.1 - value) / (self.values.1 - self.values.0)
    }

    fn draw(&self) -> Group {
        let (left, right, bottom) = (self.left, self.left + WIDTH, TOP + HEIGHT);
        let title = text(self.title, left, 24.0, "start").set("fill", "#000000");
        let mut group = Group::new().add(title.set("font-size", 14).set("font-weight", "bold"));
        let lines = ((self.values.1 - self.values.0) / self.step).round() as usize;
        for line in 0..=lines {
            let value = self.values.0 + line as f64 * self.step;
            let y = self.y(value);
            let rule = Path::new()
                .set("d", format!("M{left} {y:.1}H{right}"))
                .set("stroke", "#e3e6eb");
            let label = label(value, self.step);
            group = group
                .add(rule)
                .add(text(&label, left - 6.0, y + 4.0, "end"));
        }
        for epoch in self.epoch_labels() {
            let label = text(&epoch.to_string(), self.x(epoch), bottom + 18.0, "middle");
            group = group.add(label);
        }
        group = group.add(text("epoch", left + WIDTH / 2.0, bottom + 36.0, "middle"));
        for (curve, name, style, at) in [
            (&self.train, "training", TRAIN, right - 190.0),
            (&self.validation, "validation", VALIDATION, right - 90.0),
        ] {
            if !curve.is_empty() {
                let name = text(name, at + 28.0, 24.0, "start");
                let sample = stroke(format!("M{at} 20h22"), style);
                group = self.draw_curve(group.add(sample).add(name), curve, style);
            }
        }
        group
    }

    fn draw_curve(&self, group: Group, curve: &Curve, style: (&str, &str)) -> Group {
        let finite = curve.iter().filter(|(_, value)| value.is_finite());
        let points: Vec<(f64, f64)> = finite.map(|p| (self.x(p.0), self.y(p.1))).collect();
        match points[..] {
            [] => group,
            // A line of one point would not be seen.
            [(x, y)] => {
                let dot = Circle::new().set("cx", x).set("cy", y).set("r", 3);
                group.add(dot.set("fill", style.0))
            }
            _ => {
                let points: Vec<String> = points
                    .iter()
                    .map(|(x, y)| format!("{x:.1} {y:.1}"))
                    .collect();
                group.add(stroke(format!("M{}", points.join("L")), style))
            }
        }
    }

    fn epoch_labels(&self) -> Vec<f64> {
        let (first, last) = self.epochs;
        let step = round_step((last - first) / 6.0).max(1.0);
        let from = (first / step).ceil() as u64;
        let to = (last / step).floor() as u64;
        (from..=to).map(|i| i as f64 * step).collect()
    }
}

fn text(text: &str, x: f64, y: f64, anchor: &str) -> Text {
    Text::new(text)
        .set("x", (x * 10.0).round() / 10.0)
        .set("y", (y * 10.0).round() / 10.0)
        .set("text-anchor", anchor)
        .set("fill", INK)
}

fn stroke(path: String, (colour, dashes): (&str, &str)) -> Path {
    Path::new()
        .set("d", path)
        .set("fill", "none")
        .set("stroke", colour)
        .set("stroke-width", 2)
        .set("stroke-linejoin", "round")
        .set("stroke-dasharray", dashes)
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= least);
    factor.unwrap_or(10.0) * power
}

/// As many decimals as tell neighbouring lines apart.
fn label(value: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Validation;

    fn report(epoch: u64, loss: f64, validated: bool) -> EpochReport {
        EpochReport {
            epoch,
            step: epoch,
            lr: 0.1,
            train_loss: loss,
            train_top1: 0.5,
            validation: validated.then_some(Validation {
                top1: 0.25,
                top5: 1.0,
                loss: 2.0 * loss,
            }),
            images_per_second: 1.0,
            seconds: 1.0,
        }
    }

    #[test]
    fn the_curve_goes_through_its_points() {
        let svg = curves(&[report(1, 1.0, true), report(2, 0.5, true)]);
        // Losses 0.5 to 2 make lines from 0.5 in steps of 0.5.
        let y = |v: f64| TOP + HEIGHT * (2.0 - v) / 1.5;
        let expected = format!(
            "M{:.1} {:.1}L{:.1} {:.1}",
            LEFT,
            y(1.0),
            LEFT + WIDTH,
            y(0.5)
        );
        assert!(svg.contains(&expected), "{svg}");
        let document = roxmltree::Document::parse(&svg).unwrap();
        let texts = document
            .descendants()
            .filter(|node| node.has_tag_name("text"));
        let texts = texts.filter_map(|node| node.text());
        assert_eq!(texts.filter(|text| text.trim() == "validation").count(), 2);
    }

    #[test]
    fn any_history_is_drawn_without_a_number_that_is_none() {
        for history in [
            vec![],
            vec![report(1, 1.0, false)],
            vec![report(3, 0.0, true), report(4, 0.0, true)],
            vec![report(1, f64::NAN, true), report(2, 1e9, false)],
        ] {
            let svg = curves(&history);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn steps_are_round() {
        for (least, step) in [
            (0.3, 0.5),
            (1.0, 1.0),
            (1.2, 2.0),
            (7.0, 10.0),
            (0.011, 0.02),
        ] {
            assert!((round_step(least) - step).abs() < 1e-9, "{least}");
        }
        assert_eq!(label(0.5, 0.5), "0.5");
        assert_eq!(label(20.0, 10.0), "20");
    }
}
