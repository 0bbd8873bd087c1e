//! Serves namespaces in memory over NVMe/TCP, for tests and benches without a gateway.
//!
//! `ram_target [ADDRESS [NAMESPACES [MEBIBYTES]]]`: 127.0.0.1:4420 with one namespace of 64 MiB and
//! 4096-byte blocks unless told otherwise. Prints the address once it listens; port 0 lets the
//! system choose.

use std::net::SocketAddr;
use std::sync::Arc;

use lsvd_buf::BufPool;
use lsvd_nvmet::{
    LbaSize, Listener, NamespaceOptions, Origin, RamNamespace, SubsystemConfig, Target,
    TargetOptions, accept, serve,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use uuid::Uuid;

const NQN: &str = "nqn.2019-05.io.lsvd:cnode1";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments.next().as_deref().unwrap_or("127.0.0.1:4420").parse()?;
    let namespaces: u32 = arguments.next().as_deref().unwrap_or("1").parse()?;
    let mebibytes: u32 = arguments.next().as_deref().unwrap_or("64").parse()?;

    let socket = TcpListener::bind(address).await?;
    let address = socket.local_addr()?;
    let target = Arc::new(Target::new(TargetOptions::new("nqn.2019-05.io.lsvd:discovery"))?);
    target.add_subsystem(SubsystemConfig {
        nqn: NQN.to_owned(),
        serial: "SPDK_000001".to_owned(),
        model: "LSVD NVMe controller".to_owned(),
        allow_any_host: true,
        namespaces_max: namespaces.max(32),
        ana_reporting: false,
    })?;
    for nsid in 1..=namespaces {
        let uuid =
            Uuid::from_u64_pair(0x6c73_7664_0000_4000, 0x8000_0000_0000_0000 | u64::from(nsid));
        let namespace = RamNamespace::new(uuid, LbaSize::B4096, mebibytes << 8);
        target.add_namespace(NQN, Arc::new(namespace), NamespaceOptions::default())?;
    }
    target.add_listener(NQN, Listener { address, advertised: None })?;
    announce(address);

    // Nothing stops this target but its end.
    let (_stop, stopped) = watch::channel(false);
    let buffers = BufPool::default();
    loop {
        let (stream, peer) = socket.accept().await?;
        let local = stream.local_addr()?;
        let origin = Origin { listener: address, local, peer };
        tokio::spawn(connection(stream, origin, target.clone(), buffers.clone(), stopped.clone()));
    }
}

#[expect(clippy::print_stdout, reason = "whoever started the example waits for the address")]
fn announce(address: SocketAddr) {
    println!("listening on {address}");
}

#[expect(clippy::print_stderr, reason = "an example has no log")]
async fn connection(
    stream: TcpStream,
    origin: Origin,
    target: Arc<Target>,
    buffers: BufPool,
    stopped: watch::Receiver<bool>,
) {
    let served = async {
        stream.set_nodelay(true)?;
        match accept(stream, origin, target, buffers).await? {
            Some(accepted) => serve(accepted, stopped).await.map(Some),
            None => Ok(None),
        }
    };
    if let Err(error) = served.await {
        eprintln!("{}: {error}", origin.peer);
    }
}
