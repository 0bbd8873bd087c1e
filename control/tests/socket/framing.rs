//! What comes back for input of every shape, as measured on SPDK's own server.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::server::Server;

const OK: &str = "\"result\":[]}\n";
const INVALID: &str = "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,\"message\":\"Invalid request\"}}\n";

fn ok(id: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{OK}")
}

#[tokio::test]
async fn ids_come_back_byte_for_byte() {
    let server = Server::start().await;
    for id in ["1", "-1", "1.50", "18446744073709551615", "1e3", "\"a \\u00e9 b\""] {
        let request = format!("{{\"method\":\"bdev_get_bdevs\",\"id\":{id}}}");
        assert_eq!(server.exchange(request.as_bytes()).await, ok(id));
    }
    let long = format!("\"{}\"", "x".repeat(126));
    let request = |id: &str| format!("{{\"method\":\"bdev_get_bdevs\",\"id\":{id}}}");
    assert_eq!(server.exchange(request(&long).as_bytes()).await, ok(&long));
    let longer = format!("\"{}\"", "x".repeat(127));
    assert_eq!(server.exchange(request(&longer).as_bytes()).await, INVALID);
}

#[tokio::test]
async fn requests_without_an_id_are_carried_out_in_silence() {
    let server = Server::start().await;
    let create = "{\"method\":\"nvmf_create_transport\",\"params\":{\"trtype\":\"tcp\"}}";
    assert_eq!(server.exchange(create.as_bytes()).await, "");
    let again = create.replace("{\"method", "{\"id\":null,\"method");
    assert_eq!(server.exchange(again.as_bytes()).await, "");
    assert!(server.call("nvmf_get_transports", "").await.contains("\"trtype\":\"TCP\""));
}

#[tokio::test]
async fn requests_that_are_none_get_a_null_id() {
    let server = Server::start().await;
    for request in [
        r#"{"method":"bdev_get_bdevs","id":true}"#,
        r#"{"method":"bdev_get_bdevs","id":{}}"#,
        r#"{"method":"bdev_get_bdevs","id":[1]}"#,
        r#"{"jsonrpc":"1.0","method":"bdev_get_bdevs","id":1}"#,
        r#"{"jsonrpc":null,"method":"bdev_get_bdevs","id":1}"#,
        r#"{"method":"bdev_get_bdevs","id":1,"extra":1}"#,
        r#"{"method":"bdev_get_bdevs","id":1,"id":2}"#,
        r#"{"id":1}"#,
        r#"{"method":7,"id":1}"#,
        "12",
        "\"text\"",
        "[]",
    ] {
        assert_eq!(server.exchange(request.as_bytes()).await, INVALID, "{request}");
    }
}

#[tokio::test]
async fn parameters_are_an_object_or_an_array_or_nothing() {
    let server = Server::start().await;
    let call =
        |params: &str| format!("{{\"method\":\"bdev_get_bdevs\",\"id\":7,\"params\":{params}}}");
    let invalid = INVALID.replace("null", "7");
    for params in ["\"x\"", "1", "true"] {
        assert_eq!(server.exchange(call(params).as_bytes()).await, invalid);
    }
    assert_eq!(server.exchange(call("null").as_bytes()).await, ok("7"));
    assert_eq!(server.exchange(call("{}").as_bytes()).await, ok("7"));
    for params in ["{}", "[]"] {
        assert_eq!(
            server.call("spdk_get_version", params).await,
            "\"error\":{\"code\":-32602,\"message\":\"spdk_get_version method requires no \
             parameters\"}"
        );
    }
}

#[tokio::test]
async fn batch_is_answered_in_one_array() {
    let server = Server::start().await;
    let one = "{\"method\":\"bdev_get_bdevs\",\"id\":1}";
    let silent = "{\"method\":\"bdev_get_bdevs\"}";
    let unknown = "{\"method\":\"no_such\",\"id\":2}";
    let answer = server.exchange(format!("[{silent},{one},{unknown},{silent}]").as_bytes()).await;
    let not_found = "{\"jsonrpc\":\"2.0\",\"id\":2,\"error\":{\"code\":-32601,\"message\":\"Method not found\"}}";
    assert_eq!(answer, format!("[{},{not_found}]\n", ok("1").trim_end()));
    assert_eq!(server.exchange(format!("[{silent}]").as_bytes()).await, "");
    let invalid = INVALID.trim_end();
    assert_eq!(server.exchange(b"[1,2]").await, format!("[{invalid},{invalid}]\n"));
    assert_eq!(server.exchange(b"[[]]").await, format!("[{invalid}]\n"));
}

#[tokio::test]
async fn what_is_not_json_ends_the_connection_without_an_answer() {
    let server = Server::start().await;
    let one = b"{\"method\":\"bdev_get_bdevs\",\"id\":1}";
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"{\"method\" 1}",
        b"// comment\n",
        b"\x00",
        b"{\"method\":\"\xff\",\"id\":1}",
    ] {
        let mut socket = server.connect().await;
        let mut bytes = one.to_vec();
        bytes.extend_from_slice(garbage);
        bytes.extend_from_slice(one);
        socket.write_all(&bytes).await.unwrap();
        // The sending half stays open: it is the server that ends this.
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        assert_eq!(String::from_utf8(answer).unwrap(), ok("1"));
    }
}

#[tokio::test]
async fn request_that_is_too_long_ends_the_connection() {
    let server = Server::start().await;
    let head = "{\"method\":\"bdev_get_bdevs\",\"id\":1,\"params\":{\"name\":\"";
    let request = |len: usize| format!("{head}{}\"}}}}", "x".repeat(len - head.len() - 3));
    let answer = server.exchange(request(256 << 10).as_bytes()).await;
    assert!(answer.contains("No such device"), "{answer:.100}");
    assert_eq!(server.exchange(request((256 << 10) + 1).as_bytes()).await, "");
}

#[tokio::test]
async fn stream_gives_the_same_answers_wherever_it_is_cut() {
    let server = Server::start().await;
    let stream =
        b"{\"method\":\"bdev_get_bdevs\",\n \"id\":1}{\"method\":\"no\",\"id\":\"\\\"}\"}\n12 ";
    let whole = server.exchange(stream).await;
    assert_eq!(whole.lines().count(), 3);
    for cut in 0..=stream.len() {
        let mut socket = server.connect().await;
        socket.write_all(&stream[..cut]).await.unwrap();
        tokio::task::yield_now().await;
        socket.write_all(&stream[cut..]).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, whole, "cut at {cut}");
    }
}

#[tokio::test]
async fn answer_needs_neither_a_newline_nor_the_end_of_the_stream() {
    let server = Server::start().await;
    let mut socket = server.connect().await;
    for id in 1..4 {
        let request = format!("{{\"method\":\"bdev_get_bdevs\",\"id\":{id}}}");
        socket.write_all(request.as_bytes()).await.unwrap();
        let expected = ok(&id.to_string());
        let mut answer = vec![0; expected.len()];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), expected);
    }
}

#[tokio::test]
async fn client_beyond_the_limit_waits_for_a_place() {
    let server = Server::start().await;
    let one = b"{\"method\":\"bdev_get_bdevs\",\"id\":1}";
    let mut idle = Vec::new();
    for _ in 0..64 {
        let mut socket = server.connect().await;
        socket.write_all(one).await.unwrap();
        socket.read_exact(&mut vec![0; ok("1").len()]).await.unwrap();
        idle.push(socket);
    }
    let mut waiting = server.connect().await;
    waiting.write_all(one).await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(waiting.try_read(&mut [0; 1]).is_err());
    drop(idle.pop());
    waiting.read_exact(&mut vec![0; ok("1").len()]).await.unwrap();
}

#[tokio::test]
async fn stopped_server_closes_idle_connections_and_removes_its_files() {
    let server = Server::start().await;
    let mut socket = server.connect().await;
    socket.write_all(b"{\"method\":\"bdev_get_bdevs\",\"id\":1}").await.unwrap();
    socket.read_exact(&mut vec![0; ok("1").len()]).await.unwrap();
    server.stop.send_replace(true);
    assert_eq!(socket.read(&mut [0; 1]).await.unwrap(), 0);
    server.served.await.unwrap();
    assert!(!server.path.exists());
}
