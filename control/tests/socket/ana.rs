//! How good the paths through a listener are: asked for, set, and told.

use crate::server::Server;

const INVALID: &str = "\"error\":{\"code\":-32602,\"message\":\"Invalid parameters\"}";
const SET: &str = "nvmf_subsystem_listener_set_ana_state";
const ADD: &str = "nvmf_subsystem_add_listener";

/// Parameters that name a subsystem, a port of loopback, and more.
fn at(nqn: &str, port: u16, more: &str) -> String {
    format!(
        "{{\"nqn\":\"{nqn}\",\"listen_address\":{{\"trtype\":\"TCP\",\
         \"traddr\":\"127.0.0.1\",\"trsvcid\":\"{port}\"}}{more}}}"
    )
}

fn state(name: &str) -> String {
    format!(",\"ana_state\":\"{name}\"")
}

/// One subsystem that reports ANA, one that does not, each with a listener and a volume.
async fn set_up() -> Server {
    let server = Server::start().await;
    server.call_true("nvmf_create_transport", "{\"trtype\":\"TCP\"}").await;
    for (nqn, port, reports) in [("nqn.ana", 4420, true), ("nqn.plain", 4430, false)] {
        let new = format!("{{\"nqn\":\"{nqn}\",\"ana_reporting\":{reports}}}");
        server.call_true("nvmf_create_subsystem", &new).await;
        server.call_true(ADD, &at(nqn, port, "")).await;
        let image = format!("{{\"image_name\":\"{nqn}\",\"pool_name\":\"p\"}}");
        server.call_true("bdev_lsvd_create", &image).await;
        let namespace = format!("{{\"nqn\":\"{nqn}\",\"namespace\":{{\"bdev_name\":\"{nqn}\"}}}}");
        assert_eq!(server.call("nvmf_subsystem_add_ns", &namespace).await, "\"result\":1");
    }
    server
}

/// The states of the listeners of `nqn.ana`, in their order.
async fn states(server: &Server) -> Vec<String> {
    let answer = server.call("nvmf_subsystem_get_listeners", "{\"nqn\":\"nqn.ana\"}").await;
    let answer: serde_json::Value =
        serde_json::from_str(answer.strip_prefix("\"result\":").expect("a result")).expect("JSON");
    let of = |listener: &serde_json::Value| {
        assert_eq!(listener["ana_states"].as_array().expect("a list").len(), 1, "{listener}");
        assert_eq!(listener["ana_states"][0]["ana_group"], 1, "{listener}");
        listener["ana_states"][0]["ana_state"].as_str().expect("a name").to_owned()
    };
    answer.as_array().expect("a list").iter().map(of).collect()
}

#[tokio::test]
async fn state_of_a_listener_is_set_for_all_groups_and_for_the_only_one() {
    let server = set_up().await;
    server.call_true(ADD, &at("nqn.ana", 4421, &state("non_optimized"))).await;
    assert_eq!(states(&server).await, ["optimized", "non_optimized"]);
    for (group, name) in [
        ("", "inaccessible"),
        (",\"anagrpid\":0", "optimized"),
        (",\"anagrpid\":1", "non_optimized"),
        (",\"tgt_name\":\"nvmf_tgt\"", "inaccessible"),
    ] {
        server.call_true(SET, &at("nqn.ana", 4420, &format!("{}{group}", state(name)))).await;
        assert_eq!(states(&server).await, [name, "non_optimized"]);
    }
    server.call_true(SET, &at("nqn.ana", 4420, &state("Optimized"))).await;
    assert_eq!(states(&server).await, ["optimized", "non_optimized"]);
}

#[tokio::test]
async fn state_that_cannot_be_set_is_refused_with_the_reason() {
    let server = set_up().await;
    let inaccessible = |more: &str| format!("{}{more}", state("inaccessible"));
    let why = |text: &str| {
        format!("\"error\":{{\"code\":-32603,\"message\":\"error setting ANA state: {text}\"}}")
    };
    for (params, reason) in [
        (
            at("nqn.ana", 4420, &inaccessible(",\"anagrpid\":2")),
            "there is no ANA group 2; all namespaces are in group 1",
        ),
        (
            at("nqn.ana", 4421, &inaccessible("")),
            "subsystem nqn.ana has no listener at 127.0.0.1:4421",
        ),
        (
            at("nqn.plain", 4430, &inaccessible("")),
            "subsystem nqn.plain was created without ana_reporting",
        ),
    ] {
        assert_eq!(server.call(SET, &params).await, why(reason), "{params}");
    }
    let none =
        "\"error\":{\"code\":-32602,\"message\":\"Subsystem with NQN 'nqn.none' not found\"}";
    assert_eq!(server.call(SET, &at("nqn.none", 4420, &inaccessible(""))).await, none);
    let elsewhere = "\"error\":{\"code\":-32603,\"message\":\"Unable to find a target.\"}";
    let other = at("nqn.ana", 4420, &inaccessible(",\"tgt_name\":\"x\""));
    assert_eq!(server.call(SET, &other).await, elsewhere);
    for params in [
        at("nqn.ana", 4420, ""),
        at("nqn.ana", 4420, &state("change")),
        at("nqn.ana", 4420, ",\"ana_state\":1"),
        at("nqn.ana", 4420, &inaccessible(",\"anagrpid\":-1")),
        at("nqn.ana", 4420, &inaccessible(",\"ana_group\":1")),
        at("nqn.ana", 4420, &inaccessible("")).replace("TCP", "RDMA"),
        format!("{{\"nqn\":\"nqn.ana\"{}}}", state("inaccessible")),
        String::from("{}"),
    ] {
        assert_eq!(server.call(SET, &params).await, INVALID, "{params}");
    }
    assert_eq!(states(&server).await, ["optimized"], "nothing was set");
}

#[tokio::test]
async fn listener_with_a_state_that_no_host_is_told_is_refused() {
    let server = set_up().await;
    server.call_true(ADD, &at("nqn.plain", 4431, &state("optimized"))).await;
    for params in [
        at("nqn.plain", 4432, &state("inaccessible")),
        at("nqn.ana", 4421, &state("persistent_loss")),
    ] {
        assert_eq!(server.call(ADD, &params).await, INVALID, "{params}");
    }
}

#[tokio::test]
async fn only_a_subsystem_that_reports_ana_says_so() {
    let server = set_up().await;
    let list = async |method: &str, nqn: &str| {
        server.call(method, &format!("{{\"nqn\":\"{nqn}\"}}")).await
    };
    let told = list("nvmf_get_subsystems", "nqn.ana").await;
    assert!(told.ends_with(",\"anagrpid\":1}]}]"), "{told}");
    let told = list("nvmf_subsystem_get_listeners", "nqn.ana").await;
    let state = ",\"ana_states\":[{\"ana_group\":1,\"ana_state\":\"optimized\"}]}]";
    assert!(told.ends_with(state), "{told}");
    for method in ["nvmf_get_subsystems", "nvmf_subsystem_get_listeners"] {
        let told = list(method, "nqn.plain").await;
        assert!(!told.contains("ana_states") && !told.contains("anagrpid"), "{told}");
    }
}
