//! A server for tests, and a client that writes and reads bytes.

use std::path::PathBuf;
use std::sync::Arc;

use lsvd_control::{Gateway, Listener, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::fake::Fake;

pub(crate) struct Server {
    pub(crate) path: PathBuf,
    pub(crate) gateway: Arc<Fake>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) served: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = dir.path().join("spdk.sock");
        let listener = Listener::bind(&path).await.expect("a free path");
        let gateway = Arc::new(Fake::default());
        let (stop, stopped) = watch::channel(false);
        let served =
            tokio::spawn(serve(listener, Arc::clone(&gateway) as Arc<dyn Gateway>, stopped));
        Self { path, gateway, stop, served, _dir: dir }
    }

    pub(crate) async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.expect("a live server")
    }

    /// Sends bytes, closes the sending half, and returns everything that came back.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> String {
        let mut socket = self.connect().await;
        // The server may hang up in the middle; that is what some tests are about.
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        String::from_utf8(answer).expect("answers are text")
    }

    /// Calls a method and returns the line behind the id: `"result":..}` or `"error":..}`.
    pub(crate) async fn call(&self, method: &str, params: &str) -> String {
        let params =
            if params.is_empty() { String::new() } else { format!(",\"params\":{params}") };
        let request = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"id\":1{params}}}");
        let answer = self.exchange(request.as_bytes()).await;
        let answer = answer.strip_suffix("}\n").expect("a line");
        answer.strip_prefix("{\"jsonrpc\":\"2.0\",\"id\":1,").expect("an answer").to_owned()
    }

    /// Calls a method that must succeed with `true`.
    pub(crate) async fn call_true(&self, method: &str, params: &str) {
        assert_eq!(self.call(method, params).await, "\"result\":true", "{method} {params}");
    }
}
