//! Finding images in folders.

use std::io;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::error::{Error, ErrorKind, Result};

/// All JPEG and PNG files below `folder`, at any depth, sorted.
///
/// Told by extension (`jpg`, `jpeg`, `png`, in any case). Names that begin with a dot are passed
/// over, links are followed.
///
/// # Errors
///
/// A folder that cannot be read or holds no image, and links that lead in a circle.
pub fn image_files(folder: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let folder = folder.as_ref();
    let mut files = Vec::new();
    for entry in walk(folder, usize::MAX) {
        let entry = entry?;
        if entry.file_type().is_file() && is_image_name(entry.path()) {
            files.push(entry.into_path());
        }
    }
    if files.is_empty() {
        return Err(Error::new(folder, ErrorKind::NoImages));
    }
    files.sort_unstable();
    Ok(files)
}

/// The folders directly inside `folder`, sorted, without those whose names begin with a dot.
pub(crate) fn subfolders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in walk(folder, 1) {
        let entry = entry?;
        if entry.depth() == 1 && entry.file_type().is_dir() {
            folders.push(entry.into_path());
        }
    }
    folders.sort_unstable();
    Ok(folders)
}

fn walk(folder: &Path, depth: usize) -> impl Iterator<Item = Result<DirEntry>> {
    let visible = |entry: &DirEntry| {
        entry.depth() == 0 || !entry.file_name().as_encoded_bytes().starts_with(b".")
    };
    WalkDir::new(folder)
        .follow_links(true)
        .max_depth(depth)
        .into_iter()
        .filter_entry(visible)
        .map(move |entry| {
            entry.map_err(|error| {
                let path = error.path().unwrap_or(folder).to_owned();
                let circle = || io::Error::other("the link leads back to a folder it is in");
                Error::new(path, error.into_io_error().unwrap_or_else(circle))
            })
        })
}

/// Whether [`image_files`] would take a file of this name.
pub fn is_image_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["jpg", "jpeg", "png"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn images_are_found_at_any_depth_in_order() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("b/deep")).unwrap();
        fs::create_dir_all(at(".hidden")).unwrap();
        for name in [
            "b/deep/2.PNG",
            "b/1.jpeg",
            "a.JPG",
            "notes.txt",
            ".hidden/3.png",
            ".4.png",
            "noextension",
        ] {
            fs::write(at(name), b"x").unwrap();
        }
        assert_eq!(
            image_files(root.path()).unwrap(),
            [at("a.JPG"), at("b/1.jpeg"), at("b/deep/2.PNG")]
        );
        assert_eq!(subfolders(root.path()).unwrap(), [at("b")]);
    }

    #[test]
    fn a_folder_without_images_is_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("notes.txt"), b"x").unwrap();
        let error = image_files(root.path()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NoImages));
        assert_eq!(error.path(), root.path());
        let missing = root.path().join("missing");
        assert_eq!(image_files(&missing).unwrap_err().path(), missing);
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_in_a_circle_are_an_error() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("again")).unwrap();
        assert!(matches!(
            image_files(root.path()).unwrap_err().kind(),
            ErrorKind::Io(_)
        ));
    }
}
