//! The machine that pickles are programs for.

use std::collections::HashMap;

use super::pickle::{Id, Value};

/// The stack machine that a pickle is a program for. Errors are reasons, without the place.
#[derive(Default)]
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
    pub(super) values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack where opcode MARK stood. Nothing below the last one is ever popped.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Items of dictionaries made from lists: one list can be made into many.
    copied: usize,
}

/// Bytes of a class's name with its module: two strings can be joined again and again.
const LONGEST_CLASS: usize = 1024;

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }

    /// Runs one opcode; returns the result at STOP.
    pub(super) fn step(&mut self) -> Step<Option<Id>> {
        let opcode = self.byte()?;
        match opcode {
            // PROTO, FRAME: how the rest is written, not what it says.
            0x80 => drop(self.byte()?),
            0x95 => drop(self.take(8)?),
            b'.' => return self.pop().map(Some),

            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            b'K' => {
                let value = self.byte()?;
                self.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            0x8a => {
                let len = self.byte()?;
                let value = long(self.take(len.into())?)?;
                self.push(Value::Int(value));
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value));
            }
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8; SHORT_BINSTRING, BINSTRING (Python 2).
            0x8c | b'U' => self.string(1)?,
            b'X' | b'T' => self.string(4)?,
            0x8d => self.string(8)?,
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8.
            b'C' => self.bytes(1)?,
            b'B' => self.bytes(4)?,
            0x8e | 0x96 => self.bytes(8)?,

            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b')' => self.push(Value::Tuple(Vec::new())),
            0x85..=0x87 => {
                let items = self.pop_many((opcode - 0x84).into())?;
                self.push(Value::Tuple(items));
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items));
            }
            b']' => self.push(Value::List(Vec::new())),
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Value::List(items));
            }
            b'a' => {
                let items = self.pop_many(1)?;
                self.extend(items)?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.extend(items)?;
            }
            0x8f => self.push(Value::Set(Vec::new())),
            0x90 => {
                let items = self.pop_to_mark()?;
                self.extend(items)?;
            }
            0x91 => {
                let items = self.pop_to_mark()?;
                self.push(Value::Set(items));
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Dict(pairs(&items)?));
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.insert(&items)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.insert(&items)?;
            }

            b'q' => {
                let slot = self.byte()?;
                self.memoize(slot.into())?;
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.memoize(slot)?;
            }
            // MEMOIZE numbers its slots itself.
            0x94 => self.memoize(self.memo.len() as u32)?,
            b'h' => {
                let slot = self.byte()?;
                self.recall(slot.into())?;
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.recall(slot)?;
            }

            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.push(Value::Global(format!("{module}.{name}")));
            }
            // STACK_GLOBAL
            0x93 => {
                let items = self.pop_many(2)?;
                let text = |id: Id| match &self.values[id.0 as usize] {
                    Value::Str(s) => Ok(s.as_str()),
                    other => Err(format!("a class name is {}", other.kind())),
                };
                let (module, name) = (text(items[0])?, text(items[1])?);
                if module.len() + name.len() > LONGEST_CLASS {
                    return Err(format!("a class name of more than {LONGEST_CLASS} bytes"));
                }
                let global = format!("{module}.{name}");
                self.push(Value::Global(global));
            }
            // REDUCE, NEWOBJ
            b'R' | 0x81 => {
                let items = self.pop_many(2)?;
                self.call(items[0], items[1])?;
            }
            // NEWOBJ_EX: its keyword arguments tell nothing about tensors.
            0x92 => {
                let items = self.pop_many(3)?;
                self.call(items[0], items[1])?;
            }
            // BUILD sets attributes of the object below: nothing that a state dict's content
            // depends on.
            b'b' => {
                self.pop()?;
                self.top()?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Persistent(id));
            }
            other => {
                return Err(format!(
                    "opcode 0x{other:02x} is none that torch.save writes"
                ));
            }
        }
        Ok(None)
    }

    fn take(&mut self, len: usize) -> Step<&[u8]> {
        let end = self
            .at
            .checked_add(len)
            .filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| {
            format!(
                "{len} bytes are wanted, {} are left",
                self.bytes.len() - self.at
            )
        })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Step<u8> {
        self.array::<1>().map(|[b]| b)
    }

    /// A length of `width` bytes, and as many bytes as it says.
    fn counted(&mut self, width: usize) -> Step<&[u8]> {
        let mut len = [0; 8];
        len[..width].copy_from_slice(self.take(width)?);
        let len = usize::try_from(u64::from_le_bytes(len)).map_err(|e| e.to_string())?;
        self.take(len)
    }

    fn string(&mut self, width: usize) -> Step<()> {
        let text = std::str::from_utf8(self.counted(width)?).map_err(|e| e.to_string())?;
        let text = text.to_owned();
        self.push(Value::Str(text));
        Ok(())
    }

    fn bytes(&mut self, width: usize) -> Step<()> {
        let bytes = self.counted(width)?.to_vec();
        self.push(Value::Bytes(bytes));
        Ok(())
    }

    fn line(&mut self) -> Step<String> {
        let rest = &self.bytes[self.at..];
        let len = rest
            .iter()
            .position(|&b| b == b'\n')
            .ok_or("a name without an end")?;
        let line = std::str::from_utf8(&rest[..len])
            .map_err(|e| e.to_string())?
            .to_owned();
        self.at += len + 1;
        Ok(line)
    }

    fn push(&mut self, value: Value) {
        let id = Id(self.values.len() as u32);
        self.values.push(value);
        self.stack.push(id);
    }

    /// The stack's height above the last mark: what opcodes may take.
    fn available(&self) -> usize {
        self.stack.len() - self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Step<Id> {
        match self.stack.last() {
            Some(&id) if self.available() > 0 => Ok(id),
            _ => Err("the stack is empty".to_owned()),
        }
    }

    fn pop(&mut self) -> Step<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> Step<Vec<Id>> {
        if self.available() < count {
            return Err(format!("the stack has fewer than {count} values"));
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Id>> {
        let height = self.marks.pop().ok_or("there is no mark on the stack")?;
        Ok(self.stack.split_off(height))
    }

    fn extend(&mut self, items: Vec<Id>) -> Step<()> {
        let target = self.top()?;
        match &mut self.values[target.0 as usize] {
            Value::List(list) | Value::Set(list) => list.extend(items),
            other => return Err(format!("items are appended to {}", other.kind())),
        }
        Ok(())
    }

    fn insert(&mut self, items: &[Id]) -> Step<()> {
        let pairs = pairs(items)?;
        let target = self.top()?;
        match &mut self.values[target.0 as usize] {
            Value::Dict(dict) => dict.extend(pairs),
            // An instance of some class: its items are its own business.
            Value::Call { .. } => {}
            other => return Err(format!("items are set in {}", other.kind())),
        }
        Ok(())
    }

    fn call(&mut self, callable: Id, args: Id) -> Step<()> {
        match &self.values[callable.0 as usize] {
            Value::Global(name) if name == "collections.OrderedDict" => {
                let items = self.items_of(args)?;
                self.copied += items.len();
                if self.copied > self.bytes.len() {
                    return Err("dictionaries of more items than there are bytes".to_owned());
                }
                self.push(Value::Dict(items));
            }
            _ => self.push(Value::Call { callable, args }),
        }
        Ok(())
    }

    /// The items of a dictionary made from `args`: none, or (Python 2) a list of lists `[key,
    /// value]`.
    fn items_of(&self, args: Id) -> Step<Vec<(Id, Id)>> {
        let value = |id: Id| &self.values[id.0 as usize];
        let Value::Tuple(args) = value(args) else {
            return Err("a call's arguments are no tuple".to_owned());
        };
        match args.as_slice() {
            [] => Ok(Vec::new()),
            [list] => match value(*list) {
                Value::List(items) => items
                    .iter()
                    .map(|&item| match value(item) {
                        Value::List(pair) | Value::Tuple(pair) if pair.len() == 2 => {
                            Ok((pair[0], pair[1]))
                        }
                        other => Err(format!("an item of a dictionary is {}", other.kind())),
                    })
                    .collect(),
                other => Err(format!("a dictionary is made from {}", other.kind())),
            },
            _ => Err("a dictionary is made from several arguments".to_owned()),
        }
    }

    fn memoize(&mut self, slot: u32) -> Step<()> {
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Step<()> {
        let id = self.memo.get(&slot).copied();
        self.stack
            .push(id.ok_or_else(|| format!("nothing is remembered as {slot}"))?);
        Ok(())
    }
}

fn pairs(items: &[Id]) -> Step<Vec<(Id, Id)>> {
    match items.as_chunks::<2>() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err("a key without a value".to_owned()),
    }
}

/// A little-endian two's complement number.
fn long(bytes: &[u8]) -> Step<i128> {
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    wide.get_mut(..bytes.len())
        .ok_or_else(|| format!("a number of {} bytes", bytes.len()))?
        .copy_from_slice(bytes);
    Ok(i128::from_le_bytes(wide))
}
