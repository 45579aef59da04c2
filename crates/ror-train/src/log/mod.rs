//! What a run writes for people to look at.

mod csv;
mod curves;
mod tensorboard;

pub(crate) use csv::CsvLog;
pub(crate) use curves::curves;
pub(crate) use tensorboard::EventLog;
