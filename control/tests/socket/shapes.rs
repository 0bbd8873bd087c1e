//! Parameters of any shape get one answer that is JSON, and nothing panics.

use lsvd_control::{Framer, respond};
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::fake::Fake;

/// Values of every type, some of them the right ones.
fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..3_u32).prop_map(Value::from),
        "[a\"\u{e9}\u{0}]{0,3}".prop_map(Value::from),
        prop::sample::select(vec![
            "nqn.a",
            "img",
            "TCP",
            "inaccessible",
            "127.0.0.1",
            "4420",
            "{\"flush\":\"local\"}",
            "nvmf",
            "SIGTERM",
            "INFO",
        ])
        .prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "nqn",
        "listen_address",
        "trtype",
        "traddr",
        "trsvcid",
        "ana_state",
        "anagrpid",
        "namespace",
        "bdev_name",
        "nsid",
        "nguid",
        "image_name",
        "pool_name",
        "config",
        "name",
        "names",
        "host",
        "level",
        "flag",
        "sig_name",
        "current",
        "other",
    ]);
    scalar.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..6).prop_map(|map| json!(map)),
        ]
    })
}

/// Names of methods, and one that is none.
fn methods() -> Vec<String> {
    let list = call(&Fake::default(), "rpc_get_methods", &Value::Null);
    let answer: Value = serde_json::from_str(&list).expect("an answer");
    let names = answer["result"].as_array().expect("a list").iter();
    let names = names.map(|name| name.as_str().expect("a name").to_owned());
    names.chain([String::from("none")]).collect()
}

fn call(gateway: &Fake, method: &str, params: &Value) -> String {
    let request = json!({"method": method, "id": 1, "params": params}).to_string();
    let mut framer = Framer::default();
    framer.push(request.as_bytes());
    let framed = framer.next_value().expect("JSON").expect("a whole value");
    assert_eq!(framed, request.as_bytes());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let response = runtime.expect("a runtime without I/O").block_on(respond(gateway, &framed));
    String::from_utf8(response.expect("an answer").line).expect("text")
}

proptest! {
    #[test]
    fn parameters_of_any_shape_are_answered(
        calls in prop::collection::vec((prop::sample::select(methods()), value()), 1..6),
    ) {
        let gateway = Fake::default();
        for (method, params) in calls {
            let line = call(&gateway, &method, &params);
            prop_assert!(line.starts_with("{\"jsonrpc\":\"2.0\",\"id\":1,"), "{}", line);
            let one: &RawValue = serde_json::from_str(&line).expect("JSON");
            prop_assert_eq!(one.get().len() + 1, line.len());
        }
    }
}
