//! Connections of the control socket.
//!
//! Invariants: a connection carries out one request at a time, in the order in which they came; it
//! holds one request and one answer at most.
//! Concurrency: connections run side by side. A call whose client hangs up runs to its end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::framing::{Framer, FramingError};
use crate::gateway::Gateway;
use crate::limits::{CONNECTIONS_MAX, READ_BYTES};
use crate::respond::{RespondError, respond};
use crate::socket::Listener;

/// Calls under way get this long when the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// When descriptors run out, `accept` fails until one is given back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a connection ended before its client closed it.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("request cannot be read")]
    Framing(#[from] FramingError),
    #[error("request cannot be answered")]
    Respond(#[from] RespondError),
    #[error("socket failed")]
    Socket(#[from] io::Error),
}

/// Serves clients until `stop` becomes true or its sender is dropped. Calls under way are finished
/// if that takes a few seconds at most; then the socket file is removed.
pub async fn serve(listener: Listener, gateway: Arc<dyn Gateway>, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let for_connections = stop.clone();
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = async {
            let place = place.await.expect("the semaphore is never closed");
            (listener.accept().await, place)
        };
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            (accepted, place) = accepted => match accepted {
                Ok(socket) => {
                    let (gateway, stop) = (Arc::clone(&gateway), for_connections.clone());
                    connections.spawn(async move {
                        let _place = place;
                        if let Err(error) = connection(socket, &*gateway, stop).await {
                            let source = std::error::Error::source(&error);
                            let source = source.map(ToString::to_string);
                            tracing::info!(%error, source, "control connection closed");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept control connections");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    let drained = timeout(DRAIN_MAX, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!("control calls did not end; they are cut");
    }
}

/// Returns once the server is to stop. A function of its own, since what the wait returns may not
/// be carried from thread to thread.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection(
    mut socket: UnixStream,
    gateway: &dyn Gateway,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ConnectionError> {
    let mut framer = Framer::default();
    let mut bytes = [0; READ_BYTES];
    loop {
        let read = tokio::select! {
            biased;
            () = stopped(&mut stop) => return Ok(()),
            read = socket.read(&mut bytes) => read?,
        };
        framer.push(&bytes[..read]);
        while let Some(value) = framer.next_value()? {
            answer(&mut socket, gateway, &value).await?;
        }
        if read == 0 {
            // The client may have closed only its own half, and still wait for answers.
            if let Some(value) = framer.finish() {
                answer(&mut socket, gateway, &value).await?;
            }
            return Ok(());
        }
    }
}

async fn answer(
    socket: &mut UnixStream,
    gateway: &dyn Gateway,
    value: &[u8],
) -> Result<(), ConnectionError> {
    let response = respond(gateway, value).await?;
    let written = socket.write_all(&response.line).await;
    for signal in response.signals {
        gateway.kill(signal);
    }
    Ok(written?)
}
