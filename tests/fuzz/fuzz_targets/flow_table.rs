//! The flow table beside its model, driven by the fuzzer's bytes.

#![no_main]

#[path = "../../sim/flow_model.rs"]
mod flow_model;

use flow_model::{Choices, Run};
use libfuzzer_sys::fuzz_target;

struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Choices for Bytes<'_> {
    fn below(&mut self, bound: u64) -> Option<u64> {
        self.0.next().map(|byte| u64::from(*byte) % bound)
    }
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes(data.iter());
    let mut run = Run::default();
    while run.step(&mut bytes).is_some() {}
});
