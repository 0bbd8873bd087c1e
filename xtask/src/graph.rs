//! Which member may depend on which: this table is the architecture, and an edge that it lacks is an error.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::command::{cargo, output};

/// A member, what it may depend on, and what its tests may use besides.
struct Row(&'static str, &'static [&'static str], &'static [&'static str]);

/// Every member. Nothing here may be implied: what a neighbour reaches is not ours.
const TABLE: &[Row] = &[
    Row("lsvd-common", &[], &["lsvd-fixtures"]),
    Row("lsvd-fixtures", &[], &[]),
    Row("lsvd-rados", &[], &[]),
    Row("lsvd-store", &["lsvd-common", "lsvd-rados"], &[]),
    Row("lsvd-buf", &[], &[]),
    Row("lsvd-engine", &["lsvd-buf", "lsvd-common", "lsvd-store"], &["lsvd-fixtures"]),
    // No front end sees the engine: the gateway is the only place where they meet.
    Row("lsvd-nbd", &["lsvd-buf"], &[]),
    Row("lsvd-nvmet", &["lsvd-buf"], &[]),
    Row("lsvd-control", &[], &["lsvd-fixtures"]),
    // The formats on the wire are the target's; nothing else of it.
    Row("lsvd-initiator", &["lsvd-nvmet"], &["lsvd-buf"]),
    Row(
        "lsvd-gw",
        &["lsvd-common", "lsvd-control", "lsvd-engine", "lsvd-nbd", "lsvd-nvmet", "lsvd-store"],
        &["lsvd-fixtures", "lsvd-initiator"],
    ),
    Row("lsvd-cli", &["lsvd-common", "lsvd-store"], &[]),
    Row("imgtool", &["lsvd-cli", "lsvd-common", "lsvd-engine", "lsvd-store", "objinspect"], &[]),
    // Never the engine: it has to work on an image that the engine refuses.
    Row("objinspect", &["lsvd-cli", "lsvd-common", "lsvd-store"], &["lsvd-fixtures"]),
    Row("remove-objs", &["lsvd-cli", "lsvd-common", "lsvd-store"], &[]),
    Row("lsvd-sim", &["lsvd-common", "lsvd-engine", "lsvd-store"], &[]),
    Row("xtask", &["lsvd-buf"], &[]),
];

/// Compares the table with what cargo says.
pub(crate) fn check() -> anyhow::Result<()> {
    let text = output(&mut cargo(["metadata", "--no-deps", "--format-version", "1", "--offline"]))?;
    let metadata: Value = serde_json::from_str(&text).context("parse cargo's metadata")?;
    let packages = metadata["packages"].as_array().context("cargo lists no packages")?;
    let problems: Vec<String> = packages.iter().flat_map(problems).collect();
    if !problems.is_empty() {
        bail!("the crate graph is not as xtask/src/graph.rs says:\n{}", problems.join("\n"));
    }
    println!("{} members", packages.len());
    Ok(())
}

fn problems(package: &Value) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let Some(Row(_, normal, tests)) = TABLE.iter().find(|row| row.0 == name) else {
        return vec![format!("{name} is a member that the table does not know")];
    };
    let dependencies = package["dependencies"].as_array().map_or(&[][..], Vec::as_slice);
    let ours = dependencies.iter().filter(|dependency| dependency["path"].is_string());
    let edges: BTreeSet<(&str, bool)> = ours
        .map(|edge| (edge["name"].as_str().unwrap_or_default(), edge["kind"] == "dev"))
        .collect();
    let forbidden = edges.into_iter().filter(|(to, is_dev)| {
        !normal.contains(to) && !(*is_dev && (tests.contains(to) || *to == name))
    });
    forbidden.map(|(to, _)| format!("{name} must not depend on {to}")).collect()
}

#[cfg(test)]
mod test {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_edge_that_is_not_in_the_table_is_named() {
        let edge = |name: &str, kind: Value| json!({"name": name, "path": "/x", "kind": kind});
        let package = json!({"name": "objinspect", "dependencies": [
            edge("lsvd-store", Value::Null),
            edge("lsvd-engine", Value::Null),
            edge("lsvd-fixtures", json!("dev")),
            {"name": "clap", "kind": null},
        ]});
        assert_eq!(problems(&package), ["objinspect must not depend on lsvd-engine"]);
        assert_eq!(problems(&json!({"name": "new"})).len(), 1);
    }
}
