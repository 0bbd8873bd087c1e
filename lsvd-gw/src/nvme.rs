//! The NVMe/TCP front end: listeners, and connections handed to the thread that owns their volume.
//!
//! Invariant: one socket listens on an address, for all subsystems that have a listener there.
//! Concurrency: any task may add or remove listeners; a connection belongs to the thread that it
//! was handed to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context as _;
use lsvd_nvmet::limits::NAMESPACES_MAX;
use lsvd_nvmet::{
    Accepted, ConfigError, Listener, NamespaceOptions, Origin, SubsystemConfig, Target,
    TargetOptions, accept, serve,
};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinHandle;

use crate::admission::Admission;
use crate::config::Settings;
use crate::images::Images;
use crate::machine;
use crate::namespace::VolumeNamespace;
use crate::workers::Running;

/// See the module.
pub(crate) struct Nvme {
    target: Arc<Target>,
    images: Arc<Images>,
    stop: watch::Receiver<bool>,
    running: Running,
    admission: Arc<Admission>,
    listeners: Mutex<BTreeMap<SocketAddr, JoinHandle<()>>>,
    /// The image behind each namespace, by subsystem and NSID.
    shown: Mutex<BTreeMap<(String, u32), String>>,
}

impl Nvme {
    /// A target that turns hosts away until [`set_accepting`](Self::set_accepting).
    pub(crate) fn new(
        settings: &Settings,
        images: Arc<Images>,
        stop: &watch::Receiver<bool>,
        running: &Running,
    ) -> anyhow::Result<Arc<Self>> {
        let options = TargetOptions::new(discovery_nqn(settings));
        let target = Arc::new(Target::new(options).context("make the NVMe target")?);
        target.set_accepting(false);
        let admission = Admission::new();
        let (stop, running) = (stop.clone(), running.clone());
        let (listeners, shown) = (Mutex::default(), Mutex::default());
        Ok(Arc::new(Self { target, images, stop, running, admission, listeners, shown }))
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Lets hosts in: everything that was asked for at start is open.
    pub(crate) fn set_accepting(&self) {
        self.target.set_accepting(true);
    }

    /// Makes the subsystem that images are exported in without being asked, and listens.
    pub(crate) async fn export_default(
        self: &Arc<Self>,
        settings: &Settings,
    ) -> anyhow::Result<()> {
        let Some(address) = settings.nvme else { return Ok(()) };
        let subsystem = SubsystemConfig {
            nqn: settings.nvme_nqn.clone(),
            serial: settings.nvme_serial.clone(),
            model: settings.nvme_model.clone(),
            allow_any_host: true,
            namespaces_max: NAMESPACES_MAX,
            // It is made with one listener, so there is no path to prefer. Who wants several makes
            // a subsystem by the control socket.
            ana_reporting: false,
        };
        let nqn = subsystem.nqn.clone();
        self.target.add_subsystem(subsystem).with_context(|| format!("NVMe subsystem {nqn}"))?;
        self.listen(&nqn, address).await
    }

    /// Shows an image in that subsystem.
    pub(crate) fn export_image(&self, settings: &Settings, name: &str) -> anyhow::Result<()> {
        if settings.nvme.is_some() {
            self.show(&settings.nvme_nqn, name, NamespaceOptions::default())
                .with_context(|| format!("export image {name} over NVMe/TCP"))?;
        }
        Ok(())
    }

    /// Shows an open image as a namespace of a subsystem. Returns the NSID.
    pub(crate) fn show(
        &self,
        nqn: &str,
        name: &str,
        options: NamespaceOptions,
    ) -> anyhow::Result<u32> {
        let open = self.images.get(name).with_context(|| format!("image {name} is not open"))?;
        let namespace = Arc::new(VolumeNamespace(open.volume));
        let nsid = self.target.add_namespace(nqn, namespace, options)?;
        self.shown.lock().insert((nqn.to_owned(), nsid), name.to_owned());
        Ok(nsid)
    }

    /// Takes a namespace away.
    pub(crate) fn hide(&self, nqn: &str, nsid: u32) -> Result<(), ConfigError> {
        self.target.remove_namespace(nqn, nsid)?;
        self.shown.lock().remove(&(nqn.to_owned(), nsid));
        Ok(())
    }

    /// Takes away every namespace that shows an image.
    pub(crate) fn hide_image(&self, name: &str) -> Result<(), ConfigError> {
        self.places_of(name).iter().try_for_each(|(nqn, nsid)| self.hide(nqn, *nsid))
    }

    /// Tells the hosts of every namespace that shows an image to look at its size again.
    pub(crate) fn image_resized(&self, name: &str) -> Result<(), ConfigError> {
        let mut places = self.places_of(name).into_iter();
        places.try_for_each(|(nqn, nsid)| self.target.namespace_resized(&nqn, nsid))
    }

    /// Subsystem and NSID of every namespace that shows an image.
    fn places_of(&self, name: &str) -> Vec<(String, u32)> {
        let shown = self.shown.lock();
        let of_image = shown.iter().filter(|(_, image)| *image == name);
        of_image.map(|(place, _)| place.clone()).collect()
    }

    /// Forgets the namespaces of a subsystem that was removed.
    pub(crate) fn forget_subsystem(&self, nqn: &str) {
        self.shown.lock().retain(|(of, _), _| of != nqn);
    }

    /// The image that a namespace shows.
    pub(crate) fn image_of(&self, nqn: &str, nsid: u32) -> Option<String> {
        self.shown.lock().get(&(nqn.to_owned(), nsid)).cloned()
    }

    /// True if some namespace shows the image.
    pub(crate) fn shows(&self, name: &str) -> bool {
        self.shown.lock().values().any(|image| image == name)
    }

    /// The thread for a queue of a subsystem: that of its image, if it shows one. Queues of a
    /// subsystem with several images are spread over all threads.
    fn home_of(&self, nqn: &str, qid: u16) -> Handle {
        let first = {
            let shown = self.shown.lock();
            let mut of_nqn = shown.range((nqn.to_owned(), 0)..=(nqn.to_owned(), u32::MAX));
            match (of_nqn.next(), of_nqn.next()) {
                (Some((_, only)), None) => Some(only.clone()),
                _ => None,
            }
        };
        self.images.home_of(first.as_deref(), usize::from(qid))
    }

    /// Lets hosts reach a subsystem at an address, and listens there if nobody does yet.
    pub(crate) async fn listen(
        self: &Arc<Self>,
        nqn: &str,
        address: SocketAddr,
    ) -> anyhow::Result<()> {
        self.open(address).await?;
        self.target.add_listener(nqn, Listener { address, advertised: None })?;
        Ok(())
    }

    /// Closes an address for a subsystem, and the socket if no subsystem is left there.
    pub(crate) fn unlisten(&self, nqn: &str, address: SocketAddr) -> Result<(), ConfigError> {
        self.target.remove_listener(nqn, address)?;
        self.close_unused();
        Ok(())
    }

    /// Closes sockets whose last subsystem is gone.
    pub(crate) fn close_unused(&self) {
        let subsystems = self.target.subsystems();
        let is_used = |address: &SocketAddr| {
            subsystems.iter().any(|one| one.listeners.iter().any(|at| at.address == *address))
        };
        self.listeners.lock().retain(|address, task| {
            let keep = is_used(address);
            if !keep {
                task.abort();
            }
            keep
        });
    }

    /// Lets nobody in any more.
    pub(crate) fn stop_listening(&self) {
        for (_, task) in std::mem::take(&mut *self.listeners.lock()) {
            task.abort();
        }
    }

    /// Tells a person what to type; programs wait for `ready`.
    pub(crate) fn say_what_next(&self) {
        for subsystem in self.target.subsystems().iter().filter(|one| !one.is_discovery) {
            for listener in &subsystem.listeners {
                let (ip, port) = (listener.address.ip(), listener.address.port());
                eprintln!(
                    "{}: {} namespaces\n  try: nvme connect -t tcp -a {ip} -s {port} -n {}",
                    subsystem.nqn,
                    subsystem.namespaces.len(),
                    subsystem.nqn
                );
            }
        }
    }

    async fn open(self: &Arc<Self>, address: SocketAddr) -> anyhow::Result<()> {
        if self.listeners.lock().contains_key(&address) {
            return Ok(());
        }
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("listen on {address} for NVMe/TCP; --nvme says another address, or none")
        })?;
        let accept = Accept { address, nvme: Arc::downgrade(self), stop: self.stop.clone() };
        self.listeners.lock().insert(address, tokio::spawn(accept.run(listener)));
        Ok(())
    }
}

/// The name of the discovery subsystem, one for each gateway: its hash tells gateways apart that
/// serve the same images.
fn discovery_nqn(settings: &Settings) -> String {
    let place = format!("{}:{}", machine::host_name(), settings.state_dir.display());
    let name = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, place.as_bytes());
    format!("nqn.2014-08.org.nvmexpress:uuid:{name}")
}

struct Accept {
    address: SocketAddr,
    /// A listener must not keep the gateway alive.
    nvme: Weak<Nvme>,
    stop: watch::Receiver<bool>,
}

impl Accept {
    async fn run(self, listener: TcpListener) {
        let mut stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.connection(stream, peer),
                Err(error) => {
                    // Out of descriptors, mostly: others may close some.
                    tracing::warn!(%error, "cannot accept an NVMe/TCP connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn connection(&self, stream: TcpStream, peer: SocketAddr) {
        let Some(nvme) = self.nvme.upgrade() else { return };
        let Some(place) = nvme.admission.admit(peer) else { return };
        let local = match stream.set_nodelay(true).and_then(|()| stream.local_addr()) {
            Ok(local) => local,
            Err(error) => {
                tracing::debug!(%peer, %error, "an NVMe/TCP connection was lost");
                return;
            }
        };
        let origin = Origin { listener: self.address, local, peer };
        let buffers = nvme.images.buffers().clone();
        let connecting = accept(stream, origin, Arc::clone(&nvme.target), buffers);
        let (mut stop, running) = (self.stop.clone(), nvme.running.clone());
        let mut handshake = nvme.admission.begin();
        tokio::spawn(async move {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                accepted = connecting => accepted,
                () = handshake.superseded() => {
                    tracing::debug!(%peer, "an NVMe/TCP connection without a queue made room");
                    return;
                }
            };
            drop(handshake);
            match accepted {
                Ok(Some(accepted)) => {
                    let home = nvme.home_of(accepted.subsystem(), accepted.qid());
                    drop(nvme);
                    hand_over(accepted, &home, peer, place, stop, running);
                }
                Ok(None) => tracing::debug!(%peer, "an NVMe/TCP host left without a queue"),
                Err(error) => tracing::warn!(%peer, %error, "an NVMe/TCP connection failed"),
            }
        });
    }
}

/// Moves a connection to the thread that owns its volume.
fn hand_over(
    accepted: Accepted<TcpStream>,
    home: &Handle,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    stop: watch::Receiver<bool>,
    running: Running,
) {
    let (subsystem, host) = (accepted.subsystem().to_owned(), accepted.host_nqn().to_owned());
    let qid = accepted.qid();
    let detached = match accepted.map_stream(TcpStream::into_std) {
        Ok(detached) => detached,
        Err(error) => {
            tracing::warn!(%peer, %error, "an NVMe/TCP connection was lost");
            return;
        }
    };
    home.spawn(async move {
        let (_running, _place) = (running, place);
        let accepted = match detached.map_stream(TcpStream::from_std) {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%peer, %error, "an NVMe/TCP connection was lost");
                return;
            }
        };
        tracing::info!(subsystem, host, qid, %peer, "an NVMe host connected a queue");
        match serve(accepted, stop).await {
            Ok(how) => tracing::info!(subsystem, host, qid, ?how, "an NVMe queue is gone"),
            Err(error) => {
                tracing::warn!(subsystem, host, qid, %peer, %error, "an NVMe queue ended")
            }
        }
    });
}
