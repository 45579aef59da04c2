//! A reader for Python pickles of protocols 0 to 2 that executes nothing.
//!
//! The opcodes are those that Python 2 and 3 write for dictionaries, lists, tuples, strings,
//! integers and NumPy arrays. A call such as NumPy's `_reconstruct` is recorded, never made, so the
//! result is plain data. Values live in one list and refer to each other by position: a pickle that
//! shares or nests them cannot make them multiply. Their number is limited, and strings stay where
//! they are in the file.

use std::borrow::Cow;
use std::collections::HashMap;

use scalar::{long, raw_unicode, unquote};

mod scalar;

/// The most values; CIFAR-100's training batch has about 200,000.
const MAX_VALUES: usize = 1 << 20;

/// The position of a value.
pub(super) type Id = usize;

/// A value as pickled.
#[derive(Debug)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Bytes(Cow<'a, [u8]>),
    Text(Cow<'a, str>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// `module.name`
    Global(&'a str, &'a str),
    /// What `function(*arguments)` would give, with the state it would be given afterwards.
    Call {
        function: Id,
        arguments: Id,
        state: Option<Id>,
    },
}

/// A pickle that has been read.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// Reads a whole pickle; the error says what is wrong and where.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut machine = Machine {
            rest: bytes,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        match machine.run() {
            Ok(root) => Ok(Self {
                values: machine.values,
                root,
            }),
            Err(reason) => Err(format!(
                "{reason} at byte {}",
                bytes.len() - machine.rest.len()
            )),
        }
    }

    /// The value at `id`, which came from this pickle.
    pub(super) fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id]
    }

    /// The value under `key` of the dictionary that the pickle is.
    pub(super) fn get(&self, key: &str) -> Option<Id> {
        let Value::Dict(items) = self.value(self.root) else {
            return None;
        };
        // CIFAR's have five; comparing many keys that are one long shared string takes for ever.
        let items = items.get(..items.len().min(64))?;
        let found = items
            .iter()
            .rev()
            .find(|(k, _)| self.bytes(*k).is_some_and(|k| *k == *key.as_bytes()));
        found.map(|(_, value)| *value)
    }

    /// The elements of a list or a tuple.
    pub(super) fn items(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::List(items) | Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// An integer.
    pub(super) fn int(&self, id: Id) -> Option<i64> {
        match self.value(id) {
            Value::Int(n) => Some(*n),
            _ => None,
        }
    }

    /// A string, whether of bytes or of text.
    ///
    /// Python 3 writes bytes as a call: `_codecs.encode(text, 'latin1')`.
    pub(super) fn bytes(&self, id: Id) -> Option<Cow<'_, [u8]>> {
        match self.value(id) {
            Value::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
            Value::Text(text) => Some(Cow::Borrowed(text.as_bytes())),
            Value::Call {
                function,
                arguments,
                ..
            } => match (self.value(*function), self.items(*arguments)?) {
                (Value::Global("_codecs", "encode"), [text, encoding]) => {
                    let (Value::Text(text), Value::Text(encoding)) =
                        (self.value(*text), self.value(*encoding))
                    else {
                        return None;
                    };
                    let latin1 = text.chars().map(|c| u8::try_from(c).ok());
                    (encoding == "latin1")
                        .then(|| latin1.collect::<Option<Vec<u8>>>())?
                        .map(Cow::Owned)
                }
                (Value::Global("__builtin__", "bytes"), []) => Some(Cow::Borrowed(&[])),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The pickle machine: a stack, marks on it, and a memo.
struct Machine<'a> {
    rest: &'a [u8],
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

type Step<T> = Result<T, &'static str>;

impl<'a> Machine<'a> {
    fn run(&mut self) -> Step<Id> {
        loop {
            match self.byte()? {
                0x80 => match self.byte()? {
                    0..=2 => {}
                    _ => return Err("protocol above 2 (save it again with protocol=2)"),
                },
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'I' => {
                    let value = match self.line()? {
                        "00" => Value::Bool(false),
                        "01" => Value::Bool(true),
                        line => Value::Int(line.parse().map_err(|_| "bad integer")?),
                    };
                    self.push(value)?;
                }
                b'L' => {
                    let line = self.line()?;
                    let digits = line.strip_suffix('L').unwrap_or(line);
                    self.push(Value::Int(digits.parse().map_err(|_| "bad integer")?))?;
                }
                b'J' => {
                    let n = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                b'K' => {
                    let n = self.byte()?;
                    self.push(Value::Int(n.into()))?;
                }
                b'M' => {
                    let n = u16::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                0x8A => {
                    let length = self.byte()?;
                    let n = long(self.take(length.into())?)?;
                    self.push(Value::Int(n))?;
                }
                b'S' => {
                    let text = unquote(self.line_of_bytes()?)?;
                    self.push(Value::Bytes(text.into()))?;
                }
                b'T' => {
                    let length = u32::from_le_bytes(self.array()?);
                    self.string(length as usize)?;
                }
                b'U' => {
                    let length = self.byte()?;
                    self.string(length.into())?;
                }
                b'V' => {
                    let text = raw_unicode(self.line_of_bytes()?)?;
                    self.push(Value::Text(text.into()))?;
                }
                b'X' => {
                    let length = u32::from_le_bytes(self.array()?);
                    let bytes = self.take(length as usize)?;
                    let text = std::str::from_utf8(bytes).map_err(|_| "text that is not UTF-8")?;
                    self.push(Value::Text(text.into()))?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push(Value::Global(module, name))?;
                }
                b'p' => {
                    let key = self.line()?.parse().map_err(|_| "bad memo key")?;
                    self.put(key)?;
                }
                b'q' => {
                    let key = self.byte()?;
                    self.put(key.into())?;
                }
                b'r' => {
                    let key = u32::from_le_bytes(self.array()?);
                    self.put(key.into())?;
                }
                b'g' => {
                    let key = self.line()?.parse().map_err(|_| "bad memo key")?;
                    self.recall(key)?;
                }
                b'h' => {
                    let key = self.byte()?;
                    self.recall(key.into())?;
                }
                b'j' => {
                    let key = u32::from_le_bytes(self.array()?);
                    self.recall(key.into())?;
                }
                b')' => self.push(Value::Tuple(Vec::new()))?,
                b']' => self.push(Value::List(Vec::new()))?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b't' => {
                    let items = self.marked()?;
                    self.push(Value::Tuple(items))?;
                }
                b'l' => {
                    let items = self.marked()?;
                    self.push(Value::List(items))?;
                }
                b'd' => {
                    let items = pairs(&self.marked()?)?;
                    self.push(Value::Dict(items))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' => {
                    let items = self.marked()?;
                    self.append(&items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.insert(vec![(key, value)])?;
                }
                b'u' => {
                    let items = pairs(&self.marked()?)?;
                    self.insert(items)?;
                }
                b'R' => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    self.push(Value::Call {
                        function,
                        arguments,
                        state: None,
                    })?;
                }
                b'b' => {
                    let given = self.pop()?;
                    match self.top()? {
                        Value::Call { state, .. } => *state = Some(given),
                        _ => return Err("state for something that is no object"),
                    }
                }
                _ => return Err("an opcode that CIFAR's pickles do not use"),
            }
        }
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or("truncated")?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn take(&mut self, length: usize) -> Step<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or("truncated")?;
        self.rest = rest;
        Ok(bytes)
    }

    fn line_of_bytes(&mut self) -> Step<&'a [u8]> {
        let end = self
            .rest
            .iter()
            .position(|b| *b == b'\n')
            .ok_or("truncated")?;
        let line = self.take(end)?;
        self.rest = &self.rest[1..];
        Ok(line)
    }

    fn line(&mut self) -> Step<&'a str> {
        std::str::from_utf8(self.line_of_bytes()?).map_err(|_| "text that is not UTF-8")
    }

    fn push(&mut self, value: Value<'a>) -> Step<()> {
        if self.values.len() == MAX_VALUES {
            return Err("more values than a CIFAR batch has");
        }
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack
            .pop()
            .filter(|_| self.stack.len() >= floor)
            .ok_or("a value is missing")
    }

    fn top(&mut self) -> Step<&mut Value<'a>> {
        let id = *self.stack.last().ok_or("a value is missing")?;
        Ok(&mut self.values[id])
    }

    fn marked(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn string(&mut self, length: usize) -> Step<()> {
        let bytes = self.take(length)?;
        self.push(Value::Bytes(bytes.into()))
    }

    fn tuple(&mut self, length: usize) -> Step<()> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let at = self
            .stack
            .len()
            .checked_sub(length)
            .filter(|at| *at >= floor);
        let items = self.stack.split_off(at.ok_or("a value is missing")?);
        self.push(Value::Tuple(items))
    }

    fn append(&mut self, new: &[Id]) -> Step<()> {
        match self.top()? {
            Value::List(items) => items.extend_from_slice(new),
            _ => return Err("an element for something that is no list"),
        }
        Ok(())
    }

    fn insert(&mut self, new: Vec<(Id, Id)>) -> Step<()> {
        match self.top()? {
            Value::Dict(items) => items.extend(new),
            _ => return Err("an entry for something that is no dictionary"),
        }
        Ok(())
    }

    fn put(&mut self, key: u64) -> Step<()> {
        let id = *self.stack.last().ok_or("a value is missing")?;
        self.memo.insert(key, id);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Step<()> {
        self.stack
            .push(*self.memo.get(&key).ok_or("a memo entry is missing")?);
        Ok(())
    }
}

fn pairs(items: &[Id]) -> Step<Vec<(Id, Id)>> {
    match items.as_chunks::<2>() {
        (pairs, []) => Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect()),
        _ => Err("a dictionary key without a value"),
    }
}

#[cfg(test)]
mod tests;
