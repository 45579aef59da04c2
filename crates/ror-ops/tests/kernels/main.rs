//! Every kernel on every instruction set of this processor against slow, obvious twins in `f64`.

mod conv;
mod layout;
mod reference;
mod rest;
mod stem;
