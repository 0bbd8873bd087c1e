//! Serves a RAM disk over NBD: `ram_export ADDRESS MIB`, where ADDRESS is `127.0.0.1:10809` or the
//! path of a socket file. Ctrl-C finishes what is in flight and stops.
//!
//! ```text
//! cargo run -p lsvd-nbd --example ram_export -- /tmp/ram.sock 1024
//! nbdinfo nbd+unix:///?socket=/tmp/ram.sock
//! ```

use std::sync::Arc;

use bytes::Bytes;
use lsvd_buf::BufPool;
use lsvd_nbd::{
    Address, BlockSizes, Export, ExportInfo, Exports, Extent, Listener, Outcome, limits, negotiate,
    serve,
};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::task::JoinSet;

const USAGE: &str = "usage: ram_export ADDRESS MIB";

struct Ram(RwLock<Vec<u8>>);

impl Ram {
    fn change(&self, offset: u64, len: usize, apply: impl FnOnce(&mut [u8])) -> Outcome<()> {
        let start = usize::try_from(offset).expect("inside the vector");
        apply(&mut self.0.write()[start..start + len]);
        Outcome::Ready(Ok(()))
    }
}

impl Export for Ram {
    fn info(&self) -> ExportInfo {
        ExportInfo {
            name: "ram".into(),
            description: "RAM disk of the lsvd-nbd example".into(),
            size: self.0.read().len() as u64,
            block_sizes: BlockSizes::new(1, 4096, limits::PAYLOAD_MAX).expect("valid sizes"),
            read_only: false,
            rotational: false,
            fast_zero: false,
            multi_conn: true,
        }
    }

    fn read(&self, offset: u64, len: u32) -> Outcome<Bytes> {
        let start = usize::try_from(offset).expect("inside the vector");
        let data = Bytes::copy_from_slice(&self.0.read()[start..start + len as usize]);
        Outcome::Ready(Ok(data))
    }

    fn write(&self, offset: u64, data: Bytes, _fua: bool) -> Outcome<()> {
        self.change(offset, data.len(), |range| range.copy_from_slice(&data))
    }

    fn flush(&self) -> Outcome<()> {
        Outcome::Ready(Ok(()))
    }

    fn trim(&self, offset: u64, len: u32, fua: bool) -> Outcome<()> {
        self.write_zeroes(offset, len, fua, false)
    }

    fn write_zeroes(&self, offset: u64, len: u32, _fua: bool, _no_hole: bool) -> Outcome<()> {
        self.change(offset, len as usize, |range| range.fill(0))
    }

    fn block_status(&self, _offset: u64, len: u32, _extents_max: usize) -> Outcome<Vec<Extent>> {
        Outcome::Ready(Ok(vec![Extent { len: u64::from(len), hole: false, zero: false }]))
    }
}

struct Single(Arc<Ram>);

impl Exports for Single {
    fn list(&self) -> Vec<String> {
        vec![self.0.info().name]
    }

    fn open(&self, name: &str) -> Option<Arc<dyn Export>> {
        (name == self.0.info().name).then(|| Arc::clone(&self.0) as Arc<dyn Export>)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (address, mib) = (args.next().ok_or(USAGE)?, args.next().ok_or(USAGE)?);
    let size = mib.parse::<usize>()?.checked_mul(1 << 20).ok_or(USAGE)?;
    let address = match address.parse() {
        Ok(address) => Address::Tcp(address),
        Err(_) => Address::Unix(address.into()),
    };
    let exports = Arc::new(Single(Arc::new(Ram(RwLock::new(vec![0; size])))));
    let listener = Listener::bind(&address).await?;
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        let socket = tokio::select! {
            socket = listener.accept() => socket?,
            Some(_) = connections.join_next() => continue,
            _ = tokio::signal::ctrl_c() => break,
        };
        let (exports, stopped) = (Arc::clone(&exports), stopped.clone());
        connections.spawn(async move {
            match negotiate(socket, &*exports).await {
                Ok(Some(negotiated)) => {
                    let ended = serve(negotiated, BufPool::default(), stopped).await;
                    eprintln!("connection ended: {ended:?}");
                }
                Ok(None) => {}
                Err(error) => eprintln!("handshake failed: {error}"),
            }
        });
    }
    stop.send(true)?;
    while connections.join_next().await.is_some() {}
    Ok(())
}
