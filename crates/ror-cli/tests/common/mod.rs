//! Running the command in a folder of its own.

// Every test file uses its own part of this.
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A network and settings that are as small as they can be, with everything that has a memory.
pub const TINY: &str = "train --model ror-3-wrn-10-1 --image-size 12 --data data \
                        --batch-size 6 --ema 0.9 --mixup 0.2 --dropout 0.1 --clip-norm 2 \
                        --threads 2 --checkpoint-seconds 0";

/// Arguments, and more of them.
pub fn args<'a>(text: &'a str, more: &'a str) -> Vec<&'a str> {
    let words = text.split_whitespace();
    words.chain(more.split_whitespace()).collect()
}

/// A temporary folder, and the command with that as its working folder.
pub struct Shell {
    folder: tempfile::TempDir,
}

/// What a run left.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Shell {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn png(&self, name: &str, width: u32, height: u32, colour: [u8; 3]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(width, height, image::Rgb(colour))
            .save(&path)
            .unwrap();
        path
    }

    /// A folder of 18 training and 8 test images of 12 x 12: stripes across and down, of several
    /// colours and widths, in two classes of these names.
    pub fn stripes(&self, folder: &str, classes: [&str; 2]) {
        for (split, count) in [("train", 9), ("test", 4)] {
            for (i, class) in classes.iter().enumerate() {
                for j in 0..count {
                    let image = image::RgbImage::from_fn(12, 12, |x, y| {
                        let along = if i == 0 { y } else { x };
                        let light = (along + j) / (2 + j % 2) % 2 == 0;
                        image::Rgb([if light { 220 } else { 30 }, (j * 25) as u8, 90])
                    });
                    let path = self.path(&format!("{folder}/{split}/{class}/{j}.png"));
                    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                    image.save(path).unwrap();
                }
            }
        }
    }

    /// Names in the folder, sorted.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub fn run(&self, args: &[&str]) -> Run {
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(env!("CARGO_BIN_EXE_ror"))
            .args(args)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        Run {
            code: status.code(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Runs and expects success; the standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, Some(0), "{args:?}: {}", run.stderr);
        run.stdout
    }

    /// Runs and expects a failure that is told in one clean line; the line.
    pub fn fails(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, Some(1), "{args:?}: {}{}", run.stdout, run.stderr);
        assert_eq!(run.stdout, "", "{args:?}");
        let error = run.stderr.lines().last().unwrap_or_default().to_owned();
        assert!(error.starts_with("error: "), "{args:?}: {}", run.stderr);
        assert!(!run.stderr.contains("panicked"), "{args:?}: {}", run.stderr);
        error
    }
}

/// A golden file of the repository.
pub fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden")
        .join(name);
    path.canonicalize().unwrap().to_str().unwrap().to_owned()
}

pub fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}
