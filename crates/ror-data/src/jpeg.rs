//! Whether a JPEG file is all there.

/// Walks the markers of a JPEG stream (ITU T.81, annex B) to its end-of-image marker.
///
/// `false` where the bytes end first. Says nothing about whether what stands between decodes.
pub(crate) fn is_complete(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    // Between segments only fill bytes may precede a marker; inside a scan `next_marker` also
    // skips the entropy-coded data, so one rule serves both.
    while let Some((marker, after)) = next_marker(rest) {
        match marker {
            0xD9 => return true,
            // Start of image, and TEM: no payload.
            0xD8 | 0x01 => rest = after,
            _ => {
                let Some((length, _)) = after.split_first_chunk::<2>() else {
                    return false;
                };
                let length = usize::from(u16::from_be_bytes(*length));
                let Some(next) = after.get(length.max(2)..) else {
                    return false;
                };
                rest = next;
            }
        }
    }
    false
}

/// The next marker that is no stuffed zero, fill byte or restart, and what follows it.
fn next_marker(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let mut pairs = bytes.windows(2).enumerate();
    let (at, pair) =
        pairs.find(|(_, pair)| pair[0] == 0xFF && !matches!(pair[1], 0x00 | 0xFF | 0xD0..=0xD7))?;
    Some((pair[1], &bytes[at + 2..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_marker_inside_a_segment_does_not_count() {
        // SOI, APP1 of 6 bytes holding a thumbnail's FFD9, SOS of 2 bytes, data, EOI.
        let whole = [
            0xFF, 0xD8, 0xFF, 0xE1, 0, 6, 0xFF, 0xD9, 0xFF, 0xD9, 0xFF, 0xDA, 0, 2, 7, 0xFF, 0x00,
            0xFF, 0xD0, 0xFF, 0xFF, 0xD9,
        ];
        assert!(is_complete(&whole));
        for end in 0..whole.len() {
            assert!(!is_complete(&whole[..end]), "{end}");
        }
    }
}
