//! The confusion matrix as a picture.

use std::fmt::Write;

/// A square per pair of classes, darker with the share of the true class's images; counts where
/// they fit.
pub(crate) fn to_svg(confusion: &[Vec<u64>], classes: &[String]) -> String {
    let n = classes.len().max(1);
    let cell = (600 / n).clamp(6, 44);
    let font = (cell * 2 / 5).clamp(5, 13);
    let longest = classes.iter().map(|c| c.chars().count()).max().unwrap_or(0);
    let label = longest * font * 3 / 5 + 12;
    let (left, top) = (label + 24, label + 24);
    let (width, height) = (left + n * cell + 16, top + n * cell + 16);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"{font}\">\n\
         <title>Confusion matrix: true classes in rows, predicted classes in columns</title>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\"/>\n\
         <text x=\"{x}\" y=\"14\" text-anchor=\"middle\" fill=\"#555555\">predicted</text>\n\
         <text transform=\"translate(14 {y}) rotate(-90)\" text-anchor=\"middle\" \
         fill=\"#555555\">true</text>\n",
        x = left + n * cell / 2,
        y = top + n * cell / 2,
    );
    for (i, class) in classes.iter().enumerate() {
        let middle = i * cell + cell / 2;
        let class = escape(class);
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\" dominant-baseline=\"central\">{class}\
             </text>\n<text transform=\"translate({cx} {cy}) rotate(-90)\" \
             dominant-baseline=\"central\">{class}</text>",
            x = left - 6,
            y = top + middle,
            cx = left + middle,
            cy = top - 6,
        );
    }
    for (row, counts) in confusion.iter().enumerate() {
        let total = counts.iter().sum::<u64>().max(1);
        for (column, &count) in counts.iter().enumerate() {
            let share = count as f64 / total as f64;
            let (x, y) = (left + column * cell, top + row * cell);
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{size}\" height=\"{size}\" fill=\"{fill}\"/>",
                size = cell - 1,
                fill = shade(share, row == column),
            );
            if count > 0 && cell >= 22 {
                let ink = if share > 0.5 { "#ffffff" } else { "#333333" };
                let _ = writeln!(
                    svg,
                    "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" dominant-baseline=\"central\" \
                     fill=\"{ink}\">{count}</text>",
                    x + (cell - 1) / 2,
                    y + (cell - 1) / 2,
                );
            }
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Blue for what is right, red for what is not; the square root lets single mistakes be seen.
fn shade(share: f64, right: bool) -> String {
    let (r, g, b) = if right {
        (33.0, 102.0, 172.0)
    } else {
        (178.0, 24.0, 43.0)
    };
    let strength = share.sqrt();
    let mix = |ink: f64| (246.0 + (ink - 246.0) * strength).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(r), mix(g), mix(b))
}

/// Class names come from folders and files, so that they may hold anything.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            // Control characters are not allowed in XML at all.
            c if c.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_counts_shown() {
        let classes = ["a<b>&\"\u{1}".to_owned(), "dog".to_owned()];
        let svg = to_svg(&[vec![3, 1], vec![0, 7]], &classes);
        assert!(svg.contains("a&lt;b&gt;&amp;&quot;\u{fffd}"));
        assert!(svg.contains(">7</text>"));
        assert!(!svg.contains(">0</text>"));
    }
}
