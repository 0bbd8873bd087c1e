//! The NBD front end: listeners, and connections handed to the thread that owns their volume.

use std::sync::Arc;

use anyhow::Context as _;
use lsvd_nbd::{Address, Ended, Listener, Negotiated, Socket, negotiate, serve};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::images::Images;
use crate::workers::Running;

/// Connections that haggle at one time; one that comes beyond waits.
const HANDSHAKES_MAX: usize = 64;

/// Starts to listen on an address. The task ends when `stop` turns true.
pub(crate) async fn listen(
    address: &Address,
    images: &Arc<Images>,
    stop: &watch::Receiver<bool>,
    running: &Running,
) -> anyhow::Result<JoinHandle<()>> {
    let listener =
        Listener::bind(address).await.with_context(|| format!("listen on {address} for NBD"))?;
    let accept = Accept {
        images: Arc::clone(images),
        stop: stop.clone(),
        running: running.clone(),
        handshakes: Arc::new(tokio::sync::Semaphore::new(HANDSHAKES_MAX)),
    };
    Ok(tokio::spawn(accept.run(listener)))
}

struct Accept {
    images: Arc<Images>,
    stop: watch::Receiver<bool>,
    running: Running,
    handshakes: Arc<tokio::sync::Semaphore>,
}

impl Accept {
    async fn run(self, listener: Listener) {
        let mut stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(socket) => self.connection(socket).await,
                Err(error) => {
                    // Out of descriptors, mostly: others may close some.
                    tracing::warn!(%error, "cannot accept an NBD connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(&self, socket: Socket) {
        let Ok(permit) = Arc::clone(&self.handshakes).acquire_owned().await else { return };
        let images = Arc::clone(&self.images);
        let (mut stop, running) = (self.stop.clone(), self.running.clone());
        tokio::spawn(async move {
            let negotiated = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                negotiated = negotiate(socket, &*images) => negotiated,
            };
            drop(permit);
            match negotiated {
                Ok(Some(negotiated)) => hand_over(negotiated, &images, stop, running),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "an NBD handshake failed"),
            }
        });
    }
}

/// Moves a connection to the thread that owns its volume.
fn hand_over(
    negotiated: Negotiated<Socket>,
    images: &Images,
    stop: watch::Receiver<bool>,
    running: Running,
) {
    let name = negotiated.export_name().to_owned();
    let Some(open) = images.get(&name) else { return };
    let (home, buffers) = (open.home, images.buffers().clone());
    let detached = match negotiated.detach() {
        Ok(detached) => detached,
        Err(error) => {
            tracing::warn!(image = name, %error, "an NBD connection was lost");
            return;
        }
    };
    home.spawn(async move {
        let _running = running;
        let negotiated = match detached.attach() {
            Ok(negotiated) => negotiated,
            Err(error) => {
                tracing::warn!(image = name, %error, "an NBD connection was lost");
                return;
            }
        };
        tracing::info!(image = name, "an NBD client connected");
        match serve(negotiated, buffers, stop).await {
            Ok(Ended::Disconnected | Ended::Stopped) => {
                tracing::info!(image = name, "an NBD client is gone");
            }
            Ok(other) => tracing::info!(image = name, how = ?other, "an NBD client is gone"),
            Err(error) => tracing::warn!(image = name, %error, "an NBD connection ended"),
        }
    });
}
