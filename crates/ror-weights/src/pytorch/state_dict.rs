//! From a pickled state dict and its storages to named arrays.

use super::damaged;
use super::pickle::{Id, Pickle, Value};
use super::view::{Storages, View};
use crate::array::{Array, Budget};
use crate::error::{ErrorKind, Result};

/// The class that a call makes an instance of. The format before torch 1.6 refers to classes of
/// modules as it does to storages: `("module", class, file, source)`.
fn class_name(pickle: &Pickle, callable: Id) -> Option<&str> {
    match pickle.get(callable) {
        Value::Persistent(id) => pickle.global(*pickle.tuple(*id)?.get(1)?),
        _ => pickle.global(callable),
    }
}

/// Where checkpoints keep the model's state dict, beside the optimizer's and others.
const WRAPPERS: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// Reads the floating-point tensors, in the dictionary's order.
///
/// A checkpoint that keeps its weights under one of [`WRAPPERS`] is unwrapped, and the prefix
/// `module.` of `DataParallel` taken off. Counters (`num_batches_tracked`) are no weights and left
/// out.
pub(super) fn read(
    pickle: &Pickle,
    storages: &mut impl Storages,
    budget: &mut Budget,
) -> Result<Vec<Array>> {
    let items = state_dict(pickle)?;
    let mut names = Vec::with_capacity(items.len());
    for &(key, _) in items {
        names.push(pickle.str(key).ok_or_else(|| {
            damaged(format_args!(
                "a key of the state dict is {}",
                pickle.get(key).kind()
            ))
        })?);
    }
    let parallel = !names.is_empty() && names.iter().all(|n| n.starts_with("module."));
    let mut arrays = Vec::with_capacity(names.len());
    for (name, &(_, value)) in names.into_iter().zip(items) {
        let view = View::of(pickle, name, value)?;
        let name = if parallel {
            &name["module.".len()..]
        } else {
            name
        };
        if name.ends_with("num_batches_tracked") {
            continue;
        }
        arrays.push(view.read(name, storages, budget)?);
    }
    Ok(arrays)
}

fn state_dict(pickle: &Pickle) -> Result<&[(Id, Id)]> {
    let root = match pickle.root() {
        Value::Dict(items) => items,
        Value::Call { callable, .. } => {
            let found = match class_name(pickle, *callable) {
                Some(class) if class.starts_with("torch._utils._rebuild") => {
                    "a PyTorch file of a single tensor, not of a state dict".to_owned()
                }
                class => format!(
                    "a pickled `{}` (save its state_dict() instead)",
                    class.unwrap_or("object")
                ),
            };
            return Err(ErrorKind::Unrecognised { found });
        }
        other => {
            return Err(ErrorKind::Unrecognised {
                found: format!("a PyTorch file of {}, not of a state dict", other.kind()),
            });
        }
    };
    let wrapped = root
        .iter()
        .filter(|(key, _)| pickle.str(*key).is_some_and(|key| WRAPPERS.contains(&key)))
        .find_map(|&(_, value)| match pickle.get(value) {
            Value::Dict(items) => Some(items),
            _ => None,
        });
    Ok(wrapped.unwrap_or(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One(Vec<u8>);

    impl Storages for One {
        fn get(&mut self, key: &str) -> Result<Option<&[u8]>> {
            Ok((key == "0").then_some(self.0.as_slice()))
        }
    }

    /// Pickles `_rebuild_tensor_v2(storage 0 of `class`, offset, shape, strides, False,
    /// OrderedDict())`.
    fn tensor(class: &str, offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
        let ints = |items: &[u8]| {
            [
                b"(".to_vec(),
                items.iter().flat_map(|&i| [b'K', i]).collect(),
                b"t".to_vec(),
            ]
            .concat()
        };
        [
            b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\n".to_vec(),
            class.as_bytes().to_vec(),
            b"\nU\x010U\x03cpuK\x10tQK".to_vec(),
            vec![offset],
            ints(shape),
            ints(strides),
            b"\x89ccollections\nOrderedDict\n)RtR".to_vec(),
        ]
        .concat()
    }

    fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = b"}(".to_vec();
        for (key, value) in items {
            bytes.extend([b'U', key.len() as u8]);
            bytes.extend(key.as_bytes());
            bytes.extend(value);
        }
        bytes.push(b'u');
        bytes
    }

    fn read_items(items: &[(&str, Vec<u8>)]) -> Result<Vec<Array>> {
        read_pickle(dict(items))
    }

    fn read_pickle(mut pickle: Vec<u8>) -> Result<Vec<Array>> {
        pickle.push(b'.');
        let pickle = Pickle::parse(&pickle).map_err(damaged)?;
        let storage = (0..16u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
        read(&pickle, &mut One(storage), &mut Budget::for_file(1000))
    }

    #[test]
    fn views_share_a_storage_at_their_offsets_and_strides() {
        let arrays = read_items(&[
            ("whole", tensor("FloatStorage", 0, &[2, 3], &[3, 1])),
            ("transposed", tensor("FloatStorage", 0, &[3, 2], &[1, 3])),
            ("row", tensor("FloatStorage", 13, &[3], &[1])),
            ("repeated", tensor("FloatStorage", 5, &[3], &[0])),
            ("scalar", tensor("FloatStorage", 7, &[], &[])),
            ("empty", tensor("FloatStorage", 0, &[0, 4], &[4, 1])),
        ])
        .unwrap();
        let data: Vec<&[f32]> = arrays.iter().map(|a| a.data.as_slice()).collect();
        assert_eq!(data[0], [0., 1., 2., 3., 4., 5.]);
        assert_eq!(data[1], [0., 3., 1., 4., 2., 5.]);
        assert_eq!(data[2], [13., 14., 15.]);
        assert_eq!(data[3], [5., 5., 5.]);
        assert_eq!(data[4], [7.]);
        assert_eq!(
            (data[5], arrays[5].shape.as_slice()),
            (&[][..], &[0, 4][..])
        );
    }

    #[test]
    fn a_view_beyond_its_storage_is_named() {
        for view in [
            tensor("FloatStorage", 14, &[3], &[1]),
            tensor("FloatStorage", 0, &[2, 2], &[15, 1]),
            tensor("DoubleStorage", 0, &[9], &[1]),
            tensor("FloatStorage", 0, &[255, 255, 255, 255], &[0, 0, 0, 0]),
        ] {
            match read_items(&[("w", view)]) {
                Err(ErrorKind::Tensor { tensor, .. }) => assert_eq!(tensor, "w"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn wrappers_and_prefixes_come_off_and_counters_stay_out() {
        let weight = || tensor("FloatStorage", 1, &[1], &[1]);
        let inner = dict(&[
            ("module.a.weight", weight()),
            (
                "module.a.num_batches_tracked",
                tensor("LongStorage", 0, &[], &[]),
            ),
        ]);
        let arrays = read_items(&[("epoch", b"K\x05".to_vec()), ("state_dict", inner)]).unwrap();
        assert_eq!(
            arrays,
            [Array::new("a.weight".into(), vec![1], vec![1.0]).unwrap()]
        );
    }

    #[test]
    fn what_is_no_state_dict_is_named() {
        let error = |pickle: &[u8]| read_pickle(pickle.to_vec()).unwrap_err().to_string();
        assert!(error(b"cmodels\nRoR\n)\x81").contains("a pickled `models.RoR`"));
        assert!(error(b"]").contains("of a list"));
        let error = read_items(&[("epoch", b"K\x05".to_vec())]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tensor `epoch`: expected a tensor, found an integer"
        );
        let error = read_items(&[("w", tensor("LongStorage", 0, &[1], &[1]))]).unwrap_err();
        assert!(
            error.to_string().contains("found torch.LongStorage"),
            "{error}"
        );
    }
}
