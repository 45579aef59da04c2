//! How pickles spell integers and strings.

use super::Step;

/// A little-endian two's complement integer of any length up to 8 bytes.
pub(super) fn long(bytes: &[u8]) -> Step<i64> {
    let negative = bytes.last().is_some_and(|b| *b >= 0x80);
    let mut all = [if negative { 0xFF } else { 0 }; 8];
    all.get_mut(..bytes.len())
        .ok_or("an integer above 64 bits")?
        .copy_from_slice(bytes);
    Ok(i64::from_le_bytes(all))
}

/// A string as Python 2's `repr` writes it.
pub(super) fn unquote(line: &[u8]) -> Step<Vec<u8>> {
    let mut rest = match line {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
        _ => return Err("a string without quotes"),
    };
    let mut out = Vec::new();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let (escape, tail) = rest.split_first().ok_or("a bad escape")?;
        rest = tail;
        out.push(match escape {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'\\' | b'\'' | b'"' => *escape,
            b'x' => {
                let (code, tail) = hexadecimal(rest, 2)?;
                rest = tail;
                code as u8
            }
            _ => return Err("a bad escape"),
        });
    }
    Ok(out)
}

/// A text as Python's `raw-unicode-escape` writes it: Latin-1, with `\uXXXX` for the rest.
pub(super) fn raw_unicode(line: &[u8]) -> Step<String> {
    let mut rest = line;
    let mut out = String::new();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match rest.strip_prefix(b"u").filter(|_| *byte == b'\\') {
            Some(escape) => {
                let (code, tail) = hexadecimal(escape, 4)?;
                out.push(char::from_u32(code).ok_or("a bad escape")?);
                rest = tail;
            }
            None => out.push(char::from(*byte)),
        }
    }
    Ok(out)
}

fn hexadecimal(bytes: &[u8], digits: usize) -> Step<(u32, &[u8])> {
    let (code, rest) = bytes.split_at_checked(digits).ok_or("a bad escape")?;
    let value = code.iter().try_fold(0, |value, b| {
        Some(value * 16 + char::from(*b).to_digit(16)?)
    });
    Ok((value.ok_or("a bad escape")?, rest))
}
