//! The control socket from its bytes to its answers, saved configurations included.
//!
//! A third of the inputs are the parameters of a method that exists: names of methods are long, and
//! a fuzzer would hardly find them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lsvd_control::limits::{ANSWER_BYTES_MAX, REQUEST_BYTES_MAX};
use lsvd_control::{Framer, FramingError, Gateway, respond, saved_calls};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::runtime::{Builder, Runtime};

/// The gateway of the crate's own tests.
#[path = "../../control/tests/socket/fake.rs"]
#[expect(dead_code, reason = "tests look at more of it")]
mod fake;

/// Every value of a stream that arrives in pieces of one length.
fn frames(bytes: &[u8], piece_len: usize) -> (Vec<Vec<u8>>, Option<FramingError>) {
    let (mut framer, mut values) = (Framer::default(), Vec::new());
    for piece in bytes.chunks(piece_len) {
        framer.push(piece);
        loop {
            match framer.next_value() {
                Ok(Some(value)) => values.push(value),
                Ok(None) => break,
                Err(error) => return (values, Some(error)),
            }
        }
    }
    values.extend(framer.finish());
    (values, None)
}

/// A request for the method that the first byte chooses, with the rest as parameters.
async fn call(gateway: &dyn Gateway, bytes: &[u8]) -> Option<Vec<u8>> {
    let (choice, params) = bytes.split_first()?;
    let list = respond(gateway, b"{\"method\":\"rpc_get_methods\",\"id\":0}").await;
    let answer: Value = serde_json::from_slice(&list.ok()?.line).ok()?;
    let methods = answer["result"].as_array()?;
    let method = &methods[usize::from(*choice) % methods.len()];
    let head = format!("{{\"method\":{method},\"id\":1,\"params\":");
    Some([head.as_bytes(), params, b"}"].concat())
}

async fn check_answers(gateway: &dyn Gateway, values: &[Vec<u8>]) {
    for value in values {
        assert!(value.len() <= REQUEST_BYTES_MAX);
        let is_json = serde_json::from_slice::<&RawValue>(value).is_ok();
        let response = respond(gateway, value).await;
        assert_eq!(is_json, response.is_ok(), "framing and parser disagree");
        let Ok(response) = response else { return };
        assert!(response.line.len() <= ANSWER_BYTES_MAX + 1);
        if let Some(line) = response.line.strip_suffix(b"\n") {
            assert!(!line.contains(&b'\n') || value.contains(&b'\n'));
            serde_json::from_slice::<&RawValue>(line).expect("answers are JSON");
        } else {
            assert!(response.line.is_empty());
        }
    }
}

thread_local! {
    /// Time stands still while there is something to do, and jumps otherwise.
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let gateway = fake::Fake::default();
            if choice % 3 == 0 {
                let calls = std::str::from_utf8(bytes).ok().and_then(|text| saved_calls(text).ok());
                for call in calls.unwrap_or_default() {
                    let _ = call.run(&gateway).await;
                }
                return;
            }
            let made = if choice % 3 == 1 { call(&gateway, bytes).await } else { None };
            let stream = made.as_deref().unwrap_or(bytes);
            let (values, error) = frames(stream, stream.len().max(1));
            assert_eq!(frames(stream, 1), (values.clone(), error));
            assert_eq!(frames(stream, 1 + usize::from(*choice)), (values.clone(), error));
            check_answers(&gateway, &values).await;
        })
    });
});
