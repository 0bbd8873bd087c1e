//! Answers of every method, letter by letter as SPDK gives them where it has the method, too.

use std::sync::atomic::Ordering;

use lsvd_control::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::server::Server;

const NQN: &str = "nqn.2016-06.io.spdk:cnode1";
const INVALID: &str = "\"error\":{\"code\":-32602,\"message\":\"Invalid parameters\"}";
const NOT_DECODED: &str =
    "\"error\":{\"code\":-32603,\"message\":\"spdk_json_decode_object failed\"}";
const NO_DEVICE: &str = "\"error\":{\"code\":-19,\"message\":\"No such device\"}";

fn error(code: i32, message: &str) -> String {
    format!("\"error\":{{\"code\":{code},\"message\":{}}}", serde_json::json!(message))
}

fn listener(nqn: &str, trtype: &str) -> String {
    format!(
        "{{\"nqn\":\"{nqn}\",\"secure_channel\":false,\"listen_address\":{{\"trtype\":\"{trtype}\",\
         \"traddr\":\"127.0.0.1\",\"trsvcid\":\"9922\"}}}}"
    )
}

fn namespace(bdev: &str) -> String {
    format!(
        "{{\"nqn\":\"{NQN}\",\"namespace\":{{\"bdev_name\":\"{bdev}\",\"no_auto_visible\":false}}}}"
    )
}

/// A transport, a volume `img`, and a subsystem without anything.
async fn set_up() -> Server {
    let server = Server::start().await;
    server
        .call_true(
            "nvmf_create_transport",
            "{\"trtype\":\"TCP\",\"in_capsule_data_size\":8192,\"max_io_qpairs_per_ctrlr\":8}",
        )
        .await;
    server
        .call_true(
            "bdev_lsvd_create",
            "{\"image_name\":\"img\",\"pool_name\":\"p\",\"config\":\"\"}",
        )
        .await;
    let subsystem = format!(
        "{{\"nqn\":\"{NQN}\",\"serial_number\":\"SPDK00000000000001\",\"model_number\":\
         \"SPDK_Controller1\",\"allow_any_host\":true,\"ana_reporting\":false,\
         \"passthrough\":false,\"enable_nssr\":false}}"
    );
    server.call_true("nvmf_create_subsystem", &subsystem).await;
    server
}

#[tokio::test]
async fn transports_are_created_once_and_listed() {
    let server = Server::start().await;
    assert_eq!(server.call("nvmf_get_transports", "").await, "\"result\":[]");
    let tcp = "{\"trtype\":\"TCP\",\"max_io_qpairs_per_ctrlr\":8,\"in_capsule_data_size\":8192,\
               \"io_unit_size\":16384,\"no_srq\":false,\"zcopy\":false}";
    server.call_true("nvmf_create_transport", tcp).await;
    let again = error(-32603, "Transport type 'TCP' already exists");
    assert_eq!(server.call("nvmf_create_transport", tcp).await, again);
    let bogus = error(-32602, "Invalid transport type 'bogus'");
    assert_eq!(server.call("nvmf_create_transport", "{\"trtype\":\"bogus\"}").await, bogus);
    assert_eq!(server.call("nvmf_create_transport", "").await, INVALID);
    assert_eq!(server.call("nvmf_create_transport", "[\"TCP\"]").await, INVALID);
    let listed = "\"result\":[{\"trtype\":\"TCP\",\"max_queue_depth\":128,\
        \"max_io_qpairs_per_ctrlr\":8,\"in_capsule_data_size\":8192,\"max_io_size\":131072,\
        \"max_aq_depth\":128,\"iobuf_small_cache_size\":4294967295,\
        \"iobuf_large_cache_size\":4294967295,\"dif_insert_or_strip\":false,\"zcopy\":false,\
        \"c2h_success\":true,\"sock_priority\":0,\"abort_timeout_sec\":1,\"ack_timeout\":0,\
        \"data_wr_pool_size\":0,\"disable_command_passthru\":false,\"kas\":100,\"min_kato\":10000}]";
    assert_eq!(server.call("nvmf_get_transports", "").await, listed);
    assert_eq!(server.call("nvmf_get_transports", "{\"trtype\":\"tcp\"}").await, listed);
    assert_eq!(server.call("nvmf_get_transports", "{\"trtype\":\"RDMA\"}").await, NO_DEVICE);
    let elsewhere = error(-32603, "Unable to find a target.");
    assert_eq!(server.call("nvmf_get_transports", "{\"tgt_name\":\"x\"}").await, elsewhere);
    assert_eq!(server.call("nvmf_get_transports", "{\"tgt_name\":\"nvmf_tgt\"}").await, listed);
}

#[tokio::test]
async fn subsystem_is_listed_as_it_was_made() {
    let server = set_up().await;
    server.call_true("nvmf_subsystem_add_listener", &listener(NQN, "tcp")).await;
    assert_eq!(server.call("nvmf_subsystem_add_ns", &namespace("img")).await, "\"result\":1");
    let discovery = "{\"nqn\":\"nqn.2014-08.org.nvmexpress.discovery\",\"subtype\":\"Discovery\",\
        \"listen_addresses\":[],\"allow_any_host\":true,\"hosts\":[]}";
    let made = "{\"nqn\":\"nqn.2016-06.io.spdk:cnode1\",\"subtype\":\"NVMe\",\
        \"listen_addresses\":[{\"trtype\":\"TCP\",\"adrfam\":\"IPv4\",\"traddr\":\"127.0.0.1\",\
        \"trsvcid\":\"9922\"}],\"allow_any_host\":true,\"hosts\":[],\
        \"serial_number\":\"SPDK00000000000001\",\"model_number\":\"SPDK_Controller1\",\
        \"max_namespaces\":32,\"passthrough\":false,\"min_cntlid\":1,\"max_cntlid\":65519,\
        \"dmrsl\":2097152,\"wzsl\":12,\"namespaces\":[{\"nsid\":1,\"bdev_name\":\"img\",\
        \"name\":\"img\",\"nguid\":\"696D6711111111111111111111111111\",\
        \"uuid\":\"696d6711-1111-1111-1111-111111111111\"}]}";
    let all = format!("\"result\":[{discovery},{made}]");
    assert_eq!(server.call("nvmf_get_subsystems", "").await, all);
    let one = server.call("nvmf_get_subsystems", &format!("{{\"nqn\":\"{NQN}\"}}")).await;
    assert_eq!(one, format!("\"result\":[{made}]"));
    let none = error(-32602, "Subsystem with NQN 'nqn.none' not found");
    assert_eq!(server.call("nvmf_get_subsystems", "{\"nqn\":\"nqn.none\"}").await, none);
}

#[tokio::test]
async fn subsystems_come_and_go() {
    let server = set_up().await;
    let unable = |nqn: &str| error(-32603, &format!("Unable to create subsystem {nqn}"));
    let again = format!("{{\"nqn\":\"{NQN}\"}}");
    assert_eq!(server.call("nvmf_create_subsystem", &again).await, unable(NQN));
    let malformed = "{\"nqn\":\"not-an-nqn\"}";
    assert_eq!(server.call("nvmf_create_subsystem", malformed).await, unable("not-an-nqn"));
    for params in [
        "{\"nqn\":\"nqn.a\",\"serail_number\":\"S\"}",
        "{\"nqn\":\"nqn.a\",\"nqn\":\"nqn.b\"}",
        "{\"nqn\":7}",
        "{}",
        "{\"nqn\":\"nqn.a\",\"passthrough\":true}",
    ] {
        assert_eq!(server.call("nvmf_create_subsystem", params).await, INVALID, "{params}");
    }
    server.call_true("nvmf_delete_subsystem", &again).await;
    let none = error(-32602, &format!("Subsystem with NQN '{NQN}' not found"));
    assert_eq!(server.call("nvmf_delete_subsystem", &again).await, none);
}

#[tokio::test]
async fn listeners_come_and_go() {
    let server = set_up().await;
    let add = "nvmf_subsystem_add_listener";
    server.call_true(add, &listener(NQN, "tcp")).await;
    assert_eq!(server.call(add, &listener(NQN, "TCP")).await, INVALID);
    assert_eq!(server.call(add, &listener(NQN, "rdma")).await, INVALID);
    let secure = listener(NQN, "tcp").replace("false", "true").replace("9922", "9923");
    assert_eq!(server.call(add, &secure).await, INVALID);
    let none = error(-32602, "Subsystem with NQN 'nqn.none' not found");
    assert_eq!(server.call(add, &listener("nqn.none", "tcp")).await, none);
    assert_eq!(server.call(add, &listener("nqn.none", "rdma")).await, none);
    let of = format!("{{\"nqn\":\"{NQN}\"}}");
    assert_eq!(
        server.call("nvmf_subsystem_get_listeners", &of).await,
        "\"result\":[{\"address\":{\"trtype\":\"TCP\",\"adrfam\":\"IPv4\",\
         \"traddr\":\"127.0.0.1\",\"trsvcid\":\"9922\"}}]"
    );
    let remove = listener(NQN, "tcp").replace("\"secure_channel\":false,", "");
    server.call_true("nvmf_subsystem_remove_listener", &remove).await;
    assert_eq!(server.call("nvmf_subsystem_remove_listener", &remove).await, INVALID);
    assert_eq!(server.call("nvmf_subsystem_get_listeners", &of).await, "\"result\":[]");
}

#[tokio::test]
async fn namespaces_come_and_go() {
    let server = set_up().await;
    let add = "nvmf_subsystem_add_ns";
    assert_eq!(server.call(add, &namespace("img")).await, "\"result\":1");
    assert_eq!(server.call(add, &namespace("img")).await, INVALID);
    assert_eq!(server.call(add, &namespace("nosuch")).await, INVALID);
    let hidden = namespace("img").replace("false", "true");
    assert_eq!(server.call(add, &hidden).await, INVALID);
    let remove = format!("{{\"nqn\":\"{NQN}\",\"nsid\":1}}");
    server.call_true("nvmf_subsystem_remove_ns", &remove).await;
    assert_eq!(server.call("nvmf_subsystem_remove_ns", &remove).await, INVALID);
}

#[tokio::test]
async fn hosts_come_and_go() {
    let server = set_up().await;
    let host = format!("{{\"nqn\":\"{NQN}\",\"host\":\"nqn.host\"}}");
    server.call_true("nvmf_subsystem_add_host", &host).await;
    let keyed = host.replace("}", ",\"psk\":\"key0\"}");
    assert_eq!(server.call("nvmf_subsystem_add_host", &keyed).await, INVALID);
    let restrict = format!("{{\"nqn\":\"{NQN}\",\"allow_any_host\":false}}");
    server.call_true("nvmf_subsystem_allow_any_host", &restrict).await;
    let listed = server.call("nvmf_get_subsystems", &format!("{{\"nqn\":\"{NQN}\"}}")).await;
    assert!(listed.contains("\"allow_any_host\":false,\"hosts\":[{\"nqn\":\"nqn.host\"}]"));
    server.call_true("nvmf_subsystem_remove_host", &host).await;
    assert_eq!(server.call("nvmf_subsystem_remove_host", &host).await, INVALID);
}

#[tokio::test]
async fn controllers_queue_pairs_and_statistics_are_shown() {
    let server = set_up().await;
    let of = format!("{{\"nqn\":\"{NQN}\"}}");
    assert_eq!(
        server.call("nvmf_subsystem_get_controllers", &of).await,
        "\"result\":[{\"cntlid\":35,\"cntrltype\":\"io\",\"hostnqn\":\"\",\
         \"hostid\":\"29ebb40b-db9f-4a5e-9359-e56a0ebe25ce\",\"num_io_qpairs\":2}]"
    );
    assert_eq!(
        server.call("nvmf_subsystem_get_qpairs", &of).await,
        "\"result\":[{\"cntlid\":35,\"qid\":1,\"state\":\"enabled\",\"thread\":\"worker-0\",\
         \"hostnqn\":\"nqn.host\",\"listen_address\":{\"trtype\":\"TCP\",\"adrfam\":\"IPv4\",\
         \"traddr\":\"127.0.0.1\",\"trsvcid\":\"9922\"},\"peer_address\":{\"trtype\":\"TCP\",\
         \"adrfam\":\"IPv4\",\"traddr\":\"127.0.0.1\",\"trsvcid\":\"40000\"}}]"
    );
    assert_eq!(
        server.call("nvmf_get_stats", "").await,
        "\"result\":{\"tick_rate\":1000000000,\"poll_groups\":[{\
         \"name\":\"nvmf_tgt_poll_group_000\",\"admin_qpairs\":69,\"io_qpairs\":69,\
         \"current_admin_qpairs\":0,\"current_io_qpairs\":0,\"current_unassociated_qpairs\":0,\
         \"pending_bdev_io\":0,\"completed_nvme_io\":199551706,\
         \"transports\":[{\"trtype\":\"TCP\"}]}]}"
    );
    let none = error(-32602, "Subsystem with NQN 'nqn.x' not found");
    for method in ["nvmf_subsystem_get_controllers", "nvmf_subsystem_get_qpairs"] {
        assert_eq!(server.call(method, "{\"nqn\":\"nqn.x\"}").await, none);
    }
}

#[tokio::test]
async fn volumes_are_listed_by_name_and_by_uuid() {
    let server = set_up().await;
    let listed = "\"result\":[{\"name\":\"img\",\"aliases\":[\"696d6711-1111-1111-1111-111111111111\"],\
        \"product_name\":\"LSVD volume\",\"block_size\":512,\"num_blocks\":131072,\
        \"preferred_write_alignment\":0,\"preferred_write_granularity\":0,\
        \"optimal_write_size\":0,\"preferred_unmap_alignment\":0,\
        \"preferred_unmap_granularity\":0,\"uuid\":\"696d6711-1111-1111-1111-111111111111\",\
        \"numa_id\":-1,\"assigned_rate_limits\":{\"rw_ios_per_sec\":0,\"rw_mbytes_per_sec\":0,\
        \"r_mbytes_per_sec\":0,\"w_mbytes_per_sec\":0},\"claimed\":false,\"zoned\":false,\
        \"supported_io_types\":{\"read\":true,\"write\":true,\"unmap\":true,\"flush\":true,\
        \"reset\":true,\"nvme_admin\":false,\"nvme_io\":false,\"nvme_io_md\":false,\
        \"write_zeroes\":true,\"zcopy\":false,\"get_zone_info\":false,\"zone_management\":false,\
        \"zone_append\":false,\"compare\":true,\"compare_and_write\":false,\"abort\":true,\
        \"seek_hole\":false,\"seek_data\":false,\"copy\":false,\"nvme_iov_md\":false,\
        \"nvme_nssr\":false,\"write_uncorrectable\":false},\"driver_specific\":{\"lsvd\":{\
        \"pool_name\":\"p\",\"image_name\":\"img\",\"config\":{}}}}]";
    assert_eq!(server.call("bdev_get_bdevs", "").await, listed);
    assert_eq!(server.call("bdev_get_bdevs", "{\"name\":\"img\"}").await, listed);
    let uuid = "{\"name\":\"696d6711-1111-1111-1111-111111111111\"}";
    assert_eq!(server.call("bdev_get_bdevs", uuid).await, listed);
    assert_eq!(server.call("bdev_get_bdevs", "{\"name\":\"nosuch\"}").await, NO_DEVICE);
    let brief = "{\"name\":\"nosuch\",\"timeout\":60}";
    assert_eq!(server.call("bdev_get_bdevs", brief).await, NO_DEVICE);
    for params in ["{\"nmae\":\"img\"}", "{\"name\":1}", "{\"name\":\"a\",\"name\":\"b\"}", "[]"] {
        assert_eq!(server.call("bdev_get_bdevs", params).await, NOT_DECODED, "{params}");
    }
    server.call("nvmf_subsystem_add_ns", &namespace("img")).await;
    let claimed = "\"claimed\":true,\"claim_type\":\"exclusive_write\",\"zoned\"";
    assert!(server.call("bdev_get_bdevs", "").await.contains(claimed));
}

#[tokio::test]
async fn counters_are_asked_for_in_both_dialects() {
    let server = set_up().await;
    let stat = "\"result\":{\"tick_rate\":1000000000,\"ticks\":7000000000,\"bdevs\":[{\
        \"name\":\"img\",\"bytes_read\":37376,\"num_read_ops\":3,\"bytes_written\":0,\
        \"num_write_ops\":0,\"bytes_unmapped\":0,\"num_unmap_ops\":0,\"bytes_copied\":0,\
        \"num_copy_ops\":0,\"read_latency_ticks\":30000,\"max_read_latency_ticks\":20000,\
        \"min_read_latency_ticks\":4000,\"write_latency_ticks\":0,\"max_write_latency_ticks\":0,\
        \"min_write_latency_ticks\":0,\"unmap_latency_ticks\":0,\"max_unmap_latency_ticks\":0,\
        \"min_unmap_latency_ticks\":0,\"copy_latency_ticks\":0,\"max_copy_latency_ticks\":0,\
        \"min_copy_latency_ticks\":0,\"io_error\":{}}]}";
    for params in [
        "",
        "{\"per_channel\":false}",
        "{\"name\":\"img\"}",
        "{\"per_channel\":false,\"names\":[\"img\"]}",
        "{\"reset_mode\":\"none\"}",
    ] {
        assert_eq!(server.call("bdev_get_iostat", params).await, stat, "{params}");
    }
    assert_eq!(server.call("bdev_get_iostat", "{\"names\":[\"x\"]}").await, NO_DEVICE);
    assert_eq!(server.call("bdev_get_iostat", "{\"name\":\"x\"}").await, NO_DEVICE);
    let unknown = server.call("bdev_get_iostat", "{\"reset_mode\":\"some\"}").await;
    assert_eq!(unknown, NOT_DECODED);
    assert_eq!(server.call("bdev_get_iostat", "{\"nmaes\":[]}").await, NOT_DECODED);
}

#[tokio::test]
async fn counters_begin_anew_when_they_are_reset_and_only_then() {
    let server = set_up().await;
    let reads = async |params: &str| -> u64 {
        let answer = server.call("bdev_get_iostat", params).await;
        let stat: serde_json::Value =
            serde_json::from_str(answer.strip_prefix("\"result\":").unwrap()).unwrap();
        stat["bdevs"][0]["num_read_ops"].as_u64().unwrap()
    };
    server.call_true("bdev_reset_iostat", "{\"name\":\"img\",\"mode\":\"maxmin\"}").await;
    server.call_true("bdev_reset_iostat", "{\"mode\":\"none\"}").await;
    assert_eq!(reads("{\"reset_mode\":\"all\"}").await, 3, "what was counted until then");
    assert_eq!(reads("").await, 0);
    server.call_true("bdev_reset_iostat", "").await;
    assert_eq!(server.call("bdev_reset_iostat", "{\"name\":\"x\"}").await, NO_DEVICE);
    assert_eq!(server.call("bdev_reset_iostat", "{\"mode\":\"some\"}").await, NOT_DECODED);
}

#[tokio::test]
async fn what_holds_anyway_may_be_asked_for_and_nothing_else() {
    let server = Server::start().await;
    server.call_true("framework_start_init", "").await;
    server.call_true("nvmf_set_max_subsystems", "{\"max_subsystems\":1024}").await;
    let too_many = server.call("nvmf_set_max_subsystems", "{\"max_subsystems\":1025}").await;
    assert_eq!(too_many, error(-32602, "There can be 1024 subsystems at most"));
    assert_eq!(server.call("nvmf_get_targets", "").await, "\"result\":[\"nvmf_tgt\"]");
    // As SPDK saves it.
    let saved = "{\"discovery_filters\":[],\"admin_cmd_passthru\":{\"identify_ctrlr\":false,\
                 \"sanitize\":false},\"dhchap_digests\":[\"sha256\"],\
                 \"dhchap_dhgroups\":[\"null\"],\"dup_host_policy\":\"allow\"}";
    server.call_true("nvmf_set_config", saved).await;
    for wrong in [
        "{\"discovery_filters\":[\"transport\"]}",
        "{\"discovery_filter\":\"address\"}",
        "{\"admin_cmd_passthru\":{\"identify_ctrlr\":true}}",
        "{\"dup_host_policy\":\"restrict_per_listener\"}",
        "{\"no_such_thing\":1}",
    ] {
        assert_eq!(server.call("nvmf_set_config", wrong).await, INVALID, "{wrong}");
    }
}

#[tokio::test]
async fn volumes_are_opened_and_closed() {
    let server = set_up().await;
    let create = |params: &str| {
        let params = format!("{{\"pool_name\":\"p\",{params}}}");
        let server = &server;
        async move { server.call("bdev_lsvd_create", &params).await }
    };
    assert_eq!(create("\"image_name\":\"img\"").await, error(-17, "File exists"));
    let missing = error(-32603, "Failed to create lsvd bdev: no such image");
    assert_eq!(create("\"image_name\":\"missing\"").await, missing);
    let misspelt = "bdev_lsvd_create: unknown parameter \"imge_name\"; did you mean \
                    \"image_name\"?";
    assert_eq!(create("\"imge_name\":\"a\"").await, error(-32602, misspelt));
    assert!(create("\"config\":\"\"").await.contains("missing field `image_name`"));
    assert!(create("\"image_name\":7").await.contains("invalid type: integer `7`"));
    let config = "config has an unknown key \"wlog_dri\"; did you mean \"wlog_dir\"?";
    let misspelt = "\"image_name\":\"a\",\"config\":\"{\\\"wlog_dri\\\":\\\"/x\\\"}\"";
    assert_eq!(create(misspelt).await, error(-32602, config));
    let no_file = create("\"image_name\":\"a\",\"config\":\"/no/such/file\"").await;
    assert!(no_file.contains("neither a JSON object nor a file: /no/such/file: No such file"));

    let resize = |mib: &str| {
        let params = format!("{{\"name\":\"img\",\"new_size\":{mib}}}");
        let server = &server;
        async move { server.call("bdev_lsvd_resize", &params).await }
    };
    assert_eq!(resize("128").await, "\"result\":true");
    assert!(server.call("bdev_get_bdevs", "").await.contains("\"num_blocks\":262144"));
    let smaller = error(-32603, "Failed to resize lsvd bdev: it would shrink");
    assert_eq!(resize("127").await, smaller);
    assert_eq!(resize("18446744073709551615").await, error(-32602, "Invalid parameters"));
    let unknown = "{\"name\":\"none\",\"new_size\":1}";
    assert_eq!(server.call("bdev_lsvd_resize", unknown).await, NO_DEVICE);

    server.call_true("bdev_lsvd_delete", "{\"image_name\":\"img\"}").await;
    assert_eq!(server.call("bdev_lsvd_delete", "{\"image_name\":\"img\"}").await, NO_DEVICE);
    let misspelt = server.call("bdev_lsvd_delete", "{\"image\":\"img\"}").await;
    assert!(misspelt.contains("did you mean \\\"image_name\\\"?"), "{misspelt}");
}

#[tokio::test]
async fn every_listed_method_exists_and_only_some_can_be_called_now() {
    let server = Server::start().await;
    let list = async |params: &str| -> Vec<String> {
        let answer = server.call("rpc_get_methods", params).await;
        serde_json::from_str(answer.strip_prefix("\"result\":").unwrap()).unwrap()
    };
    let all = list("{\"current\":false,\"include_aliases\":false}").await;
    assert_eq!(list("").await, all);
    let current = list("{\"current\":true}").await;
    let too_late = error(
        -1,
        "Method may only be called before framework is initialized. Use --wait-for-rpc command \
         line parameter and then issue this RPC before the framework_start_init RPC.",
    );
    // True of a gateway that runs, so they are carried out; but a client that loads a configuration
    // would call the first of them for as long as it is listed.
    let harmless = ["framework_start_init", "nvmf_set_config", "nvmf_set_max_subsystems"];
    for method in &all {
        let answer = server.call(method, "{\"no_such_parameter\":1}").await;
        assert!(!answer.contains("Method not found"), "{method}");
        let is_callable = current.contains(method) || harmless.contains(&method.as_str());
        assert_eq!(answer == too_late, !is_callable, "{method}");
    }
    assert!(harmless.iter().all(|method| !current.iter().any(|current| current == method)));
    for method in ["no_such", "bdev_no_such", "nvmf_x", "log_x", "framework_x", ""] {
        assert_eq!(server.call(method, "").await, error(-32601, "Method not found"));
    }
}

#[tokio::test]
async fn parts_and_their_configuration_are_listed() {
    let server = Server::start().await;
    assert_eq!(
        server.call("framework_get_subsystems", "").await,
        "\"result\":[{\"subsystem\":\"bdev\",\"depends_on\":[]},\
         {\"subsystem\":\"nvmf\",\"depends_on\":[\"bdev\"]}]"
    );
    let of = "{\"name\":\"nvmf\",\"with_batches\":false}";
    assert_eq!(server.call("framework_get_config", of).await, "\"result\":[]");
    let none = error(-32602, "Subsystem 'x' not found");
    assert_eq!(server.call("framework_get_config", "{\"name\":\"x\"}").await, none);
}

#[tokio::test]
async fn client_can_wait_until_everything_is_served() {
    let server = Server::start().await;
    server.gateway.is_ready.store(false, Ordering::Relaxed);
    let mut socket = server.connect().await;
    socket.write_all(b"{\"method\":\"framework_wait_init\",\"id\":1}").await.unwrap();
    assert!(server.call("nvmf_get_transports", "").await.contains("result"));
    assert!(socket.try_read(&mut [0; 1]).is_err());
    server.gateway.is_ready.store(true, Ordering::Relaxed);
    let mut answer = [0; 39];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":true}\n");
}

#[tokio::test]
async fn signal_follows_its_answer() {
    let server = Server::start().await;
    server.call_true("spdk_kill_instance", "{\"sig_name\":\"SIGTERM\"}").await;
    server.call_true("spdk_kill_instance", "{\"sig_name\":\"2\"}").await;
    assert_eq!(server.gateway.signals(), [Signal::Terminate, Signal::Interrupt]);
    for params in ["{\"sig_name\":\"SIGSTOP\"}", "{\"sig_name\":15}", "", "{}"] {
        assert_eq!(server.call("spdk_kill_instance", params).await, INVALID);
    }
    assert_eq!(server.gateway.signals().len(), 2);
}

#[tokio::test]
async fn log_levels_and_flags_are_set() {
    let server = Server::start().await;
    assert_eq!(server.call("log_get_level", "").await, "\"result\":\"INFO\"");
    server.call_true("log_set_print_level", "{\"level\":\"DEBUG\"}").await;
    assert_eq!(server.call("log_get_level", "").await, "\"result\":\"DEBUG\"");
    assert_eq!(server.call("log_get_print_level", "").await, "\"result\":\"DEBUG\"");
    assert_eq!(server.call("log_set_level", "{\"level\":\"LOUD\"}").await, INVALID);
    assert_eq!(server.call("log_get_flags", "").await, "\"result\":{\"nvmf\":false}");
    server.call_true("log_set_flag", "{\"flag\":\"nvmf\"}").await;
    assert_eq!(server.call("log_get_flags", "").await, "\"result\":{\"nvmf\":true}");
    server.call_true("log_clear_flag", "{\"flag\":\"all\"}").await;
    assert_eq!(server.call("log_get_flags", "").await, "\"result\":{\"nvmf\":false}");
    assert_eq!(server.call("log_set_flag", "{\"flag\":\"x\"}").await, INVALID);
}

#[tokio::test]
async fn version_is_ours_in_the_shape_of_theirs() {
    let server = Server::start().await;
    let answer = server.call("spdk_get_version", "").await;
    let version = env!("CARGO_PKG_VERSION");
    let numbers: Vec<&str> = version.split('.').collect();
    assert_eq!(
        answer,
        format!(
            "\"result\":{{\"version\":\"LSVD v{version}\",\"fields\":{{\"major\":{},\"minor\":{},\
             \"patch\":{},\"suffix\":\"\"}}}}",
            numbers[0], numbers[1], numbers[2]
        )
    );
}
