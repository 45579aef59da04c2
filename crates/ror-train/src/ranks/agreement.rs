//! Ranks that tell each other what they are about to do, so that all of them stop where one cannot go on.

use super::Ranks;
use crate::error::{Result, TrainError};

/// What every rank says, in the order of the ranks.
fn gather(ranks: &dyn Ranks, own: f64) -> Vec<f64> {
    let mut all = vec![0.0; ranks.size()];
    all[ranks.rank()] = own;
    ranks.sum(&mut all);
    all
}

/// Fails on every rank where one has failed: there with its own error, elsewhere with the rank's number.
pub(crate) fn together<T>(ranks: &dyn Ranks, result: Result<T>) -> Result<T> {
    if ranks.size() == 1 {
        return result;
    }
    let failed = gather(ranks, f64::from(u8::from(result.is_err())));
    match (result, failed.iter().position(|&failed| failed != 0.0)) {
        (Ok(_), Some(rank)) => Err(TrainError::Ranks(format!(
            "rank {rank} has failed; it says why"
        ))),
        (result, _) => result,
    }
}

/// Makes sure that all ranks have the same `what`, by checksums.
pub(crate) fn agree(ranks: &dyn Ranks, what: &str, checksum: u32) -> Result<()> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let all = gather(ranks, f64::from(checksum));
    match all.iter().position(|&other| other != all[0]) {
        None => Ok(()),
        Some(rank) => Err(TrainError::Ranks(format!(
            "the ranks of a job must have the same {what}: rank {rank}'s differ from rank 0's \
             (checksums {:08x} and {:08x})",
            all[rank] as u32, all[0] as u32
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::threads::on_ranks;

    #[test]
    fn where_one_rank_fails_all_do_and_name_it() {
        let errors = on_ranks(3, |ranks| {
            let result = match ranks.rank() {
                1 => Err(TrainError::Data("no such image".to_owned())),
                rank => Ok(rank),
            };
            together(&ranks, result).unwrap_err().to_string()
        });
        assert!(errors[0].contains("rank 1") && errors[2].contains("rank 1"));
        assert_eq!(errors[1], "no such image");
        let fine = on_ranks(3, |ranks| together(&ranks, Ok(ranks.rank())).unwrap());
        assert_eq!(fine, [0, 1, 2]);
    }

    #[test]
    fn all_ranks_hear_that_one_has_something_else() {
        let agreements = on_ranks(3, |ranks| agree(&ranks, "settings", 7).is_ok());
        assert_eq!(agreements, [true; 3]);
        let errors = on_ranks(3, |ranks| {
            let own = if ranks.rank() == 2 { u32::MAX } else { 0 };
            agree(&ranks, "settings", own).unwrap_err().to_string()
        });
        for error in errors {
            assert!(error.contains("same settings: rank 2's"), "{error}");
        }
    }
}
