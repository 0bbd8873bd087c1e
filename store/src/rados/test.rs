use lsvd_rados::Error;

use super::*;

fn failed(code: i32) -> Error {
    Error::Failed { what: "read an object", code }
}

#[test]
fn only_a_change_without_an_answer_is_ambiguous() {
    assert_eq!(kind_of(&failed(ETIMEDOUT), Op::Put), ErrorKind::Ambiguous);
    assert_eq!(kind_of(&failed(ETIMEDOUT), Op::Delete), ErrorKind::Ambiguous);
    assert_eq!(kind_of(&failed(ETIMEDOUT), Op::Get), ErrorKind::Unavailable);
    assert_eq!(kind_of(&Error::Closed { what: "put" }, Op::Put), ErrorKind::Ambiguous);
    assert_eq!(kind_of(&failed(EDQUOT), Op::Put), ErrorKind::Full);
    assert_eq!(kind_of(&failed(ERANGE), Op::Put), ErrorKind::PreconditionFailed);
    assert_eq!(kind_of(&failed(EOVERFLOW), Op::Put), ErrorKind::PreconditionFailed);
}

#[test]
fn a_missing_configuration_says_where_it_was_looked_for() {
    let options = ConnectOptions { conf: Some("/nowhere/ceph.conf".into()), ..Default::default() };
    let error = RadosStore::open("pool", None, &options).unwrap_err().to_string();
    // Without Ceph's library on this machine, that is what is missing first.
    let names_it = error.contains("/nowhere/ceph.conf") && error.contains("--ceph-conf");
    assert!(names_it || error.contains("librados2"), "{error}");
}
