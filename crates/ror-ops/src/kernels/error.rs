//! What can be wrong with a kernel's arguments.

/// An argument that a kernel refuses before it does any work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A slice has another length than the shapes call for.
    #[error("{what}: expected {expected} elements, found {found}")]
    Length {
        /// The argument.
        what: &'static str,
        /// The length that the shapes call for.
        expected: usize,
        /// The length it has.
        found: usize,
    },
    /// A shape that no kernel can work on.
    #[error("{what}: {why}")]
    Shape {
        /// The argument.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A size that does not fit in memory's address range.
    #[error("{0}: the size overflows")]
    Overflow(&'static str),
    /// A weight or bias that is infinite or not a number.
    #[error("{what}: element {index} is {value}")]
    NotFinite {
        /// The argument.
        what: &'static str,
        /// Where it is.
        index: usize,
        /// `NaN`, `inf` or `-inf`.
        value: String,
    },
}

/// The outcome of a kernel.
pub type Result<T> = std::result::Result<T, KernelError>;

/// Fails unless `found` is `expected`.
pub(super) fn check_len(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        Ok(())
    } else {
        Err(KernelError::Length {
            what,
            expected,
            found,
        })
    }
}

/// Fails if `found` is less than `expected`.
pub(super) fn check_at_least(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected <= found {
        Ok(())
    } else {
        Err(KernelError::Length {
            what,
            expected,
            found,
        })
    }
}

/// Fails on the first value that is infinite or not a number.
pub(super) fn check_finite(what: &'static str, values: &[f32]) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(index) => Err(KernelError::NotFinite {
            what,
            index,
            value: values[index].to_string(),
        }),
    }
}

/// The product of `factors`. A zero among them hides no size that would overflow.
pub(super) fn product(what: &'static str, factors: &[usize]) -> Result<usize> {
    let largest = factors
        .iter()
        .try_fold(1usize, |p, &f| p.checked_mul(f.max(1)));
    // Half the address range: pointer offsets must fit in `isize`, counted in bytes of a block.
    largest
        .filter(|&p| p <= isize::MAX as usize / 128)
        .ok_or(KernelError::Overflow(what))?;
    Ok(factors.iter().product())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_hides_no_overflow() {
        assert_eq!(product("size", &[0, 3, 4]).unwrap(), 0);
        assert_eq!(product("size", &[2, 3, 4]).unwrap(), 24);
        assert!(product("size", &[0, usize::MAX, 2]).is_err());
        assert!(product("size", &[usize::MAX / 2, 3]).is_err());
    }
}
