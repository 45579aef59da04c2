//! The messages of ONNX that a network needs; the numbers are those of `onnx.proto`.

use super::protobuf::{Floats, Message};

/// Of ONNX 1.12 (2022): every runtime since reads it, and nothing here needs newer operators.
const IR_VERSION: i64 = 8;
const OPERATOR_SET: i64 = 17;

const FLOAT: i64 = 1;
const INT64: i64 = 7;

/// The value of a node's attribute.
pub(super) enum Attribute {
    Int(i64),
    Float(f32),
    Ints(Vec<i64>),
}

/// A `NodeProto` with one output.
pub(super) fn node(
    op: &str,
    name: &str,
    inputs: &[&str],
    output: &str,
    attributes: &[(&str, Attribute)],
) -> Message<'static> {
    let message = inputs
        .iter()
        .fold(Message::new(), |m, input| m.bytes(1, input))
        .bytes(2, output)
        .bytes(3, name)
        .bytes(4, op);
    attributes.iter().fold(message, |m, (name, value)| {
        let attribute = Message::new().bytes(1, name);
        m.message(
            5,
            match value {
                Attribute::Float(value) => attribute.float(2, *value).int(20, 1),
                Attribute::Int(value) => attribute.int(3, *value).int(20, 2),
                Attribute::Ints(values) => attribute.ints(8, values).int(20, 7),
            },
        )
    })
}

/// A `TensorProto` of floats.
pub(super) fn float_tensor<'a>(name: &str, shape: &[usize], values: Floats<'a>) -> Message<'a> {
    tensor(FLOAT, name, shape).floats(9, values)
}

/// A `TensorProto` of integers, one-dimensional.
pub(super) fn int_tensor(name: &str, values: &[i64]) -> Message<'static> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    tensor(INT64, name, &[values.len()]).bytes(9, bytes)
}

fn tensor<'a>(kind: i64, name: &str, shape: &[usize]) -> Message<'a> {
    shape
        .iter()
        .fold(Message::new(), |m, &size| m.int(1, size as i64))
        .int(2, kind)
        .bytes(8, name)
}

/// A `ValueInfoProto` of floats whose first dimension is the batch.
pub(super) fn batch_of(name: &str, shape: &[usize]) -> Message<'static> {
    let batch = Message::new().bytes(2, "batch");
    let shape = shape
        .iter()
        .map(|&size| Message::new().int(1, size as i64))
        .fold(Message::new().message(1, batch), |m, size| {
            m.message(1, size)
        });
    let tensor = Message::new().int(1, FLOAT).message(2, shape);
    Message::new()
        .bytes(1, name)
        .message(2, Message::new().message(1, tensor))
}

/// A `GraphProto`.
pub(super) struct Graph<'a> {
    pub(super) name: String,
    pub(super) nodes: Vec<Message<'a>>,
    pub(super) initializers: Vec<Message<'a>>,
    pub(super) input: Message<'a>,
    pub(super) output: Message<'a>,
}

/// A `ModelProto`.
pub(super) fn model<'a>(graph: Graph<'a>, metadata: &[(&str, String)]) -> Message<'a> {
    let graph = Message::new()
        .messages(1, graph.nodes)
        .bytes(2, graph.name)
        .messages(5, graph.initializers)
        .message(11, graph.input)
        .message(12, graph.output);
    let model = Message::new()
        .int(1, IR_VERSION)
        .bytes(2, "ror")
        .bytes(3, env!("CARGO_PKG_VERSION"))
        .message(7, graph)
        .message(8, Message::new().bytes(1, "").int(2, OPERATOR_SET));
    metadata.iter().fold(model, |m, (key, value)| {
        m.message(14, Message::new().bytes(1, key).bytes(2, value))
    })
}
