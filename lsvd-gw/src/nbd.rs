//! The NBD front end: listeners, and connections handed to the thread that owns their volume.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use lsvd_engine::Volume;
use lsvd_engine::disk::BufPool;
use lsvd_nbd::{Address, Ended, Export, Exports, Listener, Negotiated, Socket, negotiate, serve};
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::export::VolumeExport;
use crate::workers::Running;

/// Connections that haggle at one time; one that comes beyond waits.
const HANDSHAKES_MAX: usize = 64;

/// Open volumes by name, with their home threads.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// Memory for what comes in.
    buffers: BufPool,
    volumes: RwLock<BTreeMap<String, (Arc<Volume>, Handle)>>,
}

impl Registry {
    pub(crate) fn new(buffers: BufPool) -> Self {
        Self { buffers, volumes: RwLock::default() }
    }

    pub(crate) fn insert(&self, volume: Arc<Volume>, home: Handle) {
        self.volumes.write().insert(volume.name().to_owned(), (volume, home));
    }

    pub(crate) fn volumes(&self) -> Vec<Arc<Volume>> {
        self.volumes.read().values().map(|(volume, _)| Arc::clone(volume)).collect()
    }

    fn home_of(&self, name: &str) -> Option<Handle> {
        self.volumes.read().get(name).map(|(_, home)| home.clone())
    }
}

impl Exports for Registry {
    fn list(&self) -> Vec<String> {
        self.volumes.read().keys().cloned().collect()
    }

    fn open(&self, name: &str) -> Option<Arc<dyn Export>> {
        let volumes = self.volumes.read();
        let (volume, _) = volumes.get(name)?;
        Some(Arc::new(VolumeExport(Arc::clone(volume))))
    }
}

/// Starts to listen on an address. The task ends when `stop` turns true.
pub(crate) async fn listen(
    address: &Address,
    registry: &Arc<Registry>,
    stop: &watch::Receiver<bool>,
    running: &Running,
) -> anyhow::Result<JoinHandle<()>> {
    let listener =
        Listener::bind(address).await.with_context(|| format!("listen on {address} for NBD"))?;
    let accept = Accept {
        registry: Arc::clone(registry),
        stop: stop.clone(),
        running: running.clone(),
        handshakes: Arc::new(tokio::sync::Semaphore::new(HANDSHAKES_MAX)),
    };
    Ok(tokio::spawn(accept.run(listener)))
}

struct Accept {
    registry: Arc<Registry>,
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
        let registry = Arc::clone(&self.registry);
        let (mut stop, running) = (self.stop.clone(), self.running.clone());
        tokio::spawn(async move {
            let negotiated = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                negotiated = negotiate(socket, &*registry) => negotiated,
            };
            drop(permit);
            match negotiated {
                Ok(Some(negotiated)) => hand_over(negotiated, &registry, stop, running),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "an NBD handshake failed"),
            }
        });
    }
}

/// Moves a connection to the thread that owns its volume.
fn hand_over(
    negotiated: Negotiated<Socket>,
    registry: &Registry,
    stop: watch::Receiver<bool>,
    running: Running,
) {
    let name = negotiated.export_name().to_owned();
    let Some(home) = registry.home_of(&name) else { return };
    let buffers = registry.buffers.clone();
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
