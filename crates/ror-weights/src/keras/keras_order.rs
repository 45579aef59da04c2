//! The order in which Keras lists and saves a functional model's layers.

use super::graph::Node;

/// Sorts layers as Keras does: by their distance from the output, the largest first, and among
/// equals by when a depth-first walk from the output, along each layer's inputs in turn, first
/// meets them. Weights without names are matched to layers in this order. Source:
/// `keras/src/ops/function.py`, `map_graph`.
pub(super) fn keras_order(nodes: Vec<Node>) -> Vec<Node> {
    let output = nodes.len() - 1;
    let mut distance = vec![0; nodes.len()];
    for (i, node) in nodes.iter().enumerate().rev() {
        for &input in &node.inputs {
            distance[input] = distance[input].max(distance[i] + 1);
        }
    }
    let mut met = vec![usize::MAX; nodes.len()];
    let (mut count, mut stack) = (0, vec![output]);
    while let Some(i) = stack.pop() {
        if met[i] == usize::MAX {
            met[i] = count;
            count += 1;
            stack.extend(nodes[i].inputs.iter().rev());
        }
    }
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(distance[i]), met[i]));
    let mut place = vec![0; nodes.len()];
    for (new, &old) in order.iter().enumerate() {
        place[old] = new;
    }
    let mut nodes: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
    order
        .iter()
        .filter_map(|&old| nodes[old].take())
        .map(|mut node| {
            node.inputs.iter_mut().for_each(|i| *i = place[*i]);
            node
        })
        .collect()
}
