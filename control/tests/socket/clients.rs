//! The real clients: packages of SPDK from the Python package index, unmodified. Where they cannot
//! be installed the tests say so, and test nothing.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use lsvd_control::Signal;
use lsvd_fixtures::spdk::{NEWEST, SpdkClient, WITH_IO_UNITS};

use crate::server::Server;

const NQN: &str = "nqn.2019-05.io.lsvd:cnode1";

/// Says that the current test does not test what it is for. `cargo xtask` collects these lines.
fn skip(why: &str) {
    let line = format!("SKIPPED the clients of SPDK: {why}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("LSVD_SKIPPED") {
        let file = File::options().append(true).create(true).open(path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.expect("the list of skipped tests is writable");
    }
}

/// A client of a server.
struct Client(SpdkClient);

impl Client {
    /// Runs a command line with a text on standard input. Returns the exit code, and what was
    /// printed.
    async fn run_with(&self, words: &str, input: String) -> (Option<i32>, String) {
        let mut command = self.0.command(&words.split_whitespace().collect::<Vec<_>>());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let run = move || {
            let mut child = command.spawn().expect("the client starts");
            let mut stdin = child.stdin.take().expect("it is piped");
            stdin.write_all(input.as_bytes()).expect("the client takes its input");
            drop(stdin);
            child.wait_with_output().expect("the client ends")
        };
        let output = tokio::task::spawn_blocking(run).await.expect("no panic");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout) + &text(output.stderr))
    }

    async fn run(&self, words: &str) -> (Option<i32>, String) {
        self.run_with(words, String::new()).await
    }

    /// Runs a command that must succeed and print exactly this.
    async fn expect(&self, words: &str, printed: &str) {
        assert_eq!(self.run(words).await, (Some(0), printed.to_owned()), "{words}");
    }

    /// Runs a command that must print an error of the server.
    async fn expect_error(&self, words: &str, message: &str) {
        let (code, printed) = self.run(words).await;
        assert_eq!(code, Some(1), "{words}: {printed}");
        assert!(printed.contains("Got JSON-RPC error response"), "{words}: {printed}");
        assert!(printed.contains(message), "{words}: {printed}");
    }
}

/// A server for a version of the client; none, said aloud, if the client cannot be installed.
async fn server_for(version: &'static str) -> Option<(Server, Client)> {
    let server = Server::start().await;
    let socket = server.path.clone();
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let install = move || SpdkClient::install(version, place, socket);
    match tokio::task::spawn_blocking(install).await.expect("no panic") {
        Ok(client) => Some((server, Client(client))),
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

/// The session of the original's documentation, and what users do next.
async fn documented_session(server: &Server, client: &Client, transport: &str) {
    client.expect(transport, "").await;
    let subsystem = format!("nvmf_create_subsystem {NQN} -a -s SPDK00000000000001 -d LSVD");
    client.expect(&subsystem, "").await;
    let listener = format!("nvmf_subsystem_add_listener {NQN} -t tcp -a 127.0.0.1 -s 9922");
    client.expect(&listener, "").await;
    let create =
        "bdev_lsvd_create mypool myimg -c {\"rcache_dir\":\"/lsvd\",\"wlog_dir\":\"/lsvd\"}";
    client.expect(create, "true\n").await;
    client.expect_error(create, "File exists").await;
    client.expect("bdev_lsvd_create mypool other", "true\n").await;
    client.expect(&format!("nvmf_subsystem_add_ns {NQN} myimg"), "").await;
    client.expect_error(&format!("nvmf_subsystem_add_ns {NQN} nosuch"), "Invalid parameters").await;

    let (_, bdevs) = client.run("bdev_get_bdevs -b myimg").await;
    assert!(bdevs.contains("\"claimed\": true"), "{bdevs}");
    assert!(bdevs.contains("\"wlog_dir\": \"/lsvd\""), "{bdevs}");
    let (code, subsystems) = client.run("nvmf_get_subsystems").await;
    assert_eq!(code, Some(0), "{subsystems}");
    assert!(subsystems.contains("\"trsvcid\": \"9922\""), "{subsystems}");
    for words in ["bdev_get_iostat --names myimg", "nvmf_get_stats", "nvmf_get_transports"] {
        assert_eq!(client.run(words).await.0, Some(0), "{words}");
    }
    client.expect("framework_wait_init", "").await;
    save_and_load(client).await;

    client.expect("bdev_lsvd_delete myimg", "true\n").await;
    client.expect_error("bdev_lsvd_delete myimg", "No such device").await;
    client.expect("spdk_kill_instance SIGTERM", "").await;
    assert_eq!(server.gateway.signals(), [Signal::Terminate]);
}

/// What `save_config` prints brings a second server into the same state.
async fn save_and_load(client: &Client) {
    let (code, saved) = client.run("save_config").await;
    assert_eq!(code, Some(0), "{saved}");
    let second = Server::start().await;
    let other = Client(client.0.with_socket(second.path.clone()));
    let loaded = other.run_with("load_config", saved.clone()).await;
    assert_eq!(loaded, (Some(0), String::new()));
    assert_eq!(other.run("save_config").await, (Some(0), saved));
    for words in ["nvmf_get_subsystems", "bdev_get_bdevs"] {
        assert_eq!(other.run(words).await, client.run(words).await, "{words}");
    }
}

#[tokio::test]
async fn documented_session_works_with_the_newest_client() {
    let Some((server, client)) = server_for(NEWEST).await else { return };
    documented_session(&server, &client, "nvmf_create_transport -t TCP -m 8 -c 8192").await;
}

#[tokio::test]
async fn documented_session_works_to_the_letter_with_an_older_client() {
    let Some((server, client)) = server_for(WITH_IO_UNITS).await else { return };
    let transport = "nvmf_create_transport -t TCP -u 16384 -m 8 -c 8192";
    documented_session(&server, &client, transport).await;
}

#[tokio::test]
async fn script_and_batch_go_over_one_connection() {
    let Some((server, client)) = server_for(NEWEST).await else { return };
    let script = "# two commands\nbdev_lsvd_create p a\nbdev_lsvd_create p b\n";
    let printed = (Some(0), "true\ntrue\n".to_owned());
    assert_eq!(client.run_with("", script.to_owned()).await, printed);
    let batch = script.replace(" a\n", " c\n");
    let (code, printed) = client.run_with("-b", batch).await;
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("true\n") && printed.contains("File exists"), "{printed}");
    assert_eq!(server.call("bdev_lsvd_delete", "{\"image_name\":\"c\"}").await, "\"result\":true");
}
