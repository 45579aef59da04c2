//! A convolution with anything fused, beside its twin.

use ror_ops::kernels::{
    Algorithm, Block, Conv2d, Dims, Fused, Geometry, Isa, Output, Pool, Preact, Source, Term,
    channel_blocks,
};

use crate::reference::{blocked, convolve, error, garbage, max_pool, plain, values, worse};

/// What is fused into the convolution under test.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extras {
    pub(super) relu: bool,
    /// Added tensors; whether a ReLU follows each.
    pub(super) terms: &'static [bool],
    /// Adds the old output, in place.
    pub(super) in_place: bool,
    pub(super) pool: bool,
    pub(super) raw: bool,
    pub(super) preact: bool,
}

pub(super) const PLAIN: Extras = Extras {
    relu: false,
    terms: &[],
    in_place: false,
    pool: false,
    raw: true,
    preact: false,
};

/// Runs one convolution on `threads` threads and compares all it writes with the twin.
pub(super) fn check(
    isa: Isa,
    algorithm: Algorithm,
    geometry: Geometry,
    (n, h, w): (usize, usize, usize),
    extras: Extras,
    threads: usize,
) -> f64 {
    let input = Dims::new(n, geometry.inputs, h, w);
    let out = geometry.output(input).unwrap();
    let (kh, kw) = geometry.kernel;
    let x = values(input.plain_len("x").unwrap(), 1);
    let weight = values(geometry.inputs * geometry.outputs * kh * kw, 2);
    let bias = values(geometry.outputs, 3);
    let conv = Conv2d::new(isa, geometry, algorithm, &weight, Some(&bias)).unwrap();
    assert_eq!(conv.weight_bytes(), algorithm.packed_bytes(&geometry));

    let written = if extras.pool {
        Dims {
            h: out.h / 2,
            w: out.w / 2,
            ..out
        }
    } else {
        out
    };
    let terms: Vec<Vec<f32>> = (0..extras.terms.len() as u64)
        .map(|i| values(out.plain_len("y").unwrap(), 10 + i))
        .collect();
    let old = values(out.plain_len("y").unwrap(), 20);
    let (scale, shift) = (values(out.c, 30), values(out.c, 31));

    let blocks: Vec<_> = terms.iter().map(|t| blocked(out, t)).collect();
    let mut list: Vec<_> = blocks
        .iter()
        .zip(extras.terms)
        .map(|(t, &relu)| Term {
            source: Source::Tensor(t),
            relu,
        })
        .collect();
    let in_place = extras.in_place && extras.raw && !extras.pool;
    if in_place {
        list.push(Term {
            source: Source::Output,
            relu: false,
        });
    }
    let len = written.block_len("y").unwrap();
    let mut raw = if in_place {
        blocked(out, &old)
    } else {
        garbage(len)
    };
    let mut pre = garbage(len);
    let (scale_blocks, shift_blocks) = (channel_blocks(&scale), channel_blocks(&shift));
    let fused = Fused {
        relu: extras.relu,
        terms: &list,
        pool: extras.pool,
    };
    let preact = Preact {
        out: &mut pre,
        scale: &scale_blocks,
        shift: &shift_blocks,
    };
    let output = Output {
        raw: extras.raw.then_some(&mut raw[..]),
        preact: extras.preact.then_some(preact),
    };
    let blocked_x = blocked(input, &x);
    if threads == 0 {
        let mut scratch = garbage(conv.scratch_len(n, h, w).unwrap());
        conv.run((n, h, w), &blocked_x, &fused, output, &mut scratch)
            .unwrap();
    } else {
        let pool = Pool::new(threads).unwrap();
        let mut scratch = garbage(threads * conv.scratch_len(n, h, w).unwrap());
        conv.run_on(&pool, (n, h, w), &blocked_x, &fused, output, &mut scratch)
            .unwrap();
    }

    let mut y = convolve(geometry, input, &x, &weight, &bias);
    let relu = |y: &mut Vec<f64>, on: bool| {
        if on {
            y.iter_mut().for_each(|v| *v = v.max(0.0));
        }
    };
    relu(&mut y, extras.relu);
    for (term, &then) in terms.iter().zip(extras.terms) {
        y.iter_mut()
            .zip(term)
            .for_each(|(y, &t)| *y += f64::from(t));
        relu(&mut y, then);
    }
    if in_place {
        y.iter_mut()
            .zip(&old)
            .for_each(|(y, &t)| *y += f64::from(t));
    }
    if extras.pool {
        y = if written.h * written.w == 0 {
            Vec::new()
        } else {
            max_pool(out, 2, 2, 0, &y)
        };
    }
    let mut worst = 0f64;
    if extras.raw {
        worst = worse(worst, error(&plain(written, &raw), &y));
        // What pads the last block must stay zero: the next layer multiplies it by its (zero) weights.
        assert!(padding_is_zero(written, &raw), "padding of the raw output");
    }
    if extras.preact {
        let pixels = written.h * written.w;
        for (i, v) in y.iter_mut().enumerate() {
            let c = i / pixels.max(1) % out.c;
            *v = (*v * f64::from(scale[c]) + f64::from(shift[c])).max(0.0);
        }
        worst = worse(worst, error(&plain(written, &pre), &y));
        assert!(
            padding_is_zero(written, &pre),
            "padding of the pre-activation"
        );
    }
    worst
}

fn padding_is_zero(dims: Dims, x: &[Block]) -> bool {
    let (pixels, last) = (dims.h * dims.w, dims.c.div_ceil(16) - 1);
    let used = dims.c - last * 16;
    let mut blocks = x
        .iter()
        .enumerate()
        .filter(|(i, _)| i / pixels % (last + 1) == last);
    blocks.all(|(_, block)| block.0[used..].iter().all(|&v| v == 0.0))
}

pub(super) fn tolerance(algorithm: Algorithm) -> f64 {
    match algorithm {
        Algorithm::Winograd4 => 5e-5,
        Algorithm::Winograd2 => 5e-6,
        Algorithm::Direct => 3e-6,
    }
}
