//! Which memory each tensor of a plan lies in.
//!
//! Steps run in stages: all steps of a stage on a few images, then on the next few, so that what they hand each other
//! stays in the caches; then the next stage. A tensor that a later stage reads is kept for all images of a chunk, the
//! others for the few. Tensors whose lives do not overlap share a slot.

use crate::fuse::{Kind, Step};
use crate::{Error, Result};
use ror_models::blocks::Shape3;
use ror_ops::kernels::{Block, blocks};
use std::ops::Range;

/// Where a tensor lies: at the start of a slot, image after image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub slot: usize,
    /// Blocks of one image.
    pub len: usize,
    /// Whether the slot has all images of a chunk, not only those that a stage works on at once.
    pub whole: bool,
}

/// Consecutive steps that run together on a few images.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub steps: Range<usize>,
    /// Images at once.
    pub images: usize,
}

/// Places for all tensors.
#[derive(Debug)]
pub(crate) struct Layout {
    pub stages: Vec<Stage>,
    /// Images that go through all stages together.
    pub chunk: usize,
    /// Blocks of each slot.
    pub slots: Vec<usize>,
    places: Vec<Option<Place>>,
}

/// The life of a tensor, in steps.
#[derive(Clone, Copy)]
struct Life {
    len: usize,
    written: usize,
    /// The last step that reads it.
    read: usize,
}

/// Bytes of activations that a stage should keep to: about half of a second-level cache, whose rest transformed tiles
/// and weights take.
const CACHE: usize = 640 * 1024;

/// Pixels that a stage should have at once even so: fewer, and the time goes into reading weights.
const FILLING: usize = 1024;

/// Most images of a chunk: enough for the smallest feature maps to fill the kernels' blocks of tiles.
pub(crate) const MOST_IMAGES: usize = 16;

impl Layout {
    /// Places the tensors of `steps`, of which `output` is read after the last. At most `most` images at once.
    pub(crate) fn new(steps: &[Step], output: usize, most: usize) -> Result<Self> {
        let lives = lives(steps, output)?;
        let mut stages = stages(steps);
        let stage_of = |step: usize| {
            let found = stages.iter().position(|s: &Stage| s.steps.contains(&step));
            found.unwrap_or(stages.len())
        };
        let spans: Vec<Option<(usize, usize)>> = lives
            .iter()
            .map(|life| life.map(|life| (stage_of(life.written), stage_of(life.read))))
            .collect();

        // Tensors within a stage, then those between stages.
        let mut places = vec![None; lives.len()];
        let mut slots: Vec<usize> = Vec::new();
        for (index, stage) in stages.iter_mut().enumerate() {
            let inner = |t: usize| spans[t] == Some((index, index));
            let mut lens = Vec::new();
            let mut free_from: Vec<usize> = Vec::new();
            for at in stage.steps.clone() {
                for t in steps[at].writes().filter(|&t| inner(t)) {
                    let Some(life) = lives[t] else { continue };
                    let slot = in_place(&steps[at], t, &lives, &places, at)
                        .unwrap_or_else(|| free_slot(&mut lens, &free_from, at, life.len));
                    free_from.resize(lens.len(), 0);
                    free_from[slot] = life.read + 1;
                    places[t] = Some(Place {
                        slot,
                        len: life.len,
                        whole: false,
                    });
                }
            }
            let bytes = product(lens.iter().sum(), size_of::<Block>())?;
            let boundary = steps[stage.steps.clone()].iter().flat_map(Step::reads);
            let crossing = boundary
                .filter(|&t| !inner(t))
                .filter_map(|t| lives[t])
                .map(|life| life.len * size_of::<Block>())
                .max()
                .unwrap_or(0);
            let pixels = steps[stage.steps.clone()]
                .iter()
                .map(|s| s.to.height * s.to.width);
            let filling = FILLING.div_ceil(pixels.max().unwrap_or(0).max(1));
            let images = (CACHE / (bytes + crossing).max(1)).max(filling);
            stage.images = images.clamp(1, most);
            for (i, len) in lens.into_iter().enumerate() {
                if i == slots.len() {
                    slots.push(0);
                }
                slots[i] = slots[i].max(product(len, stage.images)?);
            }
        }
        let chunk = stages.iter().map(|s| s.images).max().unwrap_or(1);
        let inner_slots = slots.len();
        let (mut lens, mut free_from) = (Vec::new(), Vec::new());
        for (at, step) in steps.iter().enumerate() {
            for t in step.writes() {
                let (Some(life), Some((first, last))) = (lives[t], spans[t]) else {
                    continue;
                };
                if first == last {
                    continue;
                }
                debug_assert_eq!(life.written, at);
                let slot = free_slot(&mut lens, &free_from, first, life.len);
                free_from.resize(lens.len(), 0);
                free_from[slot] = last + 1;
                places[t] = Some(Place {
                    slot: inner_slots + slot,
                    len: life.len,
                    whole: true,
                });
            }
        }
        for len in lens {
            slots.push(product(len, chunk)?);
        }
        Ok(Self {
            stages,
            chunk,
            slots,
            places,
        })
    }

    /// Where tensor `t` lies; `None` for the images.
    pub(crate) fn place(&self, t: usize) -> Option<Place> {
        self.places.get(t).copied().flatten()
    }
}

fn product(a: usize, b: usize) -> Result<usize> {
    a.checked_mul(b).ok_or(Error::Memory { bytes: usize::MAX })
}

fn lives(steps: &[Step], output: usize) -> Result<Vec<Option<Life>>> {
    let count = steps.iter().flat_map(Step::writes).max().unwrap_or(0) + 1;
    let mut lives: Vec<Option<Life>> = vec![None; count];
    for (at, step) in steps.iter().enumerate() {
        for t in step.reads() {
            if let Some(life) = lives.get_mut(t).and_then(Option::as_mut) {
                life.read = at;
            }
        }
        for t in step.writes() {
            lives[t] = Some(Life {
                len: block_len(step.written())?,
                written: at,
                read: at,
            });
        }
    }
    // The head reads it after all stages.
    if let Some(life) = lives.get_mut(output).and_then(Option::as_mut) {
        life.read = steps.len();
    }
    Ok(lives)
}

/// Blocks of one image.
fn block_len(shape: Shape3) -> Result<usize> {
    let pixels = product(shape.height, shape.width)?;
    product(blocks(shape.channels), pixels)
}

/// A new stage begins where images become smaller.
fn stages(steps: &[Step]) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    let mut smallest = usize::MAX;
    for (at, step) in steps.iter().enumerate() {
        let pixels = step.from.height * step.from.width;
        match stages.last_mut() {
            // The images themselves are in no cache: what reads them belongs to what comes next.
            Some(stage) if pixels >= smallest || stage.steps.len() == 1 => stage.steps.end = at + 1,
            _ => stages.push(Stage {
                steps: at..at + 1,
                images: 1,
            }),
        }
        smallest = smallest.min(pixels);
    }
    stages
}

/// The slot of a term that step `at` is the last to read, if its result `t` can replace it.
fn in_place(
    step: &Step,
    t: usize,
    lives: &[Option<Life>],
    places: &[Option<Place>],
    at: usize,
) -> Option<usize> {
    let result = lives[t]?;
    if step.raw != Some(t) || step.pool || matches!(step.kind, Kind::MaxPool(_) | Kind::Pad { .. })
    {
        return None;
    }
    step.terms.iter().find_map(|&(term, _)| {
        let (life, place) = (lives.get(term).copied()??, places[term]?);
        let dies = life.read == at && life.len == result.len && !place.whole;
        let once = step.reads().filter(|&r| r == term).count() == 1;
        (dies && once).then_some(place.slot)
    })
}

/// The smallest slot that is free at `time` and holds `len`, else the largest free one grown, else a new one.
fn free_slot(lens: &mut Vec<usize>, free_from: &[usize], time: usize, len: usize) -> usize {
    let free = |i: &usize| free_from.get(*i).is_none_or(|&from| from <= time);
    let fitting = (0..lens.len())
        .filter(|i| free(i) && lens[*i] >= len)
        .min_by_key(|&i| lens[i]);
    let found = fitting.or_else(|| (0..lens.len()).filter(free).max_by_key(|&i| lens[i]));
    match found {
        Some(i) => {
            lens[i] = lens[i].max(len);
            i
        }
        None => {
            lens.push(len);
            lens.len() - 1
        }
    }
}
