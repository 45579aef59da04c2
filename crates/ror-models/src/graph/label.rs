//! How layers, shortcuts and counts are called in pictures.

use ror_blocks::{Block, Layer, NamedLayer, Shape3};

/// Texts of a chain of layers, one per node; a pool stands alone.
pub(super) fn chain(layers: &[NamedLayer]) -> Vec<String> {
    let is_pool = |l: &NamedLayer| matches!(l.layer, Layer::MaxPool { .. });
    layers
        .chunk_by(|a, b| !is_pool(a) && !is_pool(b))
        .map(|chunk| sequence(chunk.iter().map(|l| layer(&l.layer))))
        .collect()
}

/// The convolutions of a block: `3×3, 32, /2 – 3×3, 32`.
pub(super) fn convolutions(block: &Block) -> String {
    let convs = block.body.iter().map(|l| &l.layer);
    sequence(convs.filter(|l| matches!(l, Layer::Conv { .. })).map(layer))
}

/// The order of layers in a block: `BN – ReLU – 3×3 conv – BN – ReLU – 3×3 conv`.
pub(super) fn order(block: &Block) -> String {
    sequence(block.body.iter().map(|l| match l.layer {
        Layer::Conv { kernel, .. } => format!("{kernel}×{kernel} conv"),
        ref other => layer(other),
    }))
}

fn sequence(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(" – ")
}

fn layer(layer: &Layer) -> String {
    match *layer {
        Layer::Conv {
            out_channels,
            kernel,
            stride,
            ..
        } => format!("{kernel}×{kernel}, {out_channels}{}", strided(", ", stride)),
        Layer::Norm { .. } => "BN".to_owned(),
        Layer::Relu => "ReLU".to_owned(),
        Layer::MaxPool { kernel, stride, .. } => {
            format!("{kernel}×{kernel} max pool{}", strided(", ", stride))
        }
        Layer::Dropout { rate } => format!("dropout {rate}"),
    }
}

/// `/2` after `separator`, nothing for stride 1.
pub(super) fn strided(separator: &str, stride: usize) -> String {
    if stride == 1 {
        String::new()
    } else {
        format!("{separator}/{stride}")
    }
}

pub(super) fn shape(shape: Shape3) -> String {
    format!("{} × {} × {}", shape.channels, shape.height, shape.width)
}

/// Three significant digits: `762 k`, `1.73 M`.
pub(super) fn count(n: u64) -> String {
    let mut value = n as f64;
    let mut units = ["", " k", " M", " G", " T"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while value >= 999.5 {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / 1000.0, next);
    }
    let decimals = match value {
        _ if unit.is_empty() => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_three_significant_digits() {
        let counts = [0, 999, 1000, 9_994, 9_996, 762_746, 999_499, 999_500];
        assert_eq!(
            counts.map(count),
            [
                "0", "999", "1.00 k", "9.99 k", "10.0 k", "763 k", "999 k", "1.00 M"
            ]
        );
    }

    #[test]
    fn a_pool_stands_alone() {
        let pool = Layer::MaxPool {
            kernel: 3,
            stride: 2,
            padding: 1,
        };
        let layers = [
            NamedLayer::new("conv", Layer::conv(3, 64, 7, 2, false)),
            NamedLayer::new("norm", Layer::Norm { channels: 64 }),
            NamedLayer::new("relu", Layer::Relu),
            NamedLayer::new("pool", pool),
        ];
        assert_eq!(
            chain(&layers),
            ["7×7, 64, /2 – BN – ReLU", "3×3 max pool, /2"]
        );
    }
}
