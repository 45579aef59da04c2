//! The picture in `docs/` is the one that the library draws.

use ror_models::{Description, Network};
use std::fs;
use std::path::Path;

/// Set `ROR_UPDATE_PICTURES=1` to write it anew.
#[test]
fn the_picture_in_the_documentation_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ror-3.svg");
    let network = Network::new(&Description::preset("ror-3-110").unwrap()).unwrap();
    let image = network.to_svg();
    if std::env::var_os("ROR_UPDATE_PICTURES").is_some() {
        fs::write(&path, &image).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap();
    assert!(stored == image, "{} is out of date", path.display());
}
