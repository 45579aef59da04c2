//! Line charts of what changes with the epochs, as SVG.
//!
//! Elements have classes (`background`, `rule`, `title`, `label`, `curve`) by which a page that
//! embeds a chart restyles them; alone, a chart is dark on white.

use svg::Document;
use svg::node::element::{Circle, Group, Path, Rectangle, Text, Title};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 44.0;
const GAP: f64 = 35.0;
const INK: &str = "#555555";
/// Of the names above a chart, before the right edge.
const NAME: f64 = 100.0;

/// A curve of a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// What it is called, in a tooltip and above the chart.
    pub name: String,
    /// A colour, `#1f5fbf`.
    pub colour: &'static str,
    /// Dashes tell curves apart without colour.
    pub dashed: bool,
    /// (epoch, value); values that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// One pair of axes with its curves.
#[derive(Debug, Clone)]
pub struct Chart {
    title: String,
    named: bool,
    curves: Vec<Curve>,
    epochs: (f64, f64),
    values: (f64, f64),
    step: f64,
}

impl Chart {
    /// A chart whose axes fit the curves.
    pub fn new(title: impl Into<String>, curves: Vec<Curve>) -> Self {
        let range = |of: fn(&(f64, f64)) -> f64| {
            let all = curves.iter().flat_map(|curve| &curve.points).map(of);
            all.filter(|v| v.is_finite())
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
                    (low.min(v), high.max(v))
                })
        };
        let (first, last) = range(|p| p.0);
        let epochs = match first < last {
            true => (first, last),
            false => (0.0, 1.0_f64.max(last)),
        };
        let (low, high) = range(|p| p.1);
        let (low, high) = if low < high {
            (low, high)
        } else if low.is_finite() {
            let around = 0.5 * low.abs().max(1.0);
            (low - around, low + around)
        } else {
            (0.0, 1.0)
        };
        let step = round_step((high - low) / 5.0);
        Self {
            title: title.into(),
            named: false,
            curves,
            epochs,
            values: ((low / step).floor() * step, (high / step).ceil() * step),
            step,
        }
    }

    /// With the curves' names above it.
    #[must_use]
    pub fn with_names(mut self) -> Self {
        self.named = true;
        self
    }

    /// The chart alone.
    pub fn to_svg(&self) -> String {
        picture(std::slice::from_ref(self), &self.title)
    }

    fn x(&self, epoch: f64) -> f64 {
        LEFT + WIDTH * (epoch - self.epochs.0) / (self.epochs.1 - self.epochs.0)
    }

    fn y(&self, value: f64) -> f64 {
        TOP + HEIGHT * (self.values.1 - value) / (self.values.1 - self.values.0)
    }

    fn draw(&self) -> Group {
        let (right, bottom) = (LEFT + WIDTH, TOP + HEIGHT);
        let title = text(&self.title, LEFT, 24.0, "start")
            .set("class", "title")
            .set("fill", "#000000");
        let mut group = Group::new().add(title.set("font-size", 14).set("font-weight", "bold"));
        let lines = ((self.values.1 - self.values.0) / self.step).round() as usize;
        for line in 0..=lines {
            let value = self.values.0 + line as f64 * self.step;
            let y = self.y(value);
            let rule = Path::new()
                .set("class", "rule")
                .set("d", format!("M{LEFT} {y:.1}H{right}"))
                .set("stroke", "#e3e6eb");
            let label = label(value, self.step);
            group = group
                .add(rule)
                .add(text(&label, LEFT - 6.0, y + 4.0, "end"));
        }
        for epoch in self.epoch_labels() {
            let label = text(&epoch.to_string(), self.x(epoch), bottom + 18.0, "middle");
            group = group.add(label);
        }
        group = group.add(text("epoch", LEFT + WIDTH / 2.0, bottom + 36.0, "middle"));
        let drawn: Vec<&Curve> = self
            .curves
            .iter()
            .filter(|curve| !curve.points.is_empty())
            .collect();
        for (i, curve) in drawn.iter().enumerate() {
            if self.named {
                let at = right - NAME * (drawn.len() - i) as f64 + 10.0;
                group = group.add(stroke(format!("M{at} 20h22"), curve)).add(text(
                    &curve.name,
                    at + 28.0,
                    24.0,
                    "start",
                ));
            }
            group = self.draw_curve(group, curve);
        }
        group
    }

    fn draw_curve(&self, group: Group, curve: &Curve) -> Group {
        let finite = curve.points.iter().filter(|(_, value)| value.is_finite());
        let points: Vec<(f64, f64)> = finite.map(|p| (self.x(p.0), self.y(p.1))).collect();
        match points[..] {
            [] => group,
            // A line of one point would not be seen.
            [(x, y)] => {
                let dot = Circle::new().set("cx", x).set("cy", y).set("r", 3);
                group.add(
                    dot.set("fill", curve.colour)
                        .add(Title::new(curve.name.as_str())),
                )
            }
            _ => {
                let points: Vec<String> = points
                    .iter()
                    .map(|(x, y)| format!("{x:.1} {y:.1}"))
                    .collect();
                let line = stroke(format!("M{}", points.join("L")), curve);
                group.add(line.add(Title::new(curve.name.as_str())))
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

/// Charts side by side in one picture.
pub(crate) fn picture(charts: &[Chart], title: &str) -> String {
    let each = LEFT + WIDTH + GAP;
    let (width, height) = (each * charts.len() as f64, TOP + HEIGHT + BOTTOM);
    let background = Rectangle::new()
        .set("class", "background")
        .set("width", width)
        .set("height", height)
        .set("rx", 8)
        .set("fill", "#ffffff");
    let mut picture = Document::new()
        .set("viewBox", (0, 0, width, height))
        .set("width", width)
        .set("height", height)
        .set("font-family", "sans-serif")
        .set("font-size", 12)
        .add(Title::new(title))
        .add(background);
    for (i, chart) in charts.iter().enumerate() {
        let at = format!("translate({} 0)", each * i as f64);
        picture = picture.add(chart.draw().set("transform", at));
    }
    format!("{picture}\n")
}

fn text(text: &str, x: f64, y: f64, anchor: &str) -> Text {
    // Control characters are not allowed in XML at all.
    Text::new(text.replace(char::is_control, "\u{fffd}"))
        .set("class", "label")
        .set("x", (x * 10.0).round() / 10.0)
        .set("y", (y * 10.0).round() / 10.0)
        .set("text-anchor", anchor)
        .set("fill", INK)
}

fn stroke(path: String, curve: &Curve) -> Path {
    Path::new()
        .set("class", "curve")
        .set("d", path)
        .set("fill", "none")
        .set("stroke", curve.colour)
        .set("stroke-width", 2)
        .set("stroke-linejoin", "round")
        .set(
            "stroke-dasharray",
            if curve.dashed { "5 4" } else { "none" },
        )
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= least);
    factor.unwrap_or(10.0) * power
}

/// As many decimals as tell neighbouring lines apart.
fn label(value: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).clamp(0.0, 20.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(name: &str, points: &[(f64, f64)]) -> Curve {
        Curve {
            name: name.to_owned(),
            colour: "#1f5fbf",
            dashed: false,
            points: points.to_vec(),
        }
    }

    #[test]
    fn the_curve_goes_through_its_points() {
        let curves = vec![
            curve("a<b", &[(1.0, 1.0), (2.0, 0.5)]),
            curve("c", &[(1.0, 2.0), (2.0, 1.0)]),
        ];
        let svg = Chart::new("loss", curves).with_names().to_svg();
        // Values 0.5 to 2 make lines from 0.5 in steps of 0.5.
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
        let mut texts = texts.filter_map(|node| node.text());
        assert!(texts.any(|text| text.trim() == "a<b"), "{svg}");
    }

    #[test]
    fn any_values_are_drawn_without_a_number_that_is_none() {
        for points in [
            vec![],
            vec![(1.0, 1.0)],
            vec![(3.0, 0.0), (4.0, 0.0)],
            vec![(1.0, f64::NAN), (2.0, 1e9)],
        ] {
            let svg = Chart::new("loss", vec![curve("a", &points)]).to_svg();
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
