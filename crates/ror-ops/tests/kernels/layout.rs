use proptest::prelude::*;
use ror_ops::kernels::{Block, Dims, from_blocked, to_blocked};

use crate::reference::{garbage, plain, values};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocked_and_back_is_the_identity_and_pads_with_zeros(
        (n, c, h, w) in (0usize..4, 1usize..40, 1usize..20, 1usize..20),
    ) {
        let dims = Dims::new(n, c, h, w);
        let x = values(dims.plain_len("x").unwrap(), 1);
        let mut blocked = garbage(dims.block_len("x").unwrap());
        to_blocked(dims, &x, &mut blocked).unwrap();
        prop_assert_eq!(&plain(dims, &blocked), &x);
        let zeros = blocked.iter().flat_map(|b| b.0).filter(|&v| v == 0.0).count();
        let own = x.iter().filter(|&&v| v == 0.0).count();
        prop_assert_eq!(zeros, own + blocked.len() * 16 - x.len());
    }
}

#[test]
fn lengths_are_checked() {
    let dims = Dims::new(1, 3, 2, 2);
    let mut blocks = vec![Block::ZERO; 4];
    assert!(to_blocked(dims, &[0.0; 11], &mut blocks).is_err());
    assert!(to_blocked(dims, &[0.0; 12], &mut blocks[..3]).is_err());
    assert!(from_blocked(dims, &blocks, &mut [0.0; 13]).is_err());
    assert!(Dims::new(usize::MAX, 2, 2, 2).plain_len("x").is_err());
}
