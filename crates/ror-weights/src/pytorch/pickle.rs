//! A Python pickle, read as inert data.
//!
//! Nothing is imported or called: a class is its name, a call is a record of the name and the
//! arguments. Each opcode adds at most one value to an arena, and values refer to each other by
//! index, so memory is bounded by the pickle's length and shared or cyclic values cost nothing; what
//! is copied out of a value has a limit.
//! Opcodes: Python's `Lib/pickletools.py`; those of protocols 0 and 1 that print numbers and
//! strings as text are refused, as `torch.save` never writes them.

use super::machine::Machine;

/// A value's place in its [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id(pub(super) u32);

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Set(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function, `module.name`.
    Global(String),
    /// What calling `callable` would give; `collections.OrderedDict()` is a [`Value::Dict`]
    /// instead.
    Call {
        callable: Id,
        args: Id,
    },
    /// A reference to something beside the pickle, such as a tensor's storage.
    Persistent(Id),
}

impl Value {
    /// What kind of value it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Str(_) => "a string",
            Self::Bytes(_) => "bytes",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Set(_) => "a set",
            Self::Dict(_) => "a dictionary",
            Self::Global(_) => "a class",
            Self::Call { .. } => "an object",
            Self::Persistent(_) => "a storage",
        }
    }
}

/// A pickle's values.
#[derive(Debug)]
pub(crate) struct Pickle {
    values: Vec<Value>,
    root: Id,
    len: usize,
}

/// Far more values than a state dict has; what a longer pickle holds is no list of tensors.
const MAX_VALUES: usize = 1 << 22;

/// Where a pickle could not be read, and why.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("pickle, byte {at}: {reason}")]
pub(crate) struct PickleError {
    at: usize,
    reason: String,
}

impl Pickle {
    /// Reads the pickle that `bytes` begin with.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, PickleError> {
        let mut machine = Machine::new(bytes);
        let root = loop {
            let at = machine.at;
            match machine.step() {
                Ok(None) if machine.values.len() <= MAX_VALUES => {}
                Ok(None) => {
                    let reason = format!("more than {MAX_VALUES} values");
                    return Err(PickleError { at, reason });
                }
                Ok(Some(root)) => break root,
                Err(reason) => return Err(PickleError { at, reason }),
            }
        };
        Ok(Self {
            values: machine.values,
            root,
            len: machine.at,
        })
    }

    pub(crate) fn get(&self, id: Id) -> &Value {
        &self.values[id.0 as usize]
    }

    /// Every value, in the order of the pickle.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Value> {
        self.values.iter()
    }

    pub(crate) fn root(&self) -> &Value {
        self.get(self.root)
    }

    /// How many bytes the pickle takes up.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn str(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }

    pub(crate) fn usize(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Value::Int(i) => usize::try_from(*i).ok(),
            _ => None,
        }
    }

    pub(crate) fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// The function that a call names, and its arguments.
    pub(crate) fn call(&self, id: Id) -> Option<(&str, &[Id])> {
        match self.get(id) {
            Value::Call { callable, args } => Some((self.global(*callable)?, self.tuple(*args)?)),
            _ => None,
        }
    }

    pub(crate) fn global(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Global(name) => Some(name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(bytes: &[u8]) -> String {
        Pickle::parse(bytes).unwrap_err().to_string()
    }

    #[test]
    fn containers_and_shared_values_read_back() {
        // pickle.dumps({"a": [1, 2], "b": ("x", None)}, protocol=2), then trailing bytes.
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01K\x02e\
            X\x01\x00\x00\x00bq\x03X\x01\x00\x00\x00xq\x04N\x86q\x05u.rest";
        let pickle = Pickle::parse(bytes).unwrap();
        assert_eq!(pickle.len(), bytes.len() - 4);
        let Value::Dict(items) = pickle.root() else {
            panic!("{:?}", pickle.root())
        };
        assert_eq!(pickle.str(items[0].0), Some("a"));
        let Value::List(list) = pickle.get(items[0].1) else {
            panic!()
        };
        assert_eq!(
            list.iter().map(|&i| pickle.usize(i)).collect::<Vec<_>>(),
            [Some(1), Some(2)]
        );
        let pair = pickle.tuple(items[1].1).unwrap();
        assert_eq!(
            (pickle.str(pair[0]), pickle.get(pair[1])),
            (Some("x"), &Value::None)
        );
    }

    #[test]
    fn a_call_is_recorded_and_not_made() {
        // os.system("id")
        let pickle = Pickle::parse(b"cos\nsystem\n(X\x02\x00\x00\x00idtR.").unwrap();
        let &Value::Call { callable, args } = pickle.root() else {
            panic!("{:?}", pickle.root())
        };
        assert_eq!(pickle.global(callable), Some("os.system"));
        assert_eq!(pickle.str(pickle.tuple(args).unwrap()[0]), Some("id"));
    }

    #[test]
    fn an_ordered_dictionary_of_python_2_keeps_its_items() {
        let pickle = Pickle::parse(b"ccollections\nOrderedDict\n(](](U\x01aK\x07eetR.").unwrap();
        let Value::Dict(items) = pickle.root() else {
            panic!("{:?}", pickle.root())
        };
        assert_eq!(
            (pickle.str(items[0].0), pickle.usize(items[0].1)),
            (Some("a"), Some(7))
        );
    }

    #[test]
    fn numbers_keep_sign_and_width() {
        for (bytes, value) in [
            (&b"J\xff\xff\xff\xff."[..], -1),
            (b"\x8a\x01\x80.", -128),
            (b"\x8a\x00.", 0),
            (
                b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
                0x1950_a86a_20f9_469c_fc6c,
            ),
        ] {
            assert_eq!(Pickle::parse(bytes).unwrap().root(), &Value::Int(value));
        }
    }

    #[test]
    fn repeated_references_take_no_memory() {
        // x = []; twenty times x = [x, x]: a million leaves if they were copied.
        let mut bytes = b"]q\x00".to_vec();
        for _ in 0..20 {
            bytes.extend(b"0](h\x00h\x00eq\x00");
        }
        bytes.push(b'.');
        assert!(Pickle::parse(&bytes).unwrap().values.len() < 50);
    }

    #[test]
    fn what_is_copied_out_of_values_has_a_limit() {
        // A list of a hundred pairs, of which one dictionary can be made, but not a hundred.
        let mut list = b"ccollections\nOrderedDict\nq\x00(](".to_vec();
        list.extend([*b"(K\x01K\x02t"; 100].concat());
        list.extend(b"etq\x01");
        let dictionaries = |n: usize| [list.clone(), b"h\x00h\x01R".repeat(n), b".".to_vec()];
        assert!(Pickle::parse(&dictionaries(1).concat()).is_ok());
        assert!(error(&dictionaries(100).concat()).contains("more items than there are bytes"));
        let class = |n: usize| {
            let name = [b"X", &(n as u32).to_le_bytes()[..], &vec![b'a'; n]].concat();
            [&name[..], b"q\x00h\x00\x93."].concat()
        };
        assert!(Pickle::parse(&class(500)).is_ok());
        assert!(error(&class(600)).contains("a class name of more than 1024 bytes"));
    }

    #[test]
    fn broken_pickles_say_where() {
        assert_eq!(error(b""), "pickle, byte 0: 1 bytes are wanted, 0 are left");
        assert_eq!(error(b"N0."), "pickle, byte 2: the stack is empty");
        assert_eq!(
            error(b"N(\x86."),
            "pickle, byte 2: the stack has fewer than 2 values"
        );
        assert_eq!(
            error(b"t."),
            "pickle, byte 0: there is no mark on the stack"
        );
        assert_eq!(
            error(b"h\x07."),
            "pickle, byte 0: nothing is remembered as 7"
        );
        assert_eq!(error(b"}(Nu."), "pickle, byte 3: a key without a value");
        assert_eq!(error(b"NNNs."), "pickle, byte 3: items are set in None");
        assert!(error(b"X\xff\xff\xff\xffa").contains("4294967295 bytes are wanted"));
        assert!(error(b"I5\n.").contains("opcode 0x49"));
    }
}
