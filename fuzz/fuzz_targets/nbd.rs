//! A whole NBD connection: handshake and session. The export is the oracle: the server promises it
//! to check every range before it calls.

#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use lsvd_buf::BufPool;
use lsvd_nbd::{
    BlockSizes, Export, ExportInfo, Exports, Extent, Failure, Outcome, negotiate, serve,
};

const SIZE: u64 = 1 << 20;
const UNIT: u64 = 512;
const PAYLOAD_MAX: u32 = 128 << 10;

/// Client flags, then NBD_OPT_STRUCTURED_REPLY, NBD_OPT_SET_META_CONTEXT for `base:allocation`, and
/// NBD_OPT_GO for the export "a": so that the session is reached without guessing.
const PREAMBLE: &[u8] = b"\0\0\0\x03\
    IHAVEOPT\0\0\0\x08\0\0\0\0\
    IHAVEOPT\0\0\0\x0a\0\0\0\x1c\0\0\0\x01a\0\0\0\x01\0\0\0\x0fbase:allocation\
    IHAVEOPT\0\0\0\x07\0\0\0\x07\0\0\0\x01a\0\0";

struct Checked {
    read_only: bool,
}

/// Some operations are done at once, some later, some fail.
fn outcome<T: Send + 'static>(offset: u64, value: T) -> Outcome<T> {
    match offset / UNIT % 4 {
        0 => Outcome::Pending(Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(value)
        })),
        1 => Outcome::Pending(Box::pin(async { Err(Failure::Io) })),
        2 => Outcome::Ready(Err(Failure::NoSpace)),
        _ => Outcome::Ready(Ok(value)),
    }
}

impl Checked {
    fn check(&self, offset: u64, len: u64, change: bool) {
        assert!(len > 0 && offset.is_multiple_of(UNIT) && len.is_multiple_of(UNIT));
        assert!(offset.checked_add(len).is_some_and(|end| end <= SIZE));
        assert!(!(self.read_only && change));
    }
}

impl Export for Checked {
    fn info(&self) -> ExportInfo {
        ExportInfo {
            name: "a".into(),
            description: "fuzzed".into(),
            size: SIZE,
            block_sizes: BlockSizes::new(512, 4096, PAYLOAD_MAX).expect("sizes of the protocol"),
            read_only: self.read_only,
            rotational: false,
            fast_zero: true,
            multi_conn: true,
        }
    }

    fn read(&self, offset: u64, len: u32) -> Outcome<Bytes> {
        self.check(offset, len.into(), false);
        assert!(len <= PAYLOAD_MAX);
        outcome(offset, Bytes::from(vec![7; len as usize]))
    }

    fn write(&self, offset: u64, data: Bytes, _fua: bool) -> Outcome<()> {
        self.check(offset, data.len() as u64, true);
        assert!(data.len() <= PAYLOAD_MAX as usize);
        outcome(offset, ())
    }

    fn flush(&self) -> Outcome<()> {
        outcome(0, ())
    }

    fn trim(&self, offset: u64, len: u32, _fua: bool) -> Outcome<()> {
        self.check(offset, len.into(), true);
        outcome(offset, ())
    }

    fn write_zeroes(&self, offset: u64, len: u32, _fua: bool, _no_hole: bool) -> Outcome<()> {
        self.check(offset, len.into(), true);
        outcome(offset, ())
    }

    fn block_status(&self, offset: u64, len: u32, extents_max: usize) -> Outcome<Vec<Extent>> {
        self.check(offset, len.into(), false);
        assert!(extents_max > 0);
        let extent = |hole| Extent { len: UNIT, hole, zero: hole };
        outcome(offset, vec![extent(true), extent(false)])
    }

    fn cache(&self, offset: u64, len: u32) -> Outcome<()> {
        self.check(offset, len.into(), false);
        outcome(offset, ())
    }
}

impl Exports for Checked {
    fn list(&self) -> Vec<String> {
        vec!["a".into()]
    }

    fn open(&self, name: &str) -> Option<Arc<dyn Export>> {
        let export = Self { read_only: self.read_only };
        (name == "a").then(|| Arc::new(export) as Arc<dyn Export>)
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let exports = Checked { read_only: choice & 2 != 0 };
    let preamble = if choice & 1 == 1 { PREAMBLE } else { b"" };
    let input = [preamble, bytes].concat();
    // Time stands still while there is something to do, and jumps otherwise.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    runtime.block_on(async {
        let peer = tokio::io::join(&input[..], tokio::io::sink());
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        if let Ok(Some(negotiated)) = negotiate(peer, &exports).await {
            assert_eq!(negotiated.export_name(), "a");
            let _ = serve(negotiated, BufPool::default(), stopped).await;
        } else {
            assert!(choice & 1 == 0, "the preamble chooses the export");
        }
    });
});
