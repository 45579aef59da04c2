//! Every kernel on every instruction set of this processor against slow, obvious twins in `f64`.

#![allow(clippy::unwrap_used)] // clippy takes the helpers of a test for no test

mod conv;
mod gradient;
mod layout;
mod norm;
mod reference;
mod rest;
mod stem;
