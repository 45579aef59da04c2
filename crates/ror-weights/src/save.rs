//! Writing weights: all or nothing, under the final name only when complete.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use ror_models::Network;

use crate::array::Array;
use crate::error::{ErrorKind, Result, WeightsError};
use crate::keras;
use crate::metadata;
use crate::named;
use crate::safetensors::{self, Precision};
use crate::weights::Weights;

/// Writes safetensors that carry their network's description, class names and normalisation, which
/// [`load`](fn@crate::load) reads back. The same weights give the same bytes.
///
/// The file appears under `path` when it is complete; what was there before stays until then.
///
/// # Errors
/// A path that cannot be written; weights that contradict their description, are not finite or
/// incomplete.
pub fn save_safetensors(path: &Path, weights: &Weights) -> Result<(), WeightsError> {
    save_described(path, weights, Precision::Single)
}

/// As [`save_safetensors`], with kernels (tensors of two and more dimensions) in 16 bits, for half the size. What
/// channels have one of (biases, batch norms) stays in 32.
///
/// # Errors
/// As [`save_safetensors`]; a kernel beyond the largest number of 16 bits, 65504.
pub fn save_safetensors_half(path: &Path, weights: &Weights) -> Result<(), WeightsError> {
    save_described(path, weights, Precision::Half)
}

fn save_described(path: &Path, weights: &Weights, kernels: Precision) -> Result<(), WeightsError> {
    save(path, weights, |network, arrays, out| {
        let text = metadata::to_text(&network.description, &weights.metadata)?;
        let bytes = safetensors::write(arrays, kernels, Vec::new(), text)?;
        Ok(out.write_all(&bytes)?)
    })
}

/// Writes a whole Keras model in HDF5, the format of Keras 2 that every later version reads:
/// tf.keras and Keras 3 with `load_model`. It ends in softmax, wants channels last, and computes
/// what the network does in evaluation.
///
/// Stochastic depth becomes the scaling of evaluation, a shortcut of type A a fixed 1x1
/// convolution. The file also carries what [`save_safetensors`] writes, so that
/// [`load`](fn@crate::load) reads it back exactly.
///
/// # Errors
/// As [`save_safetensors`].
pub fn save_keras_h5(path: &Path, weights: &Weights) -> Result<(), WeightsError> {
    save(path, weights, |network, arrays, out| {
        let text = metadata::to_text(&network.description, &weights.metadata)?;
        Ok(out.write_all(&keras::export(network, arrays, text)?)?)
    })
}

/// Checks `weights` and writes them through `write`, which gets the arrays in the network's order.
pub(crate) fn save(
    path: &Path,
    weights: &Weights,
    write: impl FnOnce(&Network, Vec<Array>, &mut dyn Write) -> Result<()>,
) -> Result<(), WeightsError> {
    save_in_stream(path, weights, |network, out| {
        let arrays = network
            .tensors()
            .into_iter()
            .map(|spec| Array::new(spec.name.clone(), spec.shape, weights.values(&spec.name)?))
            .collect::<Result<_>>()?;
        write(network, arrays, out)
    })
}

/// Like [`save`], for formats that ask for one array after the other ([`Weights::values`]).
pub(crate) fn save_in_stream(
    path: &Path,
    weights: &Weights,
    write: impl FnOnce(&Network, &mut dyn Write) -> Result<()>,
) -> Result<(), WeightsError> {
    let checked = || -> Result<_> {
        let network = weights.network()?;
        weights.metadata.check(&network.description)?;
        let stored = weights.tensors.iter();
        named::check(
            &network,
            stored.map(|(name, tensor)| (name.as_str(), name.as_str(), tensor.dims())),
        )?;
        Ok(network)
    };
    checked()
        .and_then(|network| write_atomically(path, |out| write(&network, out)))
        .map_err(|kind| WeightsError::new(path, kind))
}

/// Writes a file beside `path` and renames it to `path` once `write` is done.
fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if path.is_dir() {
        return Err(ErrorKind::Io(std::io::ErrorKind::IsADirectory.into()));
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".ror-").suffix(".part");
    // The file's mode shall be that of any new file, not the private one of temporary files.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.tempfile_in(folder)?;
    let mut out = BufWriter::new(file.as_file());
    write(&mut out)?;
    out.flush()?;
    File::sync_all(file.as_file())?;
    drop(out);
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}
