//! Image folders: a folder of JPEG or PNG files for each class, perhaps one set for each split.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::dataset::{Dataset, Format, Options, Provenance, Split, Store};
use crate::error::{At, Error, ErrorKind, Result};
use crate::files::{image_files, subfolders};
use crate::image::Image;

pub(crate) fn open(root: &Path, split: Split, options: &Options<'_>) -> Result<Dataset> {
    let folders = subfolders(root)?;
    if folders.is_empty() {
        return Err(Error::new(root, ErrorKind::UnknownLayout));
    }
    let named = |name: &str| {
        folders
            .iter()
            .find(|folder| folder.file_name().is_some_and(|n| n == name))
    };
    let train = named("train");
    let test = named("test").or_else(|| named("val"));
    let (folder, other) = match split {
        _ if train.is_none() && test.is_none() => (root, None),
        Split::Train => (wanted(train, root, "train/")?, test),
        Split::Test => (wanted(test, root, "test/ or val/")?, train),
    };
    let classes = class_names(folder)?;
    if let Some(other) = other {
        compare(folder, &classes, other, &class_names(other)?)?;
    }

    let mut files = Vec::new();
    let mut labels = Vec::new();
    for (label, class) in (0..).zip(&classes) {
        let images = image_files(folder.join(class))?;
        labels.resize(labels.len() + images.len(), label);
        files.extend(images);
    }
    let (store, resized) = if options.lazy || options.bytes_of(files.len()).is_err() {
        let centre_crop = options.centre_crop;
        (Store::Files { files, centre_crop }, 0)
    } else {
        let (images, resized) = decode(&files, options, folder)?;
        (Store::Memory(images), resized)
    };
    Ok(Dataset {
        store,
        labels,
        classes,
        size: options.size,
        resized,
        provenance: Provenance {
            name: name(root),
            path: root.to_owned(),
            format: Format::Folder,
            split: (folder != root).then_some(split),
        },
    })
}

fn wanted<'a>(folder: Option<&'a PathBuf>, root: &Path, name: &str) -> Result<&'a Path> {
    folder
        .map(PathBuf::as_path)
        .ok_or_else(|| Error::new(root, ErrorKind::Missing(name.to_owned())))
}

fn class_names(folder: &Path) -> Result<Vec<String>> {
    let folders = subfolders(folder)?;
    if folders.is_empty() {
        return Err(Error::new(
            folder,
            ErrorKind::Missing("a folder for each class".to_owned()),
        ));
    }
    let name = |folder: PathBuf| match folder.file_name().and_then(|name| name.to_str()) {
        Some(name) => Ok(name.to_owned()),
        None => Err(Error::new(folder, ErrorKind::ClassName)),
    };
    folders.into_iter().map(name).collect()
}

fn compare(folder: &Path, classes: &[String], other: &Path, theirs: &[String]) -> Result<()> {
    let without = |these: &[String], those: &[String]| {
        let missing = these
            .iter()
            .filter(|class| !those.contains(class))
            .map(String::as_str);
        missing.collect::<Vec<_>>().join(", ")
    };
    if classes == theirs {
        return Ok(());
    }
    Err(Error::new(
        folder,
        ErrorKind::ClassesDiffer {
            other: other.to_owned(),
            here: without(classes, theirs),
            there: without(theirs, classes),
        },
    ))
}

/// Decodes files in parallel to (N, H, W, 3), and counts those that had another size.
fn decode(files: &[PathBuf], options: &Options<'_>, folder: &Path) -> Result<(Vec<u8>, usize)> {
    let mut images = vec![0; options.bytes_of(files.len()).at(folder)?];
    let done = AtomicUsize::new(0);
    let resized = AtomicUsize::new(0);
    images
        .par_chunks_exact_mut(options.size.area() * 3)
        .zip(files)
        .try_for_each(|(out, file)| {
            let image = Image::open(file)?;
            if image.size() != options.size {
                resized.fetch_add(1, Ordering::Relaxed);
            }
            let image = image.fit_centre(options.size, options.centre_crop);
            out.copy_from_slice(image.pixels());
            (options.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, files.len());
            Ok(())
        })?;
    Ok((images, resized.into_inner()))
}

/// The folder's own name, also where the path does not show it, as in `.`.
fn name(root: &Path) -> String {
    let full = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let name = full.file_name().unwrap_or(full.as_os_str());
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
