//! From one JSON value to the line that answers it.

use serde_json::value::RawValue;

use crate::envelope::{Refused, Request, write_answer};
use crate::error::RpcError;
use crate::gateway::{Gateway, Signal};
use crate::limits::ANSWER_BYTES_MAX;
use crate::methods::{Done, call};

/// What goes back to the client, and what happens then.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// A line with its newline; empty if there is nothing to answer.
    pub line: Vec<u8>,
    /// To be sent to this process once the client has its answer.
    pub signals: Vec<Signal>,
}

/// Why there is no answer, and none to whatever follows.
#[derive(Debug, thiserror::Error)]
pub enum RespondError {
    /// It looked like JSON and is not; text that is not UTF-8, for one.
    #[error("not JSON")]
    NotJson(#[from] serde_json::Error),
    /// More than [`ANSWER_BYTES_MAX`].
    #[error("answer of more than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
}

/// Carries out a request, or a batch of them in its order.
pub async fn respond(gateway: &dyn Gateway, value: &[u8]) -> Result<Response, RespondError> {
    let value: &RawValue = serde_json::from_slice(value)?;
    let mut response = Response::default();
    if value.get().starts_with('[') {
        let batch: Vec<&RawValue> = serde_json::from_str(value.get())?;
        respond_to_batch(gateway, &batch, &mut response).await?;
    } else {
        respond_to_one(gateway, value, &mut response).await?;
    }
    if !response.line.is_empty() {
        response.line.push(b'\n');
    }
    Ok(response)
}

async fn respond_to_batch(
    gateway: &dyn Gateway,
    batch: &[&RawValue],
    response: &mut Response,
) -> Result<(), RespondError> {
    if batch.is_empty() {
        write_answer(&mut response.line, None, Err(&RpcError::INVALID_REQUEST));
        return Ok(());
    }
    for value in batch {
        let before = response.line.len();
        response.line.push(if before == 0 { b'[' } else { b',' });
        respond_to_one(gateway, value, response).await?;
        if response.line.len() == before + 1 {
            response.line.truncate(before);
        }
    }
    if !response.line.is_empty() {
        response.line.push(b']');
    }
    Ok(())
}

async fn respond_to_one(
    gateway: &dyn Gateway,
    value: &RawValue,
    response: &mut Response,
) -> Result<(), RespondError> {
    match Request::check(value) {
        Err(Refused { answered: false, .. }) => {}
        Err(Refused { id, .. }) => {
            write_answer(&mut response.line, id, Err(&RpcError::INVALID_REQUEST));
        }
        Ok(request) => {
            let called = call(gateway, &request.method, request.params).await;
            if let Err(error) = &called {
                tracing::info!(method = &*request.method, %error, "control call refused");
            }
            if let Some(id) = request.id {
                let outcome = called.as_ref().map(|done| &*done.result);
                write_answer(&mut response.line, Some(id), outcome);
            }
            response.signals.extend(called.ok().and_then(|Done { signal, .. }| signal));
        }
    }
    if response.line.len() > ANSWER_BYTES_MAX {
        return Err(RespondError::TooLong);
    }
    Ok(())
}
