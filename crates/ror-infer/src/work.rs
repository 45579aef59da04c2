//! Running a program's operations.

use crate::program::{Head, Kernel, Operation, Program};
use crate::{Input, place::Place};
use ror_ops::kernels::{
    Block, Blocks, Dims, Fused, Isa, KernelError, MAX_TERMS, MaxPool, Memory, Output, Plain, Pool,
    Preact, Source, Term, as_flat, blocks, global_average_pool, merge, pad_shortcut,
};
use std::ops::Range;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, KernelError>;

/// What comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Logits,
    Features,
}

/// Some images of an input, and what to compute of them.
#[derive(Debug, Clone)]
pub(crate) struct Batch<'a> {
    pub input: Input<'a>,
    pub images: Range<usize>,
    pub wanted: Wanted,
}

/// The memory that a thread works in.
#[derive(Debug)]
pub(crate) struct Worker {
    slots: Vec<Blocks>,
    pooled: Blocks,
    scratch: Blocks,
    /// Time spent in each operation, the head last, where it is measured.
    pub times: Option<Vec<Duration>>,
    /// What went wrong; nothing can, once lengths are checked.
    pub result: Result<()>,
}

/// All threads on one image, or this one alone.
enum Team<'a> {
    Alone(&'a mut [Block]),
    All(&'a Pool, &'a mut [Block]),
}

impl Worker {
    pub(crate) fn new(program: &Program, memory: &mut Memory) -> Self {
        Self {
            slots: program.slots.iter().map(|&len| memory.zeros(len)).collect(),
            pooled: memory.zeros(program.pooled()),
            scratch: memory.zeros(program.scratch),
            times: None,
            result: Ok(()),
        }
    }

    /// Computes the given images alone.
    pub(crate) fn alone(&mut self, program: &Program, batch: Batch<'_>, out: &mut [f32]) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let width = program.width(batch.wanted);
        let mut result = Ok(());
        let mut first = batch.images.start;
        for out in out.chunks_mut((program.chunk * width).max(1)) {
            let n = out.len() / width;
            let mut team = Team::Alone(&mut scratch);
            let images = first..first + n;
            let few = Batch {
                images,
                ..batch.clone()
            };
            result = result.and_then(|()| self.chunk(program, few, out, &mut team));
            first += n;
        }
        self.scratch = scratch;
        self.result = result;
    }

    /// Computes the given images one after the other, with all threads; `scratch` is theirs.
    pub(crate) fn together(
        &mut self,
        program: &Program,
        pool: &Pool,
        scratch: &mut [Block],
        batch: Batch<'_>,
        out: &mut [f32],
    ) {
        let width = program.width(batch.wanted);
        let mut images = batch.images.clone().zip(out.chunks_exact_mut(width));
        self.result = images.try_for_each(|(image, out)| {
            let mut team = Team::All(pool, &mut *scratch);
            let one = Batch {
                images: image..image + 1,
                ..batch.clone()
            };
            self.chunk(program, one, out, &mut team)
        });
    }

    /// Computes at most a chunk of images.
    fn chunk(
        &mut self,
        program: &Program,
        batch: Batch<'_>,
        out: &mut [f32],
        team: &mut Team<'_>,
    ) -> Result<()> {
        let Batch {
            input,
            images,
            wanted,
        } = batch;
        for stage in &program.stages {
            let mut first = images.start;
            while first < images.end {
                let few = first..images.end.min(first + stage.images);
                first = few.end;
                let window = few.start - images.start..few.end - images.start;
                for index in stage.steps.clone() {
                    let operation = &program.operations[index];
                    let started = self.times.is_some().then(Instant::now);
                    let plain = input.images(few.clone(), program.image.elements());
                    self.operation(program.isa, operation, plain, window.clone(), team)?;
                    self.count(index, started);
                }
            }
        }
        let started = self.times.is_some().then(Instant::now);
        self.head(program.isa, &program.head, images.len(), wanted, out, team)?;
        self.count(program.operations.len(), started);
        Ok(())
    }

    fn count(&mut self, index: usize, started: Option<Instant>) {
        if let (Some(times), Some(started)) = (&mut self.times, started) {
            times[index] += started.elapsed();
        }
    }

    /// One operation on the images `window` of the chunk.
    fn operation(
        &mut self,
        isa: Isa,
        operation: &Operation,
        plain: Plain<'_>,
        window: Range<usize>,
        team: &mut Team<'_>,
    ) -> Result<()> {
        let n = window.len();
        let part = |place: &Place| {
            let first = if place.whole { window.start } else { 0 };
            first * place.len..(first + n) * place.len
        };
        // The results' slots are taken out so that the others can be read meanwhile.
        let (raw_place, preact_place) = (operation.raw, operation.preact.as_ref().map(|p| p.place));
        let mut take = |place: Option<Place>| {
            place
                .map(|p| std::mem::take(&mut self.slots[p.slot]))
                .unwrap_or_default()
        };
        let (mut raw, mut preact) = (take(raw_place), take(preact_place));
        let tensor = |place: &Place| &self.slots[place.slot][part(place)];

        let mut terms = [Term {
            source: Source::Output,
            relu: false,
        }; MAX_TERMS];
        for (term, (place, relu)) in terms.iter_mut().zip(&operation.terms) {
            if let Some(place) = place {
                term.source = Source::Tensor(tensor(place));
            }
            term.relu = *relu;
        }
        let fused = Fused {
            relu: operation.relu,
            terms: &terms[..operation.terms.len()],
            pool: operation.pool,
        };
        let output = Output {
            raw: raw_place.map(|p| &mut raw[part(&p)]),
            preact: operation.preact.as_ref().map(|p| Preact {
                out: &mut preact[part(&p.place)],
                scale: &p.scale,
                shift: &p.shift,
            }),
        };
        let x = operation.input.as_ref().map_or(&[][..], tensor);
        let (from, to) = (
            Dims {
                n,
                ..operation.from
            },
            Dims { n, ..operation.to },
        );
        let shape = (n, from.h, from.w);
        let result = match (&operation.kernel, team) {
            (Kernel::Stem(stem), Team::Alone(scratch)) => {
                stem.0.run(shape, plain, &fused, output, scratch)
            }
            (Kernel::Stem(stem), Team::All(pool, scratch)) => {
                stem.0.run_on(pool, shape, plain, &fused, output, scratch)
            }
            (Kernel::Conv(conv), Team::Alone(scratch)) => {
                conv.run(shape, x, &fused, output, scratch)
            }
            (Kernel::Conv(conv), Team::All(pool, scratch)) => {
                conv.run_on(pool, shape, x, &fused, output, scratch)
            }
            (Kernel::Merge(bias), _) => merge(isa, to, x, bias, &fused, output),
            (Kernel::MaxPool(max), Team::Alone(_)) => {
                max.run(isa, from, x, output.raw.unwrap_or_default())
            }
            (Kernel::MaxPool(max), Team::All(pool, _)) => {
                pool_planes(isa, max, pool, from, x, output.raw.unwrap_or_default())
            }
            (&Kernel::Pad { stride, channels }, _) => {
                pad_shortcut(from, stride, channels, x, output.raw.unwrap_or_default())
            }
        };
        let mut put_back = |place: Option<Place>, slot: Blocks| {
            if let Some(place) = place {
                self.slots[place.slot] = slot;
            }
        };
        put_back(raw_place, raw);
        put_back(preact_place, preact);
        result
    }

    fn head(
        &mut self,
        isa: Isa,
        head: &Head,
        n: usize,
        wanted: Wanted,
        out: &mut [f32],
        team: &mut Team<'_>,
    ) -> Result<()> {
        let per_image = blocks(head.from.c);
        let pooled = &mut self.pooled[..n * per_image];
        let x = &self.slots[head.input.slot][..n * head.input.len];
        global_average_pool(isa, Dims { n, ..head.from }, x, pooled)?;
        match (&head.dense, wanted) {
            (Some(dense), Wanted::Logits) => {
                let (Team::Alone(scratch) | Team::All(_, scratch)) = team;
                dense.run(n, pooled, out, scratch)
            }
            _ => {
                let rows = as_flat(pooled).chunks_exact(per_image * ror_ops::kernels::LANES);
                for (row, out) in rows.zip(out.chunks_exact_mut(head.from.c)) {
                    out.copy_from_slice(&row[..head.from.c]);
                }
                Ok(())
            }
        }
    }
}

impl Program {
    /// Numbers per image that come out.
    pub(crate) fn width(&self, wanted: Wanted) -> usize {
        match wanted {
            Wanted::Logits => self.head.outputs(),
            Wanted::Features => self.head.from.c,
        }
    }
}

/// A max pool by all threads, each with its share of the blocks of channels.
fn pool_planes(
    isa: Isa,
    max: &MaxPool,
    pool: &Pool,
    from: Dims,
    x: &[Block],
    out: &mut [Block],
) -> Result<()> {
    let to = max.output(from)?;
    let (before, after) = (from.h * from.w, to.h * to.w);
    // One block of channels is an image of its own here.
    let plane = Dims::new(1, ror_ops::kernels::LANES, from.h, from.w);
    let planes = from.n * blocks(from.c);
    if x.len() != planes * before || out.len() != planes * after {
        return max.run(isa, from, x, out);
    }
    pool.run_shares(out, after.max(1), |range, share| {
        let x = &x[range.start * before..range.end * before];
        for (x, out) in x.chunks_exact(before).zip(share.chunks_exact_mut(after)) {
            // Lengths agree, so that it cannot fail.
            let _ = max.run(isa, plane, x, out);
        }
    });
    Ok(())
}
