//! What a network is compiled for.

use ror_ops::kernels::Isa;

/// How to compile. Every choice but [`Self::image_size`] is about speed and memory: a compiled network takes batches of
/// any size, and gives an image the same numbers in each. Engines compiled for other batches, threads or instruction
/// sets may compute a layer by another algorithm, so that their numbers differ by rounding.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Threads that work on one batch, the caller's among them. By default as many as there are processors.
    pub threads: usize,
    /// Images in a typical batch, 64 by default. With fewer than there are threads, all threads work on one image
    /// after the other; else each takes its share of the images.
    pub batch_size: usize,
    /// Rows and columns of the images where they are not what the description says.
    pub image_size: Option<[usize; 2]>,
    /// The instruction set; by default the processor's best.
    pub isa: Isa,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            batch_size: 64,
            image_size: None,
            isa: Isa::detect(),
        }
    }
}

impl Options {
    /// With that many threads; none counts as one.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// For batches of about that size.
    #[must_use]
    pub fn batch_size(mut self, images: usize) -> Self {
        self.batch_size = images;
        self
    }

    /// For images of that many rows and columns.
    #[must_use]
    pub fn image_size(mut self, rows: usize, columns: usize) -> Self {
        self.image_size = Some([rows, columns]);
        self
    }

    /// With kernels of that instruction set.
    #[must_use]
    pub fn isa(mut self, isa: Isa) -> Self {
        self.isa = isa;
        self
    }
}
