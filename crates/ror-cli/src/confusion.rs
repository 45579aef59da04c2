//! The confusion matrix as a picture.

use svg::Document;
use svg::node::element::{Rectangle, Text, Title};

/// A square per pair of classes, darker with the share of the true class's images; counts where
/// they fit.
pub(crate) fn to_svg(confusion: &[Vec<u64>], classes: &[String]) -> String {
    let n = classes.len().max(1);
    let cell = (600 / n).clamp(6, 44);
    let font = (cell * 2 / 5).clamp(5, 13);
    // In fifths of the font's size; from Hangul's letters on, names of the East are twice as wide.
    let width = |c: char| if c < '\u{1100}' { 3 } else { 5 };
    let widths = classes.iter().map(|c| c.chars().map(width).sum());
    let edge = widths.max().unwrap_or(0) * font / 5 + 36;
    let size = edge + n * cell + 16;
    let middle = edge + n * cell / 2;
    let mut picture = Document::new()
        .set("viewBox", (0, 0, size, size))
        .set("width", size)
        .set("height", size)
        .set("font-family", "sans-serif")
        .set("font-size", font)
        .add(Title::new(
            "Confusion matrix: true classes in rows, predicted classes in columns",
        ))
        .add(square(0, 0, size, "#ffffff").set("rx", 8))
        .add(centred(middle, 14, "#555555", "predicted"))
        .add(
            Text::new("true")
                .set("transform", format!("translate(14 {middle}) rotate(-90)"))
                .set("text-anchor", "middle")
                .set("fill", "#555555"),
        );
    for (i, class) in classes.iter().enumerate() {
        let at = edge + i * cell + cell / 2;
        let class = printable(class);
        let name = |text: String| Text::new(text).set("dominant-baseline", "central");
        let row = name(class.clone()).set("text-anchor", "end");
        let turned = format!("translate({at} {}) rotate(-90)", edge - 6);
        picture = picture
            .add(row.set("x", edge - 6).set("y", at))
            .add(name(class).set("transform", turned));
    }
    // Of many classes most pairs are never seen: those are the ground.
    picture = picture.add(square(edge, edge, n * cell, &shade(0.0, false)));
    for (row, counts) in confusion.iter().enumerate() {
        let total = counts.iter().sum::<u64>().max(1);
        for (column, &count) in counts.iter().enumerate() {
            if count == 0 && n > 44 {
                continue;
            }
            let share = count as f64 / total as f64;
            let (x, y) = (edge + column * cell, edge + row * cell);
            picture = picture.add(square(x, y, cell - 1, &shade(share, row == column)));
            if count > 0 && cell >= 22 {
                let ink = if share > 0.5 { "#ffffff" } else { "#333333" };
                let half = (cell - 1) / 2;
                picture = picture.add(centred(x + half, y + half, ink, &count.to_string()));
            }
        }
    }
    format!("{picture}\n")
}

fn square(x: usize, y: usize, size: usize, fill: &str) -> Rectangle {
    Rectangle::new()
        .set("x", x)
        .set("y", y)
        .set("width", size)
        .set("height", size)
        .set("fill", fill)
}

fn centred(x: usize, y: usize, ink: &str, text: &str) -> Text {
    Text::new(text)
        .set("x", x)
        .set("y", y)
        .set("text-anchor", "middle")
        .set("dominant-baseline", "central")
        .set("fill", ink)
}

/// Blue for what is right, red for what is not; the square root lets single mistakes be seen.
fn shade(share: f64, right: bool) -> String {
    let ink = if right {
        [33.0, 102.0, 172.0]
    } else {
        [178.0, 24.0, 43.0]
    };
    let strength = share.sqrt();
    let [r, g, b] = ink.map(|c| (246.0 + (c - 246.0) * strength).round() as u8);
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Class names come from folders and files; control characters are not allowed in XML at all.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_counts_shown() {
        let classes = ["a<b>&\"\u{1}".to_owned(), "dog".to_owned()];
        let svg = to_svg(&[vec![3, 1], vec![0, 7]], &classes);
        let document = roxmltree::Document::parse(&svg).unwrap();
        let texts: Vec<String> = document
            .descendants()
            .filter(|n| n.has_tag_name("text"))
            .map(|n| n.text().unwrap_or_default().trim().to_owned())
            .collect();
        assert!(texts.contains(&"a<b>&\"\u{fffd}".to_owned()), "{texts:?}");
        assert!(texts.contains(&"7".to_owned()));
        assert!(!texts.contains(&"0".to_owned()));
    }
}
