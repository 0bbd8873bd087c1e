//! A configuration that is saved and loaded is the same one.

use lsvd_control::saved_calls;
use serde_json::{Value, json};

use crate::fake::Fake;
use crate::server::Server;

async fn result(server: &Server, method: &str, params: &str) -> Value {
    let answer = server.call(method, params).await;
    let answer: Value = serde_json::from_str(&format!("{{{answer}}}")).expect("an answer");
    answer["result"].clone()
}

/// As the client does it.
async fn save(server: &Server) -> String {
    let mut parts = Vec::new();
    for part in result(server, "framework_get_subsystems", "").await.as_array().expect("a list") {
        let name = &part["subsystem"];
        let params = json!({"name": name, "with_batches": false}).to_string();
        let config = result(server, "framework_get_config", &params).await;
        parts.push(json!({"subsystem": name, "config": config}));
    }
    json!({ "subsystems": parts }).to_string()
}

async fn set_up(server: &Server) {
    let nqn = "\"nqn\":\"nqn.2019-05.io.lsvd:cnode1\"";
    let discovery = format!("\"nqn\":\"{}\"", crate::fake::DISCOVERY);
    let address = |port| {
        format!(
            "\"listen_address\":{{\"trtype\":\"tcp\",\"traddr\":\"127.0.0.1\",\
             \"trsvcid\":\"{port}\"}}"
        )
    };
    let volume = |name, config| {
        format!("{{\"image_name\":\"{name}\",\"pool_name\":\"p\",\"config\":\"{config}\"}}")
    };
    let set = "{\\\"wlog_dir\\\":\\\"/lsvd\\\",\\\"batch_size\\\":\\\"4m\\\"}";
    for (method, params) in [
        ("nvmf_create_transport", "{\"trtype\":\"TCP\",\"max_io_qpairs_per_ctrlr\":8}".to_owned()),
        ("bdev_lsvd_create", volume("a", set)),
        ("bdev_lsvd_create", volume("b", "")),
        (
            "nvmf_create_subsystem",
            format!(
                "{{{nqn},\"serial_number\":\"S\",\"max_namespaces\":4,\"ana_reporting\":true}}"
            ),
        ),
        ("nvmf_subsystem_add_host", format!("{{{nqn},\"host\":\"nqn.host\"}}")),
        ("nvmf_subsystem_add_listener", format!("{{{nqn},{}}}", address(4420))),
        ("nvmf_subsystem_add_listener", format!("{{{nqn},{}}}", address(4421))),
        (
            "nvmf_subsystem_listener_set_ana_state",
            format!("{{{nqn},{},\"ana_state\":\"inaccessible\"}}", address(4421)),
        ),
        ("nvmf_subsystem_add_listener", format!("{{{discovery},{}}}", address(8009))),
    ] {
        server.call_true(method, &params).await;
    }
    let namespace = format!(
        "{{{nqn},\"namespace\":{{\"bdev_name\":\"b\",\"nsid\":7,\"eui64\":\"0011223344556677\"}}}}"
    );
    assert_eq!(server.call("nvmf_subsystem_add_ns", &namespace).await, "\"result\":7");
}

#[tokio::test]
async fn saved_configuration_restores_everything() {
    let first = Server::start().await;
    set_up(&first).await;
    let saved = save(&first).await;
    let calls = saved_calls(&saved).unwrap();
    let methods: Vec<&str> = calls.iter().map(|call| call.method.as_str()).collect();
    assert_eq!(
        methods,
        [
            "bdev_lsvd_create",
            "bdev_lsvd_create",
            "nvmf_create_transport",
            "nvmf_create_subsystem",
            "nvmf_subsystem_add_host",
            "nvmf_subsystem_add_ns",
            "nvmf_subsystem_add_listener",
            "nvmf_subsystem_add_listener",
            "nvmf_subsystem_add_listener",
        ]
    );
    assert_eq!(saved.matches("ana_state").count(), 1, "the best one is not worth a word: {saved}");

    let second = Server::start().await;
    for call in &calls {
        call.run(&*second.gateway).await.unwrap();
    }
    assert_eq!(save(&second).await, saved);
    for method in ["nvmf_get_subsystems", "nvmf_get_transports", "bdev_get_bdevs"] {
        assert_eq!(second.call(method, "").await, first.call(method, "").await);
    }
    let of = "{\"nqn\":\"nqn.2019-05.io.lsvd:cnode1\"}";
    let listeners = second.call("nvmf_subsystem_get_listeners", of).await;
    assert_eq!(listeners, first.call("nvmf_subsystem_get_listeners", of).await);
    assert_eq!(listeners.matches("inaccessible").count(), 1, "{listeners}");
}

#[tokio::test]
async fn call_of_a_saved_configuration_that_fails_says_why() {
    let text = r#"{"subsystems":[{"subsystem":"bdev","config":[{"method":"bdev_lsvd_create",
        "params":{"image_name":"missing","pool_name":"p"}}]}]}"#;
    let error = saved_calls(text).unwrap()[0].run(&Fake::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "Failed to create lsvd bdev: no such image (code -32603)");
}
